"""Figures as SVG elements and as a PNG file."""

import functools
import html
import io
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from noisegen.reports import axes, plots, style
from noisegen.reports.published import Published
from noisegen.sweeps.protocol import Optimum, Protocol

# For letters that DejaVu Sans lacks, if these fonts are installed.
_MORE_FONTS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Microsoft YaHei", "Hiragino Sans")
_LEGEND_LINE = 0.22  # height of a line of a legend, inches
_FITTING_LINES = 3  # lines of a legend for which a figure has room as it is


def svg(draw: Callable[[Any], Any], title: str) -> str:
    """Returns the drawing of `draw(ax)` as an SVG element, whose colors and font are the page's."""
    import matplotlib
    from matplotlib import figure

    with matplotlib.rc_context({**_settings(), "svg.hashsalt": title}):
        canvas = figure.Figure(figsize=(6.4, 4.5), layout="constrained")
        ax = canvas.add_subplot()
        draw(ax)
        canvas.set_figheight(4.5 + _added_height(axes.legend_lines(ax)))
        file = io.StringIO()
        _save(canvas, file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    text = re.sub(r"<[^>]+>", _themed, text)  # tags only, since a label may name a color
    return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(title)}"', 1)


def png(optima: Sequence[Optimum], protocol: Protocol, published: Published | None = None) -> bytes:
    """Draws the metric and the first tuned field against the row, side by side."""
    import matplotlib
    from matplotlib import figure

    with matplotlib.rc_context(_settings()):
        canvas = figure.Figure(figsize=(11, 4.2), layout="constrained", facecolor="white")
        left, right = canvas.subplots(1, 2)
        plots.plot_metric(optima, left, protocol, published)
        plots.plot_tuned(optima, right, protocol)
        lines = max(axes.legend_lines(left), axes.legend_lines(right))
        canvas.set_figheight(4.2 + _added_height(lines))
        file = io.BytesIO()
        _save(canvas, file, format="png", dpi=120)
    return file.getvalue()


def _added_height(lines):
    """Returns the inches that a legend of so many lines adds to a figure."""
    return _LEGEND_LINE * max(0, lines - _FITTING_LINES)


@functools.cache
def _settings():
    """Returns Matplotlib's settings, with the fonts that are installed."""
    from matplotlib import font_manager

    installed = set(font_manager.get_font_names())
    fonts = [*style.RC["font.sans-serif"], *(name for name in _MORE_FONTS if name in installed)]
    return style.RC | {"font.sans-serif": fonts}


def _save(canvas, file, **options):
    """Saves a figure, in silence about letters that no font has.

    Such a letter is a box in a PNG. In a page the browser finds a font for it.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        canvas.savefig(file, **options)


def _themed(tag):
    """Gives a tag of the SVG the page's colors."""
    text = tag[0]
    for color, variable in style.THEMED.items():
        text = text.replace(color, f"var({variable})")
    return text
