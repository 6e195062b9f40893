"""Configures the speed of a pool. Results change by floating-point rounding only.

One exception is a task whose layers mix the examples of a microbatch, or draw once for all of it
(see `noisegen.tasks.from_nnx`). For such a task `microbatch` is part of the training and should be
given.
"""

import dataclasses
import math
import numbers
from collections.abc import Mapping

# The names that jax.default_matmul_precision takes on every platform.
PRECISIONS = ("default", "high", "highest", "bfloat16", "tensorfloat32", "float32")

# Where the data may be.
PLACES = ("device", "host")

# Sizes of the mesh.
_MESH = ("lane_devices", "batch_devices", "model_devices")

# Fields that must be a multiple of another: each device takes an equal share.
_SHARED = (
    ("lanes", "lane_devices"),
    ("microbatch", "batch_devices"),
    ("eval_batch", "batch_devices"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PoolConfig:
    """Performance settings of a pool.

    Attributes:
      lanes: Runs trained at once, over all devices; a multiple of `lane_devices`.
      microbatch: Examples each lane works on per micro-step; a multiple of `batch_devices`.
      eval_batch: Examples evaluated at once; a multiple of `batch_devices`.
      lane_devices: Devices that share the lanes.
      batch_devices: Devices that share the batch of each run.
      model_devices: Devices that share the parameters of each run, as the task's annotations say.
      lanes_per_rare_step: Lanes of a device that do rare work (start of a run, permutation,
        evaluation) together.
      precision: Precision of matrix products, as for `jax.default_matmul_precision`. None is the
        device's default.
      host_sync_seconds: Approximate time between host synchronizations, in seconds.
      data: Where the data are: 'device' (whole, on every device) or 'host', which reads
        them ahead of the device. None keeps on the device whatever fits into half of its memory.
    """

    lanes: int = 1
    microbatch: int = 64
    eval_batch: int = 500
    lane_devices: int = 1
    batch_devices: int = 1
    model_devices: int = 1
    lanes_per_rare_step: int = 1
    precision: str | None = None
    host_sync_seconds: float = 0.5
    data: str | None = None

    def __post_init__(self):
        for name, value in vars(self).items():
            check_field(name, value)
        for name, devices in _SHARED:
            if getattr(self, name) % getattr(self, devices):
                raise ValueError(
                    f"PoolConfig: {name}={getattr(self, name)} must be a multiple of "
                    f"{devices}={getattr(self, devices)}."
                )


def num_devices(fields: Mapping[str, int]) -> int:
    """Returns the devices of the mesh that some fields of a config give, 1 by default."""
    return math.prod(fields.get(name, 1) for name in _MESH)


def describe_devices(fields: Mapping[str, int], prefix: str = "") -> str:
    """Returns the product of devices that some fields give, for a message."""
    named = {name: fields.get(name, 1) for name in _MESH}
    # Most users share no model.
    if named["model_devices"] == 1:
        del named["model_devices"]
    return " times ".join(f"{prefix}{name}={value}" for name, value in named.items())


def check_field(name: str, value: int | float | str | None) -> None:
    """Checks one field of `PoolConfig` by itself.

    Autotuning calls it for the fields that are given, before it chooses the others.

    Raises:
      ValueError: If the value is of another kind or out of its range.
    """
    if name == "precision":
        if value not in (None, *PRECISIONS):
            raise ValueError(
                f"PoolConfig: precision={value!r} must be one of {PRECISIONS}, or None."
            )
    elif name == "data":
        if value not in (None, *PLACES):
            raise ValueError(f"PoolConfig: data={value!r} must be one of {PLACES}, or None.")
    elif name == "host_sync_seconds":
        # The comparison refuses NaN, too.
        if not (isinstance(value, numbers.Real) and 0 < value < math.inf):
            raise ValueError(f"PoolConfig: host_sync_seconds={value!r} must be a number above 0.")
    elif not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"PoolConfig: {name}={value!r} must be a whole number of at least 1.")
