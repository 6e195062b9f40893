"""Plans a run: its updates, the examples of each, and its evaluations.

>>> run = {"batch_size": 45_000, "num_epochs": 15, "seed": 0}
>>> plan(run | {"last_batch": "keep"}, 60_000).num_updates
30
>>> plan(run, 60_000).num_updates  # a batch may straddle epochs
20
>>> plan({"batch_size": 1024, "num_epochs": 200, "seed": 0}, 50_000).num_updates
9765
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from noisegen import _values
from noisegen._math import ceil_div
from noisegen.training.run_id import Value, canonicalize, check_is_mapping
from noisegen.training.task import Task

RUN_FIELDS = {
    *("batch_size", "num_epochs", "num_updates", "seed", "last_batch", "eval_every", "num_evals")
}
_NUMBERS = RUN_FIELDS - {"last_batch"}
_TINY, _HUGE = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
_DEFAULTS = {
    "last_batch": "straddle",
    "eval_every": 0.0,
    "num_evals": 1,
    "num_epochs": None,
    "num_updates": None,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """The course of one run, known before it starts. Runs of equal course share one object.

    Attributes:
      examples_seen: ``(num_updates,)`` int64, examples consumed when each update is made.
      epoch_length: Examples in an epoch, fewer than N if the ragged batch is dropped.
      permutation_length: Examples taken from one order of the training set before the next order is
        drawn: an epoch, or a batch if every update draws its own.
      epoch_ends_batch: Whether the end of an epoch ends the batch.
      updates_per_epoch: Mean number of updates in an epoch.
      eval_updates: Updates, counted from 1, after which the test set is evaluated. The last update
        is always among them.
    """

    examples_seen: np.ndarray
    epoch_length: int
    permutation_length: int
    epoch_ends_batch: bool
    updates_per_epoch: float
    eval_updates: tuple[int, ...]

    @property
    def num_updates(self) -> int:
        """Updates of the whole run."""
        return len(self.examples_seen)

    @property
    def num_examples(self) -> int:
        """Examples consumed by the whole run."""
        return int(self.examples_seen[-1])

    def micro_steps(self, microbatch: int, count: int = 0) -> int:
        """Returns the micro-steps after `count` updates. A microbatch ends with its batch."""
        return int(np.sum(ceil_div(self.batch_sizes[count:], microbatch)))

    @functools.cached_property
    def smallest_batch(self) -> int:
        """Examples of the smallest update."""
        return int(self.batch_sizes.min())

    @property
    def batch_sizes(self) -> np.ndarray:
        """Examples of each update, int64 ``(num_updates,)``."""
        return np.diff(self.examples_seen, prepend=0)


class _Epoch(NamedTuple):
    """The course of an epoch of constant batch size; see `Plan`."""

    length: int
    updates: float
    permutation_length: int
    ends_batch: bool


def _straddle(batch_size: int, num_examples: int) -> _Epoch:
    """Takes one continuous stream of examples: a batch may straddle epochs."""
    return _Epoch(num_examples, num_examples / batch_size, num_examples, ends_batch=False)


def _keep(batch_size: int, num_examples: int) -> _Epoch:
    """Ends every epoch with a ragged batch of the examples that are left."""
    updates = ceil_div(num_examples, batch_size)
    return _Epoch(num_examples, updates, num_examples, ends_batch=True)


def _drop(batch_size: int, num_examples: int) -> _Epoch:
    """Drops the examples that fill no batch at the end of an epoch."""
    length = num_examples // batch_size * batch_size
    return _Epoch(length, length / batch_size, length, ends_batch=False)


def _resample(batch_size: int, num_examples: int) -> _Epoch:
    """Draws every batch from a new order of the whole training set."""
    return _Epoch(num_examples, num_examples / batch_size, batch_size, ends_batch=False)


LAST_BATCH = {"straddle": _straddle, "keep": _keep, "drop": _drop, "resample": _resample}


def plan(
    run: Mapping[str, float | str],
    num_examples: int,
    batch_size_fn: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Plan:
    """Reads a run's course from its hyperparameters.

    Args:
      run: A flat mapping with these fields. Other fields are the optimizer's.

        * ``batch_size``: Examples an update, 1 to N.
        * ``num_epochs`` or ``num_updates``: The horizon. Epochs may be a fraction.
        * ``seed``: An integer, 0 to 2**31 - 1.
        * ``last_batch``: ``'straddle'`` (the default) takes one continuous stream, with
          ``num_updates = floor(num_epochs * N / B)``. ``'keep'`` and ``'drop'`` go epoch by epoch,
          with or without the ragged last batch. ``'resample'`` draws every batch from the whole
          training set, without replacement within the batch; each update then orders all N.
        * ``eval_every`` (epochs between evaluations) or ``num_evals`` (evaluations at equal numbers
          of updates). By default only the end is evaluated.
      num_examples: Size of the training set, N.
      batch_size_fn: The batch size as a function of an array of update counts, if it is not
        constant.

    Returns:
      The `Plan`; runs of equal course share one.

    Raises:
      ValueError: If a field makes no sense. The message names the field and valid values.
    """
    return _plan_of(plain_fields(run), num_examples, batch_size_fn)


def _plan_of(fields, num_examples, batch_size_fn=None):
    """Plans a run whose fields are plain."""
    values = {**_DEFAULTS, **fields}
    _check_course(values, num_examples)
    if batch_size_fn is not None:
        return _growing(batch_size_fn, values, num_examples)
    return _plan_constant(
        batch_size=int(values["batch_size"]),
        last_batch=values["last_batch"],
        num_examples=num_examples,
        num_epochs=values["num_epochs"],
        num_updates=values["num_updates"],
        eval_every=values["eval_every"],
        num_evals=int(values["num_evals"]),
    )


def plain_fields(run: Mapping[str, Any]) -> dict[str, int | float | bool | str]:
    """Returns a run with Python's own numbers, booleans and words.

    Args:
      run: Flat mapping from field to a finite number, a boolean or a word. NumPy scalars and
        arrays of shape ``()``, also JAX's, count as such.

    Raises:
      ValueError: If a field holds anything else, or a number that float32 cannot hold.
    """
    check_is_mapping(run)
    return {name: _plain(name, value) for name, value in run.items()}


def canonical_fields(run: Mapping[str, Any]) -> dict[str, Value]:
    """Returns a run as `canonicalize` does, and refuses the values that `plain_fields` refuses."""
    return canonicalize(run, lambda name, value: _values.plain(name, _plain(name, value)))


def _plain(name, value):
    if type(value) in (int, float) and (value == 0 or _TINY <= abs(value) <= _HUGE):
        return value  # nearly always
    try:
        plain = value if type(value) is int else _values.plain(name, value)
    except ValueError as error:
        raise ValueError(
            f"Run field {name}={_values.shown(value)} must be a finite number, a boolean or a word."
        ) from error
    if isinstance(plain, str) and _is_number_in_quotes(plain):
        raise ValueError(
            f"Run field {name}={plain!r} must be a finite number; write it without quotes."
        )
    if isinstance(plain, bool | str):
        if name in _NUMBERS:
            raise ValueError(f"Run field {name}={plain!r} must be a number.")
        return plain
    if plain and not _TINY <= abs(plain) <= _HUGE:
        raise ValueError(
            f"Run field {name}={_values.shown(plain)} is beyond the float32 numbers that devices "
            f"compute with: from {_TINY:.2g} to {_HUGE:.2g}, or 0."
        )
    return plain


def _is_number_in_quotes(word):
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False


def _check_course(values, num_examples):
    """Checks the fields that a plan is made from."""
    if not 0 <= _integer(values, "seed") < 2**31:
        raise ValueError(f"seed={values['seed']} must be between 0 and 2**31 - 1.")
    batch_size = _integer(values, "batch_size")
    if not 1 <= batch_size <= num_examples:
        raise ValueError(
            f"batch_size={batch_size} must be between 1 and the {num_examples} examples of the "
            f"training set; batch_size={num_examples} is full-batch gradient descent."
        )
    if values["last_batch"] not in LAST_BATCH:
        raise ValueError(
            f"last_batch={values['last_batch']!r} must be one of {', '.join(LAST_BATCH)}."
        )
    if (values["num_epochs"] is None) == (values["num_updates"] is None):
        raise ValueError(
            "A run needs a horizon: exactly one of num_epochs and num_updates, got "
            f"num_epochs={values['num_epochs']} and num_updates={values['num_updates']}."
        )
    if _integer(values, "num_evals") < 1 or (values["num_evals"] > 1 and values["eval_every"]):
        raise ValueError(
            f"num_evals={values['num_evals']} must be at least 1, and 1 if eval_every="
            f"{values['eval_every']} says when to evaluate."
        )
    if values["eval_every"] < 0:
        raise ValueError(
            f"eval_every={values['eval_every']} must be a number of epochs, or 0 for the end only."
        )


def plan_runs(task: Task, runs: Sequence[Mapping[str, Value]]) -> list[Plan]:
    """Returns the `plan` of each run of a task.

    Args:
      task: The task.
      runs: Runs as `canonical_fields` returns them.

    Raises:
      ValueError: If a run makes no sense, or the task cannot train it.
    """
    size = task.num_examples
    if task.batch_size is None:
        plans = [_plan_of(run, size) for run in runs]
    else:
        plans = [_plan_of(run, size, _schedule(task, run)) for run in runs]
    if task.check_run is not None:
        for run, course in zip(runs, plans, strict=True):
            task.check_run(run, course)
    for course in set(plans):
        _check_batches(task, course)
        if course.permutation_length < course.epoch_length and not task.shuffle:
            raise ValueError(
                f"last_batch='resample' draws every batch from a new order of the examples, and "
                f"task {task.name!r} keeps theirs: choose another last_batch."
            )
    return plans


def _check_batches(task, course):
    """Checks the batch sizes of a plan against the task.

    A batch is whole ghost batches, or smaller than one. An epoch's ragged batch may be neither.
    """
    sizes = course.batch_sizes
    if course.epoch_ends_batch and not task.takes_whole_batches:
        sizes = sizes[:1]
    if task.only_batch_size and (sizes != task.only_batch_size).any():
        raise ValueError(
            f"Task {task.name!r} was made for batch_size={task.only_batch_size}, got a run of "
            f"batch_size={sizes[sizes != task.only_batch_size][0]}: make a task for each."
        )
    wrong = sizes[(sizes > task.ghost_size) & (sizes % task.ghost_size > 0)]
    if wrong.size:
        below = wrong[0] // task.ghost_size * task.ghost_size
        raise ValueError(
            f"batch_size={wrong[0]} must be a multiple of the ghost batches of {task.ghost_size} "
            f"examples that task {task.name!r} normalizes over, or smaller than one; the nearest "
            f"are {below} and {below + task.ghost_size}."
        )
    if task.noise_microbatch and course.smallest_batch <= task.noise_microbatch:
        raise ValueError(
            f"A batch of {course.smallest_batch} is a single group of the {task.noise_microbatch} "
            f"examples that task {task.name!r} measures the noise of gradients with, and one group "
            "says nothing about noise: make noise_microbatch half of the smallest batch or less "
            "(the ragged last one included; last_batch='straddle' has none)."
        )


def _schedule(task, run):
    """Returns the batch size as a function of the update count."""
    try:
        return task.batch_size({**run, "num_examples": task.num_examples})
    except KeyError as error:
        raise ValueError(
            f"The batch size of task {task.name!r} reads {error}, which is neither a number of the "
            f"run ({', '.join(run)}) nor num_examples."
        ) from error


@functools.lru_cache(maxsize=256)  # so that runs that differ in other fields share a plan
def _plan_constant(
    *, batch_size, last_batch, num_examples, num_epochs, num_updates, eval_every, num_evals
):
    """Returns the plan of a constant batch size."""
    epoch = LAST_BATCH[last_batch](batch_size, num_examples)
    if num_updates is None:
        # The factor keeps a product that rounding took just below an integer.
        num_updates = math.floor(num_epochs * epoch.updates * (1 + 1e-12))
    _check_horizon(num_updates, batch_size)
    counts = np.arange(1, int(num_updates) + 1, dtype=np.int64)
    if epoch.ends_batch:
        epochs, within = np.divmod(counts - 1, int(epoch.updates))
        seen_within = np.minimum((within + 1) * batch_size, num_examples)
        examples_seen = epochs * num_examples + seen_within
    else:
        examples_seen = counts * batch_size
    return Plan(
        examples_seen=examples_seen,
        epoch_length=epoch.length,
        permutation_length=epoch.permutation_length,
        epoch_ends_batch=epoch.ends_batch,
        updates_per_epoch=epoch.updates,
        eval_updates=_eval_updates(examples_seen, epoch.length, eval_every, num_evals),
    )


def _growing(batch_size_fn, values, num_examples):
    """Returns the plan of a batch size that depends on the update count."""
    if values["last_batch"] != "straddle":
        raise ValueError(
            f"last_batch={values['last_batch']!r} needs a constant batch size; a batch size that "
            "follows a schedule takes last_batch='straddle'."
        )
    if values["num_updates"] is None:
        most_updates = math.inf
        most_examples = math.floor(values["num_epochs"] * num_examples * (1 + 1e-12))
    else:
        _check_horizon(values["num_updates"], values["batch_size"])
        most_updates, most_examples = int(values["num_updates"]), math.inf
    examples_seen = _examples_seen(batch_size_fn, num_examples, most_updates, most_examples)
    num_updates = len(examples_seen)
    _check_horizon(num_updates, values["batch_size"])
    num_evals = int(values["num_evals"])
    return Plan(
        examples_seen=examples_seen,
        epoch_length=num_examples,
        permutation_length=num_examples,
        epoch_ends_batch=False,
        updates_per_epoch=num_updates * num_examples / int(examples_seen[-1]),
        eval_updates=_eval_updates(examples_seen, num_examples, values["eval_every"], num_evals),
    )


def _examples_seen(batch_size_fn, num_examples, most_updates, most_examples):
    """Returns the examples consumed at each update of a batch size schedule.

    The schedule is evaluated in blocks that grow with the run, as the horizon may be in examples.
    """
    examples_seen = np.zeros(0, np.int64)
    while len(examples_seen) < most_updates:
        start = len(examples_seen)
        counts = np.arange(start, min(2 * start + 64, most_updates))
        requested = np.broadcast_to(batch_size_fn(counts), counts.shape)
        # Clipped to sizes that are refused below, so that no sum overflows.
        sizes = np.clip(requested, 0, num_examples + 1).astype(np.int64)
        block = examples_seen[-1:].sum() + np.cumsum(sizes)
        within = block <= most_examples
        wrong = np.flatnonzero(within & ((sizes < 1) | (sizes > num_examples)))
        if wrong.size:
            raise ValueError(
                f"The batch size schedule gives {requested[wrong[0]]} at update {counts[wrong[0]]};"
                f" it must stay between 1 and the {num_examples} examples of the training set."
            )
        examples_seen = np.append(examples_seen, block[within])
        if not within.all():
            break
    return examples_seen


def _eval_updates(examples_seen, epoch_length, eval_every, num_evals):
    """Returns the updates after which to evaluate, the last one among them.

    These are the first updates at or after each multiple of ``eval_every`` epochs, or at or after
    each of ``num_evals`` equal parts of the run.
    """
    last = len(examples_seen)
    if not eval_every:
        parts = ceil_div(np.arange(1, num_evals + 1) * last, num_evals)
        return _checked_evals(np.unique(parts), examples_seen)
    passed = np.floor((examples_seen + 1e-6) / (eval_every * epoch_length))
    due = np.flatnonzero(np.diff(passed, prepend=0)) + 1
    return _checked_evals(np.unique(np.append(due, last)), examples_seen)


def _checked_evals(updates, examples_seen):
    """Returns the updates. The device counts the examples between two evaluations in int32."""
    most = int(np.diff(examples_seen[updates - 1], prepend=0).max())
    if most >= 2**31:
        raise ValueError(
            f"{most:,} examples between two evaluations are more than the device counts "
            "(2**31 - 1): evaluate more often, with num_evals or eval_every."
        )
    return tuple(updates.tolist())


def _integer(values, name):
    if name not in values:
        raise ValueError(f"A run needs the field {name}.")
    if values[name] != int(values[name]):
        raise ValueError(f"Run field {name}={values[name]!r} must be an integer.")
    return int(values[name])


def _check_horizon(num_updates, batch_size):
    if num_updates != int(num_updates):
        raise ValueError(f"num_updates={num_updates} must be a whole number.")
    if num_updates < 1:
        raise ValueError(
            f"num_updates={num_updates} must be at least 1: at batch_size={batch_size} the horizon "
            "is shorter than one update; give more epochs."
        )
    if num_updates >= 2**31:
        raise ValueError(f"num_updates={num_updates} is more than the device counts (2**31 - 1).")
