"""The explorable plots of a page, which show what the static ones of `plots` show."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from bokeh import models, palettes

from noisegen.reports import axes, canvas, comparison, formatting, markup, plots
from noisegen.reports.explorable_runs import RunIndex, list_runs
from noisegen.reports.formatting import display_name, format_mean, format_number
from noisegen.reports.published import Published, normalize_published
from noisegen.reports.style import COLORS, FAINT
from noisegen.storage import Record
from noisegen.sweeps import regimes
from noisegen.sweeps.metrics import Metric
from noisegen.sweeps.protocol import Optimum, Protocol


class Explorer:
    """Draws the plots of one section of a page, each as an item for Bokeh.

    Args:
      records: Records of the sweep.
      optima, protocol, published: As for `make_table`.

    Attributes:
      labels: Labels of the series, in the order of their colors.
    """

    def __init__(
        self,
        records: Sequence[Record],
        optima: Sequence[Optimum],
        protocol: Protocol,
        published: Published | None = None,
    ):
        self._protocol = protocol
        self._runs = RunIndex(records, protocol)
        self._published = normalize_published(published, protocol)
        labels = [optimum.series for optimum in optima] + [label for label, _ in self._published]
        self.labels = list(dict.fromkeys(labels))

    def legend(self) -> list[tuple[str, str, str]]:
        """Returns name, color and marker of each series."""
        by_series = dict.fromkeys(self.labels)
        return [
            (plots.legend_name(label, by_series), *canvas.symbol(index))
            for index, label in enumerate(self.labels)
        ]

    def metric(self, optima: Sequence[Optimum], metric: Metric) -> Mapping[str, Any]:
        """Draws a metric at the optima, as `plots.plot_metric` does."""
        protocol = self._protocol
        printed = {
            k: each[metric.name] for k, each in self._published.items() if metric.name in each
        }
        axis = axes.Axis([row for _, row in printed] + [optimum.row for optimum in optima])
        figure = canvas.make(display_name(protocol.row), display_name(metric))
        canvas.show_axis(figure, "below", axis)
        by_series = plots.by_series_of(optima, labels=[label for label, _ in printed])
        for label, alive in by_series.items():
            index = self.labels.index(label)
            pairs = [comparison.mean_and_std(optimum, metric, protocol) for optimum in alive]
            means, stds = _columns(
                [(metric.factor * mean, metric.factor * std) for mean, std in pairs]
            )
            points = {
                "x": axis.shifted([optimum.row for optimum in alive], index, len(self.labels)),
                "y": means,
                "text": [self._describe(optimum, metric) for optimum in alive],
                "runs": [self._runs.counted(optimum) for optimum in alive],
            }
            canvas.draw_points(figure, points, index, below=stds, above=stds)
            rows = [row for row in axis.positions if (label, row) in printed]
            means, stds = _columns([printed[label, row] for row in rows])
            points = {
                "x": axis.shifted(rows, index, len(self.labels)),
                "y": means,
                "text": [
                    f"{self._heading(label, row)}\npublished: {m:g}"
                    for row, m in zip(rows, means, strict=True)
                ],
                "runs": [[] for _ in rows],
            }
            if rows:
                looks = {"has_line": False, "is_hollow": True, "size": 14}
                canvas.draw_points(figure, points, index, below=stds, above=stds, **looks)
        return canvas.to_item(figure)

    def tuned(
        self, optima: Sequence[Optimum], boundaries: Mapping[str, regimes.Boundary]
    ) -> Mapping[str, Any]:
        """Draws the best value of the first tuned field, as `plots.plot_tuned` does."""
        protocol, name = self._protocol, self._protocol.tune[0]
        rows = axes.Axis(optimum.row for optimum in optima)
        values = axes.Axis(point.values[name] for optimum in optima for point in optimum.points)
        figure = canvas.make(display_name(protocol.row), f"best {display_name(name)}")
        canvas.show_axis(figure, "below", rows)
        canvas.show_axis(figure, "left", values, powers=True)
        draws_rule = protocol.has_scaling_rule and rows.is_log and values.is_numeric
        for label, alive in plots.by_series_of(optima).items():
            index = self.labels.index(label)
            x = [rows.positions[optimum.row] for optimum in alive]
            y = [values.positions[optimum.values[name]] for optimum in alive]
            below, above = plots.error_bars(alive, y, values)
            if draws_rule and len(x) > 1:
                thin = {"line_dash": "dashed", "line_width": 1.5, "name": str(index)}
                figure.line(x, plots.proportional(x, y), color=FAINT, **thin)
            if alive and label in boundaries:
                self._draw_regimes(figure, alive, boundaries[label], index)
            points = {
                "x": rows.shifted([optimum.row for optimum in alive], index, len(self.labels)),
                "y": y,
                "text": [self._describe(optimum, protocol.metric) for optimum in alive],
                "runs": [self._runs.counted(optimum) for optimum in alive],
            }
            canvas.draw_points(figure, points, index, below=below, above=above)
        return canvas.to_item(figure)

    def heatmap(self, optima: Sequence[Optimum]) -> Mapping[str, Any]:
        """Draws the mean of each cell of one series, as `plots.plot_heatmap` does."""
        protocol, name = self._protocol, self._protocol.tune[0]
        rows, values, means = plots.load_heatmap(optima, protocol)
        limits = plots.color_limits(means, protocol)
        cells = []
        for optimum in optima:
            for value in dict.fromkeys(point.values[name] for point in optimum.points):
                x, y = rows.index(optimum.row), values.index(value)
                cells.append(self._cell(optimum, value, means[y, x], limits) | {"x": x, "y": y})
        source = models.ColumnDataSource({key: [cell[key] for cell in cells] for key in _CELL})
        figure = canvas.make(display_name(protocol.row), display_name(name), is_grid=False)
        colors = models.LinearColorMapper(
            palette=palettes.Cividis256 if protocol.mode == "max" else palettes.Cividis256[::-1],
            low=limits[0],
            high=limits[1],
            nan_color="#00000000",
        )
        mesh = figure.rect(
            *("x", "y", 1, 1),
            source=source,
            fill_color={"field": "mean", "transform": colors},
            line_color=None,
            selection_line_color=COLORS[5],
            selection_line_width=5,
        )
        mesh.nonselection_glyph = None
        centered = {"text_align": "center", "text_baseline": "middle", "text_font_size": "12px"}
        if means.size <= plots.MAX_NUMBERED_CELLS:
            texts = figure.text("x", "y", "number", source=source, text_color="ink", **centered)
            texts.nonselection_glyph = None
        best = [(rows.index(o.row), values.index(o.values[name])) for o in optima if o.n]
        frame = {"fill_color": None, "line_color": COLORS[1], "line_width": 2.5}
        figure.rect([x for x, _ in best], [y for _, y in best], 0.94, 0.94, **frame)
        canvas.add_hover(figure, mesh)
        canvas.show_cells(figure, "below", rows, formatting.decimal_formatter(rows))
        canvas.show_cells(figure, "left", values, axes.value_formatter(values))
        return canvas.to_item(figure)

    def curves(self, optima: Sequence[Optimum], curves: Mapping[str, Mapping]) -> Mapping[str, Any]:
        """Draws the mean curve at each optimum of one series, as `plots.plot_curves` does."""
        protocol = self._protocol
        figure = canvas.make("epoch", display_name(protocol.metric))
        loaded = [(o, *plots.load_curves(o, protocol.metric, curves)) for o in optima]
        loaded = [(o, epochs, values) for o, epochs, values in loaded if epochs.size]
        write = formatting.decimal_formatter(optimum.row for optimum in optima)
        legend = canvas.add_legend(figure, display_name(protocol.row))
        for index, (optimum, epochs, values) in enumerate(loaded):
            mean, std = plots.curve_mean_and_std(values)
            color = plots.ramp_color(index / max(1, len(loaded) - 1))
            text = self._describe(optimum, protocol.metric)
            line = canvas.draw_curve(figure, epochs, mean, text, self._runs.counted(optimum), color)
            marks = figure.scatter(epochs, mean, color=color, marker=canvas.marker(index), size=6)
            shade = {"color": color, "fill_alpha": 0.2}
            band = figure.varea(x=epochs, y1=mean - std, y2=mean + std, **shade)
            label = {"value": write(optimum.row)}
            legend.items.append(models.LegendItem(label=label, renderers=[line, marks, band]))
        return canvas.to_item(figure)

    def every_run(self) -> Mapping[str, Any]:
        """Draws a point for each run of the sweep; explore.js fills its sources."""
        protocol = self._protocol
        figure = canvas.make(display_name(protocol.tune[0]), display_name(protocol.metric))
        for index in range(len(self.labels)):
            points = {"x": [], "y": [], "text": [], "runs": []}
            canvas.draw_points(figure, points, index, has_line=False, size=6, alpha=0.5)
        return canvas.to_item(figure)

    def _draw_regimes(self, figure, alive, boundary, index):
        """Draws the fit of the two regimes, and the interval of their boundary."""
        x, y = plots.broken_line(alive, self._protocol, boundary)
        if not x:
            return
        color, _ = canvas.symbol(index)
        thin = {"line_dash": "dotted", "line_width": 2, "name": str(index)}
        figure.line(x, y, color=color, **thin)
        if math.isfinite(boundary.low) and math.isfinite(boundary.high):
            shade = {"fill_color": color, "fill_alpha": 0.12, "line_color": None}
            sides = {"left": boundary.low, "right": boundary.high}
            figure.add_layout(models.BoxAnnotation(**sides, **shade, name=str(index)))

    def _cell(self, optimum, value, mean, limits):
        """Returns the columns of one cell of a heatmap, without its position."""
        protocol, name = self._protocol, self._protocol.tune[0]
        points = [point for point in optimum.points if point.values[name] == value]
        failed = math.isnan(mean)
        is_light = (mean > sum(limits) / 2) == (protocol.mode == "max")
        heading = self._heading(optimum.series, optimum.row)
        lines = [f"{heading}, {display_name(name)} {format_number(value)}"]
        for point in points:
            shown = format_mean(protocol.metric, point.mean, point.std)
            for key in protocol.tune[1:]:
                lines.append(f"{display_name(key)} {format_number(point.values[key])}")
            lines.append(f"{display_name(protocol.metric)}: {shown}")
            lines.append(list_runs(point.counted, protocol.metric))
            if point.diverged:
                lines.append(f"diverged: {point.diverged} of {point.tried}")
        return {
            "text": "\n".join(filter(None, lines)),
            "runs": self._runs.cell(optimum, value),
            "mean": mean,
            "number": "×" if failed else plots.cell_number(mean, protocol.metric),
            "ink": FAINT if failed else "#000000" if is_light else "#ffffff",
        }

    def _describe(self, optimum, metric):
        """Writes an optimum, a metric there and the runs behind it, as lines of text."""
        protocol = self._protocol
        mean, std = comparison.mean_and_std(optimum, metric, protocol)
        lines = [self._heading(optimum.series, optimum.row)]
        lines.append(f"{display_name(metric)}: {format_mean(metric, mean, std)}")
        for name, value in optimum.values.items():
            lines.append(f"best {display_name(name)}: {format_number(value)}")
        return "\n".join([*lines, list_runs(optimum.counted, metric)])

    def _heading(self, series, row):
        """Names a series, if there are several, and a row."""
        shown = f"{display_name(self._protocol.row)} {format_number(row)}"
        return f"{markup.visible(series)}, {shown}" if series else shown


_CELL = ("x", "y", "text", "runs", "mean", "number", "ink")


def _columns(pairs):
    """Returns means and standard deviations as two columns; None becomes nan."""
    array = np.array(pairs, dtype=float).reshape(-1, 2)
    return array[:, 0], array[:, 1]
