r"""The two regimes of SGD: where the batch is too large for noise to rule.

While noise dominates, the optimal effective learning rate :math:`\epsilon_\text{eff} =
\epsilon / (1 - m)` is proportional to the batch size, :math:`\epsilon_\text{eff} = T B`, with a
temperature T that does not depend on B; where curvature dominates, it is constant. The boundary is
the batch size at which the one turns into the other.

>>> boundary = fit_broken_line([16, 32, 64, 128, 256], [0.1, 0.2, 0.4, 0.4, 0.4])
>>> round(boundary.batch_size), round(boundary.learning_rate, 3), round(boundary.temperature, 5)
(64, 0.4, 0.00625)

References:
  Smith, Elsen & De, On the Generalization Benefit of Noise in Stochastic Gradient Descent,
  ICML 2020, https://arxiv.org/abs/2006.15081, sections 3, 5 and 8
"""

import collections
import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from noisegen.sweeps import protocol as protocols


@dataclasses.dataclass(frozen=True, kw_only=True)
class Boundary:
    """A broken line through optimal learning rates, and where it breaks.

    Attributes:
      batch_size: B*, of the break; the smallest or largest batch size fitted where the line does
        not break between them.
      learning_rate: the effective learning rate beyond the break.
      low, high: interval of `batch_size`; nan where it was not estimated.
      flags: "no_plateau" (proportional up to the largest batch size), "no_slope" (constant from the
        smallest on): the boundary lies beyond the grid, or there is none.
    """

    batch_size: float
    learning_rate: float
    low: float = math.nan
    high: float = math.nan
    flags: tuple[str, ...] = ()

    @property
    def temperature(self) -> float:
        """Optimal temperature while noise dominates, effective learning rate over batch size."""
        return self.learning_rate / self.batch_size


def fit_broken_line(batch_sizes: Sequence[float], learning_rates: Sequence[float]) -> Boundary:
    r"""Fits :math:`\log \epsilon = c + \min(\log B - \log B^*, 0)` by least squares, exactly.

    Args:
      batch_sizes: at least two different ones, positive.
      learning_rates: the (effective) learning rate of each, positive.

    Returns:
      The `Boundary`, without an interval.

    Raises:
      ValueError: there are fewer than two batch sizes, or a number is not positive and finite.
    """
    x, y = np.asarray(batch_sizes, float), np.asarray(learning_rates, float)
    positive = _positive(x).all() and _positive(y).all()
    if x.shape != y.shape or len(np.unique(x)) < 2 or not positive:
        raise ValueError(
            "A broken line needs a positive learning rate for each of at least two batch sizes, "
            f"got {batch_sizes} and {learning_rates}."
        )
    x, y = np.log(x), np.log(y)
    # The sum of squares is a parabola between neighbouring x, so its least value is at the bottom
    # of one of these parabolas or at an x.
    places = np.unique(x)
    bottoms = [y[x > at].mean() - (y - x)[x <= at].mean() for at in places[:-1]]
    breaks = np.unique([*places, *np.clip(bottoms, places[0], places[-1])])
    shapes = np.minimum(x - breaks[:, None], 0)
    heights = (y - shapes).mean(1)
    errors = ((y - shapes - heights[:, None]) ** 2).sum(1)
    best = int(errors.argmin())
    ends = {"no_slope": places[0], "no_plateau": places[-1]}
    return Boundary(
        batch_size=math.exp(breaks[best]),
        learning_rate=math.exp(heights[best]),
        flags=tuple(name for name, end in ends.items() if abs(breaks[best] - end) < 1e-9),
    )


def boundaries(
    optima: Iterable[protocols.Optimum],
    protocol: protocols.Protocol,
    *,
    num_resamples: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Boundary]:
    """The boundary between the regimes, of each series of a sweep over batch sizes.

    The interval is that of a bootstrap: the runs of every point are drawn anew, with replacement,
    the optima chosen again and the line fitted again. It says how far the seeds move the boundary,
    not how far the spacing of the learning rates does, and is left out where there is one run a
    point. A batch size whose optimal learning rate is zero or negative is left out of the fit.

    Args:
      optima: as `select` gives them.
      protocol: that `select` was given, with batch sizes as rows, and tuned first the
        `learning_rate`, which is divided by 1 - `momentum`, or the `effective_learning_rate`.
      num_resamples: bootstrap samples; 0 leaves the interval out.
      level: of the interval, in (0, 1).
      seed: of the bootstrap.

    Returns:
      From series label to `Boundary`; a series with fewer than two batch sizes that a run survived,
      or whose learning rates are given and not chosen, is left out.

    Raises:
      ValueError: the protocol is one of something else.
    """
    if not has_boundaries(protocol):
        raise ValueError(
            "The boundary between the regimes is read from learning rates over batch sizes, not "
            f"from {protocol.tune[0]} over {protocol.row}."
        )
    draw = np.random.default_rng(seed)
    num_resamples = num_resamples if protocol.of > 1 else 0
    chosen = [(o, _rates(o, protocol, draw, num_resamples)) for o in optima]
    found = {}
    for label in dict.fromkeys(o.series for o, _ in chosen):
        series = [pair for pair in chosen if pair[0].series == label]
        if all(len(o.points) == 1 for o, _ in series):
            continue
        sizes = np.array([o.row for o, _ in series])
        rates = np.array([each for _, each in series])
        usable = _positive(rates) & _positive(sizes)[:, None]
        fits = [
            fit_broken_line(sizes[alive], each[alive])
            for each, alive in zip(rates.T, usable.T, strict=True)
            if alive.sum() > 1
        ]
        if usable[:, 0].sum() > 1:
            breaks = [fit.batch_size for fit in fits[1:]] or [math.nan]
            low, high = np.quantile(breaks, ((1 - level) / 2, (1 + level) / 2))
            found[label] = dataclasses.replace(fits[0], low=float(low), high=float(high))
    return found


