"""Trains one pool over the devices of several processes (`jax.distributed`).

Every process runs the same program. Values that differ between processes, such as a measured time,
are broadcast from process 0. Otherwise the processes would run different programs and wait for each
other forever.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from noisegen.training.autotune import choose_config as choose_pool_config
from noisegen.training.config import PoolConfig, describe_devices, num_devices
from noisegen.training.pool import Pool
from noisegen.training.program import default_devices
from noisegen.training.run import Run
from noisegen.training.task import PyTree, Task


class MultihostPool(Pool):
    """A pool over all devices of all processes.

    The methods of every process are called in the same order with the same runs. Process 0 decides
    which runs are taken. The arguments are those of `Pool`.

    Raises:
      ValueError: If the config leaves devices out.
    """

    def __init__(
        self,
        task: Task,
        config: PoolConfig | None = None,
        devices: Sequence[jax.Device] | None = None,
    ):
        super().__init__(task, config, devices)
        count = len(default_devices() if devices is None else devices)
        config = self.config
        if num_devices(vars(config)) < count:
            raise ValueError(
                f"{describe_devices(vars(config))} must be all of the {count} devices, as several "
                "processes share them."
            )

    def _broadcast(self, value: Any) -> Any:
        return broadcast_json(value)

    def _gather(self, tree: PyTree) -> PyTree:
        return gather(tree)


def choose_config(
    task: Task,
    runs: Sequence[Run | Mapping[str, Any]],
    devices: Sequence[jax.Device] | None = None,
    **fixed,
) -> PoolConfig:
    """Chooses a fast config for a `MultihostPool`; see `noisegen.training.choose_config`."""
    devices = default_devices() if devices is None else devices
    # All devices take part, even if there are fewer runs: no process may be left out.
    fixed.setdefault("lane_devices", len(devices) // num_devices(fixed))
    return choose_pool_config(task, runs, devices, make_pool=MultihostPool, **fixed)


def broadcast_json(value: Any) -> Any:
    """Broadcasts process 0's value to all processes. Other values are ignored.

    Args:
      value: A value that JSON can hold. Use `broadcast_arrays` for a pytree of arrays.
    """
    if jax.process_count() == 1:
        return value
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    # The processes need arrays of one size, so process 0's size is broadcast first.
    size = int(multihost_utils.broadcast_one_to_all(np.int32(text.size)))
    # The other processes send bytes of their own, which are ignored but must have this size.
    buffer = np.zeros(size, np.uint8)
    used = min(size, text.size)
    buffer[:used] = text[:used]
    return json.loads(np.asarray(multihost_utils.broadcast_one_to_all(buffer)).tobytes())


def broadcast_arrays(arrays: dict[str, np.ndarray] | None) -> dict[str, np.ndarray] | None:
    """Broadcasts process 0's arrays by name, or its None, to all processes."""
    if jax.process_count() == 1:
        return arrays
    # First names, shapes and types, of which the others make arrays to receive the content.
    kinds = None
    if arrays is not None:
        kinds = {name: (array.shape, array.dtype.name) for name, array in arrays.items()}
    kinds = broadcast_json(kinds)
    if kinds is None:
        return None
    if jax.process_index() > 0:
        arrays = {name: np.zeros(shape, dtype) for name, (shape, dtype) in kinds.items()}
    return jax.device_get(multihost_utils.broadcast_one_to_all(arrays))


def gather(tree: PyTree) -> PyTree:
    """Returns arrays on the devices of all processes, whole, as NumPy arrays on every process."""

    def whole(leaf: Any) -> Any:
        # All other arrays are whole in this process, and need no communication.
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return multihost_utils.process_allgather(leaf, tiled=True)
        return leaf

    return jax.device_get(jax.tree.map(whole, tree))
