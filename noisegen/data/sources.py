"""Sources: examples that are read when they are needed, for data larger than memory.

A source is any object with ``len(source)`` and ``source[indices] -> pytree of NumPy arrays``. A
`noisegen.training.Task` takes one in place of its arrays.
"""

import os
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any

import jax
import numpy as np

from noisegen import _validate


def token_windows(
    tokens: str | os.PathLike | np.ndarray,
    length: int,
    stride: int | None = None,
    *,
    dtype: np.typing.DTypeLike = np.uint16,
) -> "TokenWindows":
    """Returns the windows of a text of any size as a source.

    Example i is ``{"tokens": tokens[i * stride : i * stride + length]}``, int32. A model that reads
    T tokens and predicts the T that follow each takes ``length=T + 1, stride=T``.

    Args:
      tokens: Tokens (n,), in memory or memory-mapped, or the path of a file of them: a NumPy file
        (``.npy``), or bare numbers of the given dtype. A file is mapped, not read.
      length: Tokens in a window.
      stride: Tokens from the start of a window to that of the next, by default `length`.
      dtype: Type of the numbers in a file that does not say it.

    Returns:
      The source, of ``(n - length) // stride + 1`` examples.

    Raises:
      ValueError: If the tokens are not whole numbers along one axis, or fewer than a window.
      FileNotFoundError: If there is no such file.

    Examples:
      >>> windows = token_windows(np.arange(100, 110), length=4, stride=3)
      >>> len(windows)
      3
      >>> windows[np.array([0, 2])]["tokens"]
      array([[100, 101, 102, 103],
             [106, 107, 108, 109]], dtype=int32)
    """
    stride = length if stride is None else stride
    _validate.whole(1, length=length, stride=stride)
    path = None
    if isinstance(tokens, str | os.PathLike):
        path = os.path.expanduser(tokens)
        tokens = _mapped(path, dtype)
    elif not hasattr(tokens, "dtype"):
        tokens = np.asarray(tokens)
    if np.ndim(tokens) != 1 or not np.issubdtype(tokens.dtype, np.integer):
        raise ValueError(
            f"tokens must be whole numbers along one axis, but they are {tokens.dtype} of shape "
            f"{np.shape(tokens)}."
        )
    if len(tokens) < length:
        raise ValueError(
            f"{len(tokens):,} tokens are fewer than a window of length={length}; make it smaller."
        )
    return TokenWindows(tokens, int(length), int(stride), path)


class TokenWindows:
    """The source that `token_windows` returns."""

    def __init__(self, tokens: np.ndarray, length: int, stride: int, path: str | None):
        self._tokens, self._length, self._stride, self._path = tokens, length, stride, path
        self._size = None if path is None else os.path.getsize(path)

    def __len__(self) -> int:
        return (len(self._tokens) - self._length) // self._stride + 1

    def __getitem__(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        # Reading beyond the end of a mapped file kills the process.
        if self._path is not None and os.path.getsize(self._path) != self._size:
            raise OSError(f"{self._path} has changed its size since it was opened; restore it")
        starts = np.asarray(indices, np.int64)[:, None] * self._stride
        return {"tokens": self._tokens[starts + np.arange(self._length)].astype(np.int32)}


def one_by_one(
    items: Sequence[Any],
    read: Callable[[Any], Any] | None = None,
    executor: futures.Executor | None = None,
) -> "OneByOne":
    """Returns a source of examples that are read one by one, such as files.

    Args:
      items: What is read: paths, or anything with ``len(items)`` and ``items[i]``, such as the
        `as_data_source` of tensorflow-datasets and the `MapDataset` of grain.
      read: Function from an item to its example, a pytree of arrays and numbers. By default an
        item is an example.
      executor: Reads several items at once, as `concurrent.futures.ThreadPoolExecutor(8)`, or, for
        decoding in Python, a `ProcessPoolExecutor`. By default one is read after the other.

    Returns:
      The source.

    Raises:
      ValueError: If an argument is of another kind.

    Examples:
      >>> squares = one_by_one(range(10), lambda i: {"x": np.float32(i), "y": np.float32(i**2)})
      >>> squares[np.array([2, 3])]["y"]
      array([4., 9.], dtype=float32)
    """
    if not hasattr(items, "__len__") or not hasattr(items, "__getitem__"):
        raise ValueError(
            f"items must have a length and indices, but are {_validate.kind(items)}; give a list "
            "or, for indices alone, a range."
        )
    if read is not None and not callable(read):
        raise ValueError(f"read must be a function of an item, but is {_validate.kind(read)}.")
    if executor is not None and not isinstance(executor, futures.Executor):
        raise ValueError(
            f"executor must be a concurrent.futures.Executor, but is {_validate.kind(executor)}; "
            "ThreadPoolExecutor(8) reads 8 items at once."
        )
    return OneByOne(items, read, executor)


class OneByOne:
    """The source that `one_by_one` returns."""

    def __init__(
        self,
        items: Sequence[Any],
        read: Callable[[Any], Any] | None,
        executor: futures.Executor | None,
    ):
        self._items = items
        self._read = read
        self._map = map if executor is None else executor.map

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, indices: np.ndarray) -> Any:
        if isinstance(indices, str):
            raise ValueError(
                f"A source has no array {indices!r}; its examples are read by their indices, as in "
                f"source[np.arange(8)][{indices!r}]. For what needs arrays, such as a validation "
                "split, use data.load or data.from_arrays."
            )
        # Taken here, because not every collection can be sent to a process.
        examples = [self._items[int(i)] for i in indices]
        if self._read is not None:
            examples = list(self._map(self._read, examples))
        try:
            return jax.tree.map(lambda *leaves: np.stack(leaves), *examples)
        except ValueError as error:
            raise ValueError(_unlike(indices, examples) or str(error)) from error


def _unlike(indices: np.ndarray, examples: Sequence[Any]) -> str | None:
    """Returns the message for examples of different shapes or keys; None if they are alike."""
    first, *others = (jax.tree.map(np.shape, example) for example in examples)
    for index, other in zip(indices[1:], others, strict=True):
        if other != first:
            return (
                f"The example at index {index} has the shapes {other}, and the one at index "
                f"{indices[0]} has {first}: let `read` return arrays of the same names and shapes."
            )
    return None


def _mapped(path: str, dtype: np.typing.DTypeLike) -> np.ndarray:
    """Maps a file of numbers into memory."""
    if path.endswith(".npy"):
        try:
            return np.load(path, mmap_mode="r")
        except (ValueError, EOFError) as error:  # NumPy takes other files for pickles.
            raise ValueError(f"{path} is no NumPy file of numbers.") from error
    try:
        dtype = np.dtype(dtype)
    except TypeError as error:
        raise ValueError(f"dtype={dtype!r} is no type of numbers, such as 'uint16'.") from error
    size = os.path.getsize(path)
    if size % dtype.itemsize or not size:
        raise ValueError(
            f"{path} has {size:,} bytes, which are no whole number of {dtype}, or none: give a "
            "file of tokens and their dtype."
        )
    return np.memmap(path, dtype, mode="r")
