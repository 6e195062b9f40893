"""Plots of a sweep.

Each takes the optima that `noisegen.sweeps.select` returned, the axes to draw in, and the protocol
that `select` was given, and returns the axes.

>>> from matplotlib import figure
>>> from noisegen import reports, sweeps
>>> run = {"batch_size": 64, "learning_rate": 0.1, "seed": 0}
>>> record = {"run": run, "status": "finished", "metrics": {"test_accuracy": 0.986}}
>>> protocol = sweeps.Protocol()
>>> optima = sweeps.select([record], protocol)
>>> ax = reports.plot_metric(optima, figure.Figure().add_subplot(), protocol)
>>> ax.get_ylabel()
'test accuracy (%)'

Matplotlib is imported where it is used. The colours are those of Okabe & Ito, which colour-blind
people tell apart; series differ in their markers too.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from noisegen.sweeps import protocol as protocols
from noisegen.sweeps import regimes, tables

COLORS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"),
    *("#5b3a1e", "#7f7f00"),  # where there are more than six series
)
INK, FAINT = "#22262b", "#8d949c"
MARKERS = "osD^vPX*<>"
MAX_TICKS = 12

Axes = "matplotlib.axes.Axes"


def plot_metric(
    optima: Sequence[protocols.Optimum],
    ax: Axes,
    protocol: protocols.Protocol,
    published: tables.Published | None = None,
) -> Axes:
    """The metric at the optimum against the row: mean and standard deviation for each series.

    Published numbers (as for `make_table`) are hollow markers.
    """
    factor = tables.scale(protocol.metric)
    named = tables.by_name(published or {}, protocol)
    published = {
        key: values[protocol.metric] for key, values in named.items() if protocol.metric in values
    }
    series = _by_series(optima, published)
    for index, (label, found) in enumerate(series.items()):
        means, stds = ([factor * getattr(o, name) for o in found] for name in ("mean", "std"))
        x = _aside([optimum.row for optimum in found], index, len(series))
        _line(ax, x, means, stds, index, label or "measured")
        points = sorted((key[1], *value) for key, value in published.items() if key[0] == label)
        if points:
            rows, means, stds = zip(*points, strict=True)
            stds = [math.nan if std is None else std for std in stds]
            x, name = _aside(rows, index, len(series)), f"{label} published".strip()
            _line(ax, x, means, stds, index, name, **_HOLLOW)
    _row_axis(ax, [row for _, row in published] + [optimum.row for optimum in optima], protocol)
    ax.set_ylabel(tables.title(protocol.metric))
    return _finish(ax, empty=not any(o.n for o in optima) and not published)


def plot_tuned(
    optima: Sequence[protocols.Optimum],
    ax: Axes,
    protocol: protocols.Protocol,
    boundaries: Mapping[str, regimes.Boundary] | None = None,
) -> Axes:
    """The optimal learning rate with its error bar against the batch size, both axes logarithmic.

    The dashed line is the linear rule through the optimum of the smallest batch size of each
    series; dotted ones are the broken lines through the optima (`noisegen.sweeps.boundaries`), with
    the interval of the boundary between the regimes shaded.
    """
    name = protocol.tune[0]
    rule = protocol.row == "batch_size" and name.endswith("learning_rate")
    anchors = set()
    series = _by_series(optima)
    for index, (label, found) in enumerate(series.items()):
        x, y = [optimum.row for optimum in found], [optimum.values[name] for optimum in found]
        bars = [[o.values[name] - o.low for o in found], [o.high - o.values[name] for o in found]]
        _line(ax, _aside(x, index, len(series)), y, bars, index, label or "measured")
        if rule and len(x) > 1 and (x[0], y[0]) not in anchors:
            line, name_once = [y[0] * value / x[0] for value in x], "linear rule" * (not anchors)
            ax.plot(x, line, "--", color=FAINT, linewidth=1.5, label=name_once, zorder=1)
            anchors.add((x[0], y[0]))
        if found and label in (boundaries or {}):
            _broken_line(ax, found, name, boundaries[label], COLORS[index % len(COLORS)])
    _row_axis(ax, [optimum.row for optimum in optima], protocol)
    values = {point.values[name] for optimum in optima for point in optimum.points}
    _axis(ax.yaxis, values, _labels)
    ax.set_ylabel(f"best {tables.title(name)}")
    return _finish(ax, empty=not any(optimum.n for optimum in optima))


def plot_heatmap(
    optima: Sequence[protocols.Optimum], ax: Axes, protocol: protocols.Protocol
) -> Axes:
    """The mean of the metric for each row and learning rate; all optima are of one series.

    Where further fields are tuned, the best over these. The optimum is framed; a cross means that
    no run survived, an empty cell that none was tried. The worst tenth of the cells share one
    colour.
    """
    from matplotlib import patches

    rows, values, means = load_heatmap(optima, protocol)
    finite = means[np.isfinite(means)]
    ends, cmap = ([0.1, 1], "cividis") if protocol.mode == "max" else ([0, 0.9], "cividis_r")
    low, high = np.quantile(finite, ends) if finite.size else (0, 1)
    mesh = ax.pcolormesh(means, cmap=cmap, vmin=low, vmax=max(high, low + 1e-9))
    for (i, j), mean in np.ndenumerate(means):
        if not math.isnan(mean) and means.size <= 200:
            light = np.dot(mesh.cmap(mesh.norm(mean))[:3], (0.3, 0.59, 0.11)) > 0.45
            text = f"{mean:.1f}" if tables.scale(protocol.metric) == 100 else f"{mean:.3g}"
            ax.text(j + 0.5, i + 0.5, text, color="#000000" if light else "#ffffff", **_CENTRED)
    name, look = protocol.tune[0], {"fill": False, "edgecolor": COLORS[1], "lw": 2.5}
    for optimum in optima:
        j = rows.index(optimum.row)
        for i in {values.index(point.values[name]) for point in optimum.points}:
            if math.isnan(means[i, j]):
                ax.text(j + 0.5, i + 0.5, "×", color=FAINT, **_CENTRED | {"fontsize": 14})
        if optimum.n:
            corner = (j + 0.04, values.index(optimum.values[name]) + 0.04)
            ax.add_patch(patches.Rectangle(corner, 0.92, 0.92, **look))
    _ticks(ax.xaxis, np.arange(len(rows)) + 0.5, list(map(tables.number, rows)))
    _ticks(ax.yaxis, np.arange(len(values)) + 0.5, _labels(values))
    ax.set_xlabel(tables.title(protocol.row))
    ax.set_ylabel(tables.title(name))
    ax.tick_params(length=0)
    if means.size > 200:
        ax.figure.colorbar(mesh, ax=ax, label=tables.title(protocol.metric))
    return ax


def load_heatmap(
    optima: Sequence[protocols.Optimum], protocol: protocols.Protocol
) -> tuple[list[float], list[float], np.ndarray]:
    """The rows, the learning rates, and the means (learning rates, rows), nan for none."""
    name, sign = protocol.tune[0], protocol.sign
    rows = sorted({optimum.row for optimum in optima})
    values = sorted({point.values[name] for optimum in optima for point in optimum.points})
    means = np.full((len(values), len(rows)), np.nan)
    for optimum in optima:
        for point in optimum.points:
            at = values.index(point.values[name]), rows.index(optimum.row)
            means[at] = sign * np.fmax(sign * means[at], sign * point.mean)
    return rows, values, tables.scale(protocol.metric) * means


def plot_curves(
    optima: Sequence[protocols.Optimum],
    ax: Axes,
    protocol: protocols.Protocol,
    curves: Mapping[str, Mapping] | None = None,
) -> Axes:
    """The metric during training at each optimum: mean and standard deviation over seeds.

    All optima are of one series. Where their records were read without curves, `curves` leads from
    run_id to curve.
    """
    from matplotlib import colors

    ramp = colors.LinearSegmentedColormap.from_list("", ["#1f83c4", "#9a86b4", "#e0731d"])
    found = [(optimum, load_curves(optimum, protocol.metric, curves)) for optimum in optima]
    found = [(optimum, table) for optimum, table in found if table[0].size]
    for index, (optimum, (epochs, values)) in enumerate(found):
        color = colors.to_hex(ramp(index / max(1, len(found) - 1)))
        mean = np.ma.masked_invalid(values).mean(axis=0)
        spread = np.ma.masked_invalid(values).std(axis=0, ddof=1) if len(values) > 1 else 0 * mean
        ax.fill_between(epochs, mean - spread, mean + spread, color=color, alpha=0.2, linewidth=0)
        look = {"marker": MARKERS[index % len(MARKERS)], "markersize": 4.5}
        look |= {"markevery": max(1, len(epochs) // 12), "color": color}
        ax.plot(epochs, mean, label=tables.number(optimum.row), **look)
    ax.set_xlabel("epoch")
    ax.set_ylabel(tables.title(protocol.metric))
    _finish(ax, empty=not found)
    if found:
        ax.get_legend().set_title(tables.title(protocol.row))
    return ax


def load_curves(
    optimum: protocols.Optimum, metric: str, curves: Mapping[str, Mapping] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Epochs (T,) and metric (seeds, T) of the runs at an optimum, up to the shortest."""
    found = [
        (curves or {}).get(record.get("run_id"), record.get("curve")) for record in optimum.best
    ]
    found = [curve for curve in found if curve and curve.get("epoch") and curve.get(metric)]
    steps = min((min(len(curve["epoch"]), len(curve[metric])) for curve in found), default=0)
    values = np.array([curve[metric][:steps] for curve in found], dtype=float)  # None becomes nan.
    epochs = np.array(found[0]["epoch"][:steps] if found else [], dtype=float)
    return epochs, tables.scale(metric) * values.reshape(len(found), steps)


