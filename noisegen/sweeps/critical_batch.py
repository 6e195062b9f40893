"""Critical batch size: fitted to steps to target, and predicted by the gradient noise scale.

McCandlish et al. (2018) describe the S updates and E examples to a target, over batch sizes, by

    (S / S_min - 1) (E / E_min - 1) = 1.

With E = B S this is S = S_min (1 + B_crit / B) and E = E_min (1 + B / B_crit), with the critical
batch size B_crit = E_min / S_min. There a run takes twice the fewest updates and twice the fewest
examples. Their theory predicts B_crit from the noise of the gradient, averaged over training.

>>> from noisegen import sweeps
>>> updates, examples = [1100, 300, 200, 110], [1100, 1500, 2000, 11000]
>>> found = sweeps.fit_critical_batch(updates, examples)
>>> round(found.min_updates), round(found.min_examples), round(found.batch_size.value, 2)
(100, 1000, 10.0)

References:
  McCandlish et al., An Empirical Model of Large-Batch Training, 2018,
  https://arxiv.org/abs/1812.06162, sections 2.2 and 2.3, appendices A.1 and D
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import optimize, special

from noisegen import statistics
from noisegen.statistics import Interval, intervals
from noisegen.sweeps.targets import Crossing, Curve, RowTarget, by_series_and_target, curve_of

if TYPE_CHECKING:
    import pandas as pd

_NOISE = ("gradient_variance", "gradient_squared_norm")  # columns of a curve
_WINDOWS = 5  # parts of training over which gradient noise is averaged before ratios are taken
_FAR = math.log(100)  # how far beyond the batch sizes a critical one is looked for


@dataclasses.dataclass(frozen=True, kw_only=True)
class CriticalBatch:
    """Holds the critical batch size of one series and target.

    Attributes:
      series: Label; '' if the protocol has no series.
      target: Value of the metric; nan if it is unknown.
      batch_size: E_min / S_min, in examples, with its interval.
      min_updates: S_min, the updates to the target in the limit of large batches.
      min_examples: E_min, the examples to the target in the limit of small batches.
      residual: Root mean square of log S around the fit. If it is large, the hyperbola does not
        describe the data.
      num_rows: Number of batch sizes that the fit is to.
      flags: "few_rows" if there are fewer than two batch sizes (the numbers are nan); "no_plateau"
        if updates fall in proportion to the batch size (the critical batch size is infinite);
        "no_slope" if they do not fall at all (it is 0); "extrapolated" if it lies beyond the batch
        sizes that were tried.
    """

    series: str = ""
    target: float = math.nan
    batch_size: Interval
    min_updates: float = math.nan
    min_examples: float = math.nan
    residual: float = math.nan
    num_rows: int
    flags: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoiseScale:
    """Holds the gradient noise scale of one series and row, averaged over training up to a target.

    With the trace K of the covariance of an example's gradient, and the squared norm |G|^2 of the
    gradient, the noise scale is K / |G|^2. Both change during training.

    Attributes:
      series: Label; '' if the protocol has no series.
      row: Batch size of the runs.
      target: Value of the metric up to which the noise is averaged.
      scale: Average that predicts the critical batch size, see `noise_scales`, with its interval.
      ratio_of_means: Mean of K over mean of |G|^2, over all updates, with its interval.
      trace: Mean of K.
      squared_norm: Mean of |G|^2.
      n: Number of runs.
      flags: "lost_in_noise" if a mean of |G|^2 is not positive; the numbers are then nan.
    """

    series: str
    row: float
    target: float
    scale: Interval
    ratio_of_means: Interval
    trace: float
    squared_norm: float
    n: int
    flags: tuple[str, ...] = ()


def fit_critical_batch(
    updates: Sequence[float],
    examples: Sequence[float],
    *,
    level: float = 0.95,
) -> CriticalBatch:
    """Fits (S / S_min - 1) (E / E_min - 1) = 1 to the updates S and examples E to a target.

    The fit is by least squares of log S = log S_min + log(1 + B_crit / B), with B = E / S: a
    relative error counts the same at every batch size. The interval is the delta method's in
    log B_crit, with Student's t for n - 2 degrees of freedom. It is measured by the scatter of the
    batch sizes around the curve, which comes from the seeds and from the spacing of learning rates.

    Args:
      updates: Updates to the target at each batch size, positive.
      examples: Examples to the target at each batch size, positive.
      level: Level of the interval, in (0, 1).

    Returns:
      The critical batch size. The bounds are nan with fewer than three batch sizes, or if the fit
      is exact or at its limits.

    Raises:
      ValueError: If there are not as many updates as examples, or a number is not positive and
        finite.
    """
    s, e = np.asarray(updates, float), np.asarray(examples, float)
    if s.ndim != 1 or s.shape != e.shape or not _is_positive(s) or not _is_positive(e):
        raise ValueError(
            "Updates and examples to a target must be positive and finite, one of each for every "
            f"batch size; got {updates} and {examples}."
        )
    x, y = np.log(e / s), np.log(s)  # log B and log S
    if len(s) < 2 or np.ptp(x) < 1e-9:
        unknown = _no_interval(math.nan, level)
        return CriticalBatch(batch_size=unknown, num_rows=len(s), flags=("few_rows",))

    grid = np.linspace(x.min() - _FAR, x.max() + _FAR, 100)
    best = int(np.argmin([_squared_error(place, x, y) for place in grid]))
    if best == 0:
        return CriticalBatch(
            batch_size=_no_interval(0.0, level),
            min_updates=math.exp(y.mean()),
            min_examples=0.0,
            residual=float(y.std()),
            num_rows=len(s),
            flags=("no_slope",),
        )
    if best == len(grid) - 1:
        return CriticalBatch(
            batch_size=_no_interval(math.inf, level),
            min_updates=0.0,
            min_examples=math.exp((x + y).mean()),
            residual=float((x + y).std()),
            num_rows=len(s),
            flags=("no_plateau",),
        )
    bounds = (grid[best - 1], grid[best + 1])
    found = optimize.minimize_scalar(
        _squared_error, args=(x, y), bounds=bounds, method="bounded", options={"xatol": 1e-9}
    )
    log_critical, squared_error = float(found.x), float(found.fun)
    critical = math.exp(log_critical)
    min_updates = math.exp((y - _log_excess(log_critical, x)).mean())
    is_inside = x.min() <= log_critical <= x.max()
    return CriticalBatch(
        batch_size=_delta_interval(log_critical, squared_error, x, level),
        min_updates=min_updates,
        min_examples=critical * min_updates,
        residual=math.sqrt(squared_error / len(s)),
        num_rows=len(s),
        flags=() if is_inside else ("extrapolated",),
    )


def critical_batch_sizes(rows: Iterable[RowTarget], *, level: float = 0.95) -> list[CriticalBatch]:
    """Fits the critical batch size to the steps to target of each series and target.

    Args:
      rows: Of `steps_to_target`, whose rows are batch sizes. Rows that did not reach the target, or
        are censored, are left out.
      level: Level of the intervals, in (0, 1).

    Returns:
      A fit for each series and target, see `fit_critical_batch`.

    Raises:
      ValueError: If a row is not a positive number.
    """
    fits = []
    for (series, target), group in by_series_and_target(rows).items():
        measured = [row for row in group if row.is_measured]
        updates = [row.updates.value for row in measured]
        examples = [row.examples.value for row in measured]
        fit = fit_critical_batch(updates, examples, level=level)
        fits.append(dataclasses.replace(fit, series=series, target=target))
    return fits


def noise_scales(
    rows: Iterable[RowTarget],
    curves: Mapping[str, Curve] | None = None,
    *,
    level: float = 0.95,
) -> list[NoiseScale]:
    """Averages the gradient noise scale over training up to the target, at each row's optimum.

    With K and |G|^2 as in `NoiseScale`, an update of batch size B makes the progress of
    p = 1 / (1 + K / (B |G|^2)) updates with the full gradient. The critical batch size is predicted
    by the average of K / |G|^2 over such full updates,

        sum_t p_t K_t / |G_t|^2  /  sum_t p_t,

    because S_min is their number, and E_min the sum of the noise scales at each of them (McCandlish
    et al., section 2.3 and appendix D). Single measurements are too noisy for a ratio. So K and
    |G|^2 are first averaged over the runs and over each fifth of the updates to the target, as the
    moving averages of appendix A.1 do. (In a noisy quadratic model this makes the average too small
    by up to 15 %.)

    The ratio of means over all updates is given beside it. The large gradients of early training
    dominate it, at which the noise scale is small. It is less noisy, and for small batches about as
    large.

    The theory assumes the best learning rate in every update, and a Hessian that is a multiple of
    the identity. McCandlish et al. find agreement in order of magnitude. In noisy quadratic models
    the average was 0.6 to 2 times the critical batch size, and the ratio of means 0.2 to 1.5 times.

    Args:
      rows: Of `steps_to_target`. Rows that did not reach the target are left out.
      curves: As given to `steps_to_target`. They need the columns that `Task.noise_microbatch`
        adds: gradient_variance, the mean of K over the updates since the evaluation before, and
        gradient_squared_norm, that of |G|^2.
      level: Level of the intervals, in (0, 1), by the jackknife over runs.

    Returns:
      The scales, in the order of the rows.

    Raises:
      ValueError: If a curve has no gradient noise.
    """
    return [_noise_scale(row, curves, level) for row in rows if row.n]


def critical_batch_frame(
    fits: Iterable[CriticalBatch], scales: Iterable[NoiseScale] = ()
) -> "pd.DataFrame":
    """Returns critical batch sizes beside the gradient noise scales as a pandas DataFrame.

    There is a line for each fit. The noise scale depends on the batch size of the run, through the
    learning rate that goes with it. The line has the scale of the row nearest to the critical batch
    size (in logarithm), as `noise_row`.
    """
    import pandas as pd

    scales = list(scales)
    lines = []
    for fit in fits:
        line = {
            "target": fit.target,
            "series": fit.series,
            "critical_batch_size": fit.batch_size.value,
            "low": fit.batch_size.low,
            "high": fit.batch_size.high,
            "min_updates": fit.min_updates,
            "min_examples": fit.min_examples,
            "residual": fit.residual,
            "flags": " ".join(fit.flags),
        }
        noise = _nearest_scale(fit, scales)
        if noise is not None:
            line |= {
                "noise_row": noise.row,
                "noise_scale": noise.scale.value,
                "noise_low": noise.scale.low,
                "noise_high": noise.scale.high,
                "ratio_of_means": noise.ratio_of_means.value,
            }
        lines.append(line)
    return pd.DataFrame(lines)


def _is_positive(values):
    return bool((np.isfinite(values) & (values > 0)).all())


def _no_interval(value, level):
    return Interval(value, math.nan, math.nan, level)


def _log_excess(log_critical, x):
    """Returns log(1 + B_crit / B) at batch sizes B = exp(x)."""
    return np.logaddexp(0, log_critical - x)


def _squared_error(log_critical, x, y):
    """Returns the sum of squares around the curve of a critical batch size, at its best height."""
    rest = y - _log_excess(log_critical, x)
    return float(((rest - rest.mean()) ** 2).sum())


def _delta_interval(log_critical, squared_error, x, level):
    """Returns the critical batch size with the delta method's interval."""
    critical = math.exp(log_critical)
    freedom = len(x) - 2
    if freedom < 1 or squared_error < 1e-12 * len(x):  # Nothing but rounding.
        return _no_interval(critical, level)
    # Derivatives of log S by log S_min, which are 1, and by log B_crit.
    slopes = special.expit(log_critical - x)
    spread = float(((slopes - slopes.mean()) ** 2).sum())
    error = math.sqrt(squared_error / freedom / spread)
    half = intervals.t_quantile(level, freedom) * error
    return Interval(critical, critical * math.exp(-half), critical * math.exp(half), level)


