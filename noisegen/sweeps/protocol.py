"""Protocols choose the optimum of a sweep, with error bars.

A sweep has rows (batch sizes, say), perhaps several series (with and without noise), and fields
that are tuned for every series and row (the learning rate, say). Runs that differ only in the seed
make a point. The readings of Smith, Elsen & De taken here:

* the best k of its first n seeds count; a diverged run is worse than any other, so a point with
  fewer than k survivors cannot be the optimum while another has k;
* the optimum is the point of best mean (of equal ones, that of the smallest tuned values);
* standard deviations are of those k runs, with k - 1 in the denominator;
* the error bar spans every learning rate whose mean is within one standard deviation, the optimum's
  own, of the optimum's mean.

>>> from noisegen import storage, sweeps
>>> runs = sweeps.grid(batch_size=[64], learning_rate=[0.1, 0.2, 0.4], seed=[0, 1])
>>> accuracies = [0.90, 0.92, 0.95, 0.97, 0.80, 0.82]
>>> records = [
...     storage.Record(hparams=run, status="finished", metrics={"test_accuracy": accuracy})
...     for run, accuracy in zip(runs, accuracies)
... ]
>>> [optimum] = sweeps.select(records, sweeps.Protocol(best=2, of=2))
>>> optimum.values, round(optimum.mean, 3), round(optimum.std, 3), optimum.flags
({'learning_rate': 0.2}, 0.96, 0.014, ())

References:
  Smith, Elsen & De, On the Generalization Benefit of Noise in Stochastic Gradient Descent,
  ICML 2020, https://arxiv.org/abs/2006.15081
"""

import collections
import dataclasses
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from noisegen import _values
from noisegen.storage.record import RUN_TOTALS, Record
from noisegen.sweeps import checks, race_rule
from noisegen.sweeps.checks import SEED
from noisegen.sweeps.domains import Domain, standard
from noisegen.sweeps.metrics import Metric, as_metric, as_metrics, derived_metrics, with_derived
from noisegen.training import run_id

