"""Finds the largest batch size without loss, and extrapolates it to a longer horizon.

A batch size is without loss if its mean score, at its best learning rate, is at most two standard
deviations of a run below that of small batches. More than that would show in a single run. The mean
m is described as a function of the batch size B by

    m(B) = top - 2 s (B / B_max)^p,

with the standard deviation s over seeds. B_max is then the largest batch size without loss. At a
fixed number of epochs a loss that comes from too few updates grows in proportion to B at first, so
p is expected to be 1, give or take 1/2.

The longer the training, the larger a batch may be. At the fraction f of the horizon B_max is
described by

    log2 B_max(f) = log2 B_max(1) + g log2 f.

The exponent g is known beforehand as g = 0.5, give or take 0.25: that of the workloads in
`experiments/benchmarks/advice.py`. Measurements at two horizons correct it as far as they can.

>>> from noisegen.sweeps import largest_batch
>>> means = [0.95, 0.95, 0.945, 0.94, 0.93, 0.90]
>>> found = largest_batch.fit([16, 32, 64, 128, 256, 512], means, [5] * 6, 0.005)
>>> round(2**found.log2, -1)
110.0
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy import optimize, special

from noisegen import statistics
from noisegen.sweeps import evidence
from noisegen.sweeps.protocol import Optimum, Protocol

DEVIATIONS = 2.0  # of a run, below which a loss is none
GROWTH, GROWTH_ERROR = 0.5, 0.25  # of log2 B_max with log2 of the horizon, known beforehand
MODEL_ERROR = 0.35  # octaves, by which one horizon misses the power law, apart from its seeds

_FEWEST_ROWS = 3
_LEAST_SHARE = 1e-3  # of the score, below which a loss is none whatever the deviation
_POWER, _POWER_ERROR = 1.0, 0.5
_SHAPE_ERROR = 0.25  # of a loss, by which the formula of m(B) may miss it
_LARGE_LOSS = 4.0  # tolerances, beyond which the formula does not hold
_WIDEST = 30.0  # ratio of the bounds of an interval that still predicts something
_ROUGH = 1.0  # octaves, error of a batch size that is only known to be without loss
_BEYOND = 3.0  # octaves beyond the batch sizes tried, up to which the fit looks


@dataclasses.dataclass(frozen=True, kw_only=True)
class LargestBatch:
    """The largest batch size without loss at one horizon.

    Attributes:
      log2: log2 of the batch size; nan if it is unknown.
      error: Its standard error, in octaves.
      tolerance: Difference in the metric that is no loss.
      rows: Smallest and largest batch size tried.
      flags: "no_loss" if nothing is lost up to the largest batch size tried, so that `log2` is
        that one and a lower bound; "all_lost" if the loss begins at the smallest, so that `log2`
        is that one and an upper bound; "few_rows" if there are fewer than three batch sizes, or
        one seed, so that `log2` is nan.
    """

    log2: float
    error: float = math.nan
    tolerance: float = math.nan
    rows: tuple[float, float] = (math.nan, math.nan)
    flags: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extrapolation:
    """The largest batch size without loss at the full horizon.

    Attributes:
      batch_size: With its interval; nan if it is unknown. With a flag it is a bound.
      growth: Exponent g with which it grows with the horizon.
      flags: "no_loss", "all_lost" or "few_rows", see `LargestBatch`; "uncertain" if the interval is
        so wide that it predicts nothing.
    """

    batch_size: statistics.Interval
    growth: float = math.nan
    flags: tuple[str, ...] = ()


def find(optima: Iterable[Optimum], protocol: Protocol) -> LargestBatch:
    """Finds the largest batch size without loss in the optima of one series.

    The score of a row is the mean over all its seeds at its best value. The standard deviation s
    is pooled over the smaller half of the batch sizes, as the runs of batches that are too large
    scatter far more.

    Args:
      optima: The optima, as `select` returns them. Rows whose runs all diverged are left out.
      protocol: The protocol given to `select`.
    """
    alive = sorted((each for each in optima if each.n), key=lambda each: each.row)
    if len(alive) < _FEWEST_ROWS:
        return LargestBatch(log2=math.nan, flags=("few_rows",))
    means, counts = [], []
    for optimum in alive:
        survivors = [each for each in optimum.point.scores if each is not None]
        means.append(protocol.sign * float(np.mean(survivors)))
        counts.append(len(survivors))
    small = alive[: math.ceil(len(alive) / 2)]
    variances = [evidence.noise(optimum) ** 2 for optimum in small]
    if not np.isfinite(variances).any():
        return LargestBatch(log2=math.nan, flags=("few_rows",))
    deviation = math.sqrt(np.nanmean(variances))
    return fit([optimum.row for optimum in alive], means, counts, deviation)


def fit(
    batch_sizes: Sequence[float], means: Sequence[float], counts: Sequence[int], deviation: float
) -> LargestBatch:
    """Fits m(B) = top - 2 s (B / B_max)^p to the mean scores of at least three batch sizes.

    Weighted least squares in top, log2 B_max and p. The weight of a row has the standard error of
    its mean, and a quarter of its loss, as the formula is a description only. Of the batch sizes
    that lose more than four tolerances only the first one is used. Smaller batch sizes that do
    worse than a larger one by more than the tolerance are left out, as they say nothing about the
    loss of large batches.

    Args:
      batch_sizes: Ascending.
      means: Mean score of each, the larger the better.
      counts: Number of seeds of each.
      deviation: Standard deviation s of a run over seeds. A thousandth of the best score is the
        least tolerance.
    """
    x, y = np.log2(batch_sizes), np.asarray(means, float)
    deviation = max(deviation, _LEAST_SHARE * float(np.abs(y).max()) / DEVIATIONS, 1e-12)
    errors = deviation / np.sqrt(counts)
    rows = float(batch_sizes[0]), float(batch_sizes[-1])
    tolerance = DEVIATIONS * deviation
    first = int(np.flatnonzero(y >= y.max() - tolerance)[0])
    x, y, errors = x[first:], y[first:], errors[first:]
    found = LargestBatch(log2=float(x[-1]), error=0.0, tolerance=tolerance, rows=rows)
    if len(x) == 1 or y[-1] >= y.max() - tolerance / 2:
        return dataclasses.replace(found, flags=("no_loss",))
    # Loss as far as it grows with the batch size: a mean that rises by chance is no gain.
    smooth = optimize.isotonic_regression(y, increasing=False).x
    loss = smooth[0] - smooth
    # Of the rows with a large loss, the first one stays.
    last = int((loss <= _LARGE_LOSS * tolerance).sum()) + 1
    x, y, errors, smooth, loss = (each[:last] for each in (x, y, errors, smooth, loss))
    weights = 1 / np.hypot(errors, _SHAPE_ERROR * loss)

    def residuals(parameters):
        top, log2, power = parameters
        model = top - tolerance * 2 ** (power * (x - log2))
        return np.append(weights * (y - model), (power - _POWER) / _POWER_ERROR)

    bounds = ([-np.inf, x[0] - _BEYOND, 0.3], [np.inf, x[-1] + _BEYOND, 3.0])
    fits = []
    for start in np.arange(x[0], x[-1] + 1, 2.0):  # there may be several local minima
        fits.append(
            optimize.least_squares(
                residuals, [smooth[0], start, _POWER], bounds=bounds, x_scale=[tolerance, 1, 1]
            )
        )
    best = min(fits, key=lambda each: each.cost)
    covariance = np.linalg.pinv(best.jac.T @ best.jac)
    log2, error = float(best.x[1]), math.sqrt(covariance[1, 1])
    if log2 > x[-1]:
        return dataclasses.replace(found, flags=("no_loss",))
    if log2 < x[0]:
        flags = ("all_lost",)
        return dataclasses.replace(found, log2=float(x[0]), flags=flags)
    return dataclasses.replace(found, log2=log2, error=error)


def extrapolate(
    found: Mapping[float, LargestBatch],
    level: float = 0.95,
    growth: tuple[float, float] = (GROWTH, GROWTH_ERROR),
) -> Extrapolation:
    """Predicts the largest batch size without loss at the full horizon.

    Bayesian linear regression with normal errors: log2 B_max(f) = b + g log2 f. The error of each
    horizon is that of its fit and `MODEL_ERROR`.

    Args:
      found: From the fraction of the full horizon, in (0, 1], to what was found there.
      level: Level of the interval, in (0, 1).
      growth: The exponent g known beforehand, and its standard error; infinite if nothing is known,
        which takes two horizons.
    """
    known = {f: each for f, each in found.items() if not math.isnan(each.log2)}
    nothing = statistics.Interval(math.nan, math.nan, math.nan, level)
    if not known:
        return Extrapolation(batch_size=nothing, flags=("few_rows",))
    longest = known[max(known)]
    largest_row = max(each.rows[1] for each in known.values())
    if "no_loss" in longest.flags and longest.rows[1] == largest_row:
        low = 2**longest.log2
        return Extrapolation(
            batch_size=statistics.Interval(math.inf, low, math.inf, level), flags=("no_loss",)
        )
    # If a shorter horizon has tried larger batch sizes, "no loss" is a rough measurement.
    inside = {}
    for fraction, each in known.items():
        if "no_loss" in each.flags:
            each = dataclasses.replace(each, error=_ROUGH, flags=())
        if not each.flags:
            inside[fraction] = each
    if not inside:
        return Extrapolation(batch_size=nothing, flags=("all_lost",))
    octaves = np.log2(list(inside))
    values = np.array([each.log2 for each in inside.values()])
    errors = np.hypot([each.error for each in inside.values()], MODEL_ERROR)
    # The knowledge about g is one more measurement.
    known_growth, growth_error = growth
    design = np.vstack([np.column_stack([np.ones(len(octaves)), octaves]), [0, 1]])
    weights = 1 / np.append(errors, growth_error)
    covariance = np.linalg.inv((design.T * weights**2) @ design)
    log2, exponent = covariance @ (design.T * weights**2) @ np.append(values, known_growth)
    half = special.ndtri((1 + level) / 2) * math.sqrt(covariance[0, 0])
    bounds = [2**each for each in (log2, log2 - half, log2 + half)]
    return Extrapolation(
        batch_size=statistics.Interval(*map(float, bounds), level),
        growth=float(exponent),
        flags=("uncertain",) if bounds[2] > _WIDEST * bounds[1] else (),
    )
