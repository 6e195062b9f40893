"""The figures of a page, each with title and caption, or with the reason why it is missing."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import markupsafe

from noisegen._errors import one_line
from noisegen.reports import drawing, markup, plots
from noisegen.reports.formatting import display_name
from noisegen.reports.published import Published
from noisegen.sweeps import regimes
from noisegen.sweeps.protocol import Optimum, Protocol


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure of a page.

    Attributes:
      title: Its heading.
      caption: The sentences below.
      svg: The drawing; empty if it failed.
      failure: Why it failed, or ''.
    """

    title: str
    caption: str
    svg: markupsafe.Markup = markupsafe.Markup()
    failure: str = ""


def make_figures(
    optima: Sequence[Optimum],
    protocol: Protocol,
    published: Published | None,
    curves: Mapping[str, Mapping],
) -> list[Figure]:
    """Draws the figures that have something to show: of all series, then of each.

    Args:
      optima, protocol, published: As for `make_table`.
      curves: From run_id to curve, for the runs at the optima.
    """
    figures = list(_figures_of_all(optima, protocol, published))
    labels = dict.fromkeys(optimum.series for optimum in optima)
    for label in labels:
        series = [optimum for optimum in optima if optimum.series == label]
        of = f", {markup.visible(label)}" if any(labels) else ""
        if _is_tuned(optima, protocol):
            figures.append(_heatmap(series, protocol, of))
        if _have_curves(series, protocol, curves):
            figures.append(_curves(series, protocol, curves, of))
    return figures


def describe_failure(part: str, error: Exception) -> str:
    """Says in one line why a part of a report is missing."""
    return f"{part} is left out: {markup.printable(one_line(error))}"


def _figures_of_all(optima, protocol, published) -> Iterator[Figure]:
    """Draws the figures that show every series."""
    metric, row = display_name(protocol.metric.name), display_name(protocol.row)
    tuned = display_name(protocol.tune[0])
    hollow = "; hollow: published" if published else ""
    yield _draw(
        f"{metric} against {row}",
        f"Mean and standard deviation at the optimum{hollow}.",
        lambda ax: plots.plot_metric(optima, ax, protocol, published),
    )
    if not _is_tuned(optima, protocol):
        return
    boundaries, sentences, failure = _boundaries(optima, protocol)
    caption = ""
    if protocol.best > 1:  # a single run has no standard deviation, and so no bar
        caption = f"Bars span every {tuned} within one standard deviation of the best mean."
    figure = _draw(
        f"best {tuned} against {row}",
        (caption + sentences).strip(),
        lambda ax: plots.plot_tuned(optima, ax, protocol, boundaries),
    )
    # The figure is whole without the boundaries, but the report is not.
    yield dataclasses.replace(figure, failure=figure.failure or failure)


def _heatmap(optima, protocol, of):
    """Draws the heatmap of one series."""
    return _draw(
        f"mean {display_name(protocol.metric)}{of}",
        "Framed: the optimum. ×: no run survived. Empty: not tried.",
        lambda ax: plots.plot_heatmap(optima, ax, protocol),
    )


def _curves(optima, protocol, curves, of):
    """Draws the training curves of one series."""
    return _draw(
        f"{display_name(protocol.metric.name)} during training{of}",
        "At the optimum: mean and standard deviation over seeds.",
        lambda ax: plots.plot_curves(optima, ax, protocol, curves),
    )


def _draw(title: str, caption: str, plot: Callable[[Any], Any]) -> Figure:
    """Draws one figure, or says why it cannot be drawn."""
    title = title[0].upper() + title[1:]
    try:
        svg = markupsafe.Markup(drawing.svg(plot, title))
    except Exception as error:  # Matplotlib's, for example; the rest of the report goes on
        failure = describe_failure(f"The figure {title!r}", error)
        return Figure(title=title, caption=caption, failure=failure)
    return Figure(title=title, caption=caption, svg=svg)


def _is_tuned(optima, protocol):
    """Returns whether several values of the first tuned field were tried, or none at all."""
    name = protocol.tune[0]
    tried = {point.values[name] for optimum in optima for point in optimum.points}
    return len(tried) != 1


def _have_curves(optima, protocol, curves):
    """Returns whether there are curves to draw."""
    try:
        loaded = [plots.load_curves(optimum, protocol.metric, curves) for optimum in optima]
    except (TypeError, ValueError):
        return True  # the figure will say what is wrong with them
    return any(len(epochs) > 1 for epochs, _ in loaded)


def _boundaries(optima, protocol):
    """Returns the boundaries between the regimes, sentences about them, and why they are missing.

    The sentences say the latter too.
    """
    if not protocol.has_scaling_rule:
        return {}, "", ""
    try:
        boundaries = regimes.boundaries(optima, protocol)
    except Exception as error:
        failure = describe_failure("The boundary between noise and curvature", error)
        return {}, f" {failure}.", failure
    sentences = [describe_boundary(label, each) for label, each in boundaries.items()]
    return boundaries, "".join(f" {sentence}" for sentence in sentences), ""


def describe_boundary(label: str, boundary: regimes.Boundary) -> str:
    """Says at which batch size noise stops dominating, in a sentence."""
    of = f" of {markup.visible(label)}" if label else ""
    subject = f"The boundary between noise and curvature{of} lies"
    if "no_plateau" in boundary.flags:
        return f"{subject} at larger batches, if anywhere."
    if "no_slope" in boundary.flags:
        return f"{subject} at smaller batches, if anywhere."
    if not math.isfinite(boundary.batch_size) or not math.isfinite(boundary.temperature):
        return f"{subject} nowhere in these numbers."
    interval = ""
    if boundary.low > 0 and math.isfinite(boundary.high):
        interval = f" (95 %: {boundary.low:.0f} to {boundary.high:.0f})"
    return (
        f"{subject} at batch size {boundary.batch_size:.0f}{interval}; below it the best"
        f" temperature is {boundary.temperature:.2g}."
    )