LEARNING_RATES = ("learning_rate", "effective_learning_rate")  # names that need no declaration


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """Defines how the records of a sweep are evaluated.

    Args:
      metric: The metric whose mean is optimized, a `Metric`. A plain string is enough for a metric
        of noisegen's own tasks, or for one without a unit. The attribute is always a `Metric`. A
        derived metric is a function of the finished run, see `Metric.derive`.
      mode: "max" or "min".
      row: The field with one optimum for each value.
      series: A function from a run to the label of its series; None for a single, unlabelled one.
      labels: The order of the labels; others follow in alphabetical order.
      tune: The fields that are tuned; the error bar concerns the first, which holds numbers.
      best: k, the number of runs of a point that count.
      of: n >= k, the number of runs out of which the k are the best.
      search: "grid" to train every planned run, "race" to train those that decide, see
        `noisegen.sweeps.search`.
      max_extensions: How often the grid of a series and row may grow. Each time every tuned field
        grows by a value at each end that the optimum touches.
      domains: From a tuned field to its `Domain`, where the field has no usual name
        or another one is meant. A field without a domain does not grow.
      derived: From a field that follows the tuned ones to a function of the run that gives its
        value; later ones may read earlier ones. Grown runs have it computed anew.
      report: Further metrics to report at the optimum, for the same k runs; `num_updates`,
        `num_examples` and `seconds` are among them. Each is a `Metric` or a string, as `metric` is.
      scaling_rule: True if rows are batch sizes and the first tuned field is a learning rate. The
        report then draws the linear scaling rule, and names the boundary between the regimes of
        noise and curvature. None means True for the row `batch_size` and a `learning_rate` or
        `effective_learning_rate`, and False for any other names.
    """

    metric: Metric | str = "test_accuracy"
    mode: str = "max"
    row: str = "batch_size"
    series: Callable[[Mapping], str] | None = None
    labels: tuple[str, ...] = ()
    tune: tuple[str, ...] = ("learning_rate",)
    best: int = 1
    of: int = 1
    search: str = "grid"
    max_extensions: int = 3
    report: tuple[Metric | str, ...] = ()
    scaling_rule: bool | None = None
    domains: Mapping[str, Domain] = dataclasses.field(default_factory=dict, hash=False)
    derived: Mapping[str, Callable[[Mapping], _values.Value]] = dataclasses.field(
        default_factory=dict, hash=False
    )

    def __post_init__(self):
        for name in ("tune", "labels"):
            object.__setattr__(self, name, checks.words(name, getattr(self, name)))
        object.__setattr__(self, "metric", as_metric(self.metric))
        object.__setattr__(self, "report", as_metrics(self.report))
        checks.check_protocol(self)

    @property
    def sign(self) -> int:
        """Returns the factor that makes the larger metric the better one."""
        return 1 if self.mode == "max" else -1

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Returns the names of all metrics that the protocol reads, the optimized one first."""
        return tuple(metric.name for metric in (self.metric, *self.report))

    @property
    def has_scaling_rule(self) -> bool:
        """Returns whether optima are learning rates over batch sizes, as declared or by name."""
        if self.scaling_rule is not None:
            return self.scaling_rule
        return self.row == "batch_size" and self.tune[0] in LEARNING_RATES

    def num_counted(self, tried: int) -> int:
        """Returns how many runs of a point count, the best ones, out of those that were tried.

        In a race they are the same share of any number of runs, so that points with different
        numbers of seeds can be compared: ceil(k m / n) of m.
        """
        if self.search == "race":
            return math.ceil(self.best * min(tried, self.of) / self.of)
        return self.best

    def group(self, run: Mapping) -> tuple[str, float]:
        """Returns the series and the row of a run."""
        for name in (self.row, *self.tune):
            if name not in run:
                raise ValueError(
                    f"the protocol needs the field {name!r}, but a run has only {', '.join(run)};"
                    " name another row or tuned field, or add it to the grid."
                )
        try:
            label = self.series(run) if self.series else ""
        except KeyError as error:
            raise ValueError(
                f"the protocol's series reads {error}, but a run has only {', '.join(run)}."
            ) from error
        if not isinstance(label, str):
            raise ValueError(
                f"the protocol's series must give text, got {label!r}; try f'noise {{...}}'."
            )
        return label, run[self.row]

    def domain(self, name: str, values: Sequence[float] = ()) -> Domain | None:
        """Returns the declared domain of a field, or the standard one, or None."""
        return self.domains.get(name) or standard(name, values)

    def order(self, groups: Iterable[tuple[str, float]]) -> list[tuple[str, float]]:
        """Sorts groups: series in the order of `labels`, each by row."""
        rank = {label: index for index, label in enumerate(self.labels)}
        return sorted(groups, key=lambda group: (rank.get(group[0], len(rank)), group))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """Summarizes the runs with one choice of the tuned fields.

    Attributes:
      values: The tuned fields.
      mean: Mean of the metric over `counted`; nan if no run survived.
      std: Standard deviation with ddof = 1; nan for fewer than two runs.
      counted: The records that count, at most k, best first.
      scores: The metric of its first n runs; None where one diverged.
      seeds: Seeds of these runs, ascending.
      run: Its first run.
    """

    values: dict[str, float]
    mean: float
    std: float
    counted: tuple[Record, ...]
    scores: tuple[float | None, ...]
    seeds: tuple[int, ...] = ()
    run: Mapping = dataclasses.field(default_factory=dict)

    @property
    def tried(self) -> int:
        """Returns the number of runs of this point, diverged ones included, at most n."""
        return len(self.scores)

    @property
    def diverged(self) -> int:
        """Returns the number of diverged runs."""
        return self.scores.count(None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimum:
    """Holds the best point of one series and row, and all points that it was chosen from.

    If no run survived, the numbers are nan, and only `flags` and `points` say something.

    Attributes:
      series: Label of the series; '' if the protocol has none.
      row: The row.
      values: The tuned fields of the best point.
      mean, std: Of its metric, as in `Point`.
      n: Number of runs in mean and std.
      low, high: Error bar of the first tuned field.
      flags: Keys of `FLAGS`.
      report: Mean and standard deviation of each further metric of the protocol.
      counted: The records behind mean and std, best first.
      points: All points, ascending in the tuned fields.
    """

    series: str
    row: float
    values: dict[str, float] = dataclasses.field(default_factory=dict)
    mean: float = math.nan
    std: float = math.nan
    n: int = 0
    low: float = math.nan
    high: float = math.nan
    flags: tuple[str, ...] = ()
    report: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    counted: tuple[Record, ...] = ()
    points: tuple[Point, ...] = ()

    @property
    def point(self) -> Point:
        """Returns the best point; there is none if no run survived."""
        return next(point for point in self.points if point.values == self.values)


FLAGS = {
    "at_boundary": (
        "The best value, or another one within its error bar, is the smallest or the largest tried."
        " A better one may lie beyond."
    ),
    "few_runs": "Chosen with fewer runs than the protocol asks for.",
    "unsettled": "Not final: another value may prove better, but still lacks runs.",
    "one_value": "A single value was tried: not tuned.",
    "all_diverged": "Every run diverged.",
    "no_value": "No run has a finite value of the metric.",
}


def select(records: Iterable[Record], protocol: Protocol) -> list[Optimum]:
    """Selects the optimum of every series and row, with error bar and flags.

    Args:
      records: Finished and diverged runs, each at most once: `storage.Record`, or the
        `training.Result` of `Pool.train`.
      protocol: How to read them. Derived metrics that the records lack are computed.

    Returns:
      The optima, by series in the protocol's order, then by row.

    Raises:
      ValueError: If a record lacks a field or the metric that the protocol names, or runs of one
        point differ in more than the seed.
    """
    groups = collections.defaultdict(list)
    for record in with_derived(records, derived_metrics([protocol])):
        groups[protocol.group(record.hparams)].append(record)
    groups = join_rows(groups, protocol.row, operator.add)
    return [optimum(*key, groups[key], protocol) for key in protocol.order(groups)]


def join_rows(groups: dict[tuple, Any], row: str, join: Callable[[Any, Any], Any]) -> dict:
    """Returns groups, by series and row, with those joined whose rows are equal on the device.

    Args:
      groups: From series and row to members.
      row: Name of the field.
      join: Makes one of two groups' members.
    """
    seen = {key: (key[0], run_id.on_device(row, key[1])) for key in groups}
    if len(set(seen.values())) == len(groups):
        return groups
    first, joined = {}, {}
    for key in sorted(groups, key=lambda key: (len(repr(key[1])), key)):  # 0.1 before 0.1 + 1e-12
        kept = first.setdefault(seen[key], key)
        joined[kept] = join(joined[kept], groups[key]) if kept in joined else groups[key]
    return joined


def optimum(series: str, row: float, records: Iterable[Record], protocol: Protocol) -> Optimum:
    """Selects the optimum of one series and row from their records, see `select`."""
    records = list(records)
    points = _points(records, protocol)
    alive = [point for point in points if point.counted]
    if not alive:
        # A run that ended well may lack a value, such as the time to a target.
        finished = any(record.status == "finished" for record in records)
        flag = "no_value" if finished else "all_diverged"
        return Optimum(series=series, row=row, flags=(flag,), points=points)
    most = max(len(point.counted) for point in alive)
    candidates = [point for point in alive if len(point.counted) == most]
    sign, first = protocol.sign, protocol.tune[0]
    best = max(candidates, key=lambda point: sign * point.mean)  # The first of equal ones.
    least = sign * best.mean - (0 if math.isnan(best.std) else best.std)
    if protocol.search == "race":
        # A point that the race has dropped belongs to the error bar by the seeds that it has.
        compared = [
            point for point in alive if len(point.counted) == protocol.num_counted(point.tried)
        ]
        is_unsettled = bool(race_rule.more_seeds(_race_points(points, protocol)))
    else:
        compared = candidates
        # A value that lacks seeds may prove better once it has them.
        rivals = [
            point
            for point in alive
            if point.tried < protocol.of and (len(point.counted) < most or point.tried < best.tried)
        ]
        is_unsettled = any(sign * point.mean >= least for point in rivals)
    bar = [point.values[first] for point in compared if sign * point.mean >= least]
    bar.append(best.values[first])
    low, high = min(bar), max(bar)
    flags = {
        "at_boundary": any(
            _goes_on(points, end, protocol) for end in ends(points, best.values, low, high)
        ),
        "few_runs": best.tried < protocol.of or most < protocol.best,
        "unsettled": is_unsettled,
        "one_value": points[0].values[first] == points[-1].values[first],
    }
    return Optimum(
        series=series,
        row=row,
        values=best.values,
        mean=best.mean,
        std=best.std,
        n=most,
        low=low,
        high=high,
        flags=tuple(name for name, holds in flags.items() if holds),
        counted=best.counted,
        points=points,
        report={
            name: _mean_std([metric_of(record, name) for record in best.counted])
            for name in protocol.metric_names[1:]
        },
    )


def _race_points(points, protocol) -> list[race_rule.RacePoint]:
    """Returns the points of one series and row as a race sees them."""
    found = []
    for point in points:
        scores = [None if score is None else protocol.sign * score for score in point.scores]
        found.append(
            race_rule.RacePoint(
                values=tuple(point.values.values()),
                scores=tuple(scores),
                num_counted=protocol.num_counted(point.tried),
                num_planned=protocol.of,  # as `check_points` makes sure
            )
        )
    return found


def ends(
    points: Sequence[Point], best: Mapping[str, _values.Value], low: float, high: float
) -> list[tuple[str, bool]]:
    """Returns the ends of the values tried that an optimum touches.

    Args:
      points: All points of one series and row.
      best: The tuned fields of the optimum, in the order of the protocol.
      low, high: Error bar of the first of them.

    Returns:
      Pairs of a tuned field and a boolean, True for its upper end. Words and booleans have no ends.
    """
    found = []
    for index, (name, value) in enumerate(best.items()):
        tried = {point.values[name] for point in points}
        if len(tried) > 1 and type(value) not in (bool, str):
            down, up = (low, high) if index == 0 else (value, value)
            if down == min(tried):
                found.append((name, False))
            if up == max(tried):
                found.append((name, True))
    return found


def touches_edge(points: Sequence[Point], values: Mapping[str, Any], protocol: Protocol) -> bool:
    """Returns whether a point lies at an edge of the values tried, beyond which there are more.

    Args:
      points: All points of one series and row.
      values: The tuned fields of the point, in the order of the protocol.
      protocol: The protocol, whose domains end some fields.
    """
    first = values[protocol.tune[0]]
    touched = ends(points, values, first, first)
    return any(_goes_on(points, end, protocol) for end in touched)


def _goes_on(points, end, protocol):
    """Returns whether a field's domain goes on beyond the values tried, for any run at that end."""
    name, up = end
    tried = {point.values[name] for point in points}
    value = (max if up else min)(tried)
    domain = protocol.domain(name, tuple(tried))
    runs = [point.run for point in points if point.values[name] == value]
    return domain is None or not all(domain.is_end(value, up, run) for run in runs)


