"""What a run's numbers mean: how many updates, which examples end a batch, when the test set is
evaluated.

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
from typing import Any

import numpy as np

from noisegen import _values
from noisegen.training.run_id import Value, check_is_mapping
from noisegen.training.task import Task

RUN_FIELDS = {
    *("batch_size", "num_epochs", "num_updates", "seed", "last_batch", "eval_every", "num_evals")
}
_NUMBERS = RUN_FIELDS - {"last_batch"} | {"reference_batch_size"}
LAST_BATCH = ("straddle", "keep", "drop", "resample")
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
    """The course of one run, known before it starts. Alike runs share one object.

    Attributes:
      ends: ``(num_updates,)`` int64, examples consumed when each update is made.
      epoch_length: examples in an epoch (fewer than N where the ragged batch is dropped).
      order_length: examples taken from one order of the training set before the next is drawn: an
        epoch, or a batch where every update draws its own.
      cut: whether the end of an epoch ends the batch.
      updates_per_epoch: mean number of updates in an epoch.
      eval_updates: updates (counted from 1) after which the test set is evaluated; the last one
        always is.
    """

    ends: np.ndarray
    epoch_length: int
    order_length: int
    cut: bool
    updates_per_epoch: float
    eval_updates: tuple[int, ...]

    @property
    def num_updates(self) -> int:
        return len(self.ends)

    @property
    def num_examples(self) -> int:
        """Examples consumed by the whole run."""
        return int(self.ends[-1])

    def micro_steps(self, microbatch: int, count: int = 0) -> int:
        """Micro-steps the run takes after `count` updates: a microbatch ends with its batch."""
        return int(np.sum(-(-self.batch_sizes[count:] // microbatch)))

    @functools.cached_property
    def smallest_batch(self) -> int:
        """Examples of the smallest update."""
        return int(self.batch_sizes.min())

    @property
    def batch_sizes(self) -> np.ndarray:
        """Examples of each update, int64 ``(num_updates,)``."""
        return np.diff(self.ends, prepend=0)


def plan(
    run: Mapping[str, float | str],
    num_examples: int,
    batch_size_fn: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Plan:
    """Reads a run's course from its numbers.

    Args:
      run: ``batch_size`` (examples an update, 1 to N); the horizon, either ``num_epochs``
        (positive, may be a fraction) or ``num_updates``; ``seed`` (an integer, 0 to 2**31 - 1);
        ``last_batch``: ``'straddle'`` (the default: one continuous stream, a batch may straddle
        epochs, ``num_updates = floor(num_epochs N / B)``), ``'keep'`` or ``'drop'`` (epoch by
        epoch, with or without the ragged last batch), or ``'resample'`` (every update draws its
        batch anew from the whole training set, without replacement within the batch; that orders
        all N for every update); ``eval_every`` (epochs between evaluations)
        or ``num_evals`` (evaluations at equal numbers of updates); by default only the end is
        evaluated. ``reference_batch_size`` (of noise that is matched to a smaller batch) is at most
        the smallest batch. Other numbers are the optimizer's.
      num_examples: size of the training set, N.
      batch_size_fn: the batch size as a function of an array of update counts, where it is not
        constant.

    Returns:
      The `Plan`; runs of equal course share one.

    Raises:
      ValueError: names the number that makes no sense, and what would.
    """
    return _plan_of(plain_fields(run), num_examples, batch_size_fn)


def _plan_of(fields, num_examples, batch_size_fn=None):
    """As `plan`, of fields that are plain."""
    values = {**_DEFAULTS, **fields}
    _check_course(values, num_examples)
    if batch_size_fn is not None:
        return _growing(batch_size_fn, values, num_examples)
    return _plan(
        int(values["batch_size"]),
        values["num_epochs"],
        values["num_updates"],
        values["last_batch"],
        values["eval_every"],
        int(values["num_evals"]),
        num_examples,
    )


def plain_fields(run: Mapping[str, Any]) -> dict[str, int | float | bool | str]:
    """Returns a run whose numbers, booleans and words are Python's own.

    Args:
      run: flat mapping from field to a finite number, a boolean or a word. NumPy scalars and
        arrays of shape ``()``, JAX's included, count as such.

    Raises:
      ValueError: If a field holds anything else, or a number that float32 cannot hold.
    """
    check_is_mapping(run)
    return {name: _plain(name, value) for name, value in run.items()}


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
    """Checks the fields that say which examples are used, when, and for how long."""
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
            f"num_evals={values['num_evals']} must be at least 1, and 1 where eval_every="
            f"{values['eval_every']} says when to evaluate."
        )
    if values["eval_every"] < 0:
        raise ValueError(
            f"eval_every={values['eval_every']} must be a number of epochs, or 0 for the end only."
        )


def plan_runs(task: Task, runs: Sequence[Mapping[str, float | str]]) -> list[Plan]:
    """Returns the `plan` of each of a task's runs; raises ValueError as that does."""
    return plan_plain(task, [plain_fields(run) for run in runs])


