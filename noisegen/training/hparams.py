"""A run's numbers as the device takes them: array scalars of fixed types."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from noisegen.training.lanes import Numbers
from noisegen.training.plan import RUN_FIELDS, Plan
from noisegen.training.task import Task

_INTEGERS = {"batch_size", "seed", "num_updates", "num_examples"}
_PLAN_FIELDS = {"num_updates", "updates_per_epoch", "num_examples"}


def check_names(task: Task, runs: Sequence[Mapping[str, Any]]) -> None:
    """Checks that the runs name the same numbers, and those that the task reads.

    Raises:
      ValueError: they do not.
    """
    names = runs[0].keys()
    for run in runs:
        if run.keys() != names:
            odd = ", ".join(sorted(run.keys() ^ names))
            raise ValueError(f"All runs of a sweep must name the same numbers; not all name {odd}.")
    read = _names_read(task, names)
    unread = names - read - RUN_FIELDS
    if unread:
        raise ValueError(
            f"Nothing reads the run's {', '.join(sorted(unread))}: the optimizer of task "
            f"{task.name!r} reads {', '.join(sorted(read)) or 'nothing'}."
        )


def device_numbers(
    run: Mapping[str, Any], plan: Plan, num_examples: int, num_evals: int
) -> Numbers:
    """The numbers of one run, with room for `num_evals` evaluations."""
    given = {name: value for name, value in run.items() if name != "last_batch"} | {
        "num_updates": plan.num_updates,
        "updates_per_epoch": plan.updates_per_epoch,
        "num_examples": num_examples,
    }
    eval_updates = np.zeros(num_evals, np.int32)
    eval_updates[: len(plan.eval_updates)] = plan.eval_updates
    key = jax.random.key(int(run["seed"]), impl="threefry2x32")
    return Numbers(
        hparams={name: np.asarray(value, _dtype(name)) for name, value in given.items()},
        key=np.asarray(jax.random.key_data(key)),
        num_updates=np.int32(plan.num_updates),
        epoch_length=np.int32(plan.epoch_length),
        cut=np.bool_(plan.cut),
        eval_updates=eval_updates,
    )


def _names_read(task, names):
    """The numbers that the task's optimizer and batch size ask for."""
    read = set()

    class Recorder(dict):
        def __getitem__(self, name):
            read.add(name)
            if name not in self:
                raise ValueError(
                    f"Task {task.name!r} reads the number {name!r}, which the runs lack; they name "
                    f"{', '.join(sorted(names))}."
                )
            return super().__getitem__(name)

        def get(self, name, default=None):
            read.add(name)
            return super().get(name, default)

    def build(values):
        task.make_optimizer(Recorder(values), jax.random.key(0, impl="threefry2x32"))
        if task.batch_size is not None:
            task.batch_size(Recorder(values))(0)

    given = (names | _PLAN_FIELDS) - {"last_batch"}
    jax.eval_shape(build, {name: jax.ShapeDtypeStruct((), _dtype(name)) for name in given})
    return read


def _dtype(name):
    return np.int32 if name in _INTEGERS else np.float32