def _points(records, protocol):
    """Returns the points of one series and row, ascending in the tuned fields."""
    by_values = collections.defaultdict(list)
    for record in records:
        by_values[tuple([record.hparams[name] for name in protocol.tune])].append(record)
    for found in by_values.values():
        finished = (record.metrics for record in found if record.status == "finished")
        for names in set(map(tuple, finished)):  # nearly always one
            checks.check_metrics(names, protocol)
    by_values = _joined(by_values, protocol.tune)
    return tuple(
        _point(dict(zip(protocol.tune, values, strict=True)), by_values[values], protocol)
        for values in sorted(by_values)
    )


def _joined(by_values, tune):
    """Returns the records by tuned values, those that are equal on the device together.

    Of the spellings of a value the shortest stays, and each seed counts once.
    """
    checks.check_kinds(dict(zip(tune, values, strict=True)) for values in by_values)
    close = [run_id.close_on_device(set(column)) for column in zip(*by_values, strict=True)]
    joined = dict(by_values)
    if any(close):
        joined, spellings = {}, {}
        for values in sorted(by_values, key=lambda values: (len(repr(values)), values)):
            first = values
            if any(map(operator.contains, close, values)):
                first = spellings.setdefault(tuple(map(run_id.on_device, tune, values)), values)
            joined[first] = joined.get(first, []) + by_values[values]
    for values, records in joined.items():
        if any(value in (0, 1) for value in values):  # which equal False and True
            checks.check_kinds({name: record.hparams[name] for name in tune} for record in records)
        if not checks.check_alike([record.hparams for record in records]):
            joined[values] = list(_by_seed(records).values())
    return joined


