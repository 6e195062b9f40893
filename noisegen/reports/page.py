"""The page of a report: one HTML file that needs no network and no other file."""

import dataclasses
import functools
import importlib.resources
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import markupsafe

from noisegen.reports import markup, provenance
from noisegen.reports.answers import Answer
from noisegen.reports.figures import Figure
from noisegen.storage import Record


@dataclasses.dataclass(frozen=True)
class Section:
    """The part of a page that one protocol makes.

    Attributes:
      heading: Heading of the table.
      answers: The answers that the protocol's optima give.
      evidence: Tables of the evidence behind the optima, as HTML, '' for none.
      table: The table with its notes, as HTML.
      overview: Figures above the table.
      details: Figures below it.
      legend: Name, color and marker of each series, if the figures are explorable.
    """

    heading: str
    table: markupsafe.Markup
    answers: Sequence[Answer] = ()
    evidence: markupsafe.Markup = markupsafe.Markup()
    overview: Sequence[Figure] = ()
    details: Sequence[Figure] = ()
    legend: Sequence[tuple[str, str, str]] = ()


@dataclasses.dataclass(frozen=True)
class Explorable:
    """What a page needs to be explored.

    Attributes:
      library: The JavaScript that draws the plots.
      curves: The empty plot of the curves of chosen runs, an item of Bokeh.
      runs: The runs, as `explorable_runs.runs_content` returns them.
    """

    library: str
    curves: Mapping[str, Any]
    runs: Mapping[str, Any]

    @property
    def script(self) -> markupsafe.Markup:
        """Returns all JavaScript of the page."""
        own = importlib.resources.files("noisegen.reports").joinpath("explore.js")
        # Within a script, HTML ends at the first closing tag, even in a text of JavaScript.
        library = re.sub("</(?=script)", r"<\/", self.library, flags=re.IGNORECASE)
        return markupsafe.Markup(f"{library}\n{own.read_text(encoding='utf-8')}")


def render_page(
    content: Mapping,
    records: Sequence[Record],
    missing: int,
    sections: Sequence[Section],
    explorable: Explorable | None = None,
) -> str:
    """Returns the page as HTML.

    Args:
      content: Content of `sweep.json`: title, description, command.
      records: Records of the sweep.
      missing: Number of runs without a record.
      sections: Tables and figures.
      explorable: What the page needs to be explored; None for a static page.
    """
    return _template().render(
        title=str(content.get("title") or content["sweep"]),
        description=str(content.get("description") or ""),
        counts=provenance.count_runs(records, missing),
        sections=sections,
        swept=provenance.swept_fields(records),
        command=str(content.get("command") or ""),
        origin=provenance.describe_origin(content, records).items(),
        explorable=explorable,
    )


@functools.cache
def _template():
    """Returns the template of the page, which escapes every text."""
    environment = jinja2.Environment(
        autoescape=True,
        finalize=_printable,
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    # Bokeh reads its items in their order, which Jinja2 would sort.
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    source = importlib.resources.files("noisegen.reports").joinpath("page.html")
    return environment.from_string(source.read_text(encoding="utf-8"))


def _printable(value):
    """Escapes characters that HTML cannot hold, in texts of the user's but not in markup."""
    return markup.printable(value) if type(value) is str else value