_HOLLOW = {"fillstyle": "none", "linestyle": "none", "markersize": 10}
_CENTRED = {"ha": "center", "va": "center", "fontsize": 9.5}
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _by_series(optima, published=()):
    """Optima of which a run survived by label, in their order."""
    labels = dict.fromkeys(
        [*(optimum.series for optimum in optima), *(key[0] for key in published)]
    )
    return {label: [o for o in optima if o.series == label and o.n] for label in labels}


def _aside(rows, index, count):
    """Places of a series on the row axis: side by side, or equal optima would hide each other."""
    return [row * min(1.05, 1.3 ** (1 / count)) ** index for row in rows]


def _line(ax, x, y, bars, index, label, **look):
    """A line with markers, in colour and marker of the series, and bars where they are not nan."""
    if not len(x):
        return
    color = COLORS[index % len(COLORS)]
    look = {"linewidth": 2, "markersize": 7, "marker": MARKERS[index % len(MARKERS)], **look}
    ax.plot(x, y, color=color, label=label, **look)
    ax.errorbar(x, y, bars, fmt="none", ecolor=color, capsize=4, elinewidth=1.5)


def _broken_line(ax, optima, name, boundary, color):
    """The fit of the two regimes, and where they meet."""
    factor = optima[0].values[name] / regimes.effective_learning_rate(optima[0].best[0]["run"])
    places = sorted({optima[0].row, boundary.batch_size, optima[-1].row})
    heights = [factor * boundary.temperature * min(b, boundary.batch_size) for b in places]
    ax.plot(places, heights, ":", color=color, linewidth=1.5, zorder=1)
    if not math.isnan(boundary.low):
        ax.axvspan(boundary.low, boundary.high, color=color, alpha=0.12, linewidth=0, zorder=0)


