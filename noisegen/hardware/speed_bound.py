"""Bounds the speed of a task on an accelerator, by its compiler or, if that is absent, without it.

The bound without a compiler takes seconds. It follows from the products of a micro-step alone:
matrix products and convolutions take at least the time that they need at the peak of the device.
It ignores the traffic with the memory, so it is looser than the bound of the compiled program.
"""

import math
from collections.abc import Mapping
from typing import Any

from noisegen import training
from noisegen.hardware.compilation import compile_program, default_config, share_of_device
from noisegen.hardware.targets import Target, is_installed
from noisegen.training import Run, Task
from noisegen.training.products import count_products

# Shares of the bounds that training is assumed to reach, by whether the program is compiled.
EFFICIENCY = {True: 0.5, False: 0.2}


def bound_speed(task: Task, run: Run, target: Target, fixed: Mapping[str, Any]) -> float:
    """Returns an upper bound of the training examples per second of all devices of a target.

    Args:
      task: The task.
      run: A run of the task. `make_runs(..., mixing=False)` makes one in the least time.
      target: The hardware. If its compiler is installed, the micro-step is compiled, which may take
        minutes. If not, only its products are counted.
      fixed: Fields of `training.PoolConfig` that are given, see `default_config`.

    Raises:
      ValueError: If the fields do not use all devices, or the program does not fit them.
    """
    config = default_config(task, run, target.num_devices, fixed)
    if is_installed(target):
        return compile_program(task, run, config, target, ["advance"]).bound
    share = share_of_device(config)
    traced = training.trace_program(task, run, share, names=["accumulate"])["accumulate"]
    products = count_products(traced)
    seconds = sum(target.seconds(flops, dtype, 0) for dtype, flops in products.items())
    if seconds == 0:
        return math.inf
    # These are the products of the whole model, which `model_devices` devices divide.
    return target.num_devices * share.lanes * share.microbatch / seconds
