"""Plans experiments: which difference a number of seeds can see, and which a test set can.

>>> from noisegen import statistics
>>> round(statistics.least_difference(std=0.8, n=3), 2)  # Points, for a spread of 0.8 points.
2.46
>>> statistics.seeds_needed(std=0.8, difference=1.0)
12
>>> round(statistics.proportion_error(0.55, num_examples=2048), 3)
0.011
"""

import math

from scipy import optimize, special

from noisegen.statistics import _checks


def least_difference(
    std: float, n: int, *, level: float = 0.95, power: float = 0.8, paired: bool = False
) -> float:
    """Returns the smallest true difference that a t test with n seeds finds with a given power.

    The two-sided test at 1 - level of two samples of n seeds, with equal standard deviations s,
    finds a difference D, with its sign, with the probability P(T > t). T has the noncentral t
    distribution with 2 n - 2 degrees of freedom and the noncentrality D / (s sqrt(2 / n)); t is the
    (1 + level) / 2 quantile of Student's. For pairs there are n - 1 degrees of freedom, and the
    noncentrality is D / (s / sqrt(n)), with s of the differences. Welch's test has fewer degrees of
    freedom: with power 0.8 it finds the difference in 70 % of samples of 3 seeds, in 78 % with 5.

    Args:
      std: Standard deviation of the scores over seeds, or of the differences if `paired`.
      n: Number of seeds of each sample, or of pairs.
      level: 1 minus the significance level.
      power: Probability with which the difference is to be found, greater than 1 - level.
      paired: Whether runs are paired by seed.

    Returns:
      The difference, in the unit of `std`; infinite for fewer than two seeds.

    Raises:
      ValueError: If a number is out of range.

    References:
      Cohen, Statistical Power Analysis for the Behavioral Sciences, 2nd edition, 1988, chapter 2
    """
    _checks.positive("std", std)
    _checks.at_least("n", n, 0)
    _check_power(level, power)
    if n < 2:
        return math.inf
    freedom, scale = (n - 1, 1 / math.sqrt(n)) if paired else (2 * n - 2, math.sqrt(2 / n))
    t = float(special.stdtrit(freedom, (1 + level) / 2))

    def excess(noncentrality):
        return 1 - float(special.nctdtr(freedom, noncentrality, t)) - power

    most = t
    while excess(most) < 0:
        most *= 2
    return std * scale * float(optimize.brentq(excess, 0, most, xtol=1e-9))


def seeds_needed(
    std: float, difference: float, *, level: float = 0.95, power: float = 0.8, paired: bool = False
) -> int:
    """Returns the smallest number of seeds whose t test finds a difference with a given power.

    The inverse of `least_difference`.

    Args:
      std: Standard deviation of the scores over seeds, or of the differences if `paired`.
      difference: True difference, greater than 0.
      level: 1 minus the significance level.
      power: Probability with which the difference is to be found, greater than 1 - level.
      paired: Whether runs are paired by seed.

    Returns:
      The number of seeds of each sample, or of pairs; at least 2.

    Raises:
      ValueError: If a number is out of range.
    """
    _checks.positive("difference", difference)

    def is_enough(n):
        return least_difference(std, n, level=level, power=power, paired=paired) <= difference

    too_few, enough = 1, 2
    while not is_enough(enough):
        too_few, enough = enough, 2 * enough
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if is_enough(middle) else (middle, enough)
    return enough


def proportion_error(accuracy: float, num_examples: int) -> float:
    """Returns the standard error of an accuracy that comes from the choice of test examples.

    sqrt(p (1 - p) / n), of the binomial distribution. It concerns statements about examples beyond
    this test set. More seeds do not reduce it, since all runs are tested on the same examples:
    of a mean over seeds it is an upper bound.

    Args:
      accuracy: Accuracy p, from 0 to 1.
      num_examples: Number of test examples n.

    Returns:
      The standard error, as a fraction like the accuracy.

    Raises:
      ValueError: If the accuracy is not between 0 and 1, or there is no example.

    References:
      Dietterich, Approximate Statistical Tests for Comparing Supervised Classification Learning
      Algorithms, Neural Computation 10, 1998
    """
    _check_fraction("accuracy", accuracy)
    _checks.at_least("num_examples", num_examples, 1)
    return math.sqrt(accuracy * (1 - accuracy) / num_examples)


def paired_proportion_error(
    disagreement: float, num_examples: int, *, difference: float = 0.0
) -> float:
    """Returns the standard error of the difference of two accuracies on the same test examples.

    sqrt((q - d^2) / n), with q the share of examples on which exactly one of the two networks is
    right, and d the difference of their accuracies. It is the error behind McNemar's test.

    Args:
      disagreement: Share q, from 0 to 1.
      num_examples: Number of test examples n.
      difference: Difference d of the accuracies, at most q in size; 0 as in McNemar's test.

    Returns:
      The standard error, as a fraction like the accuracies.

    Raises:
      ValueError: If the disagreement is not between 0 and 1 or less than the difference.

    Examples:
      >>> round(paired_proportion_error(0.4, num_examples=2048), 3)
      0.014

    References:
      McNemar, Note on the Sampling Error of the Difference between Correlated Proportions or
      Percentages, Psychometrika 12, 1947
    """
    _check_fraction("disagreement", disagreement)
    _checks.at_least("num_examples", num_examples, 1)
    if not abs(difference) <= disagreement:
        raise ValueError(
            f"difference must be at most the disagreement {disagreement} in size, got {difference}."
        )
    return math.sqrt((disagreement - difference**2) / num_examples)


def _check_power(level, power):
    _checks.level(level)
    if not 1 - level < power < 1:
        raise ValueError(f"power must lie between {1 - level:.3g} and 1, for 0.8; got {power}.")


def _check_fraction(name, value):
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be a fraction from 0 to 1, not percent; got {value}.")
