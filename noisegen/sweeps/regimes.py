"""Finds the boundary between the two regimes of SGD.

For small batches, noise dominates: the optimal effective learning rate, learning_rate /
(1 - momentum), is T * batch_size with a temperature T that does not depend on the batch size. For
large batches, curvature dominates, and the optimal effective learning rate is constant. The
boundary is the batch size between the two regimes.

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

from noisegen import statistics
from noisegen.storage.record import Record
from noisegen.sweeps.protocol import LEARNING_RATES, Optimum, Protocol


@dataclasses.dataclass(frozen=True, kw_only=True)
class Boundary:
    """Broken line through optimal learning rates, and the batch size at which it breaks.

    Attributes:
      batch_size: Batch size at the break. If the line does not break between the batch sizes, the
        smallest or the largest of them.
      learning_rate: Effective learning rate beyond the break.
      low, high: Interval of `batch_size`, nan if it was not estimated.
      flags: "no_plateau" if the line rises up to the largest batch size, "no_slope" if it is
        constant from the smallest. The boundary then lies beyond the grid, or does not exist.
    """

    batch_size: float
    learning_rate: float
    low: float = math.nan
    high: float = math.nan
    flags: tuple[str, ...] = ()

    @property
    def temperature(self) -> float:
        """Optimal effective learning rate over batch size while noise dominates."""
        return self.learning_rate / self.batch_size


def fit_broken_line(batch_sizes: Sequence[float], learning_rates: Sequence[float]) -> Boundary:
    """Fits log(rate) = c + min(log(batch_size) - log(boundary), 0) by least squares, exactly.

    Args:
      batch_sizes: Batch sizes, positive, at least two of them different.
      learning_rates: Effective learning rate of each, positive.

    Returns:
      The boundary, without an interval.

    Raises:
      ValueError: If there are fewer than two batch sizes, or a number is not positive and finite.
    """
    x, y = np.asarray(batch_sizes, float), np.asarray(learning_rates, float)
    positive = _is_positive(x).all() and _is_positive(y).all()
    if x.shape != y.shape or len(np.unique(x)) < 2 or not positive:
        raise ValueError(
            "A broken line needs a positive learning rate for each of at least two batch sizes, "
            f"got {batch_sizes} and {learning_rates}."
        )
    x, y = np.log(x), np.log(y)
    breaks = _candidate_breaks(x, y)  # (K,)
    shapes = np.minimum(x - breaks[:, None], 0)  # (K, N): the line of each break, up to c.
    heights = (y - shapes).mean(1)  # (K,): the best c of each break.
    errors = ((y - shapes - heights[:, None]) ** 2).sum(1)
    best = int(errors.argmin())
    flags = []
    for flag, end in (("no_slope", x.min()), ("no_plateau", x.max())):
        if abs(breaks[best] - end) < 1e-9:
            flags.append(flag)
    return Boundary(
        batch_size=math.exp(breaks[best]),
        learning_rate=math.exp(heights[best]),
        flags=tuple(flags),
    )


def _candidate_breaks(x, y) -> np.ndarray:
    """Returns breaks among which the best one is.

    Between two neighboring x the sum of squares is a parabola in the break. Its least value is
    therefore at the bottom of one of these parabolas, or at an x.
    """
    places = np.unique(x)
    bottoms = []
    for place in places[:-1]:
        flat = x > place
        # Least squares give c = mean(y) in the flat part and c - break = mean(y - x) in the other.
        bottoms.append(y[flat].mean() - (y - x)[~flat].mean())
    # A bottom outside of its interval is no minimum, but comparing one more break does no harm.
    return np.unique([*places, *np.clip(bottoms, places[0], places[-1])])


def boundaries(
    optima: Iterable[Optimum],
    protocol: Protocol,
    *,
    num_resamples: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Boundary]:
    """Returns the boundary between the regimes for each series of a sweep over batch sizes.

    The interval is a bootstrap's: the runs of every point are resampled with replacement, the
    optima selected again, and the line fitted again. It measures how far the seeds move the
    boundary, not how far the spacing of the learning rates does. It is omitted if points have one
    run each. A batch size whose optimal learning rate is zero or negative is left out of the fit.

    Args:
      optima: The optima, as `select` returns them.
      protocol: The protocol given to `select`. Its rows are batch sizes, and its first tuned field
        is a learning rate (see its `scaling_rule`). A `learning_rate` is divided by 1 - `momentum`.
      num_resamples: Number of bootstrap samples. If 0, the interval is omitted.
      level: Level of the interval, in (0, 1).
      seed: Seed of the bootstrap.

    Returns:
      A dict from series label to boundary. A series is left out if its learning rates follow a rule
      instead of being tuned, or if runs survived at fewer than two batch sizes.

    Raises:
      ValueError: If the protocol does not tune the learning rate for each batch size.
    """
    if not protocol.has_scaling_rule:
        raise ValueError(
            "The boundary between the regimes is read from learning rates over batch sizes, not "
            f"from {protocol.tune[0]} over {protocol.row}."
        )
    random = np.random.default_rng(seed)
    if protocol.of == 1:
        num_resamples = 0
    by_series = collections.defaultdict(list)
    for optimum in optima:
        rates = _optimal_rates(optimum, protocol, random, num_resamples)
        by_series[optimum.series].append((optimum, rates))
    found = {}
    for label, pairs in by_series.items():
        if all(len(optimum.points) == 1 for optimum, _ in pairs):
            continue  # Not tuned.
        batch_sizes = np.array([optimum.row for optimum, _ in pairs])  # (B,)
        rates = np.array([rates for _, rates in pairs])  # (B, 1 + R)
        boundary = _fit_with_interval(batch_sizes, rates, level)
        if boundary is not None:
            found[label] = boundary
    return found


def _fit_with_interval(batch_sizes, rates, level) -> Boundary | None:
    """Fits the boundary of one series.

    Args:
      batch_sizes: Batch sizes, of shape (B,).
      rates: Optimal rates of shape (B, 1 + R), first the measured ones, then those of resamples.
        A rate is nan if no run survived.
      level: Level of the interval.

    Returns:
      The boundary, or None if fewer than two batch sizes have a positive rate.
    """
    usable = _is_positive(rates) & _is_positive(batch_sizes)[:, None]
    if usable[:, 0].sum() < 2:
        return None
    measured = fit_broken_line(batch_sizes[usable[:, 0]], rates[usable[:, 0], 0])
    breaks = []
    for column in range(1, rates.shape[1]):
        rows = usable[:, column]
        if rows.sum() > 1:
            breaks.append(fit_broken_line(batch_sizes[rows], rates[rows, column]).batch_size)
    if not breaks:
        return measured
    low, high = np.quantile(breaks, ((1 - level) / 2, (1 + level) / 2))
    return dataclasses.replace(measured, low=float(low), high=float(high))


def effective_learning_rate_of(run: Mapping) -> float:
    """Returns the effective learning rate of a run, learning_rate / (1 - momentum).

    A field `effective_learning_rate` takes precedence. The rate is infinite if momentum is 1.

    Raises:
      ValueError: If the run has no learning rate.
    """
    if "effective_learning_rate" in run:
        return run["effective_learning_rate"]
    if "learning_rate" not in run:
        raise ValueError(f"a run has no learning_rate, only {', '.join(run)}.")
    rest = 1 - run.get("momentum", 0)
    return run["learning_rate"] / rest if rest else math.inf


def scaled_learning_rate(run: Mapping, protocol: Protocol) -> float:
    """Returns the effective learning rate of a run by the name that the protocol tunes first."""
    name = protocol.tune[0]
    return effective_learning_rate_of(run) if name in LEARNING_RATES else run[name]


def _is_positive(numbers) -> np.ndarray:
    """Returns for each number whether it has a finite logarithm."""
    return (numbers > 0) & np.isfinite(numbers)


def _rate_of(records, protocol) -> float:
    """Returns the effective learning rate of records of one point, nan if there are none."""
    return scaled_learning_rate(records[0].hparams, protocol) if records else math.nan


def _optimal_rates(optimum, protocol, random, num_resamples) -> np.ndarray:
    """Returns the optimal rate and those of the resamples, of shape (1 + R,)."""
    rates = np.array([_rate_of(point.counted, protocol) for point in optimum.points])  # (P,)
    scores, tried = _scores(optimum.points, protocol)
    sampled = statistics.resample_runs(scores, tried, random, num_resamples)
    selected = statistics.best_points(sampled, protocol.best)
    selected_rates = np.where(selected >= 0, rates[selected], np.nan)
    return np.array([_rate_of(optimum.counted, protocol), *selected_rates])


def _scores(points, protocol) -> tuple[np.ndarray, np.ndarray]:
    """Returns the scores of the runs of each point.

    Returns:
      scores: Array of shape (P, N), of which the larger values are better, and -inf if a run
        diverged or does not exist.
      tried: Number of runs of each point, of shape (P,).
    """
    tried = np.array([point.tried for point in points])
    # The most runs of a point, since the protocol's `of` may be far larger.
    scores = np.full((len(points), tried.max()), -np.inf)
    for row, point in zip(scores, points, strict=True):
        signed = protocol.sign * np.array(point.scores, float)  # nan if a run diverged.
        row[: point.tried] = np.where(np.isnan(signed), -np.inf, signed)
    return scores, tried


def largest_stable(
    records: Iterable[Record], *, metric: str = "train_loss", limit: float = math.inf
) -> float:
    """Returns the largest effective learning rate of a short sweep at which training is stable.

    All runs at this learning rate and at every smaller one must have finished with the metric below
    the limit. Learning rates of zero and below are ignored. Section 8 of the paper advises to look
    for the boundary near `largest_stable(...) / T`, with the optimal temperature T of a small
    batch.

    Args:
      records: Records of runs of a few epochs, at one batch size.
      metric: Metric that shows whether training was stable.
      limit: Upper limit of the metric, for instance log(classes), the loss of random guessing.

    Returns:
      The effective learning rate, or nan if the smallest one is not stable.
    """
    stable: dict[float, bool] = {}
    for record in records:
        rate = effective_learning_rate_of(record.hparams)
        value = record.metrics.get(metric)
        finished = record.status == "finished" and value is not None and value < limit
        stable[rate] = stable.get(rate, True) and finished
    largest = math.nan
    for rate in sorted(stable):
        if rate <= 0:
            continue
        if not stable[rate]:
            break
        largest = rate
    return largest
