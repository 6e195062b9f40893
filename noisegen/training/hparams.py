"""A run's numbers as the device takes them: array scalars of fixed types."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from noisegen.training.examples import Numbers
from noisegen.training.plan import RUN_FIELDS, Plan, plan_runs
from noisegen.training.task import Task, make_key

_INTEGERS = {"batch_size", "seed", "num_updates", "num_examples"}
_PLAN_FIELDS = {"num_updates", "updates_per_epoch", "num_examples"}


def check_runs(task: Task, runs: Sequence[Mapping[str, Any]]) -> list[Plan]:
    """Checks that every run makes sense, and that the runs name the numbers that the task reads.

    Returns:
      The runs' plans.

    Raises:
      ValueError: names what makes no sense.
    """
    plans = plan_runs(task, runs)
    if runs:
        _check_names(task, runs)
    return plans


def _check_names(task, runs):
    """The runs must name the same numbers, and those that the task reads."""
    names = runs[0].keys()
    if taken := names & (_PLAN_FIELDS - RUN_FIELDS):
        raise ValueError(
            f"The runs name {', '.join(sorted(taken))}, which the pool itself tells the optimizer; "
            "name the number otherwise."
        )
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
    return Numbers(
        hparams={name: np.asarray(value, _dtype(name)) for name, value in given.items()},
        order_length=np.int32(plan.order_length),
        cut=np.bool_(plan.cut),
        eval_updates=eval_updates,
    )


class _Recorder(Mapping):
    """A run's numbers, which notes those that are asked for."""

    def __init__(self, values, read):
        self._values, self._read = values, read

    def __getitem__(self, name):
        self._read.add(name)
        return self._values[name]

    def __iter__(self):
        return iter(self._values)

    def __len__(self):
        return len(self._values)


def _names_read(task, names):
    """The numbers that the task's optimizer, batch size and weights ask for."""
    read: set[str] = set()
    given = (names | _PLAN_FIELDS) - {"last_batch"}

    def build(values):
        task.make_optimizer(_Recorder(values, read), make_key(0))
        if task.batch_size is not None:
            task.batch_size(_Recorder(values, read))(0)
        if task.example_weights is not None:
            places = jnp.zeros((1,), jnp.int32)
            drawn = task.example_weights(_Recorder(values, read))
            weights = drawn(make_key(0), places, jnp.int32(1))
            if jnp.shape(weights) != (1,):
                raise ValueError(
                    f"The weights of task {task.name!r} must be one number an example, of shape "
                    f"(M,) = (1,), got shape {jnp.shape(weights)}."
                )

    try:
        jax.eval_shape(build, {name: jax.ShapeDtypeStruct((), _dtype(name)) for name in given})
    except KeyError as error:
        if not (lacking := read - given):
            raise
        raise ValueError(
            f"Task {task.name!r} reads the number {', '.join(map(repr, sorted(lacking)))}, which "
            f"the runs lack; they name {', '.join(sorted(names))}."
        ) from error
    return read


def _dtype(name):
    return np.int32 if name in _INTEGERS else np.float32
