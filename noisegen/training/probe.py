"""Chooses speed settings by a short measurement.

What is timed is taking a microbatch and its gradient, which is nearly all the work of a sweep and
compiles in a second or two; the settings with the least predicted time for the given runs win. On a
processor the likely ones come first, and where they promise to be done soon no others are tried.
"""

import collections
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from noisegen.training.pool import Pool
from noisegen.training.program import default_devices
from noisegen.training.run import Run, as_runs
from noisegen.training.settings import Settings, check_field
from noisegen.training.task import Task

# The fields of `Settings` that are chosen where they are not given.
MEASURED = frozenset({"lanes", "microbatch", "eval_batch", "lane_devices", "group"})
_SHORT = 60.0  # Seconds. On a processor, measuring more would take what it can save of these.


def choose(
    task: Task, runs: Sequence[Run | Mapping[str, Any]], devices=None, **fixed
) -> tuple[Settings, float]:
    """The fastest settings for some runs, and the seconds that they are predicted to take.

    Args:
      task: what is trained.
      runs: as for `Pool.train`; at least one.
      devices: that may be used, by default `jax.devices()`.
      **fixed: fields of `Settings` that are not to be chosen.

    Returns:
      The settings, and the predicted seconds of all the runs together, evaluations left out.

    Raises:
      ValueError: a run or a fixed field makes no sense, or no settings fit the device's memory.
    """
    if not runs:
        raise ValueError("Settings are chosen for given runs: there must be at least one run.")
    for name, value in fixed.items():
        check_field(name, value)
    devices = default_devices() if devices is None else devices
    best, failure = None, None
    host = devices[0].platform == "cpu"
    runs = as_runs(task, runs)
    plans = collections.Counter(run.plan for run in runs)
    if jax.process_count() > 1:
        fixed.setdefault("lane_devices", len(devices) // fixed.get("batch_devices", 1))
    for settings in dict.fromkeys(_candidates(devices, plans, task, **fixed)):
        pool = Pool(task, settings, devices)
        try:
            seconds = pool.seconds_per_step(runs[0])
        except jax.errors.JaxRuntimeError as error:  # does not fit the memory
            failure = error
            continue
        steps = {plan: plan.micro_steps(settings.microbatch) for plan in plans}
        work = sum(count * steps[plan] for plan, count in plans.items())
        total = seconds * max(work / settings.lanes, *steps.values())
        if best is None or total < best[1]:
            best = settings, total
        if host and best[1] < _SHORT:
            break
    if best is None:
        raise ValueError(f"No speed settings fit this device; the last failure was: {failure}")
    return best


def _candidates(devices, plans, task, **fixed) -> Iterator[Settings]:
    """Settings worth measuring.

    A processor core is busy with one small run: there, one lane for each device of the host. An
    accelerator needs many.
    """
    host = devices[0].platform == "cpu"
    batch_devices = fixed.get("batch_devices", 1)
    num_runs = sum(plans.values())
    most = max(1, min(len(devices) // batch_devices, num_runs))
    fitting = [d for d in range(1, most + 1) if fixed.get("lanes", d) % d == 0]
    lane_devices = fixed.get("lane_devices", fitting[-1])
    sizes = [int(np.diff(plan.ends, prepend=0).max()) for plan in plans]
    microbatches = (16, 32, 64) if host else (64, 256, 1024)
    likely = 32 if host and min(sizes) > 16 else microbatches[0]
    whole = [
        task.noise_group
        or -(-min(size, task.only_batch_size or size) // task.ghost_size) * task.ghost_size
        for size in (likely, *microbatches)
    ]
    for microbatch in dict.fromkeys(whole):
        if microbatch >= 2 * max(*sizes, whole[0]):
            break  # would stay half empty
        for lanes in (1,) if host else (1, 4, 16, 64, 256):
            if lanes > 1 and lanes * lane_devices >= 2 * num_runs:
                break
            chosen = {
                "microbatch": microbatch * batch_devices,
                "lanes": lanes * lane_devices,
                "lane_devices": lane_devices,
            } | fixed
            derived = {  # not measured here; 16 images are what the caches of a core hold best
                "group": max(1, chosen["lanes"] // chosen["lane_devices"] // 8),
                "eval_batch": (16 if host else 2000) * batch_devices,
            }
            yield Settings(**derived | chosen)
