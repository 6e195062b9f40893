"""Decides which values of a race need further seeds.

A race gives every value that it tries one seed, and further seeds only where they may change the
result: to values that may still be the best, and to values that may or may not belong to the error
bar. Here are the decisions, as functions of scores. `noisegen.sweeps.search` applies them to runs.

With m of n seeds, the score of a value is the mean of its best ceil(k m / n), so that it estimates
the mean of the best k of n. The noise s of a score is the standard deviation over seeds, pooled
over all values with several of them. Two means over m and m' seeds differ by less than the noise if

  |difference| <= z (1 + 1 / f) s sqrt(1 / m + 1 / m')

with f the degrees of freedom of s. z = 1 found the optimum of the full grid in 98 % of the rows in
which it was tried (see `experiments/benchmarks/race_replay.py`): a value that is dropped wrongly
was nearly as good.
"""

import dataclasses
import math
import statistics
from collections.abc import Iterable, Sequence

from noisegen import _values

Values = tuple[_values.Value, ...]  # Of the tuned fields, in the protocol's order.

CLOSE_TO_BEST = 1.0  # z for values that may be the best
CLOSE_TO_BAR = 0.5  # z for values that may belong to the error bar


@dataclasses.dataclass(frozen=True)
class Entry:
    """A value of the tuned fields in a race.

    Attributes:
      values: The value of each tuned field.
      scores: The score of each seed so far, larger ones better, None where the run diverged.
      most: Number of seeds that there are for it.
      best: k, the number of seeds that count.
      of: n >= k, the number of seeds out of which the k are the best.
    """

    values: Values
    scores: tuple[float | None, ...]
    most: int
    best: int
    of: int

    @property
    def num_counted(self) -> int:
        """Number of the seeds so far that count."""
        return math.ceil(self.best * len(self.scores) / self.of)

    @property
    def counted(self) -> list[float]:
        """The scores that count: the best ones, without those of diverged runs."""
        survivors = [score for score in self.scores if score is not None]
        return sorted(survivors, reverse=True)[: self.num_counted]

    @property
    def mean(self) -> float:
        """Mean of the scores that count, -inf if there are none."""
        return statistics.fmean(self.counted) if self.counted else -math.inf

    @property
    def is_stable(self) -> bool:
        """Whether as many runs survived as count."""
        return len(self.counted) == self.num_counted

    @property
    def is_complete(self) -> bool:
        """Whether it has all its seeds."""
        return len(self.scores) == self.most


def best_entry(entries: Iterable[Entry]) -> Entry | None:
    """Returns the entry of best mean, None if no run survived.

    A stable entry beats any that is not. Of equal ones, that of the smallest values wins.
    """
    alive = [entry for entry in entries if entry.counted]
    alive.sort(key=lambda entry: entry.values)
    return max(alive, key=lambda entry: (entry.is_stable, entry.mean), default=None)


def error_bar(entries: Iterable[Entry], best: Entry) -> list[Entry]:
    """Returns the stable entries within a standard deviation, the best one's, of its mean."""
    least = _least_in_bar(best)
    return [entry for entry in entries if entry.is_stable and entry.mean >= least]


def more_seeds(entries: Sequence[Entry]) -> dict[Values, int]:
    """Returns the values that need further seeds, and how many seeds they are to have.

    Of several such values, those with the fewest seeds come first.

    Args:
      entries: The values tried so far, each with at least one seed.

    Returns:
      A dict from values to numbers of seeds, empty if nothing is left to decide.
    """
    best = best_entry(entries)
    if best is None:
        return {}
    noise = _noise(entries)
    if noise is None:
        # The noise is first measured at the two best, where further seeds are needed anyway.
        ranked = sorted(entries, key=lambda entry: (entry.is_stable, entry.mean), reverse=True)
        return _with_next_seeds(ranked[:2])
    contenders = [entry for entry in entries if _may_be_best(entry, best, noise)]
    if contenders == [best]:
        # Nothing but its own mean is left to measure, which takes all of its seeds.
        if not best.is_complete:
            return {best.values: best.most}
        return _with_next_seeds([e for e in entries if _may_be_in_bar(e, best, noise)])
    return _with_next_seeds(contenders) or _with_next_seeds(
        [entry for entry in entries if _may_be_in_bar(entry, best, noise)]
    )


def _noise(entries) -> tuple[float, int] | None:
    """Returns the pooled standard deviation over seeds and its degrees of freedom, if any."""
    squares, freedom = 0.0, 0
    for entry in entries:
        survivors = [score for score in entry.scores if score is not None]
        if len(survivors) > 1:
            squares += (len(survivors) - 1) * statistics.variance(survivors)
            freedom += len(survivors) - 1
    return (math.sqrt(squares / freedom), freedom) if freedom else None


def _may_be_best(entry, best, noise) -> bool:
    """Returns whether further seeds may show an entry to be the best."""
    deviation, freedom = noise
    margin = CLOSE_TO_BEST * (1 + 1 / freedom) * deviation
    margin *= math.sqrt(1 / len(entry.scores) + 1 / len(best.scores))
    return entry.is_stable == best.is_stable and entry.mean + margin >= best.mean


def _may_be_in_bar(entry, best, noise) -> bool:
    """Returns whether further seeds may move an entry into the error bar, or out of it."""
    margin = CLOSE_TO_BAR * noise[0] * math.sqrt(1 / len(entry.scores) + 1 / len(best.scores))
    return entry.is_stable and abs(entry.mean - _least_in_bar(best)) < margin


def _least_in_bar(best) -> float:
    """Returns the mean from which on an entry is in the error bar."""
    return best.mean - (statistics.stdev(best.counted) if len(best.counted) > 1 else 0)


def _with_next_seeds(entries) -> dict[Values, int]:
    """Returns the next number of seeds of those incomplete entries that have the fewest.

    The numbers grow by a quarter and one: 1, 2, 3, 4, 6, 8, 11, 14.
    """
    incomplete = [entry for entry in entries if not entry.is_complete]
    fewest = min((len(entry.scores) for entry in incomplete), default=0)
    return {
        entry.values: min(entry.most, fewest + 1 + fewest // 4)
        for entry in incomplete
        if len(entry.scores) == fewest
    }
