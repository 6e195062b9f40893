"""Steps to target: how many updates and examples a run needs until a metric reaches a target.

At every batch size the fastest learning rate counts (Shallue et al. 2019).

>>> from noisegen import storage, sweeps
>>> runs = sweeps.grid(batch_size=[8, 16], learning_rate=[0.1, 0.2], seed=[0])
>>> halved_in = [16, 8, 16, 4]  # epochs of training after which the loss has halved
>>> records = [
...     storage.Record(
...         hparams=run,
...         status="finished",
...         metrics={"test_loss": 2 ** (-32 / epochs)},
...         num_examples=32 * 64,
...         curve={
...             "epoch": list(range(1, 33)),
...             "update": [epoch * 64 // run["batch_size"] for epoch in range(1, 33)],
...             "test_loss": [2 ** (-epoch / epochs) for epoch in range(1, 33)],
...         },
...     )
...     for run, epochs in zip(runs, halved_in)
... ]
>>> protocol = sweeps.Protocol(metric="test_loss", mode="min")
>>> for row in sweeps.steps_to_target(records, protocol, 0.25):
...     print(row.row, row.values, round(row.updates.value), round(row.examples.value))
8 {'learning_rate': 0.2} 128 1024
16 {'learning_rate': 0.2} 32 512

References:
  Shallue et al., Measuring the Effects of Data Parallelism on Neural Network Training, JMLR 20,
  2019, https://arxiv.org/abs/1811.03600; Zhang et al., Which Algorithmic Choices Matter at Which
  Batch Sizes? Insights From a Noisy Quadratic Model, NeurIPS 2019, https://arxiv.org/abs/1907.04164
"""

import collections
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from noisegen import statistics
from noisegen.statistics import Interval
from noisegen.storage.record import Record
from noisegen.sweeps import protocol as protocols
from noisegen.sweeps.checks import SEED
from noisegen.sweeps.protocol import Point, Protocol

if TYPE_CHECKING:
    import pandas as pd

