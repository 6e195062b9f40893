"""The figures of a page, each with title and caption, or with the reason why it is missing."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import markupsafe

from noisegen._errors import one_line
from noisegen.reports import drawing, markup, notes, plots
from noisegen.reports.formatting import capitalized, display_name
from noisegen.reports.published import Published
from noisegen.reports.steps import Steps
from noisegen.reports.target_plots import plot_steps_to_target
from noisegen.storage.record import RUN_TOTALS
from noisegen.sweeps import regimes
from noisegen.sweeps.protocol import Optimum, Protocol

if TYPE_CHECKING:
    from noisegen.reports.explorable_plots import Explorer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure of a page.

    Attributes:
      name: "metric", "tuned", "steps", "runs", "heatmap", "curves", or the name of a reported
        metric.
      title: Its heading.
      caption: The sentences below.
      svg: The drawing; empty if it failed, or if the figure is only to be explored.
      failure: Why it failed, or ''.
      plot: The explorable plot in place of the drawing, an item of Bokeh, or None.
      series: Number of the only series that it shows, or None.
    """

    name: str
    title: str
    caption: str
    svg: markupsafe.Markup = markupsafe.Markup()
    failure: str = ""
    plot: Mapping[str, Any] | None = None
    series: int | None = None


def make_overview(
    optima: Sequence[Optimum],
    protocol: Protocol,
    published: Published | None,
    steps: Steps | None = None,
    explorer: "Explorer | None" = None,
) -> list[Figure]:
    """Draws the figures that show every series.

    These are the metric, the other metrics that the protocol reports, the tuned field, and the
    steps to targets.

    Args:
      optima, protocol, published: As for `make_table`.
      steps: Steps to targets, if there are any.
      explorer: Draws the explorable plots, if there are to be any.
    """
    figures = [_metric("metric", protocol.metric, optima, protocol, published, explorer)]
    for metric in protocol.report:
        if metric.name not in RUN_TOTALS:
            figures.append(_metric(metric.name, metric, optima, protocol, published, explorer))
    if _is_tuned(optima, protocol):
        figures.append(_tuned(optima, protocol, explorer))
    if steps is not None:
        figures.append(_steps(steps, protocol))
    if explorer is not None:
        figures.append(_every_run(protocol, explorer))
    return figures


def make_details(
    optima: Sequence[Optimum],
    protocol: Protocol,
    curves: Mapping[str, Mapping],
    explorer: "Explorer | None" = None,
) -> list[Figure]:
    """Draws the figures of each series that have something to show.

    Args:
      optima, protocol: As for `make_table`.
      curves: From run_id to curve, for the runs at the optima.
      explorer: As for `make_overview`.
    """
    figures = []
    labels = dict.fromkeys(optimum.series for optimum in optima)
    for number, label in enumerate(labels):
        series = [optimum for optimum in optima if optimum.series == label]
        of = f", {markup.visible(label)}" if any(labels) else ""
        if _is_tuned(optima, protocol):
            figure = _heatmap(series, protocol, of, explorer)
            figures.append(dataclasses.replace(figure, series=number))
        if _have_curves(series, protocol, curves):
            figure = _curves(series, protocol, curves, of, explorer)
            figures.append(dataclasses.replace(figure, series=number))
    return figures


def describe_failure(part: str, error: Exception) -> str:
    """Says in one line why a part of a report is missing."""
    return f"{part} is left out: {markup.printable(one_line(error))}"


def _metric(name, metric, optima, protocol, published, explorer):
    """Draws a metric of all series at their optima."""
    sentences = []
    if metric != protocol.metric:
        sentences.append(f"At the optima of {display_name(protocol.metric.name)}.")
    if protocol.best > 1:
        sentences.append("Mean ± standard deviation.")
    if published:
        sentences.append("Hollow: published.")
    return _draw(
        name,
        f"{display_name(metric.name)} against {display_name(protocol.row)}",
        " ".join(sentences),
        lambda ax: plots.plot_metric(optima, ax, protocol, published, metric),
        explorer and (lambda: explorer.metric(optima, metric)),
    )


def _tuned(optima, protocol, explorer):
    """Draws the first tuned field of all series, with the boundary between the regimes of SGD."""
    tuned = display_name(protocol.tune[0])
    sentences = []
    if protocol.best > 1:  # a single run has no standard deviation, and so no bar
        sentences.append(
            f"Bars: from the smallest to the largest {tuned} whose mean is within one standard"
            " deviation of the best mean."
        )
    boundaries, failure = {}, ""
    if protocol.has_scaling_rule:
        sentences.append(f"Dashed: {tuned} proportional to {display_name(protocol.row)}.")
        try:
            boundaries = regimes.boundaries(optima, protocol)
        except Exception as error:
            failure = describe_failure("The boundary between noise and curvature", error)
            sentences.append(f"{failure}.")
    sentences += _describe_boundaries(boundaries)
    figure = _draw(
        "tuned",
        f"best {tuned} against {display_name(protocol.row)}",
        " ".join(sentences),
        lambda ax: plots.plot_tuned(optima, ax, protocol, boundaries),
        explorer and (lambda: explorer.tuned(optima, boundaries)),
    )
    # The figure is whole without the boundaries, but the report is not.
    return dataclasses.replace(figure, failure=figure.failure or failure)


