"""Makes runs: each is named, planned and checked once."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from noisegen.training.data_order import RunInputs
from noisegen.training.plan import Plan
from noisegen.training.run_fields import RUN_FIELDS, canonical_fields
from noisegen.training.run_id import Value, hash_canonical
from noisegen.training.schedule_check import explain_schedule, needs_value
from noisegen.training.task import (
    Batch,
    PyTree,
    RunHparams,
    Task,
    build_optimizer,
    lacking_names,
    make_key,
    takes_hparams,
)
from noisegen.training.task_check import (
    check_optimizer,
    check_task,
    first_line,
    lacking_message,
)
from noisegen.training.task_plans import device_fields, device_type, plan_runs

# Fields that the plan adds to those of a run, for the optimizer to read.
_PLAN_FIELDS = {"num_updates", "updates_per_epoch", "num_examples"}


# Compared by id: the id is a hash of all fields already. Slots, since a grid may have a million.
@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Run:
    """One training run. Runs are equal if their ids are.

    Attributes:
      id: Name of the run, see `noisegen.training.run_id`.
      hparams: Its hyperparameters, as `canonicalize` returns them.
      plan: Its plan, which runs with equal plans share as one object.
    """

    id: str
    hparams: Mapping[str, Value]
    plan: Plan

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)


def make_runs(
    task: Task,
    hparams: Iterable[Mapping[str, Any]],
    ids: Iterable[str] | None = None,
    others: Iterable[Mapping[str, Any]] = (),
    *,
    mixing: bool = True,
) -> list[Run]:
    """Makes the runs of a task, before anything is trained.

    Args:
      task: The task to train.
      hparams: Flat mappings from field to number, boolean or word, one per run. All have the same
        fields.
      ids: Ids of the runs if they are known, see `run_id`. Hashing many runs takes seconds.
      others: Further runs of the sweep. With their words the task may read other fields, and a
        field that any run reads is accepted.
      mixing: Whether to check, on a few examples, that the task mixes none. Without this check
        the runs are for `trace_program`, not for training.

    Returns:
      A run for each mapping, in the same order.

    Raises:
      ValueError: If the task's functions do not fit together, or a field of a run is out of its
        range. Also if the runs lack a field that the task reads, or have one that nothing reads.

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
    canonical = [canonical_fields(fields) for fields in hparams]
    # The task comes first: its mistakes would show up as confusing mistakes of the runs.
    check_task(task, canonical[0] if canonical else None, mixing=mixing)
    plans = plan_runs(task, canonical)
    if canonical:
        _check_names(task, [*canonical, *map(canonical_fields, others)], mixing)
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
    """Returns the booleans and words of a run, which are constants of its program.

    They are sorted by name, so that runs with the same ones share a program.
    """
    # Only the plan reads `last_batch`, and a program trains runs of any plan.
    others = hparams.keys() - {"last_batch"}
    fields = [(name, hparams[name]) for name in sorted(others)]
    # Compared by type, because a boolean is an instance of int.
    return tuple((name, value) for name, value in fields if type(value) not in (int, float))


def by_constants(runs: Iterable[Run]) -> dict[tuple, list[Run]]:
    """Returns the runs that share a program, by its constants, in the order they are trained."""
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        groups.setdefault(constants(run.hparams), []).append(run)
    return groups


def with_constants(task: Task, fields: Mapping[str, bool | str]) -> Task:
    """Returns the task with some fields of the run given to its functions as constants."""
    if not fields:
        return task  # The same object, so that what was compiled and checked for it is found.

    def given(function: Callable[..., Any] | None) -> Callable[..., Any] | None:
        if function is None:
            return None
        return lambda hparams, *rest: function({**hparams, **fields}, *rest)

    def given_in_batch(function: Callable[..., Any] | None) -> Callable[..., Any] | None:
        if function is None:
            return None

        def of_batch(params: PyTree, state: PyTree, batch: Batch) -> Any:
            hparams = RunHparams({**batch.hparams, **fields})
            return function(params, state, batch._replace(hparams=hparams))

        return of_batch

    def given_if_taken(function: Callable[..., Any]) -> Callable[..., Any]:
        if not takes_hparams(function):
            return function
        return lambda *rest, hparams: function(*rest, hparams={**hparams, **fields})

    return dataclasses.replace(
        task,
        make_optimizer=given(task.make_optimizer),
        example_weights=given(task.example_weights),
        batch_size=given(task.batch_size),
        init=given_if_taken(task.init),
        diagnostics=given_if_taken(task.diagnostics),
        loss=given_in_batch(task.loss),
        joint_loss=given_in_batch(task.joint_loss),
        metrics=given_in_batch(task.metrics),
        train_metrics=given_in_batch(task.train_metrics),
    )


