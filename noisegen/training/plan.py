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
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from noisegen._math import ceil_div
from noisegen.training.run_fields import plain_fields
from noisegen.training.run_id import Value

BatchSizeFn = Callable[[np.ndarray], np.ndarray]  # update counts -> batch sizes

_DEFAULTS = {
    "last_batch": "straddle",
    "eval_every": 0.0,  # only the end
    "num_evals": 1,
    "num_epochs": None,
    "num_updates": None,
}

# Relative margin that lifts a product of floats which rounding took just below an integer: 0.29
# epochs of 100 updates are 28.999999999999996, and must be 29 updates.
_ROUNDING_MARGIN = 1 + 1e-12


# Plans are compared by identity. Equal ones are one object (see `_plan_constant`), so identity
# finds them, and hashing does not read an array of a million updates.
@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """The updates and evaluations of one run, known before it starts.

    Runs of a constant batch size share one object if their plans are equal.

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
        """Returns the micro-steps left after `count` updates."""
        # A microbatch ends with its batch, so each batch rounds up on its own.
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
    """One epoch of constant batch size, in the terms of `Plan`."""

    length: int  # examples
    updates: float  # a fraction if batches straddle epochs
    permutation_length: int  # examples
    ends_batch: bool


def _straddle(batch_size: int, num_examples: int) -> _Epoch:
    """Takes one continuous stream of examples: a batch may straddle epochs."""
    return _Epoch(
        length=num_examples,
        updates=num_examples / batch_size,
        permutation_length=num_examples,
        ends_batch=False,
    )


def _keep(batch_size: int, num_examples: int) -> _Epoch:
    """Ends every epoch with a ragged batch of the examples that are left."""
    return _Epoch(
        length=num_examples,
        updates=ceil_div(num_examples, batch_size),
        permutation_length=num_examples,
        ends_batch=True,
    )


def _drop(batch_size: int, num_examples: int) -> _Epoch:
    """Drops the examples that fill no batch at the end of an epoch."""
    length = num_examples // batch_size * batch_size
    return _Epoch(
        length=length,
        updates=length / batch_size,
        # The next permutation begins after the last whole batch, so the dropped examples differ
        # from epoch to epoch.
        permutation_length=length,
        ends_batch=False,
    )


def _resample(batch_size: int, num_examples: int) -> _Epoch:
    """Draws every batch from a new order of the whole training set."""
    return _Epoch(
        length=num_examples,
        updates=num_examples / batch_size,
        permutation_length=batch_size,
        ends_batch=False,
    )


LAST_BATCH = {"straddle": _straddle, "keep": _keep, "drop": _drop, "resample": _resample}


def plan(
    run: Mapping[str, float | str],
    num_examples: int,
    batch_size_fn: BatchSizeFn | None = None,
) -> Plan:
    """Plans a run from its hyperparameters.

    Args:
      run: A flat mapping with these fields. Other fields are the optimizer's.

        * ``batch_size``: Examples per update, from 1 to N.
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
      The `Plan`. Runs of a constant batch size share one object if their plans are equal.

    Raises:
      ValueError: If a field is out of its range. The message names the field and its range.
    """
    return plan_of_fields(plain_fields(run), num_examples, batch_size_fn)


def plan_of_fields(
    fields: Mapping[str, Value], num_examples: int, batch_size_fn: BatchSizeFn | None = None
) -> Plan:
    """Plans a run whose fields are plain; see `plan`."""
    values = {**_DEFAULTS, **fields}
    _check_fields(values, num_examples)
    if batch_size_fn is not None:
        return _growing(batch_size_fn, values, num_examples)
    # The arguments are the key of a cache: only the fields that the plan depends on, in one type.
    return _plan_constant(
        batch_size=int(values["batch_size"]),
        last_batch=values["last_batch"],
        num_examples=num_examples,
        num_epochs=values["num_epochs"],
        num_updates=values["num_updates"],
        eval_every=values["eval_every"],
        num_evals=int(values["num_evals"]),
    )


def _check_fields(values: Mapping[str, Value | None], num_examples: int) -> None:
    """Checks the fields that a plan is made from; defaults are filled in."""
    # Seeds are int32 on the device.
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
    has_epochs, has_updates = values["num_epochs"] is not None, values["num_updates"] is not None
    if has_epochs == has_updates:
        raise ValueError(
            "A run needs a horizon: exactly one of num_epochs and num_updates, got "
            f"num_epochs={values['num_epochs']} and num_updates={values['num_updates']}."
        )
    num_evals = _integer(values, "num_evals")
    if num_evals < 1 or (num_evals > 1 and values["eval_every"]):
        raise ValueError(
            f"num_evals={values['num_evals']} must be at least 1, and 1 if eval_every="
            f"{values['eval_every']} says when to evaluate."
        )
    if values["eval_every"] < 0:
        raise ValueError(
            f"eval_every={values['eval_every']} must be a number of epochs, or 0 for the end only."
        )


# Cached, so that runs that differ in other fields (seed, learning rate) share a plan. A plan of a
# million updates takes 8 MB.
@functools.lru_cache(maxsize=256)
def _plan_constant(
    *,
    batch_size: int,
    last_batch: str,
    num_examples: int,
    num_epochs: float | None,
    num_updates: float | None,
    eval_every: float,
    num_evals: int,
) -> Plan:
    """Returns the plan of a constant batch size."""
    epoch = LAST_BATCH[last_batch](batch_size, num_examples)
    if num_updates is None:
        num_updates = math.floor(num_epochs * epoch.updates * _ROUNDING_MARGIN)
    _check_horizon(num_updates, batch_size)
    # int64, because a long run on a large training set sees more than 2**31 examples.
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


def _growing(
    batch_size_fn: BatchSizeFn, values: Mapping[str, Value | None], num_examples: int
) -> Plan:
    """Returns the plan of a batch size that depends on the update count."""
    # The other modes need to know how many batches an epoch has.
    if values["last_batch"] != "straddle":
        raise ValueError(
            f"last_batch={values['last_batch']!r} needs a constant batch size; a batch size that "
            "follows a schedule takes last_batch='straddle'."
        )
    if values["num_updates"] is None:
        most_updates = math.inf
        most_examples = math.floor(values["num_epochs"] * num_examples * _ROUNDING_MARGIN)
    else:
        _check_horizon(values["num_updates"], values["batch_size"])
        most_updates = int(values["num_updates"])
        most_examples = math.inf
    examples_seen = _examples_seen(batch_size_fn, num_examples, most_updates, most_examples)
    num_updates = len(examples_seen)
    _check_horizon(num_updates, values["batch_size"])
    num_evals = int(values["num_evals"])
    return Plan(
        examples_seen=examples_seen,
        epoch_length=num_examples,
        permutation_length=num_examples,
        epoch_ends_batch=False,
        # A mean over the run: early epochs have more updates than late ones.
        updates_per_epoch=num_updates * num_examples / int(examples_seen[-1]),
        eval_updates=_eval_updates(examples_seen, num_examples, values["eval_every"], num_evals),
    )


def _examples_seen(
    batch_size_fn: BatchSizeFn, num_examples: int, most_updates: float, most_examples: float
) -> np.ndarray:
    """Returns the examples consumed at each update of a batch size schedule."""
    examples_seen = np.zeros(0, np.int64)
    # The horizon may be in examples, so the number of updates is not known before. Blocks double
    # the updates planned so far: few calls of the schedule, and few counts beyond the end of the
    # run, for which it may not be made.
    while len(examples_seen) < most_updates:
        start = len(examples_seen)
        counts = np.arange(start, min(2 * start + 64, most_updates))
        # A schedule may return one constant for all counts.
        requested = np.broadcast_to(batch_size_fn(counts), counts.shape)
        # Clipped to sizes that are refused below, so that no sum overflows.
        sizes = np.clip(requested, 0, num_examples + 1).astype(np.int64)
        seen_before = examples_seen[-1] if start else 0
        block = seen_before + np.cumsum(sizes)
        # Only updates within the horizon are checked and kept.
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


def _eval_updates(
    examples_seen: np.ndarray, epoch_length: int, eval_every: float, num_evals: int
) -> tuple[int, ...]:
    """Returns the updates after which to evaluate, the last one among them.

    These are the first updates at or after each multiple of ``eval_every`` epochs, or at or after
    each of ``num_evals`` equal parts of the run.
    """
    last = len(examples_seen)
    if not eval_every:
        # `np.unique`, because more evaluations than updates name some updates twice.
        parts = ceil_div(np.arange(1, num_evals + 1) * last, num_evals)
        return _checked_evals(np.unique(parts), examples_seen)
    # Multiples that each update has passed. A millionth of an example is added, because rounding
    # may take a multiple of 0.1 epochs just past the update that reaches it.
    passed = np.floor((examples_seen + 1e-6) / (eval_every * epoch_length))
    due = np.flatnonzero(np.diff(passed, prepend=0)) + 1
    return _checked_evals(np.unique(np.append(due, last)), examples_seen)


def _checked_evals(updates: np.ndarray, examples_seen: np.ndarray) -> tuple[int, ...]:
    """Returns the updates as integers of Python, after a check of the examples between them."""
    # The device counts the examples between two evaluations in int32.
    most = int(np.diff(examples_seen[updates - 1], prepend=0).max())
    if most >= 2**31:
        raise ValueError(
            f"{most:,} examples between two evaluations are more than the device counts "
            "(2**31 - 1): evaluate more often, with num_evals or eval_every."
        )
    return tuple(updates.tolist())


def _integer(values: Mapping[str, Value | None], name: str) -> int:
    """Returns a field that must be present and whole."""
    if name not in values:
        raise ValueError(f"A run needs the field {name}.")
    if values[name] != int(values[name]):
        raise ValueError(f"Run field {name}={values[name]!r} must be an integer.")
    return int(values[name])


def _check_horizon(num_updates: float, batch_size: float) -> None:
    """Checks that a number of updates is whole, at least 1, and fits the device's counter."""
    if num_updates != int(num_updates):
        raise ValueError(f"num_updates={num_updates} must be a whole number.")
    if num_updates < 1:
        raise ValueError(
            f"num_updates={num_updates} must be at least 1: at batch_size={batch_size} the horizon "
            "is shorter than one update; give more epochs."
        )
    if num_updates >= 2**31:
        raise ValueError(f"num_updates={num_updates} is more than the device counts (2**31 - 1).")
