"""Makes runs: each is named, planned and checked once."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from noisegen.training.data_order import RunInputs
from noisegen.training.plan import Plan
from noisegen.training.run_fields import RUN_FIELDS, canonical_fields
from noisegen.training.run_id import Value, hash_canonical
from noisegen.training.task import Task, build_optimizer, make_key
from noisegen.training.task_check import check_optimizer, check_task
from noisegen.training.task_plans import plan_plain

_INTEGERS = {"batch_size", "seed", "num_updates", "num_examples"}
_PLAN_FIELDS = {"num_updates", "updates_per_epoch", "num_examples"}


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Run:
    """One training run. Runs are equal if their ids are.

    Attributes:
      id: Name of the run, see `noisegen.training.run_id`.
      hparams: Its hyperparameters, as `canonicalize` returns them.
      plan: Its course. Runs of equal course share one object.
    """

    id: str
    hparams: Mapping[str, Value]
    plan: Plan

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)


def make_runs(
    task: Task, hparams: Iterable[Mapping[str, Any]], ids: Iterable[str] | None = None
) -> list[Run]:
    """Makes the runs of a task, before anything is trained.

    Args:
      task: The task to train.
      hparams: Flat mappings from field to number, boolean or word, one a run. All have the same
        fields.
      ids: Ids of the runs if they are known, see `run_id`. To hash many runs takes seconds.

    Returns:
      A run for each mapping, in the same order.

    Raises:
      ValueError: If the task's functions do not fit together, a run makes no sense, or the runs
        lack a field that the task reads or have a field that nothing reads.

    Examples:
      >>> from noisegen import data, models, tasks
      >>> import optax
      >>> task = tasks.image_classification(
      ...     data.load("digits"),
      ...     lambda rngs: models.MLP(rngs=rngs),
      ...     lambda hparams, key: optax.sgd(hparams["learning_rate"]),
      ...     name="MLP",
      ... )
      >>> fields = {"batch_size": 64, "learning_rate": 0.5, "num_epochs": 2, "seed": 0}
      >>> [run] = make_runs(task, [fields])
      >>> run.plan.num_updates, run.plan.num_examples
      (44, 2816)
    """
    check_task(task)
    canonical = [canonical_fields(fields) for fields in hparams]
    plans = plan_plain(task, canonical)
    if canonical:
        _check_names(task, canonical)
    if ids is None:
        ids = [hash_canonical(task.name, fields) for fields in canonical]
    return [
        Run(run_id, fields, plan)
        for run_id, fields, plan in zip(ids, canonical, plans, strict=True)
    ]


def as_runs(task: Task, runs: Iterable[Run | Mapping[str, Any]]) -> list[Run]:
    """Returns the given runs; plain mappings are made into runs.

    Raises:
      ValueError: As `make_runs` does.
    """
    runs = list(runs)
    if all(isinstance(run, Run) for run in runs):
        return runs
    return make_runs(task, [run.hparams if isinstance(run, Run) else run for run in runs])


def constants(hparams: Mapping[str, Value]) -> tuple[tuple[str, bool | str], ...]:
    """Returns the booleans and words of a run, which are constants of its program."""
    # `last_batch` is read by the plan only.
    return tuple(
        sorted(
            (name, value)
            for name, value in hparams.items()
            if type(value) not in (int, float) and name != "last_batch"
        )
    )


def by_constants(runs: Iterable[Run]) -> dict[tuple, list[Run]]:
    """Returns the runs that share a program, by its constants, in the order they are trained."""
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        groups.setdefault(constants(run.hparams), []).append(run)
    return groups


def with_constants(task: Task, fields: Mapping[str, bool | str]) -> Task:
    """Returns the task with some fields of the run given to its functions as constants."""
    if not fields:
        return task

    def given(function):
        if function is None:
            return None
        return lambda hparams, *rest: function({**hparams, **fields}, *rest)

    return dataclasses.replace(
        task,
        make_optimizer=given(task.make_optimizer),
        example_weights=given(task.example_weights),
        batch_size=given(task.batch_size),
    )


def _check_names(task: Task, runs: Sequence[Mapping[str, Value]]) -> None:
    """Checks that all runs have the same fields, and every field that the task reads."""
    names = runs[0].keys()
    taken = names & (_PLAN_FIELDS - RUN_FIELDS)
    if taken:
        raise ValueError(
            f"The runs name {', '.join(sorted(taken))}, which the pool itself gives the optimizer; "
            "give the field another name."
        )
    for run in runs:
        if run.keys() != names:
            odd = ", ".join(sorted(run.keys() ^ names))
            raise ValueError(f"All runs of a sweep must name the same numbers; not all name {odd}.")
    groups = {(): None}
    # Nearly all fields of nearly all sweeps are numbers, which need no second look.
    kinds = set().union(*(set(map(type, run.values())) for run in runs))
    if not kinds <= {int, float}:
        groups = dict.fromkeys(map(constants, runs))
        _check_kinds(groups)
    read = set()
    for fields in groups:
        read |= _names_read(task, frozenset(names), fields)
    unread = names - read - RUN_FIELDS
    if unread:
        raise ValueError(
            f"Nothing reads the run's {', '.join(sorted(unread))}: the optimizer of task "
            f"{task.name!r} reads {', '.join(sorted(read)) or 'nothing'}."
        )


def _check_kinds(groups: Iterable[tuple]) -> None:
    """Checks that a field is a number in all runs, or a boolean, or a word."""
    kinds = {tuple((name, type(value)) for name, value in fields) for fields in groups}
    if len(kinds) > 1:
        differing = sorted(
            {name for name, _ in set().union(*kinds) - set.intersection(*map(set, kinds))}
        )
        raise ValueError(
            f"Run field {', '.join(differing)} must hold values of one kind in all runs: numbers, "
            "booleans or words."
        )


def run_inputs(run: Run, num_examples: int, num_evals: int) -> RunInputs:
    """Returns the scalars of one run for the device, with room for `num_evals` evaluations."""
    plan = run.plan
    given = {n: v for n, v in run.hparams.items() if not isinstance(v, bool | str)}
    given["num_updates"] = plan.num_updates
    given["updates_per_epoch"] = plan.updates_per_epoch
    given["num_examples"] = num_examples
    eval_updates = np.zeros(num_evals, np.int32)
    eval_updates[: len(plan.eval_updates)] = plan.eval_updates
    return RunInputs(
        hparams={name: np.asarray(value, _dtype(name)) for name, value in given.items()},
        permutation_length=np.int32(plan.permutation_length),
        epoch_ends_batch=np.bool_(plan.epoch_ends_batch),
        eval_updates=eval_updates,
    )


class _Recorder(Mapping):
    """Records which fields of a run are read."""

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

    Traces one update of the optimizer, so that unsuitable optimizers are refused before training.
    """
    read, fields = set(), dict(fields)
    given = (names | _PLAN_FIELDS) - {"last_batch"}
    numbers = {name: jax.ShapeDtypeStruct((), _dtype(name)) for name in given - fields.keys()}

    def build(numbers):
        hparams = _Recorder({**numbers, **fields}, read)
        _build_optimizer(task, hparams)
        if task.batch_size is not None:
            task.batch_size(hparams)(0)
        if task.example_weights is not None:
            _draw_weights(task, hparams)

    try:
        jax.eval_shape(build, numbers)
    except KeyError as error:
        lacking = read - given
        if not lacking:
            raise
        raise ValueError(
            f"Task {task.name!r} reads the number {', '.join(map(repr, sorted(lacking)))}, which "
            f"the runs lack; they name {', '.join(sorted(names))}."
        ) from error
    return read


def _build_optimizer(task, hparams):
    """Builds and checks the task's optimizer, while tracing."""
    try:
        optimizer = build_optimizer(task, hparams, make_key(0))
    except jax.errors.JAXTypeError as error:
        raise ValueError(
            f"make_optimizer of task {task.name!r} needs the value of a number, but the "
            "numbers of runs are traced. Make it a boolean or a word in the runs, or use a "
            f"function that takes traced numbers, as noisegen's schedules do: {error!s:.200}"
        ) from error
    check_optimizer(task, optimizer)


def _draw_weights(task, hparams):
    """Draws and checks the weight of one example, while tracing."""
    draw = task.example_weights(hparams)
    weights = draw(make_key(0), jnp.zeros((1,), jnp.int32), jnp.int32(1))
    if jnp.shape(weights) != (1,):
        raise ValueError(
            f"The weights of task {task.name!r} must be one number an example, of shape "
            f"(M,) = (1,), got shape {jnp.shape(weights)}."
        )


def _dtype(name):
    return np.int32 if name in _INTEGERS else np.float32
