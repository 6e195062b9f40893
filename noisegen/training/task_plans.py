"""Plans the runs of a task, and checks that the task can train them."""

from collections.abc import Mapping, Sequence

import numpy as np

from noisegen.training.plan import BatchSizeFn, Plan, plan_of_fields
from noisegen.training.run_id import INTEGERS, Value
from noisegen.training.task import Task


def plan_runs(task: Task, runs: Sequence[Mapping[str, Value]]) -> list[Plan]:
    """Returns the `plan` of each run of a task.

    Args:
      task: The task.
      runs: Runs as `canonical_fields` returns them.

    Raises:
      ValueError: If a run makes no sense, or the task cannot train it.
    """
    for run in runs:
        _check_static(task, run)
        _check_learning_rate(run)
    size = task.num_examples
    if task.batch_size is None:
        plans = [plan_of_fields(run, size) for run in runs]
    else:
        plans = [plan_of_fields(run, size, _schedule(task, run)) for run in runs]
    if task.check_run is not None:
        for run, plan in zip(runs, plans, strict=True):
            task.check_run(run, plan)
    # Equal plans are one object, so few are left to check of the many runs of a sweep.
    for plan in set(plans):
        _check_batches(task, plan)
        if plan.permutation_length < plan.epoch_length and not task.shuffle:
            raise ValueError(
                f"last_batch='resample' draws every batch from a new order of the examples, and "
                f"task {task.name!r} keeps theirs: choose another last_batch."
            )
    return plans


def device_fields(
    fields: Mapping[str, Value], plan: Plan, num_examples: int
) -> dict[str, np.number | bool | str]:
    """Returns the fields of a run as the task's functions get them.

    Numbers have their type on the device. Booleans and words are unchanged. The horizon is
    `num_updates`, even if the run has `num_epochs`.
    """
    planned = {
        "num_updates": plan.num_updates,
        "updates_per_epoch": plan.updates_per_epoch,
        "num_examples": num_examples,
    }
    return device_values({**fields, **planned})


def device_values(fields: Mapping[str, Value]) -> dict[str, np.number | bool | str]:
    """Returns fields with their types on the device, without `last_batch`."""
    # Only the plan reads `last_batch`.
    return {
        name: value if isinstance(value, bool | str) else device_type(name)(value)
        for name, value in fields.items()
        if name != "last_batch"
    }


def device_type(name: str) -> type[np.number]:
    """Returns the type that a number of the run has on the device."""
    return np.int32 if name in INTEGERS else np.float32


def _check_static(task: Task, run: Mapping[str, Value]) -> None:
    """Checks that the task is made for a run."""
    for name, value in task.static.items():
        if name not in run or run[name] != value:
            found = f"{name}={run[name]!r}" if name in run else f"no {name}"
            raise ValueError(
                f"Task {task.name!r} was made for {name}={value!r}, got a run of {found}: make a "
                "task for each, as a sweep does with a static field."
            )


def _check_learning_rate(run: Mapping[str, Value]) -> None:
    """Checks that no learning rate is negative, which would ascend the loss."""
    for name, value in run.items():
        if name.endswith("learning_rate") and type(value) in (int, float) and value < 0:
            raise ValueError(
                f"Run field {name}={value!r} is negative, and every update would increase the "
                "loss: give a number of at least 0."
            )


def _check_batches(task: Task, plan: Plan) -> None:
    """Checks the batch sizes of a plan against the task."""
    sizes = plan.batch_sizes
    if plan.epoch_ends_batch and not task.takes_whole_batches:
        # The ragged batch of an epoch may be of any size: its last ghost batch is then ragged too.
        # All others are equal, so the first stands for them.
        sizes = sizes[:1]
    if task.only_batch_size and (sizes != task.only_batch_size).any():
        raise ValueError(
            f"Task {task.name!r} was made for batch_size={task.only_batch_size}, got a run of "
            f"batch_size={sizes[sizes != task.only_batch_size][0]}: make a task for each, as a "
            "sweep does with static=('batch_size',)."
        )
    # A batch is whole ghost batches, or smaller than a single one.
    wrong = sizes[(sizes > task.ghost_size) & (sizes % task.ghost_size > 0)]
    if wrong.size:
        below = wrong[0] // task.ghost_size * task.ghost_size
        raise ValueError(
            f"batch_size={wrong[0]} must be a multiple of the ghost batches of {task.ghost_size} "
            f"examples that task {task.name!r} normalizes over, or smaller than one; the nearest "
            f"are {below} and {below + task.ghost_size}."
        )
    # A variance needs two groups at least, in every batch.
    if task.noise_microbatch and plan.smallest_batch <= task.noise_microbatch:
        raise ValueError(
            f"A batch of {plan.smallest_batch} is a single group of the {task.noise_microbatch} "
            f"examples that task {task.name!r} measures the noise of gradients with, and one group "
            "says nothing about noise: make noise_microbatch half of the smallest batch or less "
            "(the ragged last one included; last_batch='straddle' has none)."
        )


def _schedule(task: Task, run: Mapping[str, Value]) -> BatchSizeFn:
    """Returns the batch size as a function of the update count."""
    # `num_updates` is not given, because the horizon follows from the batch sizes.
    try:
        return task.batch_size({**run, "num_examples": task.num_examples})
    except KeyError as error:
        raise ValueError(
            f"The batch size of task {task.name!r} reads {error}, which is neither a field of the "
            f"run ({', '.join(run)}) nor num_examples."
        ) from error
