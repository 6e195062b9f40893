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
from collections.abc import Mapping, Sequence

import numpy as np

from noisegen.reports import axes, comparison, formatting, markup
from noisegen.reports.axes import Axes
from noisegen.reports.formatting import display_name
from noisegen.reports.published import Published, normalize_published
from noisegen.reports.style import COLORS, FAINT, MARKERS
from noisegen.sweeps import regimes
from noisegen.sweeps.metrics import Metric, as_metric
from noisegen.sweeps.protocol import Optimum, Protocol

MAX_NUMBERED_CELLS = 200  # of a heatmap; a color bar explains a larger one

_HOLLOW = {"fillstyle": "none", "linestyle": "none", "markersize": 10}


def plot_metric(
    optima: Sequence[Optimum],
    ax: Axes,
    protocol: Protocol,
    published: Published | None = None,
    metric: Metric | None = None,
) -> Axes:
    """Draws a metric at the optimum against the row: mean and standard deviation by series.

    Published numbers (as for `make_table`) are hollow markers.

    Args:
      optima, protocol, published: As for `make_table`.
      ax: Axes to draw in.
      metric: A metric that the protocol reports. None draws the one that is optimized.
    """
    metric = metric or protocol.metric
    printed = {}
    for key, values in normalize_published(published, protocol).items():
        if metric.name in values:
            printed[key] = values[metric.name]
    by_series = by_series_of(optima, labels=[label for label, _ in printed])
    axis = axes.Axis([row for _, row in printed] + [optimum.row for optimum in optima])
    handles = []
    for index, (label, alive) in enumerate(by_series.items()):
        x = axis.shifted([optimum.row for optimum in alive], index, len(by_series))
        values = [comparison.mean_and_std(optimum, metric, protocol) for optimum in alive]
        means = [metric.factor * mean for mean, _ in values]
        stds = [metric.factor * std for _, std in values]
        handles += _line(ax, x, means, stds, index, legend_name(label, by_series))

        # Published numbers are in the unit shown, and may have no standard deviation.
        rows = [row for row in axis.positions if (label, row) in printed]
        x = axis.shifted(rows, index, len(by_series))
        means, stds = [], []
        for row in rows:
            mean, std = printed[label, row]
            means.append(mean)
            stds.append(math.nan if std is None else std)
        name = _published_legend_name(label, by_series)
        handles += _line(ax, x, means, stds, index, name, **_HOLLOW)
    axis.show(ax.xaxis)
    ax.set_xlabel(display_name(protocol.row), **axes.PLAIN)
    ax.set_ylabel(display_name(metric), **axes.PLAIN)
    is_empty = not printed and not any(optimum.n for optimum in optima)
    return axes.finish(ax, handles, is_empty)


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
    rows = axes.Axis(optimum.row for optimum in optima)
    values = axes.Axis(point.values[name] for optimum in optima for point in optimum.points)
    draws_rule = protocol.has_scaling_rule and rows.is_log and values.is_numeric
    by_series = by_series_of(optima)
    handles = []
    anchors = set()  # points at which a linear rule begins
    for index, (label, alive) in enumerate(by_series.items()):
        x = [rows.positions[optimum.row] for optimum in alive]
        y = [values.positions[optimum.values[name]] for optimum in alive]
        shifted = rows.shifted([optimum.row for optimum in alive], index, len(by_series))
        bars = error_bars(alive, y, values)
        handles += _line(ax, shifted, y, bars, index, legend_name(label, by_series))
        # Series that begin at the same optimum share one line, and the legend names one of all.
        if draws_rule and len(x) > 1 and (x[0], y[0]) not in anchors:
            line = _linear_rule(ax, x, y)
            if not anchors:
                handles.append(line)
            anchors.add((x[0], y[0]))
        if alive and boundaries and label in boundaries:
            _broken_line(ax, alive, protocol, boundaries[label], COLORS[index % len(COLORS)])
    rows.show(ax.xaxis)
    values.show(ax.yaxis, powers=True)
    ax.set_xlabel(display_name(protocol.row), **axes.PLAIN)
    ax.set_ylabel(f"best {display_name(name)}", **axes.PLAIN)
    return axes.finish(ax, handles, is_empty=not any(optimum.n for optimum in optima))


