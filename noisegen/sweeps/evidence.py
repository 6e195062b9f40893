"""Calculates how certain the optima of a sweep are.

Papers often report the best k of n seeds, at the learning rate that did best for the same seeds.
Both choices make the reported mean too good, and its standard deviation is that of a run, not of
the mean. This module calculates the numbers to read beside it, each with its interval: the mean
over all seeds, the score of a learning rate that was chosen without the seed that is scored, the
optimum between the values tried, and differences between series.

>>> from noisegen import storage, sweeps
>>> runs = sweeps.grid(batch_size=[64], learning_rate=[0.1, 0.2, 0.4], seed=[0, 1, 2])
>>> accuracies = [0.90, 0.92, 0.91, 0.95, 0.97, 0.95, 0.80, 0.82, 0.84]
>>> records = [
...     storage.Record(hparams=run, status="finished", metrics={"test_accuracy": accuracy})
...     for run, accuracy in zip(runs, accuracies)
... ]
>>> protocol = sweeps.Protocol(best=2, of=3)
>>> optima = sweeps.select(records, protocol)
>>> [row] = sweeps.row_evidence(optima, protocol)
>>> round(optima[0].mean, 3), round(row.all_seeds.value, 3), round(row.held_out.interval.value, 3)
(0.96, 0.957, 0.957)
>>> round(row.between.value, 2), row.shares
(-2.57, {0.2: 1.0})
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from noisegen import statistics
from noisegen.sweeps import regimes
from noisegen.sweeps.protocol import Optimum, Point, Protocol

_FEWEST_ROWS = 3  # through which a law is fitted
_FEWEST_PAIRS = 5  # of seeds; fewer say too little of the spread of their differences
_STEEPEST = 8  # ratio of the drops on both sides of a best value that a parabola may have
_NUM_CHOICES = 200  # of fewer values, to be averaged over
_LEAST_SHARE = 0.01  # of the resamples, below which a value is not listed


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowEvidence:
    """Holds the evidence for one optimum, that of a series and row.

    Attributes:
      series, row: Those of the optimum.
      num_seeds: Runs at the optimum, diverged ones included.
      num_diverged: Those of them that diverged.
      all_seeds: Mean of the metric over all surviving runs at the optimum, with its interval.
      held_out: The same at values chosen without the seed that is scored; None for a single seed.
      shares: From a value of the first tuned field to the share of bootstrap resamples of the seeds
        in which it is the best. Empty for a single seed.
      between: log2 of the first tuned field at the top of a parabola through the best point and
        those beside it; nan with a reason if there is none, for example "cliff" if one of them is
        far worse than the other; None if several fields are tuned or values are not positive.
    """

    series: str
    row: float
    num_seeds: int
    num_diverged: int
    all_seeds: statistics.Interval
    held_out: statistics.HeldOutScore | None
    shares: Mapping[float, float]
    between: statistics.ParabolaOptimum | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """Compares a series with another one at the same row.

    Attributes:
      row: The row.
      series, baseline: Labels of the two series.
      difference: Mean of `series` minus that of `baseline` in the metric, with an interval that
        holds together with those of all comparisons.
      adjusted_p: Its p value, corrected by Holm for all comparisons of the sweep; nan if there is
        none.
      num_cells: Number of values that were tried for each of the two.
    """

    row: float
    series: str
    baseline: str
    difference: statistics.Difference
    adjusted_p: float
    num_cells: tuple[int, int]


def row_evidence(
    optima: Iterable[Optimum], protocol: Protocol, *, level: float = 0.95
) -> list[RowEvidence]:
    """Returns the evidence for every optimum, those without a surviving run left out.

    Args:
      optima: The optima, as `select` returns them.
      protocol: The protocol given to `select`.
      level: Level of the intervals, in (0, 1).
    """
    return [_row(optimum, protocol, level) for optimum in optima if optimum.n]


def score_table(optimum: Optimum, protocol: Protocol) -> np.ndarray:
    """Returns the scores of a row, of shape (points, seeds); the larger ones are better.

    Points are in the order of `optimum.points`. A score is nan where a run diverged or does not
    exist. Points with fewer runs than the best one are all nan: a race has dropped them.
    """
    best = optimum.point
    seeds = best.seeds
    table = np.full((len(optimum.points), len(seeds)), np.nan)
    for scores, point in zip(table, optimum.points, strict=True):
        if point.tried < best.tried:
            continue
        found = _by_seed(point)
        for column, seed in enumerate(seeds):
            score = found.get(seed)
            if score is not None:
                scores[column] = protocol.sign * score
    return table


def held_out(
    optimum: Optimum, protocol: Protocol, level: float = 0.95, *, num_values: int | None = None
) -> statistics.HeldOutScore:
    """Returns the score of an optimum at values chosen without the seed that is scored.

    If a single value was tried, every seed is scored there, unless no other seed survived. The
    scores are those of the seeds of the best point, in the metric itself. See
    `statistics.selected_without_seed`.

    Args:
      optimum: The optimum.
      protocol: The protocol that it was selected by.
      level: Level of the interval, in (0, 1).
      num_values: Number of values to choose from, if fewer than were tried. The scores are then
        means over random choices of so many values, and no points are named.
    """
    table = score_table(optimum, protocol)
    if num_values is None or num_values >= len(table):
        found = statistics.selected_without_seed(table, best_k=protocol.best, level=level)
    else:
        found = _held_out_of_fewer(table, num_values, protocol, level)
    if protocol.sign == 1:
        return found
    interval = found.interval
    negated = dataclasses.replace(
        interval, value=-interval.value, low=-interval.high, high=-interval.low
    )
    return dataclasses.replace(
        found, interval=negated, scores=tuple(-score for score in found.scores)
    )


def _held_out_of_fewer(table, num_values, protocol, level) -> statistics.HeldOutScore:
    """Returns the mean held-out score over random choices of fewer points of a table."""
    random = np.random.default_rng(0)
    chosen = [
        statistics.selected_without_seed(
            table[random.choice(len(table), num_values, replace=False)], best_k=protocol.best
        )
        for _ in range(_NUM_CHOICES)
    ]
    # A choice of values at which every run diverged has no score.
    scores = np.array([each.scores for each in chosen])  # (choices, seeds)
    is_scored = np.isfinite(scores).any(0)
    means = np.full(scores.shape[1], np.nan)
    means[is_scored] = np.nanmean(scores[:, is_scored], axis=0)
    optimisms = [each.optimism for each in chosen if math.isfinite(each.optimism)]
    return dataclasses.replace(
        chosen[0],
        interval=statistics.mean_interval(means[is_scored], level),
        scores=tuple(means.tolist()),
        points=(),
        num_diverged=int((~is_scored).sum()),
        optimism=float(np.mean(optimisms)) if optimisms else math.nan,
    )


def _row(optimum, protocol, level) -> RowEvidence:
    point = optimum.point
    survivors = [score for score in point.scores if score is not None]
    return RowEvidence(
        series=optimum.series,
        row=optimum.row,
        num_seeds=point.tried,
        num_diverged=point.diverged,
        all_seeds=statistics.mean_interval(survivors, level),
        held_out=held_out(optimum, protocol, level) if point.tried > 1 else None,
        shares=_shares(optimum, protocol) if point.tried > 1 else {},
        between=_between(optimum, protocol, level),
    )


def _shares(optimum, protocol) -> dict[float, float]:
    """Returns the shares of the values of the first tuned field, the largest one first."""
    table = score_table(optimum, protocol)
    shares = statistics.bootstrap_shares(table, best_k=protocol.best)
    by_value: dict[float, float] = {}
    for point, share in zip(optimum.points, shares.tolist(), strict=True):
        value = point.values[protocol.tune[0]]
        by_value[value] = by_value.get(value, 0.0) + share
    listed = [(value, share) for value, share in by_value.items() if share >= _LEAST_SHARE]
    return dict(sorted(listed, key=lambda item: -item[1]))


def _between(optimum, protocol, level) -> statistics.ParabolaOptimum | None:
    """Returns the optimum between the values of the only tuned field."""
    name = protocol.tune[0]
    values = [point.values[name] for point in optimum.points]
    if len(protocol.tune) > 1 or min(values) <= 0:
        return None
    # The score of a diverged run is unknown, and so is the mean of its point.
    means = [
        math.nan if point.diverged else protocol.sign * np.mean(point.scores)
        for point in optimum.points
    ]
    # The parabola is around the largest mean over all seeds. The protocol chooses by the mean of
    # the best seeds, and may choose another point.
    best = int(np.argmax(np.nan_to_num(means, nan=-math.inf)))
    deviation, freedom = _pooled(optimum.points[max(0, best - 1) : best + 2])
    errors = [deviation / math.sqrt(point.tried) for point in optimum.points]
    found = statistics.parabola_optimum(
        np.log2(values), means, errors, degrees_of_freedom=freedom, level=level
    )
    if not found.reason and _is_cliff(means[best - 1 : best + 2]):
        nan = math.nan
        found = dataclasses.replace(
            found, value=nan, low=nan, high=nan, standard_error=nan, reason="cliff"
        )
    return found


def _is_cliff(means: Sequence[float]) -> bool:
    """Returns whether the score falls so much more on one side of the best that it is no parabola.

    Beyond the largest stable learning rate, for example, the score drops to that of guessing. A
    parabola whose top is within .11 steps of the middle between two values looks the same, and so
    do two equal values at the top. In these cases the best value tried is kept as the estimate.
    """
    before, best, after = means
    drops = sorted((best - before, best - after))
    return drops[1] > _STEEPEST * drops[0]


def _pooled(points: Sequence[Point]) -> statistics.PooledDeviation:
    """Returns the standard deviation over the seeds of several points together."""
    return statistics.pooled_deviation(
        [score for score in point.scores if score is not None] for point in points
    )


def compare_series(
    optima: Iterable[Optimum],
    protocol: Protocol,
    *,
    baseline: str | None = None,
    equalize: bool = False,
    level: float = 0.95,
) -> list[Comparison]:
    """Returns the difference of every series from a baseline, row by row.

    Each series is scored at tuned values that were chosen without the seed that is scored, so that
    a series with more values to choose from has no advantage by chance (see
    `statistics.selected_without_seed`).

    With at least 5 common seeds, differences are of runs with equal seeds. With standard deviation
    s of the N differences and d the optimism of the two selections (the root of the sum of their
    squares), the interval is mean +- t sqrt(s^2 / N + d^2), with N - 1 degrees of freedom. Fewer
    seeds cannot measure s: the two scores are then taken as independent, see `estimate`.

    Args:
      optima: The optima, as `select` returns them.
      protocol: The protocol given to `select`.
      baseline: Label of the series that the others are compared with, by default the first one of
        those that have rows in common with the most others.
      equalize: Whether a series with more values to choose from is scored as if it had as few as
        the other: equal budgets of tuning. Otherwise one of its further values may be better.
      level: Level at which all intervals hold together, in (0, 1).

    Returns:
      The comparisons, in the order of the optima. Rows that only one of the two series has are left
      out.

    Raises:
      ValueError: If no series has the label `baseline`.
    """
    alive = [optimum for optimum in optima if optimum.n]
    labels = list(dict.fromkeys(optimum.series for optimum in alive))
    if not labels:
        return []
    baseline = _most_shared(alive) if baseline is None else baseline
    if baseline not in labels:
        raise ValueError(f"No series is named {baseline!r}; expected one of {labels}.")
    of_baseline = {optimum.row: optimum for optimum in alive if optimum.series == baseline}
    pairs = [
        (optimum, of_baseline[optimum.row])
        for optimum in alive
        if optimum.series != baseline and optimum.row in of_baseline
    ]
    # With m comparisons, intervals at 1 - (1 - level) / m hold together.
    shared = 1 - (1 - level) / max(1, len(pairs))
    differences = [_difference(*pair, protocol, shared, equalize) for pair in pairs]
    adjusted = statistics.holm([difference.p_value for difference in differences])
    return [
        Comparison(
            row=optimum.row,
            series=optimum.series,
            baseline=baseline,
            difference=difference,
            adjusted_p=float(p_value),
            num_cells=(len(optimum.points), len(other.points)),
        )
        for (optimum, other), difference, p_value in zip(pairs, differences, adjusted, strict=True)
    ]


def _most_shared(optima) -> str:
    """Returns the label of the first of those series that share rows with the most others."""
    rows: dict[str, set[float]] = {}
    for optimum in optima:
        rows.setdefault(optimum.series, set()).add(optimum.row)
    shared = {
        label: sum(bool(own & other) for name, other in rows.items() if name != label)
        for label, own in rows.items()
    }
    return max(shared, key=shared.get)


def learning_rate_laws(
    optima: Iterable[Optimum], protocol: Protocol, *, level: float = 0.95
) -> dict[str, statistics.PowerLaw]:
    """Fits best effective learning rate = c * row^a for each series with at least three rows.

    The exponent a is 1 for the linear scaling rule and 1/2 for the square-root rule. If a parabola
    through the best values has an optimum between them, that one is used, else the best value. The
    interval accounts for the scatter around the law, and for the step of the grid if values of the
    grid are used.

    Args:
      optima: The optima, as `select` returns them.
      protocol: The protocol given to `select`, whose rows are batch sizes and whose first tuned
        field is a learning rate (see its `scaling_rule`).
      level: Level of the interval, in (0, 1).

    Returns:
      From the label of a series to its law. Rows whose optimum is at the boundary of the values
      tried are left out, and so are rates that are not positive.

    Raises:
      ValueError: If the protocol does not tune the learning rate for each batch size.
    """
    if not protocol.has_scaling_rule:
        raise ValueError(
            "A law of learning rates needs learning rates over batch sizes, not"
            f" {protocol.tune[0]} over {protocol.row}."
        )
    by_series: dict[str, list[Optimum]] = {}
    for optimum in optima:
        outside = {"at_boundary", "one_value", "all_diverged", "no_value"} & set(optimum.flags)
        if not outside and optimum.values[protocol.tune[0]] > 0:
            by_series.setdefault(optimum.series, []).append(optimum)
    laws = {}
    for label, members in by_series.items():
        if len(members) >= _FEWEST_ROWS:
            laws[label] = _law(members, protocol, level)
    return laws


def _law(optima: Sequence[Optimum], protocol: Protocol, level: float) -> statistics.PowerLaw:
    rates, steps = [], []
    for optimum in optima:
        rate = regimes.scaled_learning_rate(optimum.counted[0].hparams, protocol)
        between = _between(optimum, protocol, level)
        if between is None or math.isnan(between.value):
            steps.append(_step(optimum, protocol))
        else:
            # The field is the rate itself, or the rate before its division by 1 - momentum.
            rate *= 2**between.value / optimum.values[protocol.tune[0]]
        rates.append(rate)
    rows = [optimum.row for optimum in optima]
    return statistics.power_law(rows, rates, grid_octaves=max(steps, default=0.0), level=level)


def _step(optimum, protocol) -> float:
    """Returns the distance in octaves of the best value to the nearest one that was tried."""
    name = protocol.tune[0]
    best = optimum.values[name]
    others = [point.values[name] for point in optimum.points]
    steps = [abs(math.log2(value / best)) for value in others if value > 0 and value != best]
    return min(steps, default=0.0)


def estimate(
    optimum: Optimum, protocol: Protocol, *, num_values: int | None = None
) -> statistics.Estimate:
    """Returns the held-out score of an optimum with its error, for comparisons of few seeds.

    The error is sqrt(s^2 / N + d^2), with N seeds, the optimism d of the selection, and the
    standard deviation s over seeds pooled over all values in the error bar, so that three seeds
    give more than two degrees of freedom. Values in the error bar are taken to vary alike.

    Args:
      optimum: The optimum.
      protocol: The protocol that it was selected by.
      num_values: As for `held_out`.

    Returns:
      The estimate of the score, the larger the better.
    """
    score = held_out(optimum, protocol, num_values=num_values)
    deviation, freedom = _pooled(_in_bar(optimum))
    survivors = sum(math.isfinite(each) for each in score.scores)
    error = math.hypot(deviation / math.sqrt(max(survivors, 1)), score.optimism)
    return statistics.Estimate(protocol.sign * score.interval.value, error, freedom, survivors)


def noise(optimum: Optimum) -> float:
    """Returns the standard deviation over seeds, pooled over the values in the error bar."""
    return _pooled(_in_bar(optimum)).deviation


def _in_bar(optimum) -> list[Point]:
    """Returns the points in the error bar whose runs all survived, the best one in any case.

    Between the ends of the bar there may also be points whose mean is outside of it, if other
    fields are tuned, too. They are left out.
    """
    best = optimum.point
    found = [best]
    first = next(iter(optimum.values))
    for point in optimum.points:
        is_between = optimum.low <= point.values[first] <= optimum.high
        is_as_good = abs(point.mean - optimum.mean) <= optimum.std
        if point is not best and is_between and is_as_good and not point.diverged:
            found.append(point)
    return found


def _difference(optimum, other, protocol, level, equalize) -> statistics.Difference:
    """Returns the difference of two optima of one row, in the metric."""
    number = min(len(optimum.points), len(other.points)) if equalize else None
    scores = [held_out(each, protocol, num_values=number) for each in (optimum, other)]
    by_seed = [
        dict(zip(each.point.seeds, score.scores, strict=True))
        for each, score in zip((optimum, other), scores, strict=True)
    ]
    a, b = statistics.pair_by_seed(*by_seed)
    if len(a) < _FEWEST_PAIRS:
        estimates = [estimate(each, protocol, num_values=number) for each in (optimum, other)]
        difference = statistics.estimated_difference(*estimates, level)
        return difference if protocol.sign == 1 else _negated(difference)
    # Differences are as coarse as the scores that they are of.
    found = statistics.estimate(a - b, scale=np.abs([a, b]).max())
    optimism = math.hypot(*(score.optimism for score in scores))
    found = dataclasses.replace(found, error=math.hypot(found.error, optimism))
    nothing = statistics.Estimate(0.0, 0.0, found.freedom, found.n)
    return statistics.estimated_difference(found, nothing, level)


def _negated(difference):
    """Returns a difference with the other sign."""
    return dataclasses.replace(
        difference, value=-difference.value, low=-difference.high, high=-difference.low
    )


def _by_seed(point: Point) -> dict[int, float | None]:
    """Returns the scores of a point by seed."""
    return dict(zip(point.seeds, point.scores, strict=True))
