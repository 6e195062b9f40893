"""Plots of a sweep.

Each takes the optima that `noisegen.sweeps.select` returned, the axes to draw in, and the protocol
that `select` was given, and returns the axes.

>>> from matplotlib import figure
>>> from noisegen import reports, storage, sweeps
>>> run = {"batch_size": 64, "learning_rate": 0.1, "seed": 0}
>>> record = storage.Record(
...     hparams=run, status="finished", metrics={"test_accuracy": 0.986}
... )
>>> protocol = sweeps.Protocol()
>>> optima = sweeps.select([record], protocol)
>>> ax = reports.plot_metric(optima, figure.Figure().add_subplot(), protocol)
>>> ax.get_ylabel()
'test accuracy (%)'

Matplotlib is imported when something is drawn. The colors are those of Okabe & Ito, which
color-blind people tell apart; series differ in their markers too. Labels, words and names are
drawn as they are: a dollar sign begins no formula, and a label may begin with an underscore.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np

from noisegen.reports import formatting, markup
from noisegen.reports.formatting import display_name
from noisegen.reports.published import Published, normalize_published
from noisegen.reports.style import COLORS, FAINT, MARKERS
from noisegen.sweeps import regimes
from noisegen.sweeps.metrics import Metric, as_metric
from noisegen.sweeps.protocol import Optimum, Protocol

MAX_TICKS = 12
MAX_NUMBERED_CELLS = 200  # of a heatmap; a color bar explains a larger one

Axes = "matplotlib.axes.Axes"

_PLAIN = {"parse_math": False, "usetex": False}  # $ and _ are characters like any others
_CENTERED = {"ha": "center", "va": "center", "fontsize": 9.5} | _PLAIN
_HOLLOW = {"fillstyle": "none", "linestyle": "none", "markersize": 10}


def plot_metric(
    optima: Sequence[Optimum],
    ax: Axes,
    protocol: Protocol,
    published: Published | None = None,
) -> Axes:
    """Draws the metric at the optimum against the row: mean and standard deviation by series.

    Published numbers (as for `make_table`) are hollow markers.
    """
    metric = protocol.metric
    printed = {
        key: values[metric.name]
        for key, values in normalize_published(published, protocol).items()
        if metric.name in values
    }
    by_series = _by_series(optima, labels=[label for label, _ in printed])
    axis = _Axis([row for _, row in printed] + [optimum.row for optimum in optima])
    handles = []
    for index, (label, alive) in enumerate(by_series.items()):
        x = axis.shifted([optimum.row for optimum in alive], index, len(by_series))
        means = [metric.factor * optimum.mean for optimum in alive]
        stds = [metric.factor * optimum.std for optimum in alive]
        handles += _line(ax, x, means, stds, index, _legend_name(label, by_series))

        rows = [row for row in axis.positions if (label, row) in printed]
        x = axis.shifted(rows, index, len(by_series))
        means = [printed[label, row][0] for row in rows]
        stds = [printed[label, row][1] for row in rows]
        stds = [math.nan if std is None else std for std in stds]
        name = _published_legend_name(label, by_series)
        handles += _line(ax, x, means, stds, index, name, **_HOLLOW)
    axis.show(ax.xaxis)
    ax.set_xlabel(display_name(protocol.row), **_PLAIN)
    ax.set_ylabel(display_name(metric), **_PLAIN)
    return _finish(ax, handles, is_empty=not printed and not any(o.n for o in optima))


def plot_tuned(
    optima: Sequence[Optimum],
    ax: Axes,
    protocol: Protocol,
    boundaries: Mapping[str, regimes.Boundary] | None = None,
) -> Axes:
    """Draws the best value of the first tuned field against the row, with its error bar.

    If the protocol has a scaling rule, a dashed line shows the linear rule through the optimum of
    the smallest batch size of each series. Dotted lines are the broken lines through the optima
    (`noisegen.sweeps.boundaries`); the interval of the boundary between the regimes is shaded.
    """
    name = protocol.tune[0]
    rows = _Axis(optimum.row for optimum in optima)
    values = _Axis(point.values[name] for optimum in optima for point in optimum.points)
    draws_rule = protocol.has_scaling_rule and rows.is_log and values.is_numeric
    by_series = _by_series(optima)
    handles, anchors = [], set()
    for index, (label, alive) in enumerate(by_series.items()):
        x = [rows.positions[optimum.row] for optimum in alive]
        y = [values.positions[optimum.values[name]] for optimum in alive]
        shifted = rows.shifted([optimum.row for optimum in alive], index, len(by_series))
        bars = _error_bars(alive, y, values)
        handles += _line(ax, shifted, y, bars, index, _legend_name(label, by_series))
        # Series that begin at the same optimum share one line.
        if draws_rule and len(x) > 1 and (x[0], y[0]) not in anchors:
            line = _linear_rule(ax, x, y)
            if not anchors:
                handles.append(line)
            anchors.add((x[0], y[0]))
        if alive and boundaries and label in boundaries:
            _broken_line(ax, alive, protocol, boundaries[label], COLORS[index % len(COLORS)])
    rows.show(ax.xaxis)
    values.show(ax.yaxis, powers=True)
    ax.set_xlabel(display_name(protocol.row), **_PLAIN)
    ax.set_ylabel(f"best {display_name(name)}", **_PLAIN)
    return _finish(ax, handles, is_empty=not any(optimum.n for optimum in optima))


def plot_heatmap(optima: Sequence[Optimum], ax: Axes, protocol: Protocol) -> Axes:
    """Draws the mean of the metric for each row and learning rate; all optima are of one series.

    If further fields are tuned, it is the best over these. The optimum is framed; a cross means
    that no run survived, an empty cell that none was tried. The worst tenth of the cells share one
    color.
    """
    rows, values, means = load_heatmap(optima, protocol)
    finite = means[np.isfinite(means)]
    # Runs that nearly failed would else take up most of the color scale.
    quantiles, cmap = ([0.1, 1], "cividis") if protocol.mode == "max" else ([0, 0.9], "cividis_r")
    low, high = np.quantile(finite, quantiles) if finite.size else (0, 1)
    mesh = ax.pcolormesh(means, cmap=cmap, vmin=low, vmax=max(high, low))
    if means.size <= MAX_NUMBERED_CELLS:
        _number_cells(ax, mesh, means, protocol.metric)
    else:
        ax.figure.colorbar(mesh, ax=ax).set_label(display_name(protocol.metric), **_PLAIN)
    name = protocol.tune[0]
    for optimum in optima:
        column = rows.index(optimum.row)
        for line in {values.index(point.values[name]) for point in optimum.points}:
            if math.isnan(means[line, column]):
                look = _CENTERED | {"fontsize": 14}
                ax.text(column + 0.5, line + 0.5, "×", color=FAINT, **look)
        if optimum.n:
            _frame_cell(ax, column, values.index(optimum.values[name]))
    write_row, write_value = formatting.decimal_formatter(rows), _value_formatter(values)
    _set_ticks(ax.xaxis, np.arange(len(rows)) + 0.5, [write_row(row) for row in rows])
    _set_ticks(ax.yaxis, np.arange(len(values)) + 0.5, [write_value(value) for value in values])
    ax.set_xlabel(display_name(protocol.row), **_PLAIN)
    ax.set_ylabel(display_name(name), **_PLAIN)
    ax.tick_params(length=0)
    return ax


def load_heatmap(
    optima: Sequence[Optimum], protocol: Protocol
) -> tuple[list[float], list[float], np.ndarray]:
    """Returns the rows, the learning rates, and the means (learning rates, rows), nan for none."""
    name, sign = protocol.tune[0], protocol.sign
    rows = formatting.ordered(optimum.row for optimum in optima)
    values = formatting.ordered(
        point.values[name] for optimum in optima for point in optimum.points
    )
    means = np.full((len(values), len(rows)), np.nan)
    for optimum in optima:
        for point in optimum.points:
            cell = values.index(point.values[name]), rows.index(optimum.row)
            # fmax prefers any number to nan.
            means[cell] = sign * np.fmax(sign * means[cell], sign * point.mean)
    return rows, values, protocol.metric.factor * means


def plot_curves(
    optima: Sequence[Optimum],
    ax: Axes,
    protocol: Protocol,
    curves: Mapping[str, Mapping] | None = None,
) -> Axes:
    """Draws the metric during training at each optimum: mean and standard deviation over seeds.

    All optima are of one series. If their records were read without curves, `curves` maps run_id to
    curve.
    """
    loaded = [(optimum, *load_curves(optimum, protocol.metric, curves)) for optimum in optima]
    loaded = [(optimum, epochs, values) for optimum, epochs, values in loaded if epochs.size]
    write = formatting.decimal_formatter(optimum.row for optimum in optima)
    handles = []
    for index, (optimum, epochs, values) in enumerate(loaded):
        color = _ramp_color(index / max(1, len(loaded) - 1))
        values = np.ma.masked_invalid(values)  # a loss may be infinite at some epochs
        with np.errstate(over="ignore"):  # of squares
            mean = values.mean(axis=0)
            std = values.std(axis=0, ddof=1) if len(values) > 1 else 0 * mean
        ax.fill_between(epochs, mean - std, mean + std, color=color, alpha=0.2, linewidth=0)
        handles += ax.plot(
            epochs,
            mean,
            label=write(optimum.row),
            color=color,
            marker=MARKERS[index % len(MARKERS)],
            markersize=4.5,
            markevery=max(1, len(epochs) // 12),
        )
    ax.set_xlabel("epoch")
    ax.set_ylabel(display_name(protocol.metric), **_PLAIN)
    _finish(ax, handles, is_empty=not loaded)
    if loaded:
        ax.get_legend().set_title(display_name(protocol.row))
        ax.get_legend().get_title().set(**_PLAIN)
    return ax


def load_curves(
    optimum: Optimum, metric: Metric | str, curves: Mapping[str, Mapping] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns epochs (T,) and metric (seeds, T) of the runs at an optimum, up to the shortest."""
    metric = as_metric(metric)
    found = []
    for record in optimum.best:
        curve = (curves or {}).get(record.run_id, record.curve)
        if curve and curve.get("epoch") and curve.get(metric.name):
            found.append(curve)
    steps = min((min(len(each["epoch"]), len(each[metric.name])) for each in found), default=0)
    epochs = np.array(found[0]["epoch"][:steps] if found else [], dtype=float)
    values = [each[metric.name][:steps] for each in found]
    values = np.array(values, dtype=float).reshape(len(found), steps)  # None becomes nan
    return epochs, metric.factor * values


