"""Shows a sweep in a notebook."""

from noisegen.reports import markup, rendering
from noisegen.sweeps.sweep import Sweep


def sweep_to_html(sweep: Sweep) -> str:
    """Returns title, runs done and table of a sweep as HTML.

    A sweep that has yet to begin shows the number of its planned runs, so that its task is not made
    and loads no data.
    """
    title = f"<b>{markup.HTML.escape(sweep.title)}</b>"
    if sweep.workdir is None or not (sweep.workdir / "sweep.json").exists():
        return f"<p>{title}: {len(sweep.planned):,} planned runs, not begun</p>\n"
    records = sweep.records()
    wanted = len(sweep.state.wanted)
    lines = [f"<p>{title}: {len(records):,}/{wanted:,} runs</p>\n"]
    for index, protocol in enumerate(sweep.protocols):
        published = sweep.published if index == 0 else None
        try:
            lines.append(rendering.to_html(sweep.optima(protocol), protocol, published))
        except ValueError as error:  # Older records may lack a metric: the rest is shown.
            lines.append(f"<p>No table: {markup.HTML.escape(str(error))}</p>\n")
    return "".join(lines)
