"""Runs in training as plain arrays, which a checkpoint keeps.

What follows from a run's numbers (horizon, random streams) is not kept, and what depends on the
speed settings or on the other runs of a pool is fitted to the pool that takes the run up again.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from noisegen.training.lanes import SUMS, Lane
from noisegen.training.run import Run

KEPT = tuple(name for name in Lane._fields if name not in ("numbers", "status", "final"))


class Checkpoints(Protocol):
    """What a pool asks of whatever keeps its runs; see `noisegen.sweeps.Checkpoints`."""

    def due(self) -> bool:
        """Whether it is time to save."""

    def save(
        self,
        runs: Sequence[Run | None],
        counts: Sequence[int],
        arrays: Mapping[str, jax.Array],
    ) -> None:
        """Keeps arrays with one entry a lane: the runs in training, and the updates of each."""

    def load(self, run: Run) -> Iterable[Mapping[str, np.ndarray]]:
        """What was kept of a run, the latest first."""


def pack(lanes: Lane) -> dict[str, jax.Array]:
    """The lanes as arrays by name, random keys as their data; arrays without entries left out."""
    named = _named({field: getattr(lanes, field) for field in KEPT})
    return {
        name: jax.random.key_data(leaf) if _is_key(leaf) else leaf
        for name, leaf in named.items()
        if leaf.size
    }


def unpack(arrays: Mapping[str, np.ndarray], lanes: Lane) -> dict[str, Any]:
    """What `pack` made of one lane, as fields that fit some other lanes.

    Args:
      arrays: one lane's.
      lanes: of the pool that takes the run up; their values play no part.

    Returns:
      Values of fields of `Lane`, without an axis of lanes.

    Raises:
      ValueError: the arrays are those of another program.
    """
    like = {field: getattr(lanes, field) for field in KEPT}
    named = {name for name, leaf in _named(like).items() if leaf.size}
    if odd := named ^ arrays.keys():
        raise ValueError(f"it differs in {', '.join(sorted(odd)[:3])}")

    def value(path, leaf):
        name, field = jax.tree_util.keystr(path), path[0].key
        if name not in named:
            return np.zeros(leaf.shape[1:], leaf.dtype)
        return _fitted(name, field, arrays[name], leaf)

    return jax.tree_util.tree_map_with_path(value, like)


def _fitted(name, field, value, leaf):
    """One lane's value, in the shape of the lanes' leaf."""
    if _is_key(leaf):
        return jax.random.wrap_key_data(jnp.asarray(value), impl=jax.random.key_impl(leaf))
    shape = leaf.shape[1:]
    if field == "curve":  # the longest of a pool's curves makes the room for all
        curve = np.full(max(len(value), *shape), np.nan, value.dtype)
        curve[: len(value)] = value
        value = curve[: shape[0]]
    elif field in SUMS and value.shape[0] != shape[0]:  # other batch devices
        value = np.concatenate([value.sum(0, keepdims=True), np.zeros((shape[0] - 1, *shape[1:]))])
    if value.shape != shape:
        raise ValueError(f"its {name} has shape {value.shape}, not {shape}")
    return value.astype(leaf.dtype)


def _named(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _is_key(leaf):
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