class _Axis:
    """Positions of a field's values on an axis: numbers at themselves, words in their order.

    The axis is logarithmic if all values are positive numbers.
    """

    def __init__(self, values):
        values = formatting.ordered(values)
        self.is_numeric = all(formatting.is_number(value) for value in values)
        self.is_log = self.is_numeric and bool(values) and values[0] > 0
        self.positions = {
            value: value if self.is_numeric else index for index, value in enumerate(values)
        }

    def shifted(self, values, index, count):
        """Returns positions a little beside those of other series, which they would hide."""
        positions = [self.positions[value] for value in values]
        if self.is_log:
            return [position * min(1.05, 1.3 ** (1 / count)) ** index for position in positions]
        every = list(self.positions.values())
        span = every[-1] - every[0] if positions else 0
        return [position + span * min(0.02, 0.2 / count) * index for position in positions]

    def show(self, axis, powers=False):
        """Scales an axis of Matplotlib, with a tick at each value."""
        positions, name = list(self.positions.values()), axis.axis_name
        if self.is_log:
            limits = (positions[0] / 1.4, positions[-1] * 1.4)
            axis.axes.set(**{f"{name}scale": "log", f"{name}lim": limits})
        formatter = _value_formatter if powers else formatting.decimal_formatter
        write = formatter(self.positions)
        _set_ticks(axis, positions, [write(value) for value in self.positions])


