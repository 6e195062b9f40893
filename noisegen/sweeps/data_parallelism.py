"""Regions of data parallelism: how far a larger batch saves updates to a target.

With the batch size B, the updates S(B) to a target show three regions (Shallue et al. 2019, section
4): perfect scaling, in which twice the batch size needs half the updates; diminishing returns; and
maximal data parallelism, in which a larger batch saves no further update.

References:
  Shallue et al., Measuring the Effects of Data Parallelism on Neural Network Training, JMLR 20,
  2019, https://arxiv.org/abs/1811.03600
"""

import dataclasses
import math
from collections.abc import Iterable

import numpy as np

from noisegen import statistics
from noisegen.statistics import Interval
from noisegen.sweeps.targets import RowTarget, by_series_and_target


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scaling:
    """Regions of the batch sizes of one series, by the steps to one target.

    Attributes:
      series: Label; '' if the protocol has no series.
      target: Value of the metric.
      examples: Mean examples to the target at the smallest batch size. The line of perfect scaling
        is updates * batch_size = examples.
      perfect_up_to: Largest batch size of the region of perfect scaling.
      largest_useful: Largest batch size that saves updates. Between `perfect_up_to` and this one
        returns diminish; beyond it are none.
      flags: "few_rows" if fewer than two batch sizes are measured (the numbers are then nan),
        "no_slope" if even the smallest batch size is beyond perfect scaling, "no_plateau" if the
        largest one still saves updates.
    """

    series: str
    target: float
    examples: float = math.nan
    perfect_up_to: float = math.nan
    largest_useful: float = math.nan
    flags: tuple[str, ...] = ()


def scaling_regions(
    rows: Iterable[RowTarget], *, tolerance: float = 0.05, level: float = 0.95
) -> list[Scaling]:
    """Divides batch sizes into regions of perfect scaling, diminishing and no returns.

    With S(B) updates and E(B) examples to the target:

    * Scaling is perfect as long as E(B) does not measurably exceed that of the smallest batch size
      by more than the tolerance, at this and all smaller B.
    * The largest useful batch size is the smallest B at which no larger batch size has measurably
      fewer updates than (1 - tolerance) S(B).

    Shallue et al. (section 4) describe the regions, and define the maximum useful batch size as the
    one beyond which steps no longer fall. That a difference must be measurable and exceed a
    tolerance is this function's reading. It is measurable if Welch's interval of the difference of
    mean logarithms excludes the tolerance. Few seeds thus make the region of perfect scaling large,
    and the largest useful batch size small. Where there is no interval (a single run, or equal
    ones), the means alone are compared.

    Args:
      rows: Of `steps_to_target`, whose rows are batch sizes. Rows that did not reach the target, or
        are censored, are left out.
      tolerance: Relative difference that does not count, from 0 to less than 1.
      level: Level of the intervals, in (0, 1).

    Returns:
      The regions, one for each series and target.

    Raises:
      ValueError: If a row is not a positive number.
    """
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance must be from 0 to less than 1, got {tolerance}.")
    return [
        _regions(*key, group, tolerance, level) for key, group in by_series_and_target(rows).items()
    ]


def _regions(series, target, group, tolerance, level):
    """Returns the regions of one series and target from its rows, in ascending order."""
    measured = [row for row in group if row.is_measured]
    if len(measured) < 2:
        return Scaling(series=series, target=target, flags=("few_rows",))
    smallest, largest = measured[0], measured[-1]

    perfect = smallest
    for row in measured[1:]:
        if _log_ratio(row, smallest, "examples", level).low > math.log1p(tolerance):
            break
        perfect = row

    useful = largest
    for index, row in enumerate(measured):
        larger = measured[index + 1 :]
        ratios = [_log_ratio(other, row, "updates", level) for other in larger]
        if not any(ratio.high < math.log1p(-tolerance) for ratio in ratios):
            useful = row
            break

    flags = []
    if perfect is smallest:
        flags.append("no_slope")
    if useful is largest:
        flags.append("no_plateau")
    return Scaling(
        series=series,
        target=target,
        examples=smallest.examples.value,
        perfect_up_to=perfect.row,
        largest_useful=useful.row,
        flags=tuple(flags),
    )


def _log_ratio(row, other, name, level):
    """Returns the log of the ratio of two rows' geometric means, as an interval.

    Without an interval both bounds are the value itself.
    """
    logs = [
        np.log([getattr(crossing, name) for crossing in each.point.reached])
        for each in (row, other)
    ]
    found = statistics.welch_difference(*logs, level)
    if math.isnan(found.low):
        return Interval(found.value, found.value, found.value, level)
    return found
