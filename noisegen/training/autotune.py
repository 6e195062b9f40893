"""Chooses a pool's config by a short measurement.

The measurement times microbatches and their gradients, which is nearly all the work of a sweep and
compiles in a second or two. The config with the least predicted time for the given runs wins. On a
CPU the likely configs come first, and no others are tried if the runs promise to end soon.
"""

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax

from noisegen._math import ceil_div
from noisegen.training.config import PoolConfig, check_field, num_devices
from noisegen.training.plan import Plan
from noisegen.training.pool import Pool
from noisegen.training.program import default_devices
from noisegen.training.run import Run, as_runs
from noisegen.training.task import Task

# The fields of `PoolConfig` that are chosen unless they are given.
AUTOTUNED = frozenset({"lanes", "microbatch", "eval_batch", "lane_devices", "lanes_per_rare_step"})

_SHORT = 60.0  # seconds. On a CPU, further measurements would cost more than they save of these.

# The values to try, the likely ones first. A CPU core is busy with one small run, so there one lane
# for each device is best. An accelerator needs many.
_MICROBATCHES = {"cpu": (16, 32, 64), "accelerator": (64, 256, 1024)}
_LANES = {"cpu": (1,), "accelerator": (1, 4, 16, 64, 256)}
_EVAL_BATCH = {"cpu": 16, "accelerator": 2000}  # 16 images fit the caches of a core best


def autotune(
    task: Task,
    runs: Sequence[Run | Mapping[str, Any]],
    devices: Sequence[jax.Device] | None = None,
    make_pool: Callable[..., Pool] = Pool,
    **fixed,
) -> tuple[PoolConfig, float]:
    """Chooses the fastest config for some runs.

    Args:
      task: The task to train.
      runs: Runs as for `Pool.train`, at least one.
      devices: Devices that may be used, by default as for `Pool`.
      make_pool: Makes the pool to measure, from task, config and devices.
      **fixed: Fields of `PoolConfig` that are not to be chosen.

    Returns:
      The config, and the predicted time of all the runs together without evaluations, in seconds.

    Raises:
      ValueError: If a field of a run or a fixed field is out of its range, or no config fits the
        device's memory.
    """
    if not runs:
        raise ValueError("A config is chosen for given runs: there must be at least one run.")
    for name, value in fixed.items():
        check_field(name, value)
    devices = default_devices() if devices is None else devices
    on_cpu = devices[0].platform == "cpu"
    runs = as_runs(task, runs)
    # Runs with equal plans take equally long. There are far fewer plans than runs.
    plans = collections.Counter(run.plan for run in runs)
    best: tuple[PoolConfig, float] | None = None
    failure: Exception | None = None
    # A dict drops repeated candidates, and keeps their order.
    for config in dict.fromkeys(_candidates(devices, plans, task, **fixed)):
        try:
            step_seconds = make_pool(task, config, devices).seconds_per_step(runs[0])
        except jax.errors.JaxRuntimeError as error:  # The config does not fit the memory.
            failure = error
            continue
        seconds = _predict(plans, config, step_seconds)
        if best is None or seconds < best[1]:
            best = (config, seconds)
        # An accelerator is searched in full: its first candidates, with one lane, are the slowest.
        if on_cpu and best[1] < _SHORT:
            break
    if best is None:
        raise ValueError(f"No config fits this device; the last failure was: {failure}")
    return best


def _predict(plans: Mapping[Plan, int], config: PoolConfig, step_seconds: float) -> float:
    """Predicts the seconds of all runs: the lanes share them, but one run cannot be split."""
    steps = {plan: plan.micro_steps(config.microbatch) for plan in plans}
    work = sum(count * steps[plan] for plan, count in plans.items())
    return step_seconds * max(work / config.lanes, *steps.values())


def _candidates(
    devices: Sequence[jax.Device], plans: Mapping[Plan, int], task: Task, **fixed
) -> Iterator[PoolConfig]:
    """Yields the configs worth measuring, the likeliest first."""
    kind = "cpu" if devices[0].platform == "cpu" else "accelerator"
    num_runs = sum(plans.values())
    # Sharing a batch or a model costs communication, so it is never chosen here.
    batch_devices = fixed.get("batch_devices", 1)
    lane_devices = fixed.get("lane_devices") or _lane_devices(devices, num_runs, fixed)
    microbatches = _microbatches(kind, plans, task)
    largest_batch = max(int(plan.batch_sizes.max()) for plan in plans)
    for microbatch in microbatches:
        # The likeliest microbatch is tried even if no batch fills half of it.
        if not _fits(microbatch, max(largest_batch, microbatches[0])):
            continue
        for lanes in _LANES[kind]:
            # More lanes than runs would be idle from the start.
            if lanes > 1 and not _fits(lanes * lane_devices, num_runs):
                break
            # The tables are for one device. The fields count over all devices.
            chosen = {
                "microbatch": microbatch * batch_devices,
                "lanes": lanes * lane_devices,
                "lane_devices": lane_devices,
                "eval_batch": _EVAL_BATCH[kind] * batch_devices,
            } | fixed
            # An eighth of a device's lanes is a guess that is not measured here.
            rare = max(1, chosen["lanes"] // chosen["lane_devices"] // 8)
            yield PoolConfig(**{"lanes_per_rare_step": rare} | chosen)


def _lane_devices(devices: Sequence[jax.Device], num_runs: int, fixed: Mapping[str, Any]) -> int:
    """Returns the most devices that the lanes can share evenly."""
    shared = num_devices({**fixed, "lane_devices": 1})  # of a lane
    most = max(1, min(len(devices) // shared, num_runs))
    # Any number of devices fits if the number of lanes is free. Else it must divide it.
    fitting = [count for count in range(1, most + 1) if fixed.get("lanes", count) % count == 0]
    return fitting[-1]


def _microbatches(kind: str, plans: Mapping[Plan, int], task: Task) -> list[int]:
    """Returns the microbatches of a device to try, the likeliest first, each once."""
    sizes = _MICROBATCHES[kind]
    smallest = min(int(plan.batch_sizes.max()) for plan in plans)
    # A microbatch of 32 is twice the work for a batch of 16.
    likely = 32 if kind == "cpu" and smallest > 16 else sizes[0]
    # A dict drops repeated sizes, and keeps their order.
    return list(dict.fromkeys(allowed_microbatch(task, size) for size in (likely, *sizes)))


def allowed_microbatch(task: Task, size: int) -> int:
    """Returns the microbatch nearest to `size` that the task allows."""
    if task.noise_microbatch:
        return task.noise_microbatch  # Part of the measurement, so there is no choice.
    if task.only_batch_size:
        size = min(size, task.only_batch_size)
    return ceil_div(size, task.ghost_size) * task.ghost_size


def _fits(capacity: int, load: int) -> bool:
    """Returns whether a load fills more than half of a capacity, so that little of it is idle."""
    return capacity < 2 * load