def _value_formatter(values):
    """Returns a function that writes powers of two as such if all values are, else decimals."""
    return formatting.number_formatter(values, markup.UNICODE)


def _by_series(optima, labels=()):
    """Returns the optima with a surviving run by series, in their order; `labels` come last."""
    labels = dict.fromkeys([*(optimum.series for optimum in optima), *labels])
    return {label: [o for o in optima if o.series == label and o.n] for label in labels}


def _legend_name(label, by_series):
    """Names a series in the legend."""
    return "measured" if [*by_series] == [""] else markup.visible(label)


def _published_legend_name(label, by_series):
    """Names the published numbers of a series in the legend."""
    if [*by_series] == [""]:
        return "published"
    name = f"{markup.visible(label)} published"
    return f"{label!r} published" if name in by_series else name


def _line(ax, x, y, bars, index, label, **look):
    """Draws a line with color and marker of a series, and the error bars that are not nan."""
    if not len(x):
        return []
    color = COLORS[index % len(COLORS)]
    look = {"linewidth": 2, "markersize": 7, "marker": MARKERS[index % len(MARKERS)], **look}
    lines = ax.plot(x, y, color=color, label=label, **look)
    ax.errorbar(x, y, bars, fmt="none", ecolor=color, capsize=4, elinewidth=1.5)
    return lines


def _error_bars(optima, y, values):
    """Returns the lengths of error bars below and above positions y."""
    below, above = [], []
    for position, optimum in zip(y, optima, strict=True):
        below.append(position - values.positions.get(optimum.low, position))
        above.append(values.positions.get(optimum.high, position) - position)
    return [below, above]


def _linear_rule(ax, x, y):
    """Draws the line y proportional to x through the first point."""
    line = [y[0] * value / x[0] for value in x]
    [handle] = ax.plot(x, line, "--", color=FAINT, linewidth=1.5, zorder=1, label="linear rule")
    return handle


