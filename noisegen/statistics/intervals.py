"""Calculates confidence intervals of means and of differences of means.

Scores of runs that differ only in the seed are treated as independent draws from a normal
distribution. If they are skewed, intervals are a little too short: those of 3 to 15 log-normal
scores (standard deviation of the logarithm 0.5) contain the mean in 92 % of samples instead of 95.
Two rules hold for every function:

* A score that is nan, infinite or None belongs to a run that diverged. A mean over such scores is
  not defined, so the result is nan. Leave diverged runs out beforehand, and report how many.
* Scores that are all equal do not show how much seeds matter, which happens for instance with an
  accuracy on few examples. An interval of length zero would be wrong, so the bounds are nan. Scores
  count as equal if they differ by less than a millionth, the rounding of float32.

>>> from noisegen import statistics
>>> found = statistics.mean_interval([0.90, 0.92, 0.91])
>>> round(found.value, 3), round(found.low, 3), round(found.high, 3)
(0.91, 0.885, 0.935)
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from noisegen.statistics import _checks

_ROUNDING = 1e-6  # Relative; float32 resolves 1.2e-7, and a metric is a sum of many of them.


@dataclasses.dataclass(frozen=True)
class Interval:
    """Holds an estimate with its confidence interval.

    Attributes:
      value: Estimate; nan if it is not defined.
      low, high: Bounds; nan if there are too few scores.
      level: Probability with which such an interval contains the true value.
    """

    value: float
    low: float
    high: float
    level: float


@dataclasses.dataclass(frozen=True)
class Difference(Interval):
    """Holds a difference of two means, with its confidence interval and test.

    Attributes:
      value, low, high, level: See `Interval`. The difference is positive if a is greater than b.
      p_value: Probability of a difference at least as large, of either sign, if the means are
        equal; nan if there are too few scores.
      n: Number of pairs, or the size of the smaller sample.
    """

    p_value: float
    n: int


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Holds a mean with its standard error, where it is not that of a plain sample.

    Attributes:
      value: Mean; nan if it is not defined.
      error: Standard error of the mean.
      freedom: Degrees of freedom of the error, of a t distribution.
      n: Number of scores.
    """

    value: float
    error: float
    freedom: float
    n: int


class PooledDeviation(NamedTuple):
    """Holds the standard deviation of several samples that vary alike.

    Attributes:
      deviation: Standard deviation; nan if no sample has two scores.
      freedom: Degrees of freedom.
    """

    deviation: float
    freedom: int


