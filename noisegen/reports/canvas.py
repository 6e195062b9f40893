"""Bokeh figures with the axes, markers and tooltips that explore.js expects.

Each figure has a linear and a logarithmic axis on both sides, of which one is visible: explore.js
switches between them. A renderer of a series has the number of the series as its name, so that
explore.js can hide it. A source of points has the columns `x`, `y`, `text`, which is shown when the
pointer is over a point, and `runs`, the positions of its runs in `explorable_runs`.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import bokeh.embed
import bokeh.resources
import numpy as np
from bokeh import models, plotting

from noisegen.reports import axes, formatting
from noisegen.reports.style import COLORS, FAINT, INK

# Bokeh escapes the text, whose lines become lines of the tooltip.
_TOOLTIP = (
    f'<div style="white-space: pre-line; max-width: 22rem; color: {INK}; font-size: 13px">'
    "@text</div>"
)
_FONT = "system-ui, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"
_AXIS = {
    "axis_label_text_font": _FONT,
    "axis_label_text_font_style": "normal",
    "axis_label_text_font_size": "14px",
    "axis_label_text_color": INK,
    "major_label_text_font": _FONT,
    "major_label_text_font_size": "13px",
    "major_label_text_color": INK,
    "axis_line_color": FAINT,
    "major_tick_line_color": FAINT,
    "minor_tick_line_color": None,
}
# Markers of Bokeh, and letters that look like them.
_MARKERS = {
    **{"circle": "●", "square": "■", "diamond": "◆", "triangle": "▲", "inverted_triangle": "▼"},
    **{"plus": "✚", "star": "★", "hex": "⬢"},
}


def library() -> str:
    """Returns the JavaScript that draws the figures; it needs no network."""
    resources = bokeh.resources.Resources(mode="inline", components=["bokeh"], log_level="error")
    return "\n".join(resources.js_raw)


def symbol(index: int) -> tuple[str, str]:
    """Returns the color of a series and the letter that looks like its marker."""
    return COLORS[index % len(COLORS)], [*_MARKERS.values()][index % len(_MARKERS)]


def marker(index: int) -> str:
    """Returns Bokeh's name of the marker of a series, or of another thing with a number."""
    return [*_MARKERS][index % len(_MARKERS)]


def make(x_label: str, y_label: str, is_grid: bool = True) -> plotting.figure:
    """Returns an empty figure.

    Args:
      x_label, y_label: Labels of the axes.
      is_grid: Whether there are lines at the ticks.
    """
    figure = plotting.figure(
        height=400,
        sizing_mode="stretch_width",
        x_axis_type=None,
        y_axis_type=None,
        tools="box_zoom,pan,wheel_zoom,reset,tap",
        active_drag="box_zoom",
        active_scroll=None,  # the wheel scrolls the page until the reader asks for zooming
        toolbar_location="above",
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=None,
        output_backend="canvas",
    )
    figure.toolbar.logo = None
    # One tool for all points of a figure. Its button is not shown, as nobody would switch it off.
    hover = {"tooltips": _TOOLTIP, "visible": False, "attachment": "vertical"}
    figure.add_tools(models.HoverTool(renderers=[], **hover))
    for side, label in (("below", x_label), ("left", y_label)):
        for kind in (models.LinearAxis, models.LogAxis):
            # As a plain text, $$ begins no formula.
            title = models.PlainText(text=label)
            axis = kind(visible=kind is models.LinearAxis, axis_label=title, **_AXIS)
            figure.add_layout(axis, side)
            if is_grid:
                grid = models.Grid(
                    dimension=int(side == "left"),
                    axis=axis,
                    grid_line_color=FAINT,
                    grid_line_alpha=0.25,
                    visible=axis.visible,
                )
                figure.add_layout(grid, "center")
    return figure


def show_axis(figure: plotting.figure, side: str, axis: axes.Axis, powers: bool = False) -> None:
    """Puts a tick at each value of an axis, and makes it logarithmic as the static plot is.

    Args:
      figure: Of `make`.
      side: "below" or "left".
      axis: Positions of the values.
      powers: Whether powers of two are written as such, if all values are.
    """
    formatter = axes.value_formatter if powers else formatting.decimal_formatter
    write = formatter(axis.positions)
    ticks = {position: write(value) for value, position in axis.positions.items()}
    linear, log = getattr(figure, side)
    if axis.is_log:
        # On a linear axis the ticks of powers would crowd.
        _name_ticks(log, ticks)
        linear.visible, log.visible = False, True
        setattr(figure, "x_scale" if side == "below" else "y_scale", models.LogScale())
        for grid in figure.center:
            if grid.axis in (linear, log):
                grid.visible = grid.axis is log
    else:
        _name_ticks(linear, ticks)


def show_cells(
    figure: plotting.figure, side: str, values: Sequence, write: Callable[[Any], str]
) -> None:
    """Puts a tick at each whole number from 0, with the value that belongs there."""
    _name_ticks(getattr(figure, side)[0], {i: write(value) for i, value in enumerate(values)})
    limits = models.Range1d(-0.5, len(values) - 0.5)
    setattr(figure, "x_range" if side == "below" else "y_range", limits)