Curve = Mapping[str, Sequence[float | None]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crossing:
    """First crossing of a target by one run's curve.

    Attributes:
      updates, examples: Updates and training examples until then, infinite if there is none.
      flags: "not_reached" if there is none; "censored" if the first evaluation has reached the
        target, so that the numbers are upper bounds; "coarse" if the evaluations around the target
        are far apart, so that the numbers are uncertain.
      record: The run.
    """

    updates: float
    examples: float
    flags: tuple[str, ...] = ()
    record: Record = dataclasses.field(repr=False)

    @property
    def is_reached(self) -> bool:
        """Returns whether the curve reaches the target."""
        return math.isfinite(self.updates)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetPoint:
    """Crossings of the runs with one choice of the tuned fields.

    Attributes:
      values: The tuned fields.
      crossings: Of the runs that did not diverge, by seed, or of their mean curve.
      tried: Number of crossings if no run had diverged.
    """

    values: dict[str, float]
    crossings: tuple[Crossing, ...]
    tried: int

    @property
    def reached(self) -> tuple[Crossing, ...]:
        """Returns the crossings of the runs that reached the target."""
        return tuple(crossing for crossing in self.crossings if crossing.is_reached)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowTarget:
    """Steps to a target of one series and row, at the fastest choice of the tuned fields.

    Attributes:
      series: Label; '' if the protocol has no series.
      row: Value of the protocol's row, usually the batch size.
      target: Value of the metric.
      values: The tuned fields at which the mean number of updates is least.
      updates, examples: Mean over seeds with Student's t interval; infinite if no run reached the
        target. Of several noisy means the least is chosen, so they are biased low.
      point: The runs behind the means; None if no run reached the target.
      points: All points that it was chosen from, ascending in the tuned fields.
      n: Number of runs behind the means.
      flags: "not_reached" if no run reached the target; "some_reached" if at every choice of the
        tuned fields a run missed it, so that the mean is over the others; "censored" or "coarse" if
        a crossing is, see `Crossing`; "no_interval" for a single run, equal runs or a mean curve;
        "few_runs" if the optimum is chosen with fewer runs than the protocol asks for;
        "at_boundary" if the fastest value is at the edge of the values tried; "one_value" if a
        single value was tried.
    """

    series: str
    row: float
    target: float
    values: dict[str, float] = dataclasses.field(default_factory=dict)
    updates: Interval
    examples: Interval
    point: TargetPoint | None = None
    points: tuple[TargetPoint, ...] = ()
    n: int = 0
    flags: tuple[str, ...] = ()

    @property
    def is_measured(self) -> bool:
        """Returns whether the numbers are measured, neither infinite nor upper bounds."""
        return self.n > 0 and "censored" not in self.flags


def first_crossing(
    record: Record,
    target: float,
    metric: str,
    mode: str = "max",
    curve: Curve | None = None,
    *,
    coarse: float = 0.25,
) -> Crossing:
    """Returns when the curve of a run first reaches a target.

    The first crossing of the raw curve counts, without smoothing and whatever comes later. A metric
    that fluctuates by s between evaluations therefore crosses while its mean is still up to a few s
    short of the target. Between two evaluations the metric is interpolated linearly in updates.
    Evaluations without a finite value are left out.

    Args:
      record: A finished run. A diverged one reaches no target, even if its curve did before.
      target: Value of the metric, as it is recorded (a fraction for "%").
      metric: Name of a metric of the curve.
      mode: "max" or "min".
      curve: The run's evaluations, by default `record.curve`.
      coarse: A crossing is flagged as coarse if the updates between its two evaluations exceed this
        share of the result.

    Returns:
      The crossing. If the first evaluation has reached the target, it is flagged as censored: the
      result is the updates at that evaluation, and the run took at most so many.

    Raises:
      ValueError: If there is no curve, the curve lacks the metric or does not ascend in updates, or
        an argument makes no sense.
    """
    if mode not in ("max", "min"):
        raise ValueError(f"mode must be 'max' or 'min', got {mode!r}.")
    if not math.isfinite(target):
        raise ValueError(f"A target must be a finite number, got {target}.")
    if not coarse > 0:
        raise ValueError(f"coarse must be greater than 0, for instance 0.25; got {coarse}.")
    never = Crossing(updates=math.inf, examples=math.inf, flags=("not_reached",), record=record)
    if record.status == "diverged":
        return never
    updates, examples, values = _evaluations(record, metric, curve)
    sign = 1 if mode == "max" else -1
    hits = np.flatnonzero(sign * values >= sign * target)
    if not hits.size:
        return never
    after = hits[0]
    if after == 0:
        return Crossing(
            updates=float(updates[0]),
            examples=float(examples[0]),
            flags=("censored",),
            record=record,
        )
    before = after - 1
    share = (target - values[before]) / (values[after] - values[before])
    found = updates[before] + share * (updates[after] - updates[before])
    is_coarse = updates[after] - updates[before] > coarse * found
    return Crossing(
        updates=float(found),
        examples=float(examples[before] + share * (examples[after] - examples[before])),
        flags=("coarse",) if is_coarse else (),
        record=record,
    )


def steps_to_target(
    records: Iterable[Record],
    protocol: Protocol,
    targets: float | Iterable[float],
    curves: Mapping[str, Curve] | None = None,
    *,
    mean_curve: bool = False,
    coarse: float = 0.25,
    level: float = 0.95,
) -> list[RowTarget]:
    """Returns the updates and examples to targets, at the fastest learning rate of every row.

    All of the protocol's `of` runs of a point count, not only the `best`. A point at which more
    runs reach the target beats every point at which fewer do. Among those the one with the least
    mean number of updates is the optimum, and of equal ones the first. (Shallue et al. take the
    fastest trial of a random search.)

    The mean of first crossings is the cost of training until the target, as Shallue et al. measure
    it. It can be less than the updates that the expected metric needs, because noise carries a run
    across early: the more, the smaller the batch and the more often it is evaluated (by a quarter
    in `experiments/zhang2019`, by nearly half in its tests). Theory is often about the expected
    metric (Zhang et al. 2019). For that, `mean_curve` averages the curves of a point before it
    looks for the crossing. The fewer seeds there are, the more of the effect remains.

    Several targets can be read from one sweep, and `targets_frame` shows them as a table. To read
    another metric of its curves, give
    `dataclasses.replace(protocol, metric="train_loss", mode="min")`.

    Args:
      records: Finished and diverged runs, each at most once, as for `select`.
      protocol: How to read them.
      targets: One value of the protocol's metric, or several.
      curves: From run_id to curve, as `Sweep.curves` returns them, if the records have none.
      mean_curve: Whether to read the first crossing of the mean curve over seeds, in place of the
        mean of first crossings. There are no intervals then, and a point with a diverged run does
        not reach the target.
      coarse: See `first_crossing`.
      level: Level of the intervals, in (0, 1).

    Returns:
      The steps, by target as given, then by series in the protocol's order and by row.

    Raises:
      ValueError: If a finished run has no curve, or its curve lacks the metric.
    """
    targets = list(targets) if isinstance(targets, Iterable) else [targets]
    reading = _Reading(protocol, curves, mean_curve, coarse, level)
    rows = _rows(records, protocol)
    return [_row_target(row, target, reading) for target in targets for row in rows]


def targets_frame(rows: Iterable[RowTarget]) -> "pd.DataFrame":
    """Returns steps to target as a pandas DataFrame, one line for each target, series and row."""
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "target": row.target,
                "series": row.series,
                "row": row.row,
                **row.values,
                "updates": row.updates.value,
                "updates_low": row.updates.low,
                "updates_high": row.updates.high,
                "examples": row.examples.value,
                "examples_low": row.examples.low,
                "examples_high": row.examples.high,
                "n": row.n,
                "flags": " ".join(row.flags),
            }
            for row in rows
        ]
    )