def plot_heatmap(optima: Sequence[Optimum], ax: Axes, protocol: Protocol) -> Axes:
    """Draws the mean of the metric for each row and learning rate; all optima are of one series.

    If further fields are tuned, it is the best over these. The optimum is framed; a cross means
    that no run survived, an empty cell that none was tried. The worst tenth of the cells share one
    color.
    """
    rows, values, means = load_heatmap(optima, protocol)
    mesh = _color_cells(ax, means, protocol)
    if means.size <= MAX_NUMBERED_CELLS:
        _number_cells(ax, mesh, means, protocol.metric)
    else:
        ax.figure.colorbar(mesh, ax=ax).set_label(display_name(protocol.metric), **axes.PLAIN)
    name = protocol.tune[0]
    for optimum in optima:
        column = rows.index(optimum.row)
        lines = {values.index(point.values[name]) for point in optimum.points}
        for line in lines:
            if math.isnan(means[line, column]):
                look = axes.CENTERED | {"fontsize": 14}
                ax.text(column + 0.5, line + 0.5, "×", color=FAINT, **look)
        if optimum.n:
            _frame_cell(ax, column, values.index(optimum.values[name]))
    write_row = formatting.decimal_formatter(rows)
    write_value = axes.value_formatter(values)
    # A cell is one wide and one high, and its tick is in the middle.
    axes.set_ticks(ax.xaxis, np.arange(len(rows)) + 0.5, [write_row(row) for row in rows])
    axes.set_ticks(ax.yaxis, np.arange(len(values)) + 0.5, [write_value(value) for value in values])
    ax.set_xlabel(display_name(protocol.row), **axes.PLAIN)
    ax.set_ylabel(display_name(name), **axes.PLAIN)
    ax.tick_params(length=0)
    return ax


def _color_cells(ax, means, protocol):
    """Draws the cells of a heatmap, the better the lighter."""
    low, high = color_limits(means, protocol)
    colors = "cividis" if protocol.mode == "max" else "cividis_r"
    return ax.pcolormesh(means, cmap=colors, vmin=low, vmax=high)


def color_limits(means: np.ndarray, protocol: Protocol) -> tuple[float, float]:
    """Returns the ends of the color scale of a heatmap.

    Runs that nearly failed would take up most of the scale, so that the worst tenth of the cells
    share one color.
    """
    finite = means[np.isfinite(means)]
    if not finite.size:
        return 0, 1
    low, high = np.quantile(finite, (0.1, 1) if protocol.mode == "max" else (0, 0.9))
    # Rounding may put the upper of two equal quantiles below the lower one.
    return low, max(high, low)


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
        color = ramp_color(index / max(1, len(loaded) - 1))
        mean, std = curve_mean_and_std(values)
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
    ax.set_ylabel(display_name(protocol.metric), **axes.PLAIN)
    axes.finish(ax, handles, is_empty=not loaded)
    if loaded:
        ax.get_legend().set_title(display_name(protocol.row))
        ax.get_legend().get_title().set(**axes.PLAIN)
    return ax