def plan_plain(task: Task, runs: Sequence[Mapping[str, Value]]) -> list[Plan]:
    """As `plan_runs`, of runs that `plain_fields` returned."""
    size = task.num_examples
    if task.batch_size is None:
        plans = [_plan_of(run, size) for run in runs]
    else:
        plans = [_plan_of(run, size, _schedule(task, run)) for run in runs]
    for run, each in zip(runs, plans, strict=True):
        _check_reference(run, each)
    for each in set(plans):
        _check_batches(task, each)
        if each.order_length < each.epoch_length and not task.shuffle:
            raise ValueError(
                f"last_batch='resample' draws every batch from a new order of the examples, and "
                f"task {task.name!r} keeps theirs: choose another last_batch."
            )
    return plans


def _check_batches(task, each):
    """A batch is whole ghost batches, or smaller than one; what an epoch leaves may be neither."""
    ragged = each.cut and not task.takes_whole_batches
    sizes = each.batch_sizes[: 1 if ragged else None]
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

    if task.noise_group and each.smallest_batch <= task.noise_group:
        raise ValueError(
            f"A batch of {each.smallest_batch} is a single group of the {task.noise_group} examples"
            f" that task {task.name!r} measures the noise of gradients with, and one group says "
            "nothing about noise: make noise_group half of the smallest batch or less (the ragged "
            "last one included; last_batch='straddle' has none)."
        )


def _check_reference(run, each):
    """Noise cannot be taken away from a batch."""
    reference = run.get("reference_batch_size", each.smallest_batch)
    if not 0 < reference <= each.smallest_batch:
        raise ValueError(
            f"reference_batch_size={reference} must be above 0 and at most {each.smallest_batch}, "
            "the run's smallest batch: noise is added to make a batch as noisy as a smaller one, "
            "and cannot be taken away."
        )


def _schedule(task, run):
    """The batch size as a function of the update count."""
    try:
        return task.batch_size({**run, "num_examples": task.num_examples})
    except KeyError as error:
        raise ValueError(
            f"The batch size of task {task.name!r} reads {error}, which is neither a number of the "
            f"run ({', '.join(run)}) nor num_examples."
        ) from error


@functools.lru_cache(maxsize=4096)
def _plan(batch_size, num_epochs, num_updates, last_batch, eval_every, num_evals, num_examples):
    """The plan of a constant batch size; runs that differ in other numbers share it."""
    epoch_length = num_examples // batch_size * batch_size if last_batch == "drop" else num_examples
    per_epoch = (
        -(-epoch_length // batch_size) if last_batch == "keep" else epoch_length / batch_size
    )
    if num_updates is None:
        num_updates = math.floor(num_epochs * per_epoch * (1 + 1e-12))
    _check_horizon(num_updates, batch_size)
    counts = np.arange(1, int(num_updates) + 1, dtype=np.int64)
    if last_batch == "keep":
        epoch, within = np.divmod(counts - 1, int(per_epoch))
        ends = epoch * num_examples + np.minimum((within + 1) * batch_size, num_examples)
    else:
        ends = counts * batch_size
    return Plan(
        ends,
        epoch_length,
        batch_size if last_batch == "resample" else epoch_length,
        last_batch == "keep",
        per_epoch,
        _eval_updates(ends, epoch_length, eval_every, num_evals),
    )


def _growing(batch_size_fn, values, num_examples):
    """The plan of a batch size that depends on the update count."""
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
    ends = _ends(batch_size_fn, num_examples, most_updates, most_examples)
    _check_horizon(len(ends), values["batch_size"])
    return Plan(
        ends,
        num_examples,
        num_examples,
        False,
        len(ends) * num_examples / int(ends[-1]),
        _eval_updates(ends, num_examples, values["eval_every"], int(values["num_evals"])),
    )


def _ends(batch_size_fn, num_examples, most_updates, most_examples):
    """Examples consumed at each update, the schedule asked in blocks that grow with the run."""
    ends = np.zeros(0, np.int64)
    while len(ends) < most_updates:
        counts = np.arange(len(ends), min(2 * len(ends) + 64, most_updates))
        asked = np.broadcast_to(batch_size_fn(counts), counts.shape)
        sizes = np.clip(asked, 0, num_examples + 1).astype(np.int64)  # sums that cannot overflow
        block = ends[-1:].sum() + np.cumsum(sizes)
        within = block <= most_examples
        wrong = np.flatnonzero(within & ((sizes < 1) | (sizes > num_examples)))
        if wrong.size:
            raise ValueError(
                f"The batch size schedule gives {asked[wrong[0]]} at update {counts[wrong[0]]}; it "
                f"must stay between 1 and the {num_examples} examples of the training set."
            )
        ends = np.append(ends, block[within])
        if not within.all():
            break
    return ends


def _eval_updates(ends, epoch_length, eval_every, num_evals):
    """The first update at or after each multiple of ``eval_every`` epochs, and the last update.

    Or that at or after each of ``num_evals`` equal parts of the run.
    """
    last = len(ends)
    if not eval_every:
        parts = -(-np.arange(1, num_evals + 1) * last // num_evals)
        return _checked_evals(np.unique(parts), ends)
    passed = np.floor((ends + 1e-6) / (eval_every * epoch_length))
    due = np.flatnonzero(np.diff(passed, prepend=0)) + 1
    return _checked_evals(np.unique(np.append(due, last)), ends)


def _checked_evals(updates, ends):
    """Returns the updates; the device counts the examples between two evaluations in int32."""
    most = int(np.diff(ends[updates - 1], prepend=0).max())
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
