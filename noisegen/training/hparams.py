"""Checks runs against their task, and makes their numbers array scalars for the device."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from noisegen.training import optimizers
from noisegen.training.examples import Numbers
from noisegen.training.plan import RUN_FIELDS, Plan, plain_fields, plan_runs
from noisegen.training.task import Task, make_key
from noisegen.training.task_check import check_optimizer, check_task

_INTEGERS = {"batch_size", "seed", "num_updates", "num_examples"}
_PLAN_FIELDS = {"num_updates", "updates_per_epoch", "num_examples"}


def check_runs(task: Task, runs: Sequence[Mapping[str, Any]]) -> list[Plan]:
    """Checks a task and its runs, before anything is trained.

    Returns:
      The runs' plans.

    Raises:
      ValueError: If the task's functions do not fit together, a run makes no sense, or the runs
        lack a field that the task reads or have a field that nothing reads.
    """
    check_task(task)
    plans = plan_runs(task, runs)
    if runs:
        _check_names(task, runs)
    return plans


def constants(run: Mapping[str, Any]) -> dict[str, bool | str]:
    """Returns the booleans and words of a run, which are constants of its program."""
    others = {  # nearly all fields are plain numbers
        name: value
        for name, value in run.items()
        if type(value) not in (int, float) and name != "last_batch"
    }
    return {n: v for n, v in plain_fields(others).items() if isinstance(v, bool | str)}


def by_constants(runs: Iterable[Mapping[str, Any]]) -> dict[tuple, list[int]]:
    """Returns the positions of the runs that share a program, by its constants as items."""
    groups: dict[tuple, list[int]] = {}
    for index, run in enumerate(runs):
        groups.setdefault(tuple(sorted(constants(run).items())), []).append(index)
    return groups


def with_constants(task: Task, fields: Mapping[str, bool | str]) -> Task:
    """Returns the task whose functions find some fields of the run to be constants."""
    if not fields:
        return task

    def given(function):
        return function and (lambda hparams, *rest: function({**hparams, **fields}, *rest))

    names = ("make_optimizer", "example_weights", "batch_size")
    return dataclasses.replace(task, **{name: given(getattr(task, name)) for name in names})


def _check_names(task, runs):
    """Checks that all runs have the same fields, and every field that the task reads."""
    names = runs[0].keys()
    if taken := names & (_PLAN_FIELDS - RUN_FIELDS):
        raise ValueError(
            f"The runs name {', '.join(sorted(taken))}, which the pool itself tells the optimizer; "
            "give the field another name."
        )
    for run in runs:
        if run.keys() != names:
            odd = ", ".join(sorted(run.keys() ^ names))
            raise ValueError(f"All runs of a sweep must name the same numbers; not all name {odd}.")
    groups = by_constants(runs)
    kinds = {tuple((name, type(value)) for name, value in fields) for fields in groups}
    if len(kinds) > 1:
        differing = sorted(
            {name for name, _ in set().union(*kinds) - set.intersection(*map(set, kinds))}
        )
        raise ValueError(
            f"Run field {', '.join(differing)} must hold values of one kind in all runs: numbers, "
            "booleans or words."
        )
    read = set()
    for fields in groups:
        read |= _names_read(task, frozenset(names), fields)
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
    numbers = {n: v for n, v in plain_fields(run).items() if not isinstance(v, bool | str)}
    given = numbers | {
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
    """Notes which fields of a run are read."""

    def __init__(self, values, read):
        self._values, self._read = values, read

    def __getitem__(self, name):
        self._read.add(name)
        return self._values[name]

    def __iter__(self):
        return iter(self._values)

    def __len__(self):
        return len(self._values)


@functools.lru_cache(maxsize=4)
def _names_read(task, names, fields):
    """Returns the fields that the task's optimizer, batch size and weights read.

    Updates the optimizer once, without computing anything, so that unsuitable optimizers are
    refused before training.
    """
    read, fields = set(), dict(fields)
    given = (names | _PLAN_FIELDS) - {"last_batch"}
    numbers = {name: jax.ShapeDtypeStruct((), _dtype(name)) for name in given - fields.keys()}

    def build(numbers):
        values = {**numbers, **fields}
        try:
            optimizer = optimizers.make(task, _Recorder(values, read), make_key(0))
        except jax.errors.JAXTypeError as error:
            raise ValueError(
                f"make_optimizer of task {task.name!r} needs the value of a number, but the "
                "numbers of runs are traced. Make it a boolean or a word in the runs, or use a "
                f"function that takes traced numbers, as noisegen's schedules do: {error!s:.200}"
            ) from error
        check_optimizer(task, optimizer)
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
        jax.eval_shape(build, numbers)
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