def _noise_scale(row, curves, level):
    """Returns the noise scale of one row."""
    sums = np.array([_sums_by_window(crossing, curves) for crossing in row.point.reached])
    batch_size = row.examples.value / row.updates.value
    scale = _jackknife(lambda sums: _average_scale(sums, batch_size), sums, level)
    ratio_of_means = _jackknife(_ratio_of_means, sums, level)
    is_lost = math.isnan(scale.value) or math.isnan(ratio_of_means.value)
    updates, trace, norm = sums.sum((0, 1))
    return NoiseScale(
        series=row.series,
        row=row.row,
        target=row.target,
        scale=scale,
        ratio_of_means=ratio_of_means,
        trace=float(trace / updates) if updates else math.nan,
        squared_norm=float(norm / updates) if updates else math.nan,
        n=row.n,
        flags=("lost_in_noise",) if is_lost else (),
    )


def _sums_by_window(crossing: Crossing, curves):
    """Returns sums over the updates before the crossing, by window of training, for one run.

    Returns:
      Array of shape (_WINDOWS, 3): the number of updates with a measurement, and the sums of K and
      |G|^2 over them.
    """
    curve = curve_of(crossing.record, curves)
    for name in _NOISE:
        if name not in curve:
            raise ValueError(
                f"Run {crossing.record.run_id}: the curve has no {name}; train a task "
                "with a noise_microbatch, which measures it."
            )
    ends = np.array(curve["update"], float)
    starts = np.concatenate([[0.0], ends[:-1]])
    trace, norm = (np.array(curve[name], float) for name in _NOISE)  # None becomes nan
    # The updates of each interval between evaluations that come before the crossing.
    counts = np.clip(crossing.updates - starts, 0, ends - starts)
    used = (counts > 0) & np.isfinite(trace) & np.isfinite(norm)
    counts, starts = counts[used], starts[used]
    middles = starts + counts / 2
    windows = (_WINDOWS * middles / crossing.updates).astype(int)
    weights = (counts, counts * trace[used], counts * norm[used])
    return np.stack([np.bincount(windows, each, _WINDOWS) for each in weights], axis=1)


