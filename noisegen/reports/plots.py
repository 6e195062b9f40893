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

Matplotlib is imported where it is used. The colours are those of Okabe & Ito, which colour-blind
people tell apart; series differ in their markers too. Texts of the user's are drawn as they are: a
dollar sign begins no formula, and a label with an underscore in front is not hidden.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np

from noisegen.sweeps import numerals, regimes, tables, texts
from noisegen.sweeps import protocol as protocols

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
    axis = _Axis([row for _, row in published] + [optimum.row for optimum in optima])
    handles = []
    for index, (label, found) in enumerate(series.items()):
        means, stds = ([factor * getattr(o, name) for o in found] for name in ("mean", "std"))
        x = axis.aside([optimum.row for optimum in found], index, len(series))
        handles += _line(ax, x, means, stds, index, _name(label, series))
        rows = [row for row in axis.places if (label, row) in published]
        means = [published[label, row][0] for row in rows]
        stds = [published[label, row][1] for row in rows]
        stds = [math.nan if std is None else std for std in stds]
        x = axis.aside(rows, index, len(series))
        handles += _line(ax, x, means, stds, index, _published_name(label, series), **_HOLLOW)
    axis.show(ax.xaxis, axis.labels())
    ax.set_xlabel(numerals.words(protocol.row), **_PLAIN)
    ax.set_ylabel(tables.title(protocol.metric), **_PLAIN)
    return _finish(ax, handles, empty=not any(o.n for o in optima) and not published)


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
    rows = _Axis(optimum.row for optimum in optima)
    values = _Axis(point.values[name] for optimum in optima for point in optimum.points)
    anchors, handles = set(), []
    series = _by_series(optima)
    for index, (label, found) in enumerate(series.items()):
        x, y = [rows.places[o.row] for o in found], [values.places[o.values[name]] for o in found]
        bars = [
            [at - values.places.get(o.low, at) for at, o in zip(y, found, strict=True)],
            [values.places.get(o.high, at) - at for at, o in zip(y, found, strict=True)],
        ]
        aside = rows.aside([optimum.row for optimum in found], index, len(series))
        handles += _line(ax, aside, y, bars, index, _name(label, series))
        if rule and rows.log and values.numbers and len(x) > 1 and (x[0], y[0]) not in anchors:
            line = [y[0] * value / x[0] for value in x]
            lines = ax.plot(x, line, "--", color=FAINT, linewidth=1.5, zorder=1)
            lines[0].set_label("" if anchors else "linear rule")
            handles += [] if anchors else lines
            anchors.add((x[0], y[0]))
        if found and label in (boundaries or {}):
            _broken_line(ax, found, name, boundaries[label], COLORS[index % len(COLORS)])
    rows.show(ax.xaxis, rows.labels())
    values.show(ax.yaxis, _labels(values.places))
    ax.set_xlabel(numerals.words(protocol.row), **_PLAIN)
    ax.set_ylabel(f"best {numerals.words(name)}", **_PLAIN)
    return _finish(ax, handles, empty=not any(optimum.n for optimum in optima))


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
    mesh = ax.pcolormesh(means, cmap=cmap, vmin=low, vmax=max(high, low))
    for (i, j), mean in np.ndenumerate(means):
        if not math.isnan(mean) and means.size <= 200:
            light = np.dot(mesh.cmap(mesh.norm(mean))[:3], (0.3, 0.59, 0.11)) > 0.45
            percent = tables.scale(protocol.metric) == 100 and abs(mean) < 1e4
            text = f"{mean:.1f}" if percent else f"{mean:.3g}"
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
    _ticks(ax.xaxis, np.arange(len(rows)) + 0.5, list(map(tables.speller(rows), rows)))
    _ticks(ax.yaxis, np.arange(len(values)) + 0.5, _labels(values))
    ax.set_xlabel(numerals.words(protocol.row), **_PLAIN)
    ax.set_ylabel(numerals.words(name), **_PLAIN)
    ax.tick_params(length=0)
    if means.size > 200:
        ax.figure.colorbar(mesh, ax=ax).set_label(tables.title(protocol.metric), **_PLAIN)
    return ax


