"""Measures how selection among points, learning rates for instance, affects what is reported.

The best of several points is best partly by luck: its mean over the seeds that chose it is too
good. `selected_without_seed` scores every seed at a point that was chosen without it.
`selected_by_first_seeds` chooses with some seeds and scores with the others, and has scores that
tests may use. `bootstrap_shares` shows how firmly the seeds decide which point is the best.

A table of scores has a row for each point and a column for each seed. The larger score is the
better one (negate a loss), and a run that diverged or was not trained is nan.

>>> from noisegen import statistics
>>> scores = [[0.90, 0.91, 0.92], [0.93, 0.90, 0.91], [0.80, None, 0.85]]
>>> found = statistics.selected_without_seed(scores)
>>> found.points, found.scores
((0, 1, 1), (0.9, 0.9, 0.91))
>>> round(found.interval.value, 4), round(found.optimism, 4)
(0.9033, 0.01)
"""

import dataclasses
import math

import numpy as np
from numpy.typing import ArrayLike

from noisegen.statistics import _checks, intervals


@dataclasses.dataclass(frozen=True)
class HeldOutScore:
    """Holds the score of a selected point at seeds that did not select it.

    Attributes:
      interval: Mean over the left-out seeds, and its interval.
      scores: Score of each left-out seed, nan if that run diverged.
      points: For each left-out seed, index of the point that was chosen without it, -1 if no run
        survived to choose by.
      num_diverged: Number of left-out seeds without a score; the mean is over the others.
      optimism: How much better the chosen point looks to the seeds that chose it: its mean over
        their surviving runs, minus the mean of `interval`. For `selected_without_seed` these are
        the point that all seeds choose, and all seeds.
    """

    interval: intervals.Interval
    scores: tuple[float, ...]
    points: tuple[int, ...]
    num_diverged: int
    optimism: float


def selected_without_seed(
    scores: ArrayLike, *, best_k: int | None = None, level: float = 0.95
) -> HeldOutScore:
    """Estimates the score of a new run at the selected point, free of the bias of selection.

    For each seed, the other seeds choose a point by `best_points`, and the score is that point's at
    the left-out seed. The estimate is the mean m of these scores.

    m is unbiased for a point chosen with one seed fewer. Fewer seeds choose a little worse, so for
    the point chosen with all seeds m tends to be too low. In simulations it was so by at most 0.1
    standard deviations of a run (0.5 if runs at poor points vary much more than at good ones).

    The interval is m +- t * sqrt(s^2 / N + d^2), with s the standard deviation of the N scores, d
    the optimism, and t the quantile of Student's t distribution with N - 1 degrees of freedom. The
    plain t interval (d = 0) is too short if points are close to equal, since the scores are then
    correlated: they overlap in the seeds that choose. The term d^2 is a correction found by
    simulation, not a theorem. At level 0.95, with 3 to 15 seeds and 3 to 9 learning rates on a
    parabola, the interval contains the true mean of the chosen point in 95 to 97 % of samples. It
    falls short if many points are exactly equal: 92 % for 9 points and 5 seeds, 87 % for 9 points
    and 15 seeds, where the plain t interval has 84 % and 70 %.
    `experiments/benchmarks/interval_coverage.py` measures this.

    For the same reason the scores are no sample for a test: differences between them, taken as
    independent, seem significant too often. `comparisons` says which scores to test with.

    Args:
      scores: Scores of shape (P, N), nan for diverged runs.
      best_k: Number of runs of a point that count in the choice, the best ones; None for all.
      level: Level of the interval, in (0, 1).

    Returns:
      The estimate. It is nan with a single seed, and its bounds are nan with fewer than three
      scores: two seeds choose with one run each.

    Raises:
      ValueError: If the scores are no table, or best_k is less than 1.

    References:
      The estimate is leave-one-out cross-validation. For its correlations see Bates, Hastie &
      Tibshirani, Cross-validation: What Does It Estimate and How Well Does It Do It?, 2021,
      https://arxiv.org/abs/2104.00673
    """
    scores = _checks.table("scores", scores)
    _checks.level(level)
    num_seeds = scores.shape[1]
    if num_seeds == 1:
        chosen = np.array([-1])
    else:
        is_other = ~np.eye(num_seeds, dtype=bool)
        others = np.nonzero(is_other)[1].reshape(num_seeds, num_seeds - 1)  # For each seed.
        chosen = best_points(scores[:, others].swapaxes(0, 1), best_k)
    left_out = np.where(chosen >= 0, scores[chosen, np.arange(num_seeds)], np.nan)
    left_out = _finite_or_nan(left_out)
    survived = left_out[np.isfinite(left_out)]
    plain = intervals.mean_interval(survived, level)
    [best] = best_points(scores[None], best_k)
    optimism = _mean_of_survivors(scores[best]) - plain.value if best >= 0 else math.nan
    half = math.nan
    if len(survived) > 2:
        half = math.hypot(
            plain.high - plain.value, intervals.t_quantile(level, len(survived) - 1) * optimism
        )
    return HeldOutScore(
        interval=intervals.Interval(plain.value, plain.value - half, plain.value + half, level),
        scores=tuple(left_out.tolist()),
        points=tuple(chosen.tolist()),
        num_diverged=num_seeds - len(survived),
        optimism=optimism,
    )


