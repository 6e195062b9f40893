"""Protocols: how the optimum of a sweep is chosen, and with which error bars.

A sweep has rows (batch sizes, say), perhaps several series (with and without noise), and fields
that are tuned for every series and row (the learning rate, say). Runs that differ only in the seed
make a point. The readings of Smith, Elsen & De taken here:

* the best k of its first n seeds count; a diverged run is worse than any other, so a point with
  fewer than k survivors cannot be the optimum while another has k;
* the optimum is the point of best mean (of equal ones, that of the smallest tuned values);
* standard deviations are of those k runs, with k - 1 in the denominator;
* the error bar spans every learning rate whose mean is within one standard deviation, the optimum's
  own, of the optimum's mean.

>>> from noisegen import sweeps
>>> runs = list(sweeps.values(batch_size=[64], learning_rate=[0.1, 0.2, 0.4], seed=[0, 1]))
>>> accuracies = [0.90, 0.92, 0.95, 0.97, 0.80, 0.82]
>>> records = [
...     {"run": run, "status": "finished", "metrics": {"test_accuracy": accuracy}}
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
import numbers
import statistics
from collections.abc import Callable, Iterable, Mapping

SEED = "seed"
RECORDED = ("num_updates", "num_examples", "seconds")  # numbers of a record beside its metrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a sweep is read.

    Args:
      metric: The metric whose mean is optimised, a key of a record's `metrics`.
      mode: "max" or "min".
      row: The field with one optimum for each value.
      series: A function from a run to the label of its series; None for a single, unlabelled one.
      labels: The order of the labels; others follow in alphabetical order.
      tune: The fields that are tuned; error bar and extension concern the first.
      best: k, the number of runs of a point that count.
      of: n >= k, the number of runs out of which the k are the best.
      max_extensions: How often the grid of a series and row may grow by a value at its ends; one of
        batch sizes or horizons never does.
      report: Further metrics to report at the optimum, for the same k runs; `num_updates`,
        `num_examples` and `seconds` are among them.
    """

    metric: str = "test_accuracy"
    mode: str = "max"
    row: str = "batch_size"
    series: Callable[[Mapping], str] | None = None
    labels: tuple[str, ...] = ()
    tune: tuple[str, ...] = ("learning_rate",)
    best: int = 1
    of: int = 1
    max_extensions: int = 3
    report: tuple[str, ...] = ()

    def __post_init__(self):
        if self.mode not in ("max", "min"):
            raise ValueError(f"Protocol mode must be 'max' or 'min', got {self.mode!r}.")
        if isinstance(self.tune, str) or not self.tune or {self.row, SEED} & set(self.tune):
            raise ValueError(
                f"Protocol tune must be a tuple of fields other than {self.row} and {SEED}, such as"
                f" ('learning_rate',); got {self.tune!r}."
            )
        for name in ("best", "of", "max_extensions"):
            if not isinstance(getattr(self, name), numbers.Integral):
                raise ValueError(
                    f"Protocol needs a whole number {name}, got {getattr(self, name)!r}."
                )
        if not 1 <= self.best <= self.of:
            raise ValueError(f"Protocol needs 1 <= best <= of, got best={self.best}, of={self.of}.")
        if self.max_extensions < 0:
            raise ValueError(f"Protocol needs max_extensions >= 0, got {self.max_extensions}.")
        for name in ("labels", "report"):
            if isinstance(getattr(self, name), str):
                raise ValueError(
                    f"Protocol {name} must be a tuple of words; write ({getattr(self, name)!r},)."
                )
        if self.series is not None and not callable(self.series):
            raise ValueError(
                f"Protocol series must be a function from a run to a label, got {self.series!r}."
            )

    @property
    def sign(self) -> int:
        """The factor that makes the larger metric the better one."""
        return 1 if self.mode == "max" else -1

    def group(self, run: Mapping) -> tuple[str, float]:
        """Series and row of a run."""
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

    def order(self, groups: Iterable[tuple[str, float]]) -> list[tuple[str, float]]:
        """Series in the order of `labels`, each by row."""
        rank = {label: index for index, label in enumerate(self.labels)}
        return sorted(groups, key=lambda group: (rank.get(group[0], len(rank)), group))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """What the runs of one choice of the tuned fields gave."""

    values: dict[str, float]  # The tuned fields.
    mean: float  # Of the metric over `best`; nan if no run survived.
    std: float  # With ddof = 1; nan for fewer than two runs.
    best: tuple[Mapping, ...]  # The records that count, at most k, best first.
    scores: tuple[float | None, ...]  # The metric of its first n runs; None where one diverged.

    @property
    def tried(self) -> int:
        """Runs of this point, diverged ones included, at most n."""
        return len(self.scores)

    @property
    def diverged(self) -> int:
        """How many of these diverged."""
        return self.scores.count(None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimum:
    """The best point of one series and row, and all the points it was chosen from.

    Where no run survived, the numbers are nan, and only `flags` and `points` say something.
    """

    series: str  # Label; '' if the protocol has no series.
    row: float
    values: dict[str, float] = dataclasses.field(default_factory=dict)  # The tuned fields.
    mean: float = math.nan
    std: float = math.nan
    n: int = 0  # Number of runs in mean and std.
    low: float = math.nan  # Error bar of the first tuned field.
    high: float = math.nan
    flags: tuple[str, ...] = ()  # Keys of FLAGS.
    report: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)  # Mean, std.
    best: tuple[Mapping, ...] = ()  # The records behind mean and std.
    points: tuple[Point, ...] = ()  # Ascending in the tuned fields.