def load_heatmap(
    optima: Sequence[protocols.Optimum], protocol: protocols.Protocol
) -> tuple[list[float], list[float], np.ndarray]:
    """The rows, the learning rates, and the means (learning rates, rows), nan for none."""
    name, sign = protocol.tune[0], protocol.sign
    rows = numerals.ordered(optimum.row for optimum in optima)
    values = numerals.ordered(o.values[name] for optimum in optima for o in optimum.points)
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
    spell, handles = tables.speller(optimum.row for optimum in optima), []
    for index, (optimum, (epochs, values)) in enumerate(found):
        color = colors.to_hex(ramp(index / max(1, len(found) - 1)))
        values = np.ma.masked_invalid(values)
        with np.errstate(over="ignore"):  # of squares
            mean = values.mean(axis=0)
            spread = values.std(axis=0, ddof=1) if len(values) > 1 else 0 * mean
        ax.fill_between(epochs, mean - spread, mean + spread, color=color, alpha=0.2, linewidth=0)
        look = {"marker": MARKERS[index % len(MARKERS)], "markersize": 4.5}
        look |= {"markevery": max(1, len(epochs) // 12), "color": color}
        handles += ax.plot(epochs, mean, label=spell(optimum.row), **look)
    ax.set_xlabel("epoch")
    ax.set_ylabel(tables.title(protocol.metric), **_PLAIN)
    _finish(ax, handles, empty=not found)
    if found:
        ax.get_legend().set_title(numerals.words(protocol.row))
        ax.get_legend().get_title().set(**_PLAIN)
    return ax


def load_curves(
    optimum: protocols.Optimum, metric: str, curves: Mapping[str, Mapping] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Epochs (T,) and metric (seeds, T) of the runs at an optimum, up to the shortest."""
    found = [(curves or {}).get(record.run_id, record.curve) for record in optimum.best]
    found = [curve for curve in found if curve and curve.get("epoch") and curve.get(metric)]
    steps = min((min(len(curve["epoch"]), len(curve[metric])) for curve in found), default=0)
    values = np.array([curve[metric][:steps] for curve in found], dtype=float)  # None becomes nan.
    epochs = np.array(found[0]["epoch"][:steps] if found else [], dtype=float)
    return epochs, tables.scale(metric) * values.reshape(len(found), steps)


_HOLLOW = {"fillstyle": "none", "linestyle": "none", "markersize": 10}
_PLAIN = {"parse_math": False, "usetex": False}  # $ and _ are characters as others
_CENTRED = {"ha": "center", "va": "center", "fontsize": 9.5} | _PLAIN
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class _Axis:
    """The places of a field's values on an axis: numbers at themselves, words in their order.

    It is logarithmic where all are positive numbers.
    """

    def __init__(self, values):
        values = numerals.ordered(values)
        self.numbers = all(map(numerals.is_number, values))
        self.log = self.numbers and bool(values) and values[0] > 0
        self.places = {value: value if self.numbers else k for k, value in enumerate(values)}

    def labels(self):
        """Writes the values as texts."""
        return list(map(tables.speller(self.places), self.places))

    def aside(self, values, index, count):
        """Places a series beside the others, or equal optima would hide each other."""
        places = [self.places[value] for value in values]
        if self.log:
            return [place * min(1.05, 1.3 ** (1 / count)) ** index for place in places]
        ends = list(self.places.values())
        span = ends[-1] - ends[0] if places else 0
        return [place + span * min(0.02, 0.2 / count) * index for place in places]

    def show(self, axis, labels):
        """Scales an axis of Matplotlib, with a tick at each value."""
        places, name = list(self.places.values()), axis.axis_name
        if self.log:
            limits = (places[0] / 1.4, places[-1] * 1.4)
            axis.axes.set(**{f"{name}scale": "log", f"{name}lim": limits})
        _ticks(axis, places, labels)


def _by_series(optima, published=()):
    """Optima of which a run survived by label, in their order."""
    labels = dict.fromkeys(
        [*(optimum.series for optimum in optima), *(key[0] for key in published)]
    )
    return {label: [o for o in optima if o.series == label and o.n] for label in labels}


def _name(label, series):
    """Names a series in the legend."""
    return "measured" if [*series] == [""] else texts.shown(label)


def _published_name(label, series):
    """Names the published numbers of a series in the legend."""
    if [*series] == [""]:
        return "published"
    name = f"{texts.shown(label)} published"
    return f"{label!r} published" if name in series else name


def _line(ax, x, y, bars, index, label, **look):
    """A line with markers, in colour and marker of the series, and bars where they are not nan."""
    if not len(x):
        return []
    color = COLORS[index % len(COLORS)]
    look = {"linewidth": 2, "markersize": 7, "marker": MARKERS[index % len(MARKERS)], **look}
    lines = ax.plot(x, y, color=color, label=label, **look)
    ax.errorbar(x, y, bars, fmt="none", ecolor=color, capsize=4, elinewidth=1.5)
    return lines


def _broken_line(ax, optima, name, boundary, color):
    """The fit of the two regimes, and where they meet."""
    swept = [(o.values[name], o.best[0].hparams) for o in optima if o.values[name] > 0]
    if not swept or not math.isfinite(boundary.temperature):
        return
    factor = swept[0][0] / regimes.effective_learning_rate(swept[0][1])
    places = sorted({optima[0].row, boundary.batch_size, optima[-1].row})
    heights = [factor * boundary.temperature * min(b, boundary.batch_size) for b in places]
    ax.plot(places, heights, ":", color=color, linewidth=1.5, zorder=1)
    if math.isfinite(boundary.low) and math.isfinite(boundary.high):
        ax.axvspan(boundary.low, boundary.high, color=color, alpha=0.12, linewidth=0, zorder=0)


def _labels(values):
    """Writes powers of two as such if all are, else decimals and words."""
    cells = list(map(tables.writer(values), values))
    if any(isinstance(cell, texts.Words) for cell in cells):
        return cells
    parts = (cell.partition("^") for cell in cells)
    return [base + power.translate(_SUPERSCRIPTS) for base, _, power in parts]


def _ticks(axis, places, labels):
    """At most MAX_TICKS ticks, no minor ones; crowded labels slant."""
    every = max(1, math.ceil(len(places) / MAX_TICKS))
    places, labels = places[::every], [_wrapped(label, 30) for label in labels[::every]]
    places = np.array(places, dtype=float)
    logs = np.log(places) if axis.get_scale() == "log" else places
    crowded = len(logs) > 1 and np.diff(logs).min() < 0.12 * np.ptp(logs)
    crowded |= max(map(len, labels), default=0) * len(labels) > 60
    slant = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
    axis.set_ticks(places, labels, **_PLAIN, **(slant if crowded and axis.axis_name == "x" else {}))
    axis.set_ticks([], minor=True)


def _wrapped(text, columns):
    """Breaks a long text into lines."""
    return text if len(text) <= columns else textwrap.fill(text, columns)


def _finish(ax, handles, empty):
    """Grid, frame and legend; a word where there is nothing to show."""
    ax.grid(color=FAINT, alpha=0.25, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    if empty:
        ax.text(0.5, 0.5, "nothing to show: no run survived", transform=ax.transAxes, **_CENTRED)
        ax.set_yticks([])
    if handles:
        labels = [_wrapped(handle.get_label(), 50) for handle in handles]
        ticks = ax.get_xticklabels()
        longest = max(len(tick.get_text()) for tick in ticks)
        below = -0.17 if ticks[0].get_rotation() == 0 else -0.24 - 0.015 * max(0, longest - 6)
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, below)}
        place["ncols"] = _legend_columns(labels)
        # Matplotlib leaves out a label that begins with an underscore.
        legend = ax.legend(handles, ["-"] * len(handles), frameon=False, **place)
        for text, label in zip(legend.get_texts(), labels, strict=True):
            text.set(text=label, **_PLAIN)
    return ax


def legend_lines(ax: Axes) -> int:
    """Returns the lines of text of a legend, 0 where there is none."""
    legend = ax.get_legend()
    labels = [text.get_text() for text in legend.get_texts()] if legend else []
    lines = sum(label.count("\n") + 1 for label in labels)
    return math.ceil(lines / _legend_columns(labels)) if labels else 0


def _legend_columns(labels):
    """Counts the columns of a legend that fit the width."""
    columns = max(1, min(4, 54 // (max(map(len, labels)) + 6)))
    return 2 if len(labels) == 4 and columns > 2 else columns