def selected_by_first_seeds(
    scores: ArrayLike, num_choosing: int, *, best_k: int | None = None, level: float = 0.95
) -> HeldOutScore:
    """Scores the point that the first seeds choose at the other seeds.

    The other seeds had no part in the choice, so their scores are independent, and the t interval
    of `mean_interval` is exact for normal scores, as are tests of differences of chosen points.
    The price is that fewer seeds choose, so the point may be a poor one, and fewer are scored.

    Args:
      scores: Scores of shape (P, N), nan for diverged runs.
      num_choosing: Number of seeds that choose, from 1 to N - 1.
      best_k: Number of runs of a point that count in the choice, the best ones; None for all.
      level: Level of the interval, in (0, 1).

    Returns:
      The scores of the other seeds, and their mean.

    Raises:
      ValueError: If the scores are no table, no seed is left over, or best_k is less than 1.

    Examples:
      >>> found = selected_by_first_seeds([[0.9, 0.8, 0.9], [0.7, 0.9, 0.8]], num_choosing=1)
      >>> found.points, found.scores
      ((0, 0), (0.8, 0.9))
    """
    scores = _checks.table("scores", scores)
    num_left = scores.shape[1] - _checks.at_least("num_choosing", num_choosing, 1)
    if num_left < 1:
        raise ValueError(
            f"num_choosing must leave a seed to score by, got {num_choosing} of {scores.shape[1]}."
        )
    [best] = best_points(scores[None, :, :num_choosing], best_k)
    left_out = (
        _finite_or_nan(scores[best, num_choosing:]) if best >= 0 else np.full(num_left, np.nan)
    )
    survived = left_out[np.isfinite(left_out)]
    interval = intervals.mean_interval(survived, level)
    optimism = math.nan
    if best >= 0:
        optimism = _mean_of_survivors(scores[best, :num_choosing]) - interval.value
    return HeldOutScore(
        interval=interval,
        scores=tuple(left_out.tolist()),
        points=(int(best),) * num_left,
        num_diverged=num_left - len(survived),
        optimism=optimism,
    )