def propose_targets(
    records: Iterable[Record],
    protocol: Protocol,
    curves: Mapping[str, Curve] | None = None,
    *,
    quantiles: Sequence[float] = (0.5, 0.75, 1.0),
) -> tuple[float, ...]:
    """Proposes targets that every row reaches, and none at its first evaluation.

    The hardest such target is the best value that all runs of some point reach, in the row where
    that is worst. Targets lie between the best value of any first evaluation and the hardest one.
    The proposed ones are quantiles of the evaluations there, rounded to three digits towards the
    easier side. Rows without a point at which all runs survived are left out.

    Args:
      records, protocol, curves: See `steps_to_target`.
      quantiles: From 0 (easy) to 1 (the hardest target).

    Returns:
      The targets, easier ones first, without repetition.

    Raises:
      ValueError: If there are no such targets: no run survived, or every row reaches the hardest
        one at its first evaluation.
    """
    if not quantiles or not all(0 <= quantile <= 1 for quantile in quantiles):
        raise ValueError(f"quantiles must be numbers from 0 to 1, got {quantiles}.")
    metric, sign = protocol.metric.name, protocol.sign
    # Values are multiplied by `sign`, so that the larger is the harder one.
    first, hardest_by_row, evaluated = [], [], []
    for row in _rows(records, protocol):
        best_by_point, first_of_row = [], []
        for point in row.points:
            curves_of_runs = [
                sign * _evaluations(record, metric, curve_of(record, curves))[2]
                for record in point.counted
            ]
            runs = [values for values in curves_of_runs if values.size]
            first_of_row += [values[0] for values in runs]
            if len(runs) == point.tried:
                best_by_point.append((min(values.max() for values in runs), runs))
        if best_by_point:
            best, runs = max(best_by_point, key=lambda pair: pair[0])
            hardest_by_row.append(best)
            evaluated += runs
            first += first_of_row
    if not hardest_by_row:
        raise ValueError("No target can be proposed: at every learning rate a run diverged.")
    easiest, hardest = max(first), min(hardest_by_row)
    evaluated = np.concatenate(evaluated)
    usable = evaluated[(evaluated > easiest) & (evaluated <= hardest)]
    found = []
    if usable.size:
        rounded = [_round_down(value) for value in np.quantile(usable, quantiles)]
        found = sorted({value for value in rounded if value > easiest})
    if not found:
        raise ValueError(
            f"No target can be proposed: some run has {metric} = {sign * easiest:.4g} at its first "
            f"evaluation, and {sign * hardest:.4g} is the best that every row reaches. Evaluate "
            "more often, or train the slowest row for longer."
        )
    return tuple(float(sign * value) for value in found)


def by_series_and_target(rows: Iterable[RowTarget]) -> dict[tuple[str, float], list[RowTarget]]:
    """Returns rows by series and target, ascending.

    Raises:
      ValueError: If a row is not a positive number.
    """
    groups: dict[tuple[str, float], list[RowTarget]] = collections.defaultdict(list)
    for row in rows:
        is_number = isinstance(row.row, int | float) and not isinstance(row.row, bool)
        if not is_number or not 0 < row.row < math.inf:
            raise ValueError(f"Rows must be batch sizes, positive numbers; got {row.row!r}.")
        groups[row.series, row.target].append(row)
    return {key: sorted(group, key=lambda row: row.row) for key, group in groups.items()}


def _rows(records, protocol):
    """Returns the optima of `select`, whose points hold every surviving run."""
    every_run = dataclasses.replace(protocol, best=protocol.of, report=())
    rows = protocols.select(records, every_run)
    if not rows:
        raise ValueError("There are no records to read steps to a target from.")
    return rows


def curve_of(record: Record, curves: Mapping[str, Curve] | None) -> Curve | None:
    """Returns the curve of a run, from the given ones or the record."""
    return (curves or {}).get(record.run_id, record.curve)