def _check_names(task: Task, runs: Sequence[Mapping[str, Value]], mixing: bool) -> None:
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
            raise ValueError(f"All runs of a sweep must have the same fields; not all have {odd}.")
    # Each combination of constants is a program of its own, which may read other fields.
    groups: dict[tuple, None] = {(): None}
    kinds: set[type] = set()
    for run in runs:
        kinds.update(map(type, run.values()))
    # Most sweeps have numbers only, and need not be searched for constants run by run.
    if not kinds <= {int, float}:
        groups = dict.fromkeys(constants(run) for run in runs)
        _check_kinds(groups)
    read: set[str] = set()
    elsewhere: set[str] = set()
    for fields in groups:
        elsewhere |= check_task(task, {**runs[0], **dict(fields)}, mixing=mixing)
        read |= _names_read(task, frozenset(names), fields)
    # A field that nothing reads is most likely misspelled, and its grid would train equal runs.
    unread = names - read - elsewhere - RUN_FIELDS - task.static.keys()
    if unread:
        others = ""
        if elsewhere:
            others = f", and its other functions read {', '.join(sorted(elsewhere))}"
        raise ValueError(
            f"Nothing reads the run's {', '.join(sorted(unread))}: the optimizer of task "
            f"{task.name!r} reads {', '.join(sorted(read)) or 'nothing'}{others}."
        )


def _check_kinds(groups: Iterable[tuple]) -> None:
    """Checks that a field is a number in all runs, or a boolean in all, or a word in all.

    Args:
      groups: The `constants` of the runs. A field that is missing from some is a number there.
    """
    kinds = [{(name, type(value)) for name, value in fields} for fields in groups]
    differing = set.union(*kinds) - set.intersection(*kinds)
    if differing:
        names = sorted({name for name, _ in differing})
        raise ValueError(
            f"Run field {', '.join(names)} must hold values of one kind in all runs: numbers, "
            "booleans or words."
        )


def run_inputs(run: Run, num_examples: int, num_evals: int) -> RunInputs:
    """Returns the scalars of one run for the device, with room for `num_evals` evaluations."""
    plan = run.plan
    given = device_fields(run.hparams, plan, num_examples)
    # Padded with zeros, which no update count equals: counts start at 1.
    eval_updates = np.zeros(num_evals, np.int32)
    eval_updates[: len(plan.eval_updates)] = plan.eval_updates
    return RunInputs(
        # Booleans and words are constants of the program.
        hparams={
            name: np.asarray(value)
            for name, value in given.items()
            if not isinstance(value, bool | str)
        },
        permutation_length=np.int32(plan.permutation_length),
        epoch_ends_batch=np.bool_(plan.epoch_ends_batch),
        eval_updates=eval_updates,
    )


# Cached, because a sweep makes its runs several times (grid, extensions), and tracing takes longer
# than all the rest.
@functools.lru_cache(maxsize=4)
def _names_read(
    task: Task, names: frozenset[str], fields: tuple[tuple[str, bool | str], ...]
) -> set[str]:
    """Returns the fields that the task's optimizer, batch size and weights read.

    Traces one update of the optimizer, so that unsuitable optimizers are refused before training.
    """
    constant = dict(fields)
    given = (names | _PLAN_FIELDS) - {"last_batch"}
    numbers = {
        name: jax.ShapeDtypeStruct((), device_type(name)) for name in given - constant.keys()
    }
    read: set[str] = set()

    def build(numbers: dict[str, jax.Array], count: jax.Array) -> None:
        hparams = RunHparams({**numbers, **constant}, read)
        with _refusing_values_of_tracers(task, "make_optimizer"):
            optimizer = build_optimizer(task, hparams, make_key(0))
        check_optimizer(task, optimizer, RunHparams({**numbers, **constant}))
        if task.batch_size is not None:
            with _refusing_values_of_tracers(task, "batch_size"):
                task.batch_size(hparams)(count)
        if task.example_weights is not None:
            with _refusing_values_of_tracers(task, "example_weights"):
                _draw_weights(task, hparams)

    try:
        jax.eval_shape(build, numbers, jax.ShapeDtypeStruct((), jnp.int32))
    except KeyError as error:
        lacking = lacking_names(error, read, given)
        if not lacking:
            raise  # The error is of another mapping, of the user's own.
        raise ValueError(lacking_message(task, lacking, names)) from error
    return read


@contextlib.contextmanager
def _refusing_values_of_tracers(task: Task, function: str) -> Iterator[None]:
    """Refuses a function of the task that needs the value of a traced number.

    Raises:
      ValueError: In place of JAX's error, which names neither the function nor a remedy.
    """
    try:
        yield
    except TypeError as error:
        # Any other TypeError is a mistake of the user's own, and shows best as it is.
        if not needs_value(error):
            raise
        explained = explain_schedule(error)
        if explained:
            # The line says it all, and JAX's error has forty.
            raise ValueError(f"{function} of task {task.name!r} {explained}") from None
        example = "noisegen's schedules do"
        if "unhashable type" in str(error):
            example = "noisegen.piecewise_constant_schedule does with pairs (boundary, scale)"
        raise ValueError(
            f"{function} of task {task.name!r} needs the value of a number, but the numbers of "
            "runs are traced. Make it a boolean or a word in the runs, or use a function that "
            f"takes traced numbers, as {example}: {first_line(error)}"
        ) from error


def _draw_weights(task: Task, hparams: Mapping[str, Any]) -> None:
    """Draws and checks the weight of one example, while tracing."""
    draw = task.example_weights(hparams)
    weights = draw(make_key(0), jnp.zeros((1,), jnp.int32), jnp.int32(1))
    if jnp.shape(weights) != (1,):
        raise ValueError(
            f"The weights of task {task.name!r} must be one number per example, of shape "
            f"(M,) = (1,), got shape {jnp.shape(weights)}."
        )
