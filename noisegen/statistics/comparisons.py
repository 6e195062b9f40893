"""Compares rows, batch sizes for instance, with the best of them.

The best row is chosen from the same scores that it is compared by, so an ordinary test against it
is wrong too often. Here every row is compared with every other one, and the level is divided by the
number of comparisons. A row is lower than the best if it is lower than any other row. So whichever
row is the best by chance, statements about the others hold.

If each row has a point of its own, its best learning rate, these scores may be compared:

* Those of the chosen points at all seeds. Selection makes every row look better, by similar
  amounts, and does not widen the spread of their means. Rows that are equally good at their best
  points were called lower in 0 to 5 % of samples, even with one row tuned over 1 or 15 points and
  the others over 5.
* Those of `selected_by_first_seeds`, for statements about the chosen points only. Few seeds may
  choose a poor point, and a row that is called lower for it may be as good at its best one: it was
  so in up to 25 % of samples.

Those of `selected_without_seed` may not. They are correlated within a row, so rows seem to differ:
equally good rows were called lower in 5 to 53 % of samples. With a standard error that contains the
optimism, sqrt(s^2 / N + d^2) as in their interval, it was 0 to 5 %.

>>> from noisegen import statistics
>>> rows = [[93.0, 93.4, 93.1, 93.2], [93.2, 93.1, 92.9, 93.3], [90.2, 90.9, 90.5, 90.3]]
>>> [row.is_lower for row in statistics.compare_with_best(rows)]
[False, False, True]
>>> statistics.last_not_lower(rows).row
1
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from noisegen.statistics import _checks, intervals


@dataclasses.dataclass(frozen=True)
class RowComparison(intervals.Interval):
    """Holds how far a row lies below the best row.

    Attributes:
      value: Mean of the row minus the greatest mean; 0 for the row of the greatest mean.
      low, high, level: Simultaneous interval: all rows' intervals hold together with the
        probability `level`. The true value is never above 0, and neither is `high`. The loss
        against the best row is at most -low.
      p_value: Adjusted for all rows; at most 1 - level exactly if `high` is below 0. It is nan if
        the row could not be compared.
    """

    p_value: float

    @property
    def is_lower(self) -> bool:
        """Returns whether the row is measurably lower than the best one."""
        return self.p_value <= 1 - self.level


@dataclasses.dataclass(frozen=True)
class LastNotLower:
    """Holds the last row that is not measurably lower than an earlier one.

    Attributes:
      row: Index of the row; -1 if there is no score at all.
      p_values: Of the tests from the last row down to `row`, keyed by row.
      level: 1 minus the probability that a row beyond `row` is called lower and is not.
    """

    row: int
    p_values: dict[int, float]
    level: float


def compare_with_best(
    rows: Sequence[ArrayLike | intervals.Estimate], level: float = 0.95
) -> tuple[RowComparison, ...]:
    """Tests which rows are lower than the best row, with simultaneous intervals.

    For K rows, each of the K (K - 1) differences of an ordered pair has Welch's one-sided bound at
    1 - (1 - level) / (K (K - 1)). With mean_i - mean_j +- w_ij from these bounds, the mean of row i
    lies below that of the best row by a number between min_j (mean_i - mean_j - w_ij), over rows j
    that are not measurably lower than another, and min_j (mean_i - mean_j + w_ij).

    False statements: with normal scores and equal means the probability that any row is called
    lower is at most 1 - level by Bonferroni's inequality, apart from Welch's approximation. For 3,
    5 and 15 seeds, 3 or 8 rows and standard deviations that differ by up to 10 times it was 0.4 to
    4.5 %, and 5.2 % if one of three rows of 3 seeds varies 10 times less than the others
    (`experiments/benchmarks/interval_coverage.py`). The price is power: of 8 rows, a drop of 4
    standard deviations is seen in 39 % of samples with 3 seeds, and in 97 % with 5.

    A row that is not measurably lower may be lower all the same. To claim that it is not, give the
    loss of at most -low beside it.

    Args:
      rows: Scores of each row, larger ones better, or an `Estimate` of their mean; samples may
        differ in size.
      level: Probability that all intervals hold.

    Returns:
      A comparison for each row. All numbers are nan for a row without a mean (no score, or a
      diverged run), which the others are not compared with. Bounds are nan where no difference has
      an interval (see `welch_difference`).

    Raises:
      ValueError: If there is no row, a row is no list of numbers, or the level not in (0, 1).

    References:
      Hsu, Multiple Comparisons: Theory and Methods, 1996, chapters 4 and 5, for comparisons with
      the best; Tamhane, A Comparison of Procedures for Multiple Comparisons of Means with Unequal
      Variances, Journal of the American Statistical Association 74, 1979
    """
    estimates = _estimates(rows)
    _checks.level(level)
    means = np.array([each.value for each in estimates])
    errors, freedom, p_values = _tests(estimates, means)
    num_tests = max(np.isfinite(p_values).sum(), 1)
    adjusted = np.minimum(_least(p_values) * num_tests, 1)
    above = means[:, None] - means  # Of row i over row j, of shape (K, K).
    widths = special.stdtrit(freedom, 1 - (1 - level) / num_tests) * errors
    high = np.minimum(_least(above + widths), 0)
    # If all bounds hold, the best row is among those that are not lower.
    may_be_best = ~(adjusted <= 1 - level) & np.isfinite(means)
    low = [_lowest(above[row] - widths[row], may_be_best, row) for row in range(len(estimates))]
    value = means - np.nanmax(means) if np.isfinite(means).any() else means
    found = zip(value, low, high, adjusted, strict=True)
    return tuple(
        RowComparison(*map(float, (value, low, high)), level=level, p_value=float(p_value))
        for value, low, high, p_value in found
    )


def last_not_lower(
    rows: Sequence[ArrayLike | intervals.Estimate], level: float = 0.95
) -> LastNotLower:
    """Returns the last row that is not measurably lower than any earlier row.

    For rows in the order of the batch size: the largest batch size at which the score has not
    measurably dropped. The order is fixed beforehand, so tests can be made in sequence, each at the
    full level, from the last row backwards to the first one that is not rejected. Row i is tested
    against the i earlier rows: its p value is i times the least of Welch's one-sided p values.

    False statements: the probability that the result is less than the last row that is truly not
    lower than any earlier one is at most 1 - level, apart from Welch's approximation. With 3, 5 and
    15 seeds and standard deviations that differ by up to 10 times it was 1 to 5.5 %. In the other
    direction nothing is guaranteed: with few seeds, real drops go unseen, and the result is too
    large. Of 8 rows, a drop of the last one by 2 standard deviations is seen in 43 % of samples
    with 3 seeds, in 84 % with 5 and always with 15.

    Args:
      rows: Scores of each row, in order, larger ones better, or an `Estimate` of their mean;
        samples may differ in size.
      level: 1 minus the admitted probability of a false statement.

    Returns:
      The row, and the p values of the tests made. A row without a mean (no score, or a diverged
      run) is passed over. A row that has no test, for want of scores, is not measurably lower.

    Raises:
      ValueError: If there is no row, a row is no list of numbers, or the level not in (0, 1).

    References:
      Maurer, Hothorn & Lehmacher, Multiple Comparisons in Drug Clinical Trials and Preclinical
      Assays: A-priori Ordered Hypotheses, 1995
    """
    estimates = _estimates(rows)
    _checks.level(level)
    means = np.array([each.value for each in estimates])
    _, _, p_values = _tests(estimates, means)
    made = {}
    for row in reversed(np.flatnonzero(np.isfinite(means)).tolist()):
        against = p_values[row, :row]
        against = against[np.isfinite(against)]
        made[row] = min(1.0, float(against.min()) * len(against)) if len(against) else math.nan
        if not made[row] <= 1 - level:
            return LastNotLower(row, made, level)
    return LastNotLower(-1, made, level)


def _estimates(rows) -> list[intervals.Estimate]:
    """Returns each row as a mean with its error."""
    if not len(rows):
        raise ValueError("rows must have at least one row of scores, got none.")
    estimates = []
    for index, row in enumerate(rows):
        if not isinstance(row, intervals.Estimate):
            row = intervals.estimate(_checks.sample(f"row {index}", row))
        estimates.append(row)
    return estimates


def _tests(estimates, means):
    """Tests for all pairs whether row i is lower than row j, by Welch's one-sided test.

    Returns standard errors, degrees of freedom and p values, of shape (K, K), nan without a test.
    """
    errors, freedom = intervals.welch_errors(estimates)
    np.fill_diagonal(errors, np.nan)
    return errors, freedom, special.stdtr(freedom, (means[:, None] - means) / errors)


def _least(table):
    """Returns the least number of each row of a table, nan if there is none."""
    least = np.where(np.isnan(table), np.inf, table).min(1)
    return np.where(np.isinf(least), np.nan, least)


def _lowest(bounds, may_be_best, row):
    """Returns the least bound against a row that may be the best, nan if a bound is missing.

    Against itself the bound is 0.
    """
    others = may_be_best & (np.arange(len(bounds)) != row)
    lowest = bounds[others].min(initial=0 if may_be_best[row] else np.inf)
    return lowest if np.isfinite(lowest) else np.nan