def _steps(steps, protocol):
    """Draws the updates to targets against the batch size."""
    return _draw(
        "steps",
        f"updates to {display_name(protocol.metric.name)} against {display_name(protocol.row)}",
        "At the learning rate of fewest updates, with 95 % intervals. Dashed: perfect scaling."
        " Ringed: the largest batch that saves updates. Dotted: the fit of the critical batch size,"
        " which the tick marks.",
        lambda ax: plot_steps_to_target(steps.rows, ax, protocol, steps.scalings, steps.fits),
    )


def _heatmap(optima, protocol, of, explorer):
    """Draws the heatmap of one series."""
    return _draw(
        "heatmap",
        f"mean {display_name(protocol.metric)}{of}",
        "Framed: the best. ×: every run diverged. Empty: not tried.",
        lambda ax: plots.plot_heatmap(optima, ax, protocol),
        explorer and (lambda: explorer.heatmap(optima)),
    )


def _curves(optima, protocol, curves, of, explorer):
    """Draws the training curves of one series."""
    sentences = []
    if notes.was_tuned(optima):
        tuned = " and ".join(display_name(name) for name in protocol.tune)
        sentences.append(f"At the best {tuned}.")
    if protocol.best > 1:
        sentences.append("Shaded: one standard deviation around the mean.")
    return _draw(
        "curves",
        f"{display_name(protocol.metric.name)} during training{of}",
        " ".join(sentences),
        lambda ax: plots.plot_curves(optima, ax, protocol, curves),
        explorer and (lambda: explorer.curves(optima, curves)),
    )


def _every_run(protocol, explorer):
    """Draws a point for each run, which has no static figure."""
    title = capitalized(f"{display_name(protocol.metric.name)} of every run")
    caption = "Diverged runs have no point."
    figure = Figure(name="runs", title=title, caption=caption)
    return _explorable(figure, explorer.every_run)


def _draw(
    name: str,
    title: str,
    caption: str,
    plot: Callable[[Any], Any],
    explore: Callable[[], Any] | None = None,
) -> Figure:
    """Draws one figure, or says why it cannot be drawn.

    Args:
      name, title, caption: As for `Figure`.
      plot: Draws it in axes of Matplotlib.
      explore: Draws it as an item of Bokeh, if it is to be explorable.
    """
    title = capitalized(title)
    try:
        svg = markupsafe.Markup(drawing.svg(plot, title))
    except Exception as error:  # Matplotlib's, for example; the rest of the report goes on
        failure = describe_failure(f"The figure {title!r}", error)
        return Figure(name=name, title=title, caption=caption, failure=failure)
    figure = Figure(name=name, title=title, caption=caption, svg=svg)
    return _explorable(figure, explore) if explore else figure


def _explorable(figure, explore):
    """Adds the explorable plot to a figure, which stays static if this fails."""
    try:
        return dataclasses.replace(figure, plot=explore())
    except Exception as error:  # Bokeh's, for example
        failure = describe_failure(f"The explorable plot {figure.title!r}", error)
        return dataclasses.replace(figure, failure=failure)


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


def _describe_boundaries(boundaries):
    """Says where the regimes meet, and how the figure shows it."""
    if not boundaries:
        return []
    dotted = "Dotted: the fit of two regimes"
    has_intervals = any(math.isfinite(boundary.low) for boundary in boundaries.values())
    shaded = "; shaded: the interval of the boundary between them" if has_intervals else ""
    sentences = [describe_boundary(label, each) for label, each in boundaries.items()]
    return [f"{dotted}{shaded}.", *sentences]


def describe_boundary(label: str, boundary: regimes.Boundary) -> str:
    """Says in a sentence or two at which batch size noise stops dominating."""
    of = f" of {markup.visible(label)}" if label else ""
    subject = f"The boundary between noise and curvature{of}"
    if "no_plateau" in boundary.flags:
        return f"{subject} lies beyond the largest batch size, if anywhere."
    if "no_slope" in boundary.flags:
        return f"{subject} lies below the smallest batch size, if anywhere."
    if not math.isfinite(boundary.batch_size) or not math.isfinite(boundary.temperature):
        return f"{subject} cannot be told from these numbers."
    interval = ""
    if boundary.low > 0 and math.isfinite(boundary.high):
        interval = f" (95 % interval {boundary.low:.0f} to {boundary.high:.0f})"
    return (
        f"{subject} lies at batch size {boundary.batch_size:.0f}{interval}. Below it the best"
        " effective learning rate is proportional to the batch size, with a temperature of"
        f" {boundary.temperature:.2g}. Above it, it is constant."
    )
