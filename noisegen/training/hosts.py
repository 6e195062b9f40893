"""One pool over the devices of several processes (`jax.distributed`), on one host or on many.

Every process runs the same program. What depends on one of them, such as the time that something
took, must be agreed on, or the processes would wait for each other for ever. With one process
nothing here does anything.
"""

import json
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from noisegen.training.task import PyTree


def agreed(value: Any) -> Any:
    """The value that the first process gives, on every process; what others give plays no part.

    Args:
      value: what JSON can hold. A pytree of arrays takes `agreed_arrays`.
    """
    if jax.process_count() == 1:
        return value
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(text.size)))
    room = np.zeros(size, np.uint8)
    given = min(size, text.size)
    room[:given] = text[:given]
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(room)).tobytes())


def agreed_arrays(arrays: dict[str, np.ndarray] | None) -> dict[str, np.ndarray] | None:
    """As `agreed`, of arrays by name, or None."""
    if jax.process_count() == 1:
        return arrays
    kinds = agreed(arrays and {n: (a.shape, a.dtype.name) for n, a in arrays.items()})
    if kinds is None:
        return None
    if jax.process_index():
        arrays = {name: np.zeros(shape, dtype) for name, (shape, dtype) in kinds.items()}
    return jax.device_get(multihost_utils.broadcast_one_to_all(arrays))


def gathered(tree: PyTree) -> PyTree:
    """Arrays on the devices of all processes, whole, as NumPy arrays on every process."""

    def whole(leaf):
        elsewhere = isinstance(leaf, jax.Array) and not leaf.is_fully_addressable
        return multihost_utils.process_allgather(leaf, tiled=True) if elsewhere else leaf

    return jax.device_get(jax.tree.map(whole, tree))
