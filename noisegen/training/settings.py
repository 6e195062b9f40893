"""What may change the speed of a sweep, and its results by rounding only.

Except where a task's layers mix the examples of a microbatch or draw once for all of it (see
`noisegen.tasks.from_nnx`): then `microbatch` is part of what is trained, and should be given.
"""

import dataclasses
import math
import numbers

PRECISIONS = ("default", "high", "highest", "bfloat16", "tensorfloat32", "float32")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Speed settings of a pool.

    Attributes:
      lanes: runs trained at once, over all devices; a multiple of `lane_devices`.
      microbatch: examples each lane works on per micro-step; a multiple of `batch_devices`.
      eval_batch: examples evaluated at once, likewise.
      lane_devices: devices that the lanes are spread over.
      batch_devices: devices that the batch of each run is spread over.
      group: lanes of a device that do rare work (start, permutation, evaluation) together.
      precision: of matrix products, as `jax.default_matmul_precision`; None is the device's
        default.
      chunk_seconds: about how long the device works between two looks of the host.
    """

    lanes: int = 1
    microbatch: int = 64
    eval_batch: int = 500
    lane_devices: int = 1
    batch_devices: int = 1
    group: int = 1
    precision: str | None = None
    chunk_seconds: float = 0.5

    def __post_init__(self):
        for name, value in vars(self).items():
            check_field(name, value)
        for name, devices in (
            ("lanes", "lane_devices"),
            ("microbatch", "batch_devices"),
            ("eval_batch", "batch_devices"),
        ):
            if getattr(self, name) % getattr(self, devices):
                raise ValueError(
                    f"Settings: {name}={getattr(self, name)} must be a multiple of "
                    f"{devices}={getattr(self, devices)}."
                )


def check_field(name: str, value: int | float | str | None) -> None:
    """Checks one field of `Settings` by itself.

    Raises:
      ValueError: it makes no sense.
    """
    if name == "precision":
        if value not in (None, *PRECISIONS):
            raise ValueError(f"Settings: precision={value!r} must be one of {PRECISIONS}, or None.")
    elif name == "chunk_seconds":
        if not (isinstance(value, numbers.Real) and 0 < value < math.inf):
            raise ValueError(f"Settings: chunk_seconds={value!r} must be a number above 0.")
    elif not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"Settings: {name}={value!r} must be a whole number of at least 1.")