def _row_axis(ax, rows, protocol):
    """The horizontal axis, with its name."""
    ax.set_xlabel(tables.title(protocol.row))
    _axis(ax.xaxis, rows, lambda rows: list(map(tables.number, rows)))


def _axis(axis, values, labels):
    """A logarithmic axis where that is possible, with a tick at each value."""
    values, name = sorted(set(values)), axis.axis_name
    if values and values[0] > 0:
        limits = (values[0] / 1.4, values[-1] * 1.4)
        axis.axes.set(**{f"{name}scale": "log", f"{name}lim": limits})
    _ticks(axis, values, labels(values))


def _labels(values):
    """Powers of two as such if all are, else decimals."""
    texts = (text.partition("^") for text in map(tables.writer(values), values))
    return [base + power.translate(_SUPERSCRIPTS) for base, _, power in texts]


def _ticks(axis, places, labels):
    """At most MAX_TICKS ticks, no minor ones; crowded labels slant."""
    every = max(1, math.ceil(len(places) / MAX_TICKS))
    places, labels = places[::every], labels[::every]
    places = np.array(places, dtype=float)
    logs = np.log(places) if axis.get_scale() == "log" else places
    crowded = len(logs) > 1 and np.diff(logs).min() < 0.12 * np.ptp(logs)
    slant = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
    axis.set_ticks(places, labels, **(slant if crowded and axis.axis_name == "x" else {}))
    axis.set_ticks([], minor=True)


def _finish(ax, empty):
    """Grid, frame and legend; a word where there is nothing to show."""
    ax.grid(color=FAINT, alpha=0.25, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    if empty:
        ax.text(0.5, 0.5, "nothing to show: no run survived", transform=ax.transAxes, **_CENTRED)
        ax.set_yticks([])
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        columns = max(1, min(4, 54 // (max(map(len, labels)) + 6)))  # that fit the width
        columns = 2 if len(handles) == 4 else columns
        below = -0.17 if ax.get_xticklabels()[0].get_rotation() == 0 else -0.24
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, below), "ncols": columns}
        ax.legend(handles, labels, frameon=False, **place)
    return ax