def _by_seed(records):
    """Returns the first record of each seed."""
    found = {}
    for record in records:
        found.setdefault(record.hparams.get(SEED), record)
    return found


def _point(values, records, protocol):
    """Summarizes the best k of the first n runs of one point."""
    first = sorted(records, key=lambda record: record.hparams.get(SEED, 0))[: protocol.of]
    scored = [(metric_of(record, protocol.metric.name), record) for record in first]
    alive = [pair for pair in scored if pair[0] is not None]
    alive.sort(key=lambda pair: protocol.sign * pair[0], reverse=True)
    counted = alive[: protocol.num_counted(len(scored))]
    mean, std = _mean_std([score for score, _ in counted])
    return Point(
        values=values,
        mean=mean,
        std=std,
        counted=tuple(record for _, record in counted),
        scores=tuple(score for score, _ in scored),
        seeds=tuple(record.hparams.get(SEED, 0) for record in first),
        run=first[0].hparams,
    )


def metric_of(record, name):
    """Returns a metric of a record, None if the run diverged or the metric is not finite."""
    if record.status == "diverged":
        return None
    value = getattr(record, name) if name in RUN_TOTALS else record.metrics[name]
    return value if value is not None and math.isfinite(value) else None


def _mean_std(values):
    """Returns mean and standard deviation (ddof = 1), nan if undefined."""
    if not values or None in values:
        return math.nan, math.nan
    return fmean(values), stdev(values) if len(values) > 1 else math.nan
