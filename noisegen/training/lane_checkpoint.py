"""Converts runs in training to plain arrays for a checkpoint, and back.

State that can be derived from the hyperparameters (horizon, random streams) is not saved. Arrays
whose shape depends on `PoolConfig` or on the other runs of a pool are reshaped on restore.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from noisegen.training.lane_state import SUMS, Lane
from noisegen.training.run import Run
from noisegen.training.task import PyTree

# The fields of a lane that are saved. The inputs and the orders of the examples follow from the
# run, its status is TRAINING, and the final metrics are not measured yet.
_DERIVED = ("inputs", "status", "permutations", "final")
KEPT = tuple(name for name in Lane._fields if name not in _DERIVED)


class Checkpoints(Protocol):
    """Keeps the runs in training of a pool; see `noisegen.storage.Checkpoints`."""

    def due(self) -> bool:
        """Returns whether it is time to save."""

    def save(
        self, runs: Sequence[Run | None], counts: Sequence[int], arrays: Mapping[str, jax.Array]
    ) -> None:
        """Saves a checkpoint.

        Args:
          runs: The run in training of every lane, or None.
          counts: Updates that each run has made.
          arrays: State of the lanes by name, each with one entry a lane.
        """

    def load(self, run: Run) -> Iterable[Mapping[str, np.ndarray]]:
        """Yields the arrays that were saved of a run, the latest first."""


def to_arrays(lanes: Lane) -> dict[str, jax.Array]:
    """Returns the lanes as arrays by name, each with a leading axis of lanes."""
    arrays = {}
    for name, leaf in _named({field: getattr(lanes, field) for field in KEPT}).items():
        if leaf.size == 0:
            continue  # Orbax refuses arrays without elements.
        # A file holds no random keys, but their data.
        arrays[name] = jax.random.key_data(leaf) if _is_key(leaf) else leaf
    return arrays


def from_arrays(arrays: Mapping[str, np.ndarray], lanes: Lane) -> dict[str, Any]:
    """Returns one lane's saved arrays as fields that fit other lanes.

    Args:
      arrays: Arrays of one lane, from `to_arrays`.
      lanes: Lanes of the pool that resumes the run. Only their shapes are read.

    Returns:
      Values of fields of `Lane`, without an axis of lanes.

    Raises:
      ValueError: If the arrays are those of another program.
    """
    like = {field: getattr(lanes, field) for field in KEPT}
    wanted = {name for name, leaf in _named(like).items() if leaf.size}
    # Another version of this package or of optax may have other state. Three names tell enough.
    odd = wanted ^ arrays.keys()
    if odd:
        raise ValueError(f"it differs in {', '.join(sorted(odd)[:3])}")

    def value(path: tuple, leaf: jax.Array) -> np.ndarray | jax.Array:
        name = jax.tree_util.keystr(path)
        field = path[0].key
        if name not in wanted:  # It has no elements.
            return np.zeros(leaf.shape[1:], leaf.dtype)
        return _fitted(name, field, arrays[name], leaf)

    return jax.tree_util.tree_map_with_path(value, like)


def _fitted(name: str, field: str, value: np.ndarray, leaf: jax.Array) -> np.ndarray | jax.Array:
    """Returns one lane's value in the shape of the lanes' leaf.

    Args:
      name: Name of the array, for the message.
      field: Field of `Lane` that it belongs to.
      value: One lane's array, without an axis of lanes.
      leaf: The array of all lanes, of which only shape and type are read.
    """
    if _is_key(leaf):
        return jax.random.wrap_key_data(jnp.asarray(value), impl=jax.random.key_impl(leaf))
    shape = leaf.shape[1:]
    if field == "curve":
        # The longest curve of a pool makes the room for all, so another pool has more or less.
        # The run's own evaluations fit both, and entries beyond them are NaN.
        curve = np.full(max(len(value), *shape), np.nan, value.dtype)
        curve[: len(value)] = value
        value = curve[: shape[0]]
    elif field in SUMS and value.shape[0] != shape[0]:
        # Another number of batch devices: the first one takes the whole sum.
        whole = value.sum(0, keepdims=True)
        value = np.concatenate([whole, np.zeros((shape[0] - 1, *shape[1:]))])
    if value.shape != shape:
        raise ValueError(f"its {name} has shape {value.shape}, not {shape}")
    return value.astype(leaf.dtype)


def _named(tree: PyTree) -> dict[str, jax.Array]:
    """Returns the leaves of a tree by their paths, such as "['params']['w']"."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _is_key(leaf: jax.Array) -> bool:
    """Returns whether an array holds random keys."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