def mean_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Returns the mean of a sample with Student's t interval.

    mean +- t * s / sqrt(n), with s the standard deviation (n - 1 in the denominator) and t the
    (1 + level) / 2 quantile of Student's t distribution with n - 1 degrees of freedom.

    Args:
      values: Scores, of shape (N,).
      level: Level of the interval, in (0, 1).

    Returns:
      The mean and its interval. Bounds are nan for fewer than two scores, or if all are equal.

    Raises:
      ValueError: If the values are no list of numbers, or the level is not in (0, 1).

    References:
      Student, The Probable Error of a Mean, Biometrika 6, 1908
    """
    values = _checks.sample("values", values)
    _checks.level(level)
    mean = mean_or_nan(values)
    error = _error_of_mean(values, scale=np.abs(values).max(initial=0))
    half = _half_width(error, len(values) - 1, level)
    return Interval(mean, mean - half, mean + half, level)


def paired_difference(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Difference:
    """Returns the mean difference of paired scores, with the paired t test.

    The t interval of the differences a_i - b_i, with n - 1 degrees of freedom. If runs of the same
    seed share what the seed determines (initial parameters, data order), their scores may be
    correlated. The differences then vary less than the scores, and the interval is shorter.

    Args:
      a, b: Scores, of shape (N,), those at one place from the same seed (see `pair_by_seed`).
      level: Level of the interval, in (0, 1).

    Returns:
      The mean of a - b, its interval, and the p value. Bounds and p value are nan for fewer than
      two pairs, or if all differences are equal.

    Raises:
      ValueError: If a and b have different lengths.

    Examples:
      >>> found = paired_difference([0.93, 0.90, 0.95], [0.91, 0.89, 0.92])
      >>> round(found.value, 3), round(found.p_value, 3)
      (0.02, 0.074)
    """
    a, b = _checks.sample("a", a), _checks.sample("b", b)
    _checks.same_length(a=a, b=b)
    # Differences are as coarse as the scores that they are of.
    error = _error_of_mean(a - b, scale=np.abs([a, b]).max(initial=0))
    return _difference(mean_or_nan(a - b), error, len(a) - 1, len(a), level)


def welch_difference(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Difference:
    """Returns the difference of the means of two independent samples, with Welch's t test.

    mean(a) - mean(b) +- t * sqrt(u + v), where u = s_a^2 / n_a and v = s_b^2 / n_b, and t belongs
    to (u + v)^2 / (u^2 / (n_a - 1) + v^2 / (n_b - 1)) degrees of freedom. The variances may differ.

    Args:
      a, b: Scores, of shapes (N,) and (M,).
      level: Level of the interval, in (0, 1).

    Returns:
      The difference, its interval, and the p value. Bounds and p value are nan if a sample has
      fewer than two scores, or if the scores of both are all equal.

    References:
      Welch, The Generalization of `Student's' Problem when Several Different Population Variances
      are Involved, Biometrika 34, 1947
    """
    a, b = _checks.sample("a", a), _checks.sample("b", b)
    return estimated_difference(estimate(a), estimate(b), level)


def estimated_difference(a: Estimate, b: Estimate, level: float = 0.95) -> Difference:
    """Returns the difference of two independent estimates, as `welch_difference` does of samples.

    Its standard error is sqrt(u + v), where u and v are the squares of the two errors, and its
    degrees of freedom are (u + v)^2 / (u^2 / f_a + v^2 / f_b).

    Args:
      a, b: Means with their errors.
      level: Level of the interval, in (0, 1).
    """
    errors, freedom = welch_errors([a, b])
    return _difference(a.value - b.value, errors[0, 1], freedom[0, 1], min(a.n, b.n), level)


def estimate(values: ArrayLike, scale: float | None = None) -> Estimate:
    """Returns the mean of a sample with its standard error s / sqrt(n).

    Args:
      values: Scores, of shape (N,). The error is nan for fewer than two.
      scale: Size of the numbers that the scores were computed from, by default their own. Scores
        that differ by no more than the rounding of such numbers count as equal.
    """
    values = _checks.sample("values", values)
    n = len(values)
    scale = np.abs(values).max(initial=0) if scale is None else scale
    error = _std(values, scale) / math.sqrt(max(n, 1))
    return Estimate(mean_or_nan(values), error, n - 1, n)


def pooled_deviation(samples: Iterable[ArrayLike]) -> PooledDeviation:
    """Returns the standard deviation of several samples together, each about its own mean.

    The root of the sum of (n_i - 1) s_i^2 over the sum of n_i - 1. A sample whose scores differ by
    their rounding only has s_i = 0.

    Args:
      samples: Samples of scores, of any lengths.

    Examples:
      >>> pooled_deviation([[1.0, 3.0], [5.0], [2.0, 4.0]])
      PooledDeviation(deviation=1.4142135623730951, freedom=2)
    """
    squares, freedom = 0.0, 0
    for sample in samples:
        found = estimate(sample)
        if found.n > 1:
            squares += found.error**2 * found.n * (found.n - 1)
            freedom += found.n - 1
    return PooledDeviation(math.sqrt(squares / freedom) if freedom else math.nan, freedom)


def pair_by_seed(
    a: Mapping[int, float | None], b: Mapping[int, float | None]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the scores of the seeds that both samples have, for `paired_difference`.

    A seed is left out if it is missing on one side, or diverged there (None, nan or infinite). The
    difference then compares surviving runs only. Report the number of pairs beside it.

    Args:
      a, b: From seed to score.

    Returns:
      Two arrays of the same length, in the order of the seeds.

    Examples:
      >>> pair_by_seed({0: 0.9, 1: 0.8, 2: None}, {2: 0.7, 1: 0.6, 0: 0.5})
      (array([0.9, 0.8]), array([0.5, 0.6]))
    """
    seeds = sorted(a.keys() & b.keys())
    pairs = np.array([(a[seed], b[seed]) for seed in seeds], float).reshape(-1, 2)
    pairs = pairs[np.isfinite(pairs).all(1)]
    return pairs[:, 0], pairs[:, 1]


def holm(p_values: ArrayLike) -> np.ndarray:
    """Adjusts p values of several tests, so that the chance of any false rejection is bounded.

    With p_(1) <= ... <= p_(m), the adjusted p_(i) is the greatest of (m - j + 1) p_(j) over j <= i,
    at most 1. To reject those below alpha keeps the probability of one or more false rejections at
    or below alpha, however the tests depend on each other.

    Args:
      p_values: p values, of any shape. A nan is a test that was not made: it stays nan and does not
        count in m.

    Returns:
      The adjusted p values, of the same shape.

    Raises:
      ValueError: If a p value is not between 0 and 1.

    Examples:
      >>> holm([0.01, 0.04, 0.03, float("nan")]).round(3).tolist()
      [0.03, 0.06, 0.06, nan]

    References:
      Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of
      Statistics 6, 1979
    """
    p_values = np.asarray(p_values, float)
    if ((p_values < 0) | (p_values > 1)).any():
        raise ValueError(f"p values must lie between 0 and 1, got {p_values.tolist()}.")
    adjusted = np.full(p_values.shape, np.nan)
    made = ~np.isnan(p_values)
    found = p_values[made]
    order = found.argsort(kind="stable")
    factors = np.arange(len(found), 0, -1)
    ascending = np.minimum(np.maximum.accumulate(found[order] * factors), 1)
    found[order] = ascending
    adjusted[made] = found
    return adjusted


def welch_errors(estimates: Sequence[Estimate]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the standard errors of all differences, and Welch's degrees of freedom.

    Args:
      estimates: K means with their errors.

    Returns:
      Errors and degrees of freedom, both of shape (K, K), nan if there is no test.
    """
    squares = np.array([each.error**2 for each in estimates])
    parts = squares**2 / np.array([max(each.freedom, 1) for each in estimates])
    total = squares[:, None] + squares
    total = np.where(total > 0, total, np.nan)  # Both samples have equal scores only.
    return np.sqrt(total), total**2 / (parts[:, None] + parts)


def t_quantile(level: float, freedom: float) -> float:
    """Returns the two-sided quantile of Student's t distribution, nan without freedom."""
    return float(special.stdtrit(freedom, (1 + level) / 2)) if freedom > 0 else math.nan


def mean_or_nan(values: np.ndarray) -> float:
    """Returns the mean, nan if there is no score or one is not finite."""
    return float(values.mean()) if _has_mean(values, 1) else math.nan


def _has_mean(values, least):
    """Returns whether there are at least so many scores, all of them finite."""
    return len(values) >= least and bool(np.isfinite(values).all())


def _std(values, scale):
    """Returns the standard deviation, 0 if the values are equal up to rounding, nan if undefined.

    Args:
      values: Scores or differences of scores.
      scale: Greatest score, which rounding is relative to.
    """
    if not _has_mean(values, 2):
        return math.nan
    std = float(values.std(ddof=1))
    return std if std > _ROUNDING * scale else 0.0


def _error_of_mean(values, scale):
    """Returns the standard error of a mean, nan if the values do not show one."""
    return (_std(values, scale) or math.nan) / math.sqrt(max(len(values), 1))


def _half_width(error, freedom, level):
    return t_quantile(level, freedom) * error


def _difference(value, error, freedom, n, level):
    """Returns a difference from its standard error and degrees of freedom."""
    half = _half_width(error, freedom, _checks.level(level))
    p_value = math.nan if math.isnan(half) else 2 * special.stdtr(freedom, -abs(value) / error)
    return Difference(value, value - half, value + half, level, float(p_value), n)
