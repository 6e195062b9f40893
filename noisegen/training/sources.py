"""Holds examples on the device, or leaves them on the host and reads a few at a time.

A source is any object with ``len(source)`` and ``source[indices] -> pytree of arrays``, where
``indices`` is an array of integers ``(n,)`` and every array of the pytree has a leading axis of n.
Memory-mapped files are sources, and so is what `noisegen.data.token_windows` returns.
"""

import functools
import os
import threading
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import PartitionSpec

from noisegen._errors import one_line

PyTree = Any

_SHARE = 0.5  # of the memory of a device that data may take

# The most that a compiled program requests from the host at once. A request takes some tenths of
# a millisecond, so that few large ones are faster.
_REQUESTED_EXAMPLES = 2048
_REQUESTED_BYTES = 2**24


class SourceError(OSError):
    """An example of a source cannot be read, or is unlike the first; the message names it."""


class Source(Protocol):
    """Examples that are read when they are needed."""

    def __len__(self) -> int:
        """Returns the number of examples, N."""

    def __getitem__(self, indices: np.ndarray) -> PyTree:
        """Returns the examples at some indices `(n,)`, a pytree of NumPy arrays `(n, ...)`."""


def is_source(examples: Any) -> bool:
    """Returns whether examples are a source, and not a pytree of arrays."""
    if isinstance(examples, HostExamples):
        return True
    # A dictionary or a list is a pytree, and so is a single array, even if it is memory-mapped.
    if not jax.tree_util.all_leaves([examples]) or hasattr(examples, "dtype"):
        return False
    return hasattr(examples, "__len__") and hasattr(examples, "__getitem__")