def _broken_line(ax, optima, protocol, boundary, color):
    """Draws the fit of the two regimes, and the interval of their boundary."""
    name = protocol.tune[0]
    positive = [optimum for optimum in optima if optimum.values[name] > 0]
    if not positive or not math.isfinite(boundary.temperature):
        return
    # The fit is of effective learning rates, which differ from the swept ones by a factor.
    run = positive[0].best[0].hparams
    factor = positive[0].values[name] / regimes.scaled_learning_rate(run, protocol)
    sizes = sorted({optima[0].row, boundary.batch_size, optima[-1].row})
    rates = [factor * boundary.temperature * min(size, boundary.batch_size) for size in sizes]
    ax.plot(sizes, rates, ":", color=color, linewidth=1.5, zorder=1)
    if math.isfinite(boundary.low) and math.isfinite(boundary.high):
        ax.axvspan(boundary.low, boundary.high, color=color, alpha=0.12, linewidth=0, zorder=0)


def _number_cells(ax, mesh, means, metric):
    """Writes the mean into each cell of a heatmap, dark on light and light on dark colors."""
    for (line, column), mean in np.ndenumerate(means):
        if math.isnan(mean):
            continue
        luminance = np.dot(mesh.cmap(mesh.norm(mean))[:3], (0.3, 0.59, 0.11))
        color = "#000000" if luminance > 0.45 else "#ffffff"
        in_percent = metric.unit == "%" and abs(mean) < 1e4
        text = f"{mean:.1f}" if in_percent else f"{mean:.3g}"
        ax.text(column + 0.5, line + 0.5, text, color=color, **_CENTERED)


def _frame_cell(ax, column, line):
    """Frames a cell of a heatmap."""
    from matplotlib import patches

    corner = (column + 0.04, line + 0.04)
    ax.add_patch(
        patches.Rectangle(corner, 0.92, 0.92, fill=False, edgecolor=COLORS[1], linewidth=2.5)
    )


def _ramp_color(fraction):
    """Returns a color between blue and orange."""
    from matplotlib import colors

    ramp = colors.LinearSegmentedColormap.from_list("", ["#1f83c4", "#9a86b4", "#e0731d"])
    return colors.to_hex(ramp(fraction))


def _set_ticks(axis, positions, labels):
    """Sets at most MAX_TICKS ticks, and no minor ones; crowded labels slant."""
    every = max(1, math.ceil(len(positions) / MAX_TICKS))
    positions = np.array(positions[::every], dtype=float)
    labels = [_wrapped(label, 30) for label in labels[::every]]
    scaled = np.log(positions) if axis.get_scale() == "log" else positions
    is_crowded = len(scaled) > 1 and np.diff(scaled).min() < 0.12 * np.ptp(scaled)
    is_crowded |= max(map(len, labels), default=0) * len(labels) > 60
    look = dict(_PLAIN)
    if is_crowded and axis.axis_name == "x":
        look |= {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
    axis.set_ticks(positions, labels, **look)
    axis.set_ticks([], minor=True)


def _wrapped(text, columns):
    """Breaks a long text into lines."""
    return text if len(text) <= columns else textwrap.fill(text, columns)


def _finish(ax, handles, is_empty):
    """Adds grid, frame and legend, and says so if there is nothing to show."""
    ax.grid(color=FAINT, alpha=0.25, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    if is_empty:
        ax.text(0.5, 0.5, "nothing to show: no run survived", transform=ax.transAxes, **_CENTERED)
        ax.set_yticks([])
    if handles:
        _add_legend(ax, handles)
    return ax


def _add_legend(ax, handles):
    """Adds a legend below the axes, below their tick labels too."""
    labels = [_wrapped(handle.get_label(), 50) for handle in handles]
    ticks = ax.get_xticklabels()
    longest = max(len(tick.get_text()) for tick in ticks)
    is_slanted = ticks[0].get_rotation() != 0
    below = -0.24 - 0.015 * max(0, longest - 6) if is_slanted else -0.17
    legend = ax.legend(
        handles,
        ["-"] * len(handles),  # Matplotlib leaves out a label that begins with an underscore
        frameon=False,
        loc="upper center",
        bbox_to_anchor=(0.5, below),
        ncols=_legend_columns(labels),
    )
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set(text=label, **_PLAIN)


def legend_lines(ax: Axes) -> int:
    """Returns the number of lines of text in a legend, 0 if there is none."""
    legend = ax.get_legend()
    labels = [text.get_text() for text in legend.get_texts()] if legend else []
    lines = sum(label.count("\n") + 1 for label in labels)
    return math.ceil(lines / _legend_columns(labels)) if labels else 0


def _legend_columns(labels):
    """Returns the number of columns of a legend that fit the width."""
    columns = max(1, min(4, 54 // (max(map(len, labels)) + 6)))
    return 2 if len(labels) == 4 and columns > 2 else columns