def curve_mean_and_std(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and standard deviation over seeds of (seeds, T) values, nan where none is."""
    values = np.ma.masked_invalid(values)  # a loss may be infinite at some epochs
    with np.errstate(over="ignore"):  # of squares
        mean = values.mean(axis=0)
        std = values.std(axis=0, ddof=1) if len(values) > 1 else 0 * mean
    return mean.filled(np.nan), std.filled(np.nan)


def load_curves(
    optimum: Optimum, metric: Metric | str, curves: Mapping[str, Mapping] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns epochs (T,) and metric (seeds, T) of the runs at an optimum, up to the shortest."""
    metric = as_metric(metric)
    epochs, values = [], []
    for record in optimum.counted:
        curve = (curves or {}).get(record.run_id, record.curve)
        if curve and curve.get("epoch") and curve.get(metric.name):
            epochs.append(curve["epoch"])
            values.append(curve[metric.name])
    # The runs of a point are evaluated at the same epochs, but a curve may have been cut short.
    shortest = min(map(len, [*epochs, *values]), default=0)
    first_epochs = epochs[0][:shortest] if epochs else []
    # The shape is said because no curve gives an array without its second axis. None becomes nan.
    matrix = np.array([each[:shortest] for each in values], dtype=float)
    matrix = matrix.reshape(len(values), shortest)
    return np.array(first_epochs, dtype=float), metric.factor * matrix


def by_series_of(optima: Sequence[Optimum], labels: Sequence[str] = ()) -> dict[str, list[Optimum]]:
    """Returns the optima with a surviving run by series, in their order; `labels` come last."""
    by_series = {optimum.series: [] for optimum in optima}
    for label in labels:
        by_series.setdefault(label, [])
    for optimum in optima:
        if optimum.n:
            by_series[optimum.series].append(optimum)
    return by_series


def legend_name(label: str, by_series: Mapping[str, Sequence]) -> str:
    """Names a series in the legend."""
    return "measured" if [*by_series] == [""] else markup.visible(label)


def _published_legend_name(label: str, by_series: Mapping[str, Sequence]) -> str:
    """Names the published numbers of a series in the legend."""
    if [*by_series] == [""]:
        return "published"
    name = f"{markup.visible(label)} published"
    # A series may be called so itself.
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


def error_bars(
    optima: Sequence[Optimum], y: Sequence[float], values: axes.Axis
) -> tuple[list[float], list[float]]:
    """Returns the lengths of error bars below and above positions y."""
    below, above = [], []
    for position, optimum in zip(y, optima, strict=True):
        # An end that is nan has no position, and its bar no length.
        below.append(position - values.positions.get(optimum.low, position))
        above.append(values.positions.get(optimum.high, position) - position)
    return below, above


def _linear_rule(ax, x, y):
    """Draws the line y proportional to x through the first point."""
    [handle] = ax.plot(
        x, proportional(x, y), "--", color=FAINT, linewidth=1.5, zorder=1, label="linear rule"
    )
    return handle


def proportional(x: Sequence[float], y: Sequence[float]) -> list[float]:
    """Returns the line y proportional to x through the first point, at each x."""
    return [y[0] * value / x[0] for value in x]


def _broken_line(ax, optima, protocol, boundary, color):
    """Draws the fit of the two regimes, and the interval of their boundary."""
    sizes, rates = broken_line(optima, protocol, boundary)
    if not sizes:
        return
    ax.plot(sizes, rates, ":", color=color, linewidth=1.5, zorder=1)
    if math.isfinite(boundary.low) and math.isfinite(boundary.high):
        ax.axvspan(boundary.low, boundary.high, color=color, alpha=0.12, linewidth=0, zorder=0)


def broken_line(
    optima: Sequence[Optimum], protocol: Protocol, boundary: regimes.Boundary
) -> tuple[list[float], list[float]]:
    """Returns batch sizes and learning rates of the fit of the two regimes, empty if there is none.

    Args:
      optima: The optima of one series that have a surviving run, ascending in the batch size.
      protocol: As for `plot_tuned`.
      boundary: Of this series.
    """
    name = protocol.tune[0]
    positive = [optimum for optimum in optima if optimum.values[name] > 0]
    if not positive or not math.isfinite(boundary.temperature):
        return [], []
    # The fit is of effective learning rates, which differ from the swept ones by a factor.
    run = positive[0].counted[0].hparams
    factor = positive[0].values[name] / regimes.scaled_learning_rate(run, protocol)
    sizes = sorted({optima[0].row, boundary.batch_size, optima[-1].row})
    # In both regimes the rate is temperature * min(batch size, boundary).
    return sizes, [factor * boundary.temperature * min(s, boundary.batch_size) for s in sizes]


def _number_cells(ax, mesh, means, metric):
    """Writes the mean into each cell of a heatmap, dark on light and light on dark colors."""
    for (line, column), mean in np.ndenumerate(means):
        if math.isnan(mean):
            continue
        # The weights by which the eye sees red, green and blue.
        luminance = np.dot(mesh.cmap(mesh.norm(mean))[:3], (0.3, 0.59, 0.11))
        color = "#000000" if luminance > 0.45 else "#ffffff"
        text = cell_number(mean, metric)
        ax.text(column + 0.5, line + 0.5, text, color=color, **axes.CENTERED)


def cell_number(mean: float, metric: Metric) -> str:
    """Writes the mean of a cell of a heatmap."""
    in_percent = metric.unit == "%" and abs(mean) < 1e4
    return f"{mean:.1f}" if in_percent else f"{mean:.3g}"


def _frame_cell(ax, column, line):
    """Frames a cell of a heatmap."""
    from matplotlib import patches

    corner = (column + 0.04, line + 0.04)
    ax.add_patch(
        patches.Rectangle(corner, 0.92, 0.92, fill=False, edgecolor=COLORS[1], linewidth=2.5)
    )


def ramp_color(fraction: float) -> str:
    """Returns a color between blue and orange."""
    from matplotlib import colors

    ramp = colors.LinearSegmentedColormap.from_list("", ["#1f83c4", "#9a86b4", "#e0731d"])
    return colors.to_hex(ramp(fraction))