@jax.tree_util.register_static
class HostExamples:
    """Examples on the host, with checks of everything that is read.

    It is a pytree without leaves, so a compiled function takes it in place of arrays.

    Args:
      examples: A source, or a pytree of arrays `(N, ...)`.
      where: Name of the examples, at the start of messages.
      defers_errors: Whether an error in a compiled program is kept for `raise_error`, and the
        program goes on with zeros. An error that one of several devices raises by itself would
        leave the others waiting for it.

    Attributes:
      example: Shapes and dtypes of one example on the device.

    Raises:
      SourceError: If the first example cannot be read, or is no pytree of numbers.
      ValueError: If there are no examples, or their number is no whole one.
    """

    def __init__(self, examples: PyTree, where: str, defers_errors: bool = False):
        if isinstance(examples, HostExamples):
            examples = examples._source
        self._source = examples if is_source(examples) else _Arrays(examples)
        self._where = where
        self._defers_errors = defers_errors
        self._error: Exception | None = None
        self._whole: PyTree | None = None
        self._lock = threading.Lock()  # A source need not be safe for several threads.
        try:
            self._len = len(self._source)
        except TypeError as error:
            raise ValueError(f"{where} has no length: {error}.") from error
        if self._len < 1:
            raise ValueError(f"{where} must have at least 1 example.")
        self.example: PyTree | None = None  # Not known yet when the first is read.
        self._first: PyTree | None = None
        try:
            self._first = self._read(np.zeros(1, np.int64))
        except Exception as error:  # The source is the user's, so it may raise anything.
            raise self._explained(np.zeros(1, np.int64), error) from error
        # The types are those of the device now. Other threads may have another setting of x64.
        self.example = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], _device_dtype(leaf)), self._first
        )

    def __len__(self) -> int:
        return self._len

    def __getitem__(self, indices: np.ndarray) -> PyTree:
        """Returns the examples at some indices of any shape, with their types on the device.

        Raises:
          SourceError: If an example cannot be read, or differs from the first in shape or dtype.
        """
        # Each example is read once, in the order in which it lies in a file.
        distinct, inverse = np.unique(np.asarray(indices), return_inverse=True)
        try:
            read = self._read(distinct)
        except Exception as error:  # The source is the user's, so it may raise anything.
            raise self._explained(distinct, error) from error
        inverse = inverse.reshape(np.shape(indices))
        return jax.tree.map(
            lambda array, like: array[inverse].astype(like.dtype, copy=False), read, self.example
        )

    @property
    def bytes_per_example(self) -> int:
        """Bytes of one example on the device."""
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(self.example))

    def pieces_at_once(self, size: int) -> int:
        """Returns how many pieces of `size` examples a compiled program should request at once."""
        return max(1, min(_REQUESTED_EXAMPLES, _REQUESTED_BYTES // self.bytes_per_example) // size)

    def whole(self) -> PyTree:
        """Returns all examples, which are read once only."""
        if isinstance(self._source, _Arrays):
            return self._source.arrays
        if self._whole is None:
            shapes = abstract_examples(self, len(self))
            whole = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), shapes)
            # In parts, so that no second copy of all is needed.
            for start in range(0, len(self), _REQUESTED_EXAMPLES):
                part = np.arange(start, min(start + _REQUESTED_EXAMPLES, len(self)))
                jax.tree.map(functools.partial(_write, part), whole, self[part])
            self._whole = whole
        return self._whole

    def gather(self, indices: jax.Array) -> PyTree:
        """Returns the examples at some indices inside a compiled program, which asks the host."""
        like = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(indices.shape + leaf.shape, leaf.dtype), self.example
        )

        def read(indices: jax.Array) -> PyTree:
            indices = np.asarray(indices)
            try:
                return self[indices]
            except Exception as error:
                if not self._defers_errors:
                    raise
                self._error = error
                return jax.tree.map(
                    lambda leaf: np.zeros(indices.shape + leaf.shape, leaf.dtype), self.example
                )

        def ask(indices: jax.Array) -> PyTree:
            return jax.pure_callback(read, like, indices, vmap_method="expand_dims")

        if "model" in jax.sharding.get_abstract_mesh().axis_names:
            # Each device asks for itself: JAX calls the host only if all axes are manual.
            spec = PartitionSpec()
            ask = jax.shard_map(
                ask, in_specs=spec, out_specs=spec, axis_names={"model"}, check_vma=False
            )
        return ask(indices)

    def raise_error(self) -> None:
        """Raises the error that a compiled program met, if there is one."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _read(self, indices: np.ndarray) -> PyTree:
        """Reads examples and checks them."""
        with self._lock:
            size = len(self._source)
            if size != self._len:
                raise ValueError(
                    f"there were {self._len:,} examples when the task was made, and there are "
                    f"{size:,} now; restore them, or make the task again"
                )
            examples = jax.tree.map(np.asarray, self._source[indices])
        if not jax.tree.leaves(examples):
            raise ValueError(f"it is {examples!r:.80}, without an array; return arrays")
        for path, leaf in jax.tree.leaves_with_path(examples):
            if not jnp.issubdtype(leaf.dtype, jnp.number) and leaf.dtype != bool:
                raise ValueError(f"array{_name(path)} is {leaf.dtype}; give numbers or booleans")
            if leaf.shape[:1] != indices.shape:
                raise ValueError(
                    f"array{_name(path)} has shape {leaf.shape} for {len(indices)} indices, and "
                    "its first axis must be theirs"
                )
        if self._first is not None:
            self._check_like_first(examples)
        return examples

    def _check_like_first(self, examples: PyTree) -> None:
        """Checks that examples have the structure, shapes and dtypes of the first."""
        if jax.tree.structure(examples) != jax.tree.structure(self._first):
            raise ValueError(f"{_difference(examples, self._first)} the first example")
        jax.tree.map_with_path(_check_like, examples, self._first, self.example)

    def _explained(self, indices: np.ndarray, error: Exception) -> SourceError:
        """Returns an error that names the first index that cannot be read."""
        for index in indices:
            try:
                self._read(index[None])
            except Exception as of_index:
                return SourceError(
                    f"{self._where} cannot be read at index {index}: {_described(of_index)}."
                )
        return SourceError(
            f"{self._where} cannot be read at indices {indices[0]} to {indices[-1]} together, but "
            f"one by one: {_described(error)}."
        )


class _Arrays:
    """A source that is a pytree of arrays."""

    def __init__(self, arrays: PyTree):
        self.arrays = arrays
        self._arrays = jax.tree.map(np.asarray, arrays)

    def __len__(self) -> int:
        return len(jax.tree.leaves(self._arrays)[0])

    def __getitem__(self, indices: np.ndarray) -> PyTree:
        return jax.tree.map(lambda array: array[indices], self._arrays)


def num_examples(examples: PyTree) -> int:
    """Returns the number of examples of a split."""
    if isinstance(examples, HostExamples):
        return len(examples)
    return len(jax.tree.leaves(examples)[0])


def gather(examples: PyTree, indices: jax.Array) -> PyTree:
    """Returns the examples of a split at some indices, in a compiled program."""
    if isinstance(examples, HostExamples):
        return examples.gather(indices)
    return jax.tree.map(lambda array: array[indices], examples)


def read(examples: PyTree, indices: np.ndarray) -> PyTree:
    """Returns the examples of a split at some indices, as NumPy arrays."""
    if isinstance(examples, HostExamples):
        return examples[indices]
    return jax.tree.map(lambda array: np.asarray(array)[indices], examples)


def abstract_examples(examples: PyTree, size: int) -> PyTree:
    """Returns the shapes and dtypes of `size` examples of a split."""
    if isinstance(examples, HostExamples):
        return jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((size, *leaf.shape), leaf.dtype), examples.example
        )

    def abstract(array: np.ndarray | jax.Array) -> jax.ShapeDtypeStruct:
        # The type on the device: float64 data of NumPy become float32 unless x64 is enabled.
        dtype = jax.dtypes.canonicalize_dtype(array.dtype)
        return jax.ShapeDtypeStruct((size, *array.shape[1:]), dtype)

    return jax.tree.map(abstract, examples)


def place(
    splits: Mapping[str, PyTree], task_name: str, where: str | None, devices: Sequence[jax.Device]
) -> dict[str, PyTree]:
    """Decides which splits of a task are held on the devices.

    Args:
      splits: Examples by split.
      task_name: Name of the task, for messages.
      where: "device", "host" or None, see `PoolConfig.data`.
      devices: Devices of the pool.

    Returns:
      Examples by split: arrays to be sent to every device, or `HostExamples`.
    """
    sizes = {split: _num_bytes(examples) for split, examples in splits.items()}
    room = _room(devices) if where is None else 0
    placed = {}
    # The smallest first: a test set is small, and evaluating it on the device saves most.
    for split in sorted(sizes, key=sizes.get):
        examples, name = splits[split], f"The {split} set of task {task_name!r}"
        room -= sizes[split]
        if where == "device" or (where is None and room >= 0):
            is_read = isinstance(examples, HostExamples)
            placed[split] = examples.whole() if is_read else examples
            continue
        if where is None:
            warnings.warn(
                f"{name} takes {sizes[split] / 2**30:.3g} GiB, too much for half of the device's "
                "memory: it stays on the host, and is read there ahead of the device.",
                stacklevel=2,
            )
        placed[split] = HostExamples(examples, name, defers_errors=True)
    return {split: placed[split] for split in splits}


def _num_bytes(examples: PyTree) -> int:
    """Returns the bytes of a split on the device."""
    shapes = jax.tree.leaves(abstract_examples(examples, num_examples(examples)))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in shapes)


def _room(devices: Sequence[jax.Device]) -> float:
    """Returns the bytes that data may take on each of some devices."""
    room = _SHARE * device_memory(devices)
    if any(device.process_index != jax.process_index() for device in devices):
        # All processes must place the data alike, and their hosts may differ.
        room = float(multihost_utils.broadcast_one_to_all(np.float32(room)))
    return room


def device_memory(devices: Sequence[jax.Device]) -> float:
    """Returns the bytes of memory that one of some devices has, no more than those of the host."""
    local = [device for device in devices if device.process_index == jax.process_index()]
    # None on a CPU, and on some accelerators.
    limits = [(device.memory_stats() or {}).get("bytes_limit") for device in local]
    limits = [limit for limit in limits if limit is not None]
    if hasattr(os, "sysconf"):  # Not on Windows.
        host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        # Devices of a CPU share its memory, and each has a copy of the data.
        limits.append(host / len(local) if local[0].platform == "cpu" else host)
    return min(limits, default=float("inf"))


def _write(part: np.ndarray, array: np.ndarray, rows: np.ndarray) -> None:
    """Writes the rows of some indices."""
    array[part] = rows


def _difference(these: PyTree, those: PyTree) -> str:
    """Returns in words how the structure of a tree differs, before the name of the other one."""
    paths = [
        dict.fromkeys(jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(tree))
        for tree in (these, those)
    ]
    for verb, found, other in (("lacks", paths[1], paths[0]), ("has", paths[0], paths[1])):
        names = [path for path in found if path and path not in other]
        if names:
            return f"it {verb} {', '.join(names)}, unlike"
    return f"it is a {type(these).__name__} of another structure than"


def _check_like(
    path: tuple, array: np.ndarray, first: np.ndarray, like: jax.ShapeDtypeStruct
) -> None:
    """Checks that an array has the shape and dtype of the first example's, and fits the device."""
    if (array.shape[1:], array.dtype) != (first.shape[1:], first.dtype):
        raise ValueError(
            f"array{_name(path)} has shape {array.shape[1:]} and dtype {array.dtype}, but that of "
            f"the first example has {first.shape[1:]} and {first.dtype}"
        )
    if not jnp.issubdtype(like.dtype, jnp.integer) or like.dtype.itemsize == array.dtype.itemsize:
        return
    # Integers out of range would wrap around silently.
    limits = jnp.iinfo(like.dtype)
    if array.size and (array.min() < limits.min or array.max() > limits.max):
        raise ValueError(
            f"array{_name(path)} holds integers beyond {like.dtype}, the type on the device"
        )


def _device_dtype(array: np.ndarray | jax.Array) -> np.dtype:
    """Returns the type on the device: float64 becomes float32 unless x64 is enabled."""
    return np.dtype(jax.dtypes.canonicalize_dtype(array.dtype.newbyteorder("=")))


def _name(path: tuple) -> str:
    """Returns the path of an array, with a space in front if there is one."""
    return f" {jax.tree_util.keystr(path)}" if path else ""


def _described(error: Exception) -> str:
    """Returns an error in a line, without the kind of those that this module raises."""
    return one_line(error).removeprefix("ValueError: ").rstrip(".")
