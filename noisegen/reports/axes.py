"""Axes of plots: positions of values, ticks, frames and legends."""

import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from noisegen.reports import formatting, markup
from noisegen.reports.style import FAINT

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.axis

Axes = "matplotlib.axes.Axes"

MAX_TICKS = 12

PLAIN = {"parse_math": False, "usetex": False}  # $ and _ are characters like any others
CENTERED = {"ha": "center", "va": "center", "fontsize": 9.5} | PLAIN


class Axis:
    """Positions of a field's values on an axis: numbers at themselves, words in their order.

    The axis is logarithmic if all values are positive numbers.

    Args:
      values: The values, in any order; equal ones count once.

    Attributes:
      is_numeric: Whether all values are numbers.
      is_log: Whether the axis is logarithmic.
      positions: Positions by value, ascending.
    """

    def __init__(self, values: Iterable[formatting.Value]):
        values = formatting.ordered(values)
        self.is_numeric = all(formatting.is_number(value) for value in values)
        self.is_log = self.is_numeric and bool(values) and values[0] > 0
        if self.is_numeric:
            self.positions = {value: value for value in values}
        else:
            self.positions = {value: index for index, value in enumerate(values)}

    def shifted(self, values: Iterable[formatting.Value], index: int, count: int) -> list[float]:
        """Returns the positions of values, shifted to the right by a little for each series.

        Markers and error bars of several series at one value would hide each other.

        Args:
          values: Values of the axis.
          index: Index of the series.
          count: Number of series. Of many series, each is shifted by less.
        """
        positions = [self.positions[value] for value in values]
        if self.is_log:
            factor = min(1.05, 1.3 ** (1 / count)) ** index
            return [position * factor for position in positions]
        every = list(self.positions.values())
        span = every[-1] - every[0] if positions else 0
        shift = span * min(0.02, 0.2 / count) * index
        return [position + shift for position in positions]

    def show(self, axis: "matplotlib.axis.Axis", powers: bool = False) -> None:
        """Scales an axis of Matplotlib, with a tick at each value.

        Args:
          axis: The axis.
          powers: Whether powers of two are written as such, if all values are.
        """
        positions = list(self.positions.values())
        if self.is_log:
            # A margin on both sides, as Matplotlib leaves on a linear axis.
            limits = (positions[0] / 1.4, positions[-1] * 1.4)
            name = axis.axis_name
            axis.axes.set(**{f"{name}scale": "log", f"{name}lim": limits})
        formatter = value_formatter if powers else formatting.decimal_formatter
        write = formatter(self.positions)
        set_ticks(axis, positions, [write(value) for value in self.positions])


def value_formatter(values: Iterable[formatting.Value]) -> Callable[[formatting.Value], str]:
    """Returns a function that writes powers of two as such if all values are, else decimals."""
    return formatting.number_formatter(values, markup.UNICODE)


def set_ticks(
    axis: "matplotlib.axis.Axis", positions: Sequence[float], labels: Sequence[str]
) -> None:
    """Sets at most MAX_TICKS ticks, and no minor ones; crowded labels slant."""
    every = max(1, math.ceil(len(positions) / MAX_TICKS))
    positions = np.array(positions[::every], dtype=float)
    labels = [_wrapped(label, 30) for label in labels[::every]]
    look = dict(PLAIN)
    if axis.axis_name == "x" and _are_crowded(axis, positions, labels):
        look |= {"rotation": 35, "ha": "right", "rotation_mode": "anchor"}
    axis.set_ticks(positions, labels, **look)
    axis.set_ticks([], minor=True)


def _are_crowded(axis, positions, labels):
    """Returns whether labels side by side would touch."""
    # About 60 characters fit the width of a figure of a page.
    longest = max(map(len, labels), default=0)
    if longest * len(labels) > 60:
        return True
    if len(positions) < 2:
        return False
    scaled = np.log(positions) if axis.get_scale() == "log" else positions
    return np.diff(scaled).min() < 0.12 * np.ptp(scaled)


def _wrapped(text, columns):
    """Breaks a long text into lines."""
    return text if len(text) <= columns else textwrap.fill(text, columns)


def finish(ax: Axes, handles: Sequence[Any], is_empty: bool) -> Axes:
    """Adds grid, frame and legend, and says so if there is nothing to show.

    Args:
      ax: Axes that are drawn in.
      handles: The lines that the legend names.
      is_empty: Whether there is nothing to show.
    """
    ax.grid(color=FAINT, alpha=0.25, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    if is_empty:
        ax.text(0.5, 0.5, "nothing to show: no surviving run", transform=ax.transAxes, **CENTERED)
        ax.set_yticks([])
    if handles:
        _add_legend(ax, handles)
    return ax


def _add_legend(ax, handles):
    """Adds a legend below the axes, below their tick labels too."""
    labels = [_wrapped(handle.get_label(), 50) for handle in handles]
    ticks = ax.get_xticklabels()
    below = -0.17
    if ticks[0].get_rotation() != 0:
        # Slanted labels reach further down, the more so the longer they are.
        longest = max(len(tick.get_text()) for tick in ticks)
        below = -0.24 - 0.015 * max(0, longest - 6)
    legend = ax.legend(
        handles,
        ["-"] * len(handles),  # Matplotlib leaves out a label that begins with an underscore
        frameon=False,
        loc="upper center",
        bbox_to_anchor=(0.5, below),
        ncols=_legend_columns(labels),
    )
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set(text=label, **PLAIN)


def legend_lines(ax: Axes) -> int:
    """Returns the number of lines of text in a legend, 0 if there is none."""
    legend = ax.get_legend()
    if legend is None:
        return 0
    labels = [text.get_text() for text in legend.get_texts()]
    lines = sum(label.count("\n") + 1 for label in labels)
    return math.ceil(lines / _legend_columns(labels))


def _legend_columns(labels):
    """Returns the number of columns of a legend that fit the width."""
    # About 54 characters fit, with six for the line in front of each label.
    longest = max(map(len, labels))
    columns = max(1, min(4, 54 // (longest + 6)))
    # Two lines of two look better than a line of three and one of one.
    return 2 if len(labels) == 4 and columns > 2 else columns
