"""Chooses a pool's config by a short measurement, or without one if the runs are short on a CPU.

The measurement times microbatches and their gradients, which is nearly all the work of a sweep. The
config with the least predicted time for the given runs wins.

A CPU compiles a config in a second or two. There the likely configs come first, and no others are
tried if the runs promise to end soon. Compilers of accelerators take half a minute to several
minutes for a convolutional network. So each number of lanes is tried with one microbatch only, the
one that wastes the least, and the search ends when more lanes are no faster.
"""

import collections
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax

from noisegen._math import ceil_div
from noisegen.training.config import PoolConfig, check_field, num_devices
from noisegen.training.plan import Plan
from noisegen.training.pool import Pool
from noisegen.training.products import count_products
from noisegen.training.program import default_devices
from noisegen.training.run import Run, as_runs
from noisegen.training.task import Task
from noisegen.training.tracing import trace_program

# The fields of `PoolConfig` that are chosen unless they are given.
AUTOTUNED = frozenset({"lanes", "microbatch", "eval_batch", "lane_devices", "lanes_per_rare_step"})

# On a CPU, runs that take less than this, in seconds, are not measured further: it would cost more
# than it saves.
_SHORT = 60.0
# Assumed of a device of a CPU that is not measured: the operations of products in a second, and the
# seconds of a micro-step without any.
_FLOPS = 20e9
_STEP_SECONDS = 1e-4

# The values to try, the likely ones first. A CPU core is busy with one small run, so there one lane
# for each device is best. A GPU needs many lanes of small networks, and one of a large one. The
# compiler of a TPU takes ten times as long as a GPU's, so fewer are tried.
_MICROBATCHES = {"cpu": (16, 32, 64), "gpu": (64, 256, 1024), "tpu": (64, 256, 1024)}
_LANES = {"cpu": (1,), "gpu": (1, 4, 16, 64, 256), "tpu": (1, 16, 256)}
_EVAL_BATCH = {"cpu": 16, "gpu": 2000, "tpu": 2000}  # 16 images fit the caches of a core best

# Examples of an accelerator in a micro-step, over its lanes: more take memory, but save no time.
_MOST_AT_ONCE = 16_384
# A guess of the time that a micro-step takes without examples, in examples. It is less for a large
# network, whose kernels take long, and more for a small one.
_OVERHEAD = 1024


def choose_config(
    task: Task,
    runs: Sequence[Run | Mapping[str, Any]],
    devices: Sequence[jax.Device] | None = None,
    make_pool: Callable[..., Pool] = Pool,
    **fixed,
) -> PoolConfig:
    """Chooses a fast config for some runs: by `autotune`, unless they are short.

    On a CPU, a measurement takes some seconds. It is not worth them if the runs take less than a
    minute, at 20 GFLOP/s of products on each device of JAX and 0.1 milliseconds at least for a
    micro-step. Then the config is the likeliest one.

    Args:
      task, runs, devices, make_pool, **fixed: As for `autotune`.

    Returns:
      The config.

    Raises:
      ValueError: As `autotune`.
    """
    _check_arguments(runs, fixed)
    devices = default_devices() if devices is None else devices
    runs = as_runs(task, runs)
    if _kind(devices) == "cpu":
        config = _config_of_short_runs(task, runs, devices, fixed)
        if config is not None:
            return config
    return autotune(task, runs, devices, make_pool, **fixed)[0]


def _config_of_short_runs(
    task: Task, runs: Sequence[Run], devices: Sequence[jax.Device], fixed: Mapping[str, Any]
) -> PoolConfig | None:
    """Returns the likeliest config if the runs are short on a CPU, else None."""
    plans = collections.Counter(run.plan for run in runs)
    config = next(_candidates(devices, plans, task, **fixed))
    traced = trace_program(task, runs[0], config, devices, ["accumulate"])["accumulate"]
    step_seconds = max(_STEP_SECONDS, sum(count_products(traced).values()) / _FLOPS)
    return config if _predict(plans, config, step_seconds) < _SHORT else None


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
    _check_arguments(runs, fixed)
    devices = default_devices() if devices is None else devices
    on_cpu = _kind(devices) == "cpu"
    runs = as_runs(task, runs)
    # Runs with equal plans take equally long. There are far fewer plans than runs.
    plans = collections.Counter(run.plan for run in runs)
    best: tuple[PoolConfig, float] | None = None
    failure: Exception | None = None
    # A dict drops repeated candidates, and keeps their order.
    for config in dict.fromkeys(_candidates(devices, plans, task, **fixed)):
        if best is not None and config.lanes == best[0].lanes and not on_cpu:
            continue  # It is the second choice for lanes whose first choice fits.
        try:
            step_seconds = make_pool(task, config, devices).seconds_per_step(runs[0])
        except jax.errors.JaxRuntimeError as error:  # The config does not fit the memory.
            failure = error
            if best is not None and not on_cpu:
                break  # More lanes take more memory still.
            continue
        seconds = _predict(plans, config, step_seconds)
        slower = best is not None and seconds >= best[1]
        if not slower:
            best = (config, seconds)
        if best[1] < _SHORT if on_cpu else slower:
            break
    if best is None:
        raise ValueError(f"No config fits this device; the last failure was: {failure}")
    return best