def _average_scale(sums, batch_size):
    """Returns the average of `noise_scales` from sums of shape (N, _WINDOWS, 3)."""
    updates, trace, norm = sums.sum(0).T
    # The squared norm of a batch's gradient, summed over updates; positive unless all are zero.
    of_batch = norm + trace / batch_size
    used = of_batch > 0
    share = updates[used] / of_batch[used]
    return _ratio(share @ trace[used], share @ norm[used])


def _ratio_of_means(sums):
    """Returns the ratio of means from sums of shape (N, _WINDOWS, 3)."""
    _, trace, norm = sums.sum((0, 1))
    return _ratio(trace, norm)


def _ratio(numerator, denominator):
    return float(numerator / denominator) if denominator > 0 else math.nan


def _jackknife(statistic, sums, level):
    """Returns a statistic of all runs, with the interval of its jackknife over runs."""
    value, n = statistic(sums), len(sums)
    if n == 1:
        return _no_interval(value, level)
    without = [statistic(np.delete(sums, run, axis=0)) for run in range(n)]
    pseudo_values = [n * value - (n - 1) * each for each in without]
    found = statistics.mean_interval(pseudo_values, level)
    half = (found.high - found.low) / 2
    return Interval(value, value - half, value + half, level)


def _nearest_scale(fit, scales):
    """Returns the scale of the row nearest to a critical batch size, or None."""
    same = [
        scale
        for scale in scales
        if (scale.series, scale.target) == (fit.series, fit.target) and scale.row > 0
    ]
    if not same or math.isnan(fit.batch_size.value):
        return None
    log_critical = math.log(fit.batch_size.value) if fit.batch_size.value else -math.inf
    log_critical = min(max(log_critical, -100.0), 100.0)  # of a limit, 0 or infinite
    return min(same, key=lambda scale: abs(math.log(scale.row) - log_critical))