def bootstrap_shares(
    scores: ArrayLike,
    *,
    best_k: int | None = None,
    joint: bool = True,
    num_resamples: int = 1000,
    seed: int = 0,
) -> np.ndarray:
    """Returns the share of bootstrap resamples of the seeds in which each point is the best.

    A share is not the probability that the point is the best. With few seeds it is too sure of
    itself: a resample varies less than a new sample does, by sqrt((N - 1) / N), and of three seeds
    one resample in nine is three copies of the same seed. For five learning rates near the top of a
    parabola, the optimum of 3 seeds had a share of 72 % on average, and was the best point in 51 %
    of the samples. With 15 seeds both were 70 %.

    Args:
      scores: Scores of shape (P, N), nan for diverged runs.
      best_k: Number of runs of a point that count in the choice, the best ones; None for all.
      joint: True to draw seeds, the same ones for all points: right if columns are seeds, whose
        runs have correlated scores. False to draw the runs of each point independently: right if
        the columns of different points have nothing in common.
      num_resamples: Number of resamples.
      seed: Seed of the bootstrap.

    Returns:
      Shares of shape (P,). They sum to 1, or to less if no run survives in some resamples.

    Raises:
      ValueError: If the scores are no table, or best_k or num_resamples are less than 1.

    Examples:
      >>> bootstrap_shares([[0.90, 0.91, 0.92], [0.93, 0.90, 0.94]]).round(1).tolist()
      [0.2, 0.8]

    References:
      Efron, Bootstrap Methods: Another Look at the Jackknife, Annals of Statistics 7, 1979
    """
    scores = _checks.table("scores", scores)
    _checks.at_least("num_resamples", num_resamples, 1)
    random = np.random.default_rng(seed)
    num_points, num_seeds = scores.shape
    if joint:
        drawn = random.integers(0, num_seeds, (num_resamples, num_seeds))
        sampled = scores[:, drawn].swapaxes(0, 1)  # (R, P, N)
    else:
        sampled = resample_runs(scores, np.full(num_points, num_seeds), random, num_resamples)
    best = best_points(sampled, best_k)
    return np.bincount(best[best >= 0], minlength=num_points) / num_resamples


def best_points(scores: np.ndarray, best_k: int | None = None) -> np.ndarray:
    """Returns the best point of each table, by the rule of `sweeps.select`.

    The best k runs of each point count. A point with fewer than k survivors cannot be the best
    while another has more of them. Of the others the one with the largest mean is the best, and of
    equal means the first.

    Args:
      scores: Tables of shape (R, P, N), nan or infinite for diverged and missing runs.
      best_k: Number of runs of a point that count, None for all.

    Returns:
      Indices of points, of shape (R,); -1 if no run survived.
    """
    num_runs = scores.shape[2]
    k = num_runs if best_k is None else min(_checks.at_least("best_k", best_k, 1), num_runs)
    scores = np.where(np.isfinite(scores), scores, -np.inf)
    top = np.partition(scores, -k, 2)[:, :, -k:]  # (R, P, k)
    top.sort(2)  # Equal scores then have equal sums, whatever their order was.
    survived = np.isfinite(top).sum(2)  # (R, P)
    sums = np.where(np.isfinite(top), top, 0).sum(2)
    means = np.where(survived > 0, sums / np.maximum(survived, 1), -np.inf)
    most = survived.max(1, keepdims=True)
    means = np.where(survived == most, means, -np.inf)
    return np.where(np.isfinite(means).any(1), means.argmax(1), -1)


def resample_runs(
    scores: np.ndarray, num_runs: np.ndarray, random: np.random.Generator, num_resamples: int
) -> np.ndarray:
    """Resamples the runs of each point with replacement, as many as it has.

    Args:
      scores: Scores of shape (P, N).
      num_runs: Number of runs of each point, of shape (P,). They come first in its row.
      random: Random generator.
      num_resamples: Number of resamples, R.

    Returns:
      Scores of shape (R, P, N), -inf beyond the number of runs of a point.
    """
    # A single bound for all points is twice as fast, and gives the same numbers.
    bound = num_runs[0] if (num_runs == num_runs[0]).all() else num_runs[:, None]
    indices = random.integers(0, bound, (num_resamples, *scores.shape))
    sampled = np.take_along_axis(scores[None], indices, 2)
    missing = np.arange(scores.shape[1]) >= num_runs[:, None]  # (P, N)
    sampled[:, missing] = -np.inf
    return sampled


def _finite_or_nan(scores):
    return np.where(np.isfinite(scores), scores, np.nan)


def _mean_of_survivors(scores):
    """Returns the mean of the finite scores, of which there is at least one."""
    return float(scores[np.isfinite(scores)].mean())
