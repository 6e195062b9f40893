"""Matches the optima of a sweep with published numbers."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

from noisegen.reports.formatting import Value, ordered
from noisegen.reports.published import Published, normalize_published
from noisegen.sweeps.metrics import Metric
from noisegen.sweeps.protocol import Optimum, Protocol


@dataclasses.dataclass(frozen=True)
class MatchedOptima:
    """The optima of a sweep and the published numbers, matched by series and row.

    Attributes:
      labels: Series, in their order.
      rows: Rows, ascending.
      optima: Optima by series and row.
      published: Published numbers by series and row, then by name.
      compared: Names of which anything was published, in the order of their columns.
    """

    labels: Sequence[str]
    rows: Sequence[Value]
    optima: Mapping[tuple, Optimum]
    published: Mapping[tuple, Mapping[str, tuple]]
    compared: Sequence[str]

    def at(self, label: str, row: Value) -> tuple[Optimum, Mapping[str, tuple]]:
        """Returns the optimum of a series and row, and the published numbers; blank if none."""
        key = (label, row)
        blank = Optimum(series=label, row=row)
        return self.optima.get(key, blank), self.published.get(key, {})

    def __iter__(self) -> Iterator[tuple[Optimum, Mapping[str, tuple]]]:
        """Yields optimum and published numbers of each series and row that has one or the other."""
        for label in self.labels:
            for row in self.rows:
                if (label, row) in self.optima or (label, row) in self.published:
                    yield self.at(label, row)


def compare(
    optima: Sequence[Optimum], protocol: Protocol, published: Published | None
) -> MatchedOptima:
    """Matches optima with published numbers.

    Raises:
      ValueError: If published numbers are of another form, or have no column to stand beside.
    """
    published_by_name = normalize_published(published, protocol)
    measured = {(optimum.series, optimum.row): optimum for optimum in optima}
    # A series or a row may be published only: its line then has no measured numbers.
    keys = [*measured, *published_by_name]
    compared = []
    for name in (*protocol.metric_names, *protocol.tune):
        if any(name in values for values in published_by_name.values()):
            compared.append(name)
    return MatchedOptima(
        labels=list(dict.fromkeys(label for label, _ in keys)),
        rows=ordered(row for _, row in keys),
        optima=measured,
        published=published_by_name,
        compared=compared,
    )


def metric_named(name: str, protocol: Protocol) -> Metric:
    """Returns the metric of a protocol that has a name."""
    return next(metric for metric in (protocol.metric, *protocol.report) if metric.name == name)


def mean_and_std(optimum: Optimum, metric: Metric, protocol: Protocol) -> tuple[float, float]:
    """Returns mean and standard deviation of a metric at an optimum, nan if unknown."""
    if metric == protocol.metric:
        return optimum.mean, optimum.std
    return optimum.report.get(metric.name, (math.nan, math.nan))


def difference_in_std(
    optimum: Optimum,
    published: tuple[float, float | None] | None,
    metric: Metric,
    protocol: Protocol,
) -> float:
    """Returns measured minus published, in standard deviations; nan if unknown.

    The standard deviation is sqrt(measured^2 + published^2) if both are known, else the known one.
    """
    if published is None:
        return math.nan
    published_mean, published_std = published
    mean, std = mean_and_std(optimum, metric, protocol)
    # Published numbers are in the unit shown, such as percent.
    mean, std = metric.factor * mean, metric.factor * std
    stds = [0.0 if math.isnan(std) else std, published_std or 0.0]
    combined = math.hypot(*stds)
    return (mean - published_mean) / combined if combined else math.nan
