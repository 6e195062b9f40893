"""Runs as the device takes them: every number an array scalar of a fixed type."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from noisegen.training.lanes import Numbers
from noisegen.training.plan import RUN_FIELDS, Plan
from noisegen.training.task import Task

_PLAN_FIELDS = {"num_updates": np.int32, "updates_per_epoch": np.float32, "num_examples": np.int32}


def number_types(task: Task, runs: Sequence[Mapping[str, Any]]) -> dict[str, type]:
    """The type of every number: int32 where all runs give integers, else float32.

    Raises:
      ValueError: runs name different numbers, or others than the optimizer reads.
    """
    types = {}
    for run in runs:
        if run.keys() != runs[0].keys():
            odd = sorted(run.keys() ^ runs[0].keys())
            raise ValueError(f"All runs of a sweep must name the same numbers; not all have {odd}.")
        for name, value in run.items():
            if name != "last_batch":
                whole = value == int(value) and not isinstance(value, float)
                types[name] = np.float32 if not whole else types.get(name, np.int32)
    _check_names(task, types)
    return types


def _check_names(task, types):
    """Raises if the optimizer reads a number that the runs lack, or they have one that nothing reads."""
    if not types:
        return
    read = set()

    class Recorder(dict):
        def __getitem__(self, name):
            read.add(name)
            if name not in self:
                raise ValueError(
                    f"Task {task.name!r} reads the number {name!r}, which the runs lack; they have "
                    f"{', '.join(sorted(types))}."
                )
            return super().__getitem__(name)

        def get(self, name, default=None):
            read.add(name)
            return super().get(name, default)

    def build(values):
        task.make_optimizer(Recorder(values), jax.random.key(0, impl="threefry2x32"))
        if task.batch_size is not None:
            task.batch_size(Recorder(values))(0)

    scalars = {name: jax.ShapeDtypeStruct((), t) for name, t in (types | _PLAN_FIELDS).items()}
    jax.eval_shape(build, scalars)
    unread = sorted(types.keys() - read - RUN_FIELDS)
    if unread:
        raise ValueError(
            f"Nothing reads the run field(s) {', '.join(unread)}: neither the plan of a run nor the "
            f"optimizer of task {task.name!r}, which reads {', '.join(sorted(read)) or 'nothing'}."
        )


def numbers(
    run: Mapping[str, Any], plan: Plan, types: dict[str, type], num_evals: int, num_examples: int
) -> Numbers:
    """The numbers of one run, with room for `num_evals` evaluations."""
    given = run | {
        "num_updates": plan.num_updates,
        "updates_per_epoch": plan.updates_per_epoch,
        "num_examples": num_examples,
    }
    evals = np.zeros(num_evals, np.int32)
    evals[: len(plan.eval_updates)] = plan.eval_updates
    key = jax.random.key(run["seed"], impl="threefry2x32")
    return Numbers(
        hparams={name: np.asarray(given[name], t) for name, t in (types | _PLAN_FIELDS).items()},
        key=np.asarray(jax.random.key_data(key)),
        num_updates=np.int32(plan.num_updates),
        epoch_length=np.int32(plan.epoch_length),
        cut=np.bool_(plan.cut),
        eval_updates=evals,
    )