def _evaluations(record, metric, curve):
    """Returns updates, examples and metric at the evaluations where the metric is finite."""
    curve = record.curve if curve is None else curve
    name = f"Run {record.run_id or dict(record.hparams)}"
    if not curve:
        raise ValueError(
            f"{name} has no curve: give the curves, as Sweep.curves reads them, and train with "
            "eval_every or num_evals."
        )
    for needed in ("update", "epoch", metric):
        if needed not in curve:
            raise ValueError(
                f"{name}: the curve lacks {needed!r}; it has {', '.join(sorted(curve))}."
            )
    if record.num_examples is None:
        raise ValueError(f"{name} has no num_examples, so epochs cannot be counted in examples.")
    columns = [np.array(curve[each], float) for each in ("update", "epoch", metric)]
    updates, epochs, values = columns  # None becomes nan
    if len({*map(len, columns)}) > 1 or not (np.diff(updates) > 0).all():
        raise ValueError(f"{name}: the evaluations of the curve must ascend in updates.")
    # The last evaluation is that of the whole run, so this is the length of an epoch in examples.
    examples = epochs * (record.num_examples / epochs[-1]) if epochs.size else epochs
    usable = np.isfinite(values)
    return updates[usable], examples[usable], values[usable]


@dataclasses.dataclass(frozen=True)
class _Reading:
    """Arguments of `steps_to_target` that every point is read with."""

    protocol: Protocol
    curves: Mapping[str, Curve] | None
    mean_curve: bool
    coarse: float
    level: float


def _row_target(row, target, reading):
    """Returns the steps to a target of one row."""
    protocol, level = reading.protocol, reading.level
    points = tuple(_target_point(point, target, reading) for point in row.points)
    best = _fastest(points)
    if best < 0:
        never = Interval(math.inf, math.nan, math.nan, level)
        return RowTarget(
            series=row.series,
            row=row.row,
            target=target,
            updates=never,
            examples=never,
            points=points,
            flags=("not_reached",),
        )
    chosen = points[best]
    reached = chosen.reached
    updates = statistics.mean_interval([each.updates for each in reached], level)
    flags = {
        "some_reached": len(reached) < chosen.tried,
        "censored": any("censored" in crossing.flags for crossing in reached),
        "coarse": any("coarse" in crossing.flags for crossing in reached),
        "no_interval": math.isnan(updates.low),
        "few_runs": row.points[best].tried < protocol.of,
        "at_boundary": protocols.touches_edge(row.points, chosen.values, protocol),
        "one_value": len(points) == 1,
    }
    return RowTarget(
        series=row.series,
        row=row.row,
        target=target,
        values=chosen.values,
        updates=updates,
        examples=statistics.mean_interval([each.examples for each in reached], level),
        point=chosen,
        points=points,
        n=row.points[best].tried if reading.mean_curve else len(reached),
        flags=tuple(name for name, holds in flags.items() if holds),
    )


def _target_point(point: Point, target, reading):
    """Returns the crossings of the runs of a point."""
    metric, mode = reading.protocol.metric.name, reading.protocol.mode
    curves = reading.curves
    records = sorted(point.counted, key=lambda record: record.hparams.get(SEED, 0))
    tried = point.tried
    if reading.mean_curve:
        records = [] if point.diverged else [_mean_record(records, curves)]
        tried = 1
    crossings = [
        first_crossing(
            record, target, metric, mode, curve_of(record, curves), coarse=reading.coarse
        )
        for record in records
    ]
    return TargetPoint(values=point.values, crossings=tuple(crossings), tried=tried)


def _mean_record(records, curves):
    """Returns a record whose curve is the mean over the runs of a point."""
    found = [curve_of(record, curves) or {} for record in records]
    columns = {name: [curve.get(name) for curve in found] for name in found[0]}
    is_alike = all(curve.keys() == columns.keys() for curve in found)
    if not is_alike or any(len({*map(len, each)}) > 1 for each in columns.values()):
        raise ValueError(
            f"The curves of the runs with {dict(records[0].hparams)} and other seeds are not "
            "evaluated alike, so they have no mean curve."
        )
    return Record(
        run_id=f"mean of {len(records)} runs like {records[0].run_id}",
        hparams=records[0].hparams,
        status="finished",
        metrics={},
        num_updates=records[0].num_updates,
        num_examples=records[0].num_examples,
        curve={name: np.mean(np.array(each, float), axis=0) for name, each in columns.items()},
    )


def _fastest(points: Sequence[TargetPoint]) -> int:
    """Returns the index of the fastest point, -1 if no run reached the target."""
    updates = np.full((len(points), max(point.tried for point in points)), np.inf)
    for row, point in zip(updates, points, strict=True):
        row[: len(point.crossings)] = [crossing.updates for crossing in point.crossings]
    [best] = statistics.best_points(-updates[None])
    return int(best)


def _round_down(value: float, digits: int = 3) -> float:
    """Rounds a number down to a few digits."""
    if value == 0:
        return 0.0
    unit = digits - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, unit)
    if rounded > value:
        rounded = round(rounded - 10.0**-unit, unit)
    return rounded