def _check_arguments(runs: Sequence[Any], fixed: Mapping[str, Any]) -> None:
    """Checks that there are runs, and that the fields that are given are in their ranges."""
    if not runs:
        raise ValueError("A config is chosen for given runs: there must be at least one run.")
    for name, value in fixed.items():
        check_field(name, value)


def _predict(plans: Mapping[Plan, int], config: PoolConfig, step_seconds: float) -> float:
    """Predicts the seconds of all runs: the lanes share them, but one run cannot be split."""
    steps = {plan: plan.micro_steps(config.microbatch) for plan in plans}
    work = sum(count * steps[plan] for plan, count in plans.items())
    return step_seconds * max(work / config.lanes, *steps.values())


def _kind(devices: Sequence[jax.Device]) -> str:
    """Returns the kind of the devices: "cpu", "gpu" or "tpu"."""
    platform = devices[0].platform
    # GPUs have the names of several makers.
    return platform if platform in ("cpu", "tpu") else "gpu"


def _candidates(
    devices: Sequence[jax.Device], plans: Mapping[Plan, int], task: Task, **fixed
) -> Iterator[PoolConfig]:
    """Yields the configs worth measuring, the likeliest first."""
    kind = _kind(devices)
    microbatches = _microbatches(kind, plans, task)
    largest_batch = max(int(plan.batch_sizes.max()) for plan in plans)
    # The likeliest microbatch is tried even if no batch fills half of it.
    largest = max(largest_batch, microbatches[0])
    microbatches = [size for size in microbatches if _fits(size, largest)]
    num_runs = sum(plans.values())
    lane_devices = fixed.get("lane_devices") or _lane_devices(devices, num_runs, fixed)
    # More lanes than runs would be idle from the start.
    all_lanes = [n for n in _LANES[kind] if n == 1 or _fits(n * lane_devices, num_runs)]
    make = functools.partial(_make_config, kind, lane_devices, fixed)
    if kind == "cpu":
        yield from (make(size, lanes) for size in microbatches for lanes in all_lanes)
        return
    for lanes in all_lanes:
        # A task that needs a large microbatch is trained in one lane.
        sizes = [n for n in microbatches if lanes == 1 or lanes * n <= _MOST_AT_ONCE]
        choices = [make(size, lanes) for size in sizes]
        choices.sort(key=functools.partial(_relative_time, plans))
        yield from choices[:1]
        if lanes == 1:  # Smaller microbatches are for a network that does not fit the memory.
            smaller = [c for c in choices[1:] if c.microbatch < choices[0].microbatch]
            yield from sorted(smaller, key=lambda config: -config.microbatch)


def _make_config(
    kind: str, lane_devices: int, fixed: Mapping[str, Any], microbatch: int, lanes: int
) -> PoolConfig:
    """Returns the config of a microbatch and of lanes of one device."""
    # Sharing a batch or a model costs communication, so it is never chosen here.
    batch_devices = fixed.get("batch_devices", 1)
    # The fields count over all devices.
    chosen = {
        "microbatch": microbatch * batch_devices,
        "lanes": lanes * lane_devices,
        "lane_devices": lane_devices,
        "eval_batch": _EVAL_BATCH[kind] * batch_devices,
    } | fixed
    # An eighth of a device's lanes is a guess that is not measured here.
    rare = max(1, chosen["lanes"] // chosen["lane_devices"] // 8)
    return PoolConfig(**{"lanes_per_rare_step": rare} | chosen)


def _relative_time(plans: Mapping[Plan, int], config: PoolConfig) -> float:
    """Returns the time of all runs by a model of accelerators, in an arbitrary unit."""
    lanes = config.lanes // config.lane_devices
    at_once = lanes * config.microbatch // config.batch_devices
    return _predict(plans, config, at_once + _OVERHEAD)


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