def has_boundaries(protocol: protocols.Protocol) -> bool:
    """Returns whether a protocol tunes the learning rate, above all, for each batch size."""
    rates = ("learning_rate", "effective_learning_rate")
    return protocol.row == "batch_size" and protocol.tune[0] in rates


def effective_learning_rate(run: Mapping) -> float:
    """Returns the effective learning rate of a run, swept as such or beside momentum.

    It is infinite where momentum is 1.

    Raises:
      ValueError: If the run has no learning rate.
    """
    if "effective_learning_rate" in run:
        return run["effective_learning_rate"]
    if "learning_rate" not in run:
        raise ValueError(f"a run has no learning_rate, only {', '.join(run)}.")
    rest = 1 - run.get("momentum", 0)
    return run["learning_rate"] / rest if rest else math.inf


def _positive(numbers):
    """Says of each number if it has a logarithm."""
    return (numbers > 0) & np.isfinite(numbers)


def _rates(optimum, protocol, draw, num_resamples):
    """The optimal rate, then those of the resamples (1 + R,); nan where no run survived."""
    rates = [_rate(point.best) for point in optimum.points]
    resampled = _resampled(rates, optimum.points, protocol, draw, num_resamples)
    return np.array([_rate(optimum.best), *resampled])


def _rate(best):
    """The rate of the records that count, nan if there are none."""
    return effective_learning_rate(best[0].hparams) if best else math.nan


def _resampled(rates, points, protocol, draw, num_resamples):
    """The optimal rates of the resamples (R,)."""
    tried = np.array([point.tried for point in points])
    # What is maximised (P, n): -inf where a run diverged, or there is none.
    width = tried.max()  # nearly always `of`
    best = min(protocol.best, width)
    scores = np.full((len(points), width), -np.inf)
    for row, point in zip(scores, points, strict=True):
        found = protocol.sign * np.array(point.scores, float)  # None becomes nan
        row[: point.tried] = np.where(np.isnan(found), -np.inf, found)
    high = tried[:, None] if np.ptp(tried) else tried[0]  # draws the same, twice as fast
    drawn = draw.integers(0, high, (num_resamples, *scores.shape))
    sampled = np.take_along_axis(scores[None], drawn, 2)
    sampled[:, np.arange(width) >= tried[:, None]] = -np.inf  # as many as were tried
    top = np.partition(sampled, -best, 2)[:, :, -best:]
    top.sort(2)  # so that equal ones have equal sums
    survived = np.isfinite(top).sum(2)
    sums = np.where(np.isfinite(top), top, 0).sum(2)
    means = np.where(survived > 0, sums / np.maximum(survived, 1), -np.inf)
    means = np.where(survived == survived.max(1, keepdims=True), means, -np.inf)
    found = np.array(rates)[means.argmax(1)]
    return np.where(np.isfinite(means).any(1), found, np.nan)


def largest_stable(
    records: Iterable[Mapping], *, metric: str = "train_loss", limit: float = math.inf
) -> float:
    """The largest effective learning rate of a short sweep at which training is stable.

    All runs of this learning rate and of every smaller one must have finished with the metric below
    the limit; learning rates of zero and less do not count. From it and the optimal temperature T
    of a small batch follows the boundary that the paper advises to look for (its section 8):
    `largest_stable(...) / T`.

    Args:
      records: of runs of a few epochs, at one batch size.
      metric: that says whether training was stable.
      limit: for instance the loss of guessing, log(classes).

    Returns:
      The learning rate divided by 1 - momentum; nan where the smallest one is not stable.
    """
    stable = collections.defaultdict(lambda: True)
    for record in records:
        value = record.metrics.get(metric)
        finished = record.status == "finished" and value is not None and value < limit
        stable[effective_learning_rate(record.hparams)] &= finished
    largest = math.nan
    for rate in sorted(rate for rate in stable if rate > 0):
        if not stable[rate]:
            break
        largest = rate
    return largest
