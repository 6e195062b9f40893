"""Plots steps to target against batch size.

>>> from matplotlib import figure
>>> from noisegen import reports, storage, sweeps
>>> curve = {"epoch": [1, 2], "update": [32, 64], "test_loss": [0.4, 0.2]}
>>> record = storage.Record(
...     hparams={"batch_size": 64, "learning_rate": 0.1, "seed": 0},
...     status="finished",
...     metrics={"test_loss": 0.2},
...     num_examples=4096,
...     curve=curve,
... )
>>> protocol = sweeps.Protocol(metric="test_loss", mode="min")
>>> rows = sweeps.steps_to_target([record], protocol, 0.3)
>>> ax = reports.plot_steps_to_target(rows, figure.Figure().add_subplot(), protocol)
>>> ax.get_ylabel()
'updates to target'
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from noisegen.reports import formatting, markup
from noisegen.reports.style import COLORS, FAINT, MARKERS
from noisegen.sweeps.critical_batch import CriticalBatch
from noisegen.sweeps.data_parallelism import Scaling
from noisegen.sweeps.protocol import Protocol
from noisegen.sweeps.targets import RowTarget, by_series_and_target

Axes = "matplotlib.axes.Axes"

_PLAIN = {"parse_math": False, "usetex": False}  # $ and _ are characters like any others


def plot_steps_to_target(
    rows: Sequence[RowTarget],
    ax: Axes,
    protocol: Protocol,
    scalings: Iterable[Scaling] = (),
    fits: Iterable[CriticalBatch] = (),
) -> Axes:
    """Draws the updates to each target against the batch size, with their intervals.

    Both axes are logarithmic. Upper bounds, of targets that were reached at the first evaluation,
    are hollow markers beside the line. Rows that did not reach a target are left out.

    Args:
      rows: Of `steps_to_target`.
      ax: Axes to draw in.
      protocol: The protocol that was given to `steps_to_target`.
      scalings: Of `scaling_regions`. A dashed line shows perfect scaling, and a ring marks the
        largest useful batch size.
      fits: Of `critical_batch_sizes`. A dotted line shows the fit, and a tick on it the critical
        batch size.

    Returns:
      The axes.

    Raises:
      ValueError: If a row is not a positive number.
    """
    groups = by_series_and_target(rows)
    scalings = {(each.series, each.target): each for each in scalings}
    fits = {(each.series, each.target): each for each in fits}
    sizes = sorted({row.row for row in rows if row.n})
    handles, helpers = [], {}
    for index, (key, group) in enumerate(groups.items()):
        color = COLORS[index % len(COLORS)]
        look = {"color": color, "marker": MARKERS[index % len(MARKERS)], "markersize": 7}
        measured = [row for row in group if row.is_measured]
        bounds = [row for row in group if row.n and not row.is_measured]
        if measured:
            name = _legend_name(*key, protocol)
            handles += _line(ax, measured, name, look)
        if bounds:
            [helpers["upper bound"]] = ax.plot(
                [row.row for row in bounds],
                [row.updates.value for row in bounds],
                **look | {"fillstyle": "none", "linestyle": "none", "label": "upper bound"},
            )
        if key in scalings and measured:
            _draw_scaling(ax, scalings[key], measured, helpers)
        if key in fits:
            _draw_fit(ax, fits[key], sizes, color, helpers)
    ax.set(xscale="log", yscale="log")
    ax.set_xlabel(formatting.display_name(protocol.row), **_PLAIN)
    ax.set_ylabel("updates to target", **_PLAIN)
    updates = [row.updates.value for row in rows if row.n]
    if updates:  # The lines of perfect scaling go on far below.
        ax.set_ylim(min(updates) / 2, max(updates) * 2)
    return _finish(ax, sizes, [*handles, *helpers.values()])


def _legend_name(series, target, protocol):
    """Names a target, and the series if there are any."""
    metric = protocol.metric
    sign = "≥" if protocol.mode == "max" else "≤"
    name = (
        f"{formatting.display_name(metric.name)} {sign} {metric.factor * target:.4g}{metric.unit}"
    )
    return f"{markup.visible(series)}: {name}" if series else name


def _line(ax, rows, name, look):
    """Draws the measured rows of one target, with their intervals as far as there are any."""
    x = [row.row for row in rows]
    y = np.array([row.updates.value for row in rows])
    low = np.array([row.updates.low for row in rows])
    high = np.array([row.updates.high for row in rows])
    # A logarithmic axis has no room for a bound of 0 and less.
    below = y - np.maximum(low, y / 100)
    handles = ax.plot(x, y, linewidth=2, label=name, **look)
    bars = [np.nan_to_num(below), np.nan_to_num(high - y)]
    ax.errorbar(x, y, bars, fmt="none", ecolor=look["color"], capsize=4, elinewidth=1.5)
    return handles


def _draw_scaling(ax, scaling, rows, helpers):
    """Draws the line of perfect scaling, and a ring around the largest useful batch size."""
    if math.isnan(scaling.examples):
        return
    x = np.array([rows[0].row, rows[-1].row])
    [helpers["perfect scaling"]] = ax.plot(
        x, scaling.examples / x, "--", color=FAINT, linewidth=1.5, zorder=1, label="perfect scaling"
    )
    [useful] = [row for row in rows if row.row == scaling.largest_useful]
    [helpers["largest useful batch"]] = ax.plot(
        [useful.row],
        [useful.updates.value],
        linestyle="none",
        marker="o",
        fillstyle="none",
        markersize=15,
        color=FAINT,
        label="largest useful batch",
    )


def _draw_fit(ax, fit, sizes, color, helpers):
    """Draws the fit of the critical batch size, if it is not at a limit."""
    critical = fit.batch_size.value
    if not 0 < critical < math.inf or not sizes:
        return
    x = np.geomspace(sizes[0], sizes[-1], 100)
    [helpers["fit, critical batch"]] = ax.plot(
        x,
        fit.min_updates * (1 + critical / x),
        ":",
        color=color,
        linewidth=1.5,
        zorder=1,
        label="fit, critical batch",
    )
    if sizes[0] <= critical <= sizes[-1]:
        ax.plot(
            [critical], [2 * fit.min_updates], "|", color=color, markersize=16, markeredgewidth=2
        )


def _finish(ax, sizes, handles):
    """Adds ticks, grid and legend, and says so if there is nothing to show."""
    ax.grid(color=FAINT, alpha=0.25, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.yaxis.set_major_formatter(lambda value, position: f"{value:g}")
    ax.set_xticks([], minor=True)
    if not sizes:
        ax.text(0.5, 0.5, "nothing to show: no target was reached", transform=ax.transAxes)
        ax.set_xticks([])
        ax.set_yticks([])
        return ax
    every = math.ceil(len(sizes) / 12)
    write = formatting.decimal_formatter(sizes)
    ax.set_xticks(sizes[::every], [write(size) for size in sizes[::every]], **_PLAIN)
    ax.set_xlim(sizes[0] / 1.4, sizes[-1] * 1.4)
    # Matplotlib leaves out labels that begin with an underscore.
    legend = ax.legend(handles, ["-"] * len(handles), frameon=False)
    for text, handle in zip(legend.get_texts(), handles, strict=True):
        text.set(text=handle.get_label(), **_PLAIN)
    return ax
