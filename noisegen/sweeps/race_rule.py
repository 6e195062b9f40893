"""Decides which points of a race need further seeds.

A race gives every point that it tries one seed, and further seeds only where they may change the
result: to points that may still be the best, and to points that may or may not belong to the error
bar. Here are the decisions, as functions of scores. `noisegen.sweeps.search` applies them to runs.

With m of n seeds, the score of a point is the mean of its best ceil(k m / n), so that it estimates
the mean of the best k of n. The noise s of a score is the standard deviation over seeds, pooled
over all points with several of them; f are its degrees of freedom.

A point with m seeds may be the best if its score is at least that of the best point, which has m'
seeds, minus

  1.0 (1 + 1 / f) s sqrt(1 / m + 1 / m')

It may or may not belong to the error bar if its score differs from the lower end of the bar by less
than

  0.5 s sqrt(1 / m + 1 / m')

The factor 1.0 found the optimum of the full grid in 98 % of the rows in which it was tried (see
`experiments/benchmarks/race_replay.py`): a point that is dropped wrongly was nearly as good.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from statistics import fmean, stdev

from noisegen import _values, statistics

Values = tuple[_values.Value, ...]  # Of the tuned fields, in the protocol's order.

_CLOSE_TO_BEST = 1.0  # factor for points that may be the best
_CLOSE_TO_BAR = 0.5  # factor for points that may belong to the error bar


@dataclasses.dataclass(frozen=True)
class RacePoint:
    """A point in a race: the runs with one choice of the tuned fields.

    Attributes:
      values: The tuned fields, which name the point.
      scores: The score of each seed so far, larger ones better, None where the run diverged.
      num_counted: Number of these seeds that count, the best ones; see `Protocol.num_counted`.
      num_planned: Number of seeds that the point has in the end.
    """

    values: Values
    scores: tuple[float | None, ...]
    num_counted: int
    num_planned: int

    @property
    def survivors(self) -> list[float]:
        """The scores of the runs that did not diverge."""
        return [score for score in self.scores if score is not None]

    @property
    def counted(self) -> list[float]:
        """The scores that count: the best ones, without those of diverged runs."""
        return sorted(self.survivors, reverse=True)[: self.num_counted]

    @property
    def mean(self) -> float:
        """Mean of the scores that count, -inf if there are none."""
        return fmean(self.counted) if self.counted else -math.inf

    @property
    def is_stable(self) -> bool:
        """Whether as many runs survived as count."""
        return len(self.counted) == self.num_counted

    @property
    def is_complete(self) -> bool:
        """Whether it has all its seeds."""
        return len(self.scores) == self.num_planned


def best_point(points: Iterable[RacePoint]) -> RacePoint | None:
    """Returns the point of best mean, None if no run survived.

    Stable points come first. Ties go to the smallest values.
    """
    alive = [point for point in points if point.counted]
    alive.sort(key=lambda point: point.values)
    return max(alive, key=lambda point: (point.is_stable, point.mean), default=None)


def error_bar(points: Iterable[RacePoint], best: RacePoint) -> list[RacePoint]:
    """Returns the stable points whose mean is within one standard deviation of the best."""
    least = _least_in_bar(best)
    return [point for point in points if point.is_stable and point.mean >= least]


def more_seeds(points: Sequence[RacePoint]) -> dict[Values, int]:
    """Returns the points that need further seeds, and how many seeds they are to have.

    Of several such points, those with the fewest seeds come first.

    Args:
      points: The points tried so far, each with at least one seed.

    Returns:
      A dict from the values of points to numbers of seeds, empty if nothing is left to decide.
    """
    best = best_point(points)
    if best is None:
        return {}
    noise = statistics.pooled_deviation([point.survivors for point in points])
    if not noise.freedom:
        # The noise is first measured at the two best, where further seeds are needed anyway.
        ranked = sorted(points, key=lambda point: (point.is_stable, point.mean), reverse=True)
        return _with_next_seeds(ranked[:2])
    contenders = [point for point in points if _may_be_best(point, best, noise)]
    if contenders == [best] and not best.is_complete:
        # Only its own mean is left to measure, which takes all of its seeds.
        return {best.values: best.num_planned}
    in_doubt = [point for point in points if _may_be_in_bar(point, best, noise)]
    return _with_next_seeds(contenders) or _with_next_seeds(in_doubt)


def _may_be_best(point, best, noise) -> bool:
    """Returns whether further seeds may show a point to be the best."""
    factor = _CLOSE_TO_BEST * (1 + 1 / noise.freedom)
    return point.is_stable == best.is_stable and (
        point.mean + _margin(factor, noise, point, best) >= best.mean
    )


def _may_be_in_bar(point, best, noise) -> bool:
    """Returns whether further seeds may move a point into the error bar, or out of it."""
    distance = abs(point.mean - _least_in_bar(best))
    return point.is_stable and distance < _margin(_CLOSE_TO_BAR, noise, point, best)


def _margin(factor, noise, point, best) -> float:
    """Returns how far the score of a point may be off, compared with the best."""
    return factor * noise.deviation * math.sqrt(1 / len(point.scores) + 1 / len(best.scores))


def _least_in_bar(best) -> float:
    """Returns the mean from which on a point is in the error bar."""
    return best.mean - (stdev(best.counted) if len(best.counted) > 1 else 0)


def _with_next_seeds(points) -> dict[Values, int]:
    """Returns the next number of seeds of those incomplete points that have the fewest.

    The numbers grow by a quarter and one: 1, 2, 3, 4, 6, 8, 11, 14.
    """
    incomplete = [point for point in points if not point.is_complete]
    fewest = min((len(point.scores) for point in incomplete), default=0)
    return {
        point.values: min(point.num_planned, fewest + 1 + fewest // 4)
        for point in incomplete
        if len(point.scores) == fewest
    }