def _name_ticks(axis, ticks):
    """Puts named ticks on an axis, at most axes.MAX_TICKS of them."""
    every = max(1, math.ceil(len(ticks) / axes.MAX_TICKS))
    axis.ticker = models.FixedTicker(ticks=list(ticks)[::every])
    axis.major_label_overrides = {
        position: models.PlainText(text=name) for position, name in ticks.items()
    }


def draw_points(
    figure: plotting.figure,
    columns: Mapping[str, Sequence],
    index: int,
    *,
    below: Sequence[float] | None = None,
    above: Sequence[float] | None = None,
    has_line: bool = True,
    is_hollow: bool = False,
    size: int = 10,
    alpha: float = 1.0,
) -> None:
    """Draws points that can be hovered over and chosen.

    Args:
      figure: Of `make`.
      columns: The columns `x`, `y`, `text` and `runs`.
      index: Number of the series, which gives color, marker and name.
      below, above: Lengths of error bars; nan for none.
      has_line: Whether a line joins the points.
      is_hollow: Whether the markers are hollow.
      size: Of the markers, in pixels.
      alpha: Opacity.
    """
    shared = {"color": COLORS[index % len(COLORS)], "name": str(index)}
    data = {key: list(values) for key, values in columns.items()}
    if below is not None:
        data["low"] = list(np.asarray(data["y"]) - np.asarray(below))
        data["high"] = list(np.asarray(data["y"]) + np.asarray(above))
    source = models.ColumnDataSource(data)
    fitted = []
    if below is not None:
        bars = figure.segment("x", "low", "x", "high", source=source, line_width=1.5, **shared)
        fitted.append(bars)
    if has_line:
        figure.line("x", "y", source=source, line_width=2, **shared)
    marks = figure.scatter(
        "x",
        "y",
        source=source,
        marker=marker(index),
        size=size,
        alpha=alpha,
        line_width=2 if is_hollow else 1,
        selection_line_color=COLORS[5],
        selection_line_width=4,
        **shared,
    )
    if is_hollow:
        marks.glyph.fill_color = None
    marks.nonselection_glyph = None  # the others stay as they are
    for axis_range in (figure.x_range, figure.y_range):
        # Lines of rules and fits reach far beyond the points, and play no part.
        axis_range.renderers = [*axis_range.renderers, *fitted, marks]
    add_hover(figure, marks)


def draw_curve(
    figure: plotting.figure,
    x: Sequence[float],
    y: Sequence[float],
    text: str,
    runs: Sequence[int],
    color: str,
) -> models.GlyphRenderer:
    """Draws a curve that can be hovered over and chosen as a whole, and returns its renderer."""
    source = models.ColumnDataSource(
        {"xs": [list(x)], "ys": [list(y)], "text": [text], "runs": [runs]}
    )
    curve = figure.multi_line("xs", "ys", source=source, line_color=color, line_width=2)
    curve.selection_glyph = models.MultiLine(line_color=color, line_width=4)
    add_hover(figure, curve)
    return curve


def add_legend(figure: plotting.figure, title: str) -> models.Legend:
    """Returns an empty legend beside a figure. A click on an entry hides what it names."""
    legend = models.Legend(
        title=title,
        title_text_font=_FONT,
        title_text_font_style="normal",
        label_text_font=_FONT,
        label_text_font_size="13px",
        label_text_color=INK,
        title_text_color=INK,
        background_fill_color=None,
        border_line_color=None,
        click_policy="hide",
    )
    figure.add_layout(legend, "right")
    return legend


def add_hover(figure: plotting.figure, renderer: models.GlyphRenderer) -> None:
    """Shows the text of a renderer's points, which can be chosen by a click or from explore.js."""
    renderer.tags = ["points"]
    [hover] = figure.select({"type": models.HoverTool})
    hover.renderers = [*hover.renderers, renderer]


def curves_of_runs() -> Mapping[str, Any]:
    """Returns an empty plot of curves, which explore.js fills, as an item."""
    figure = make("epoch", "")
    figure.height = 280
    source = models.ColumnDataSource({name: [] for name in ("xs", "ys", "color", "text")})
    lines = figure.multi_line("xs", "ys", source=source, line_color="color", line_width=2)
    add_hover(figure, lines)
    return to_item(figure)


def to_item(figure: plotting.figure) -> Mapping[str, Any]:
    """Returns a figure for `Bokeh.embed.embed_item`; equal figures give equal items."""
    text = json.dumps(bokeh.embed.json_item(figure))
    # Bokeh counts its models from the start of the program. A text of the user's cannot look like
    # an id, since its quotes are escaped.
    numbers: dict[str, int] = {}
    item = re.sub(
        r'": "p(\d+)"', lambda match: f'": "p{numbers.setdefault(match[1], len(numbers))}"', text
    )
    return json.loads(item)