FLAGS = {
    "at_boundary": "The optimum or its error bar touches the edge of the values tried.",
    "few_runs": "Chosen with fewer runs than the protocol asks for.",
    "unsettled": "Not final: a value that may prove better still lacks runs.",
    "one_value": "A single value was tried: not tuned.",
    "all_diverged": "Every run diverged.",
}


def select(records: Iterable[Mapping], protocol: Protocol) -> list[Optimum]:
    """The optimum of every series and row, with error bar and flags.

    Args:
      records: Records of finished and diverged runs, each run at most once.
      protocol: How to read them.

    Returns:
      The optima, by series in the protocol's order, then by row.

    Raises:
      ValueError: If a record lacks a field or the metric that the protocol names, or runs of one
        point differ in more than the seed.
    """
    groups = collections.defaultdict(list)
    for record in records:
        groups[protocol.group(record["run"])].append(record)
    return [optimum(*key, groups[key], protocol) for key in protocol.order(groups)]


def optimum(series: str, row: float, records: Iterable[Mapping], protocol: Protocol) -> Optimum:
    """The optimum of one series and row, given their records; for the rest see `select`."""
    points = _points(records, protocol)
    alive = [point for point in points if point.best]
    if not alive:
        return Optimum(series=series, row=row, flags=("all_diverged",), points=points)
    most = max(len(point.best) for point in alive)
    candidates = [point for point in alive if len(point.best) == most]
    rivals = [point for point in alive if len(point.best) < most and point.tried < protocol.of]
    sign, first = protocol.sign, protocol.tune[0]
    best = max(candidates, key=lambda point: sign * point.mean)  # The first of equal ones.
    least = sign * best.mean - (0 if math.isnan(best.std) else best.std)
    bar = [point.values[first] for point in candidates if sign * point.mean >= least]
    tried = [point.values[first] for point in points]  # Ascending, as the points are.
    low, high, one_value = min(bar), max(bar), tried[0] == tried[-1]
    flags = {
        "at_boundary": not one_value and (low == tried[0] or high == tried[-1]),
        "few_runs": best.tried < protocol.of or most < protocol.best,
        "unsettled": any(sign * point.mean >= least for point in rivals),
        "one_value": one_value,
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
        best=best.best,
        points=points,
        report={
            name: _mean_std([_metric_of(record, name) for record in best.best])
            for name in protocol.report
        },
    )


def _points(records, protocol):
    """The points of one series and row, ascending in the tuned fields."""
    by_values = collections.defaultdict(list)
    for record in records:
        by_values[tuple([record["run"][name] for name in protocol.tune])].append(record)
    for found in by_values.values():
        _check_alike([record["run"] for record in found])
        finished = (record["metrics"] for record in found if record["status"] == "finished")
        for names in set(map(tuple, finished)):  # nearly always one
            check_metrics(names, protocol)
    return tuple(
        _point(dict(zip(protocol.tune, values, strict=True)), by_values[values], protocol)
        for values in sorted(by_values)
    )


def _point(values, records, protocol):
    """The best k of the first n runs of one point."""
    first = sorted(records, key=lambda record: record["run"].get(SEED, 0))[: protocol.of]
    scored = [(_metric_of(record, protocol.metric), record) for record in first]
    alive = [pair for pair in scored if pair[0] is not None]
    alive.sort(key=lambda pair: protocol.sign * pair[0], reverse=True)
    best = alive[: protocol.best]
    mean, std = _mean_std([score for score, _ in best])
    return Point(
        values=values,
        mean=mean,
        std=std,
        best=tuple(record for _, record in best),
        scores=tuple(score for score, _ in scored),
    )


def check_points(runs: Iterable[Mapping], protocol: Protocol) -> None:
    """Checks that runs which the protocol takes for one point differ in the seed alone.

    Raises:
      ValueError: They do not, or lack a field that the protocol names.
    """
    points = {}
    for run in runs:
        group = protocol.group(run)
        points.setdefault((group, *(run[name] for name in protocol.tune)), []).append(run)
    for point in points.values():
        _check_alike(point)


def check_metrics(names: Iterable[str], protocol: Protocol) -> None:
    """Checks that the runs of a task with the metrics `names` will have what the protocol reads.

    Raises:
      ValueError: They will not.
    """
    for name in (protocol.metric, *protocol.report):
        if name not in RECORDED and name not in names:
            raise ValueError(
                f"the protocol needs the metric {name!r}, but there are only"
                f" {', '.join(names) or 'none'}; name one of these, or, where older records lack"
                " what is measured now, begin in a new --workdir."
            )


def _check_alike(runs):
    """Runs of one point may differ in the seed alone."""
    first = {**runs[0], SEED: None}
    for run in runs:
        if {**run, SEED: None} != first:
            differing = [
                name for name in first | run if name != SEED and first.get(name) != run.get(name)
            ]
            raise ValueError(
                f"runs with the same row and tuned fields differ in {', '.join(differing)}"
                f" ({[run.get(name) for name in differing]} and"
                f" {[first.get(name) for name in differing]});"
                " name these fields in the protocol's tune, tell them apart by its series, or use a"
                " workdir for each."
            )


def _metric_of(record, name):
    """A metric of a record; None if the run diverged or the metric is not finite."""
    if record["status"] == "diverged":
        return None
    value = record.get(name) if name in RECORDED else record["metrics"][name]
    return value if value is not None and math.isfinite(value) else None


def _mean_std(values):
    """Mean and standard deviation (ddof = 1); nan where undefined."""
    if not values or None in values:
        return math.nan, math.nan
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan
