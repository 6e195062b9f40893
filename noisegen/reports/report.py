"""The report of a sweep: its tables, a figure and a page."""

import dataclasses
import importlib.util
import pathlib
import shlex
import warnings
from collections.abc import Callable, Mapping, Sequence

import markupsafe

from noisegen import storage
from noisegen.reports import (
    answers,
    drawing,
    evidence_tables,
    explorable_runs,
    figures,
    page,
    rendering,
    tables,
)
from noisegen.reports.answers import Answer
from noisegen.reports.figures import Figure, describe_failure
from noisegen.reports.formatting import capitalized, display_name
from noisegen.reports.published import Published
from noisegen.reports.steps import MOST_RUNS, Steps, read_steps
from noisegen.storage import Record
from noisegen.sweeps.protocol import Optimum, Protocol, select
from noisegen.sweeps.sweep import Sweep

FORMATS = {
    "text": rendering.to_text,
    "markdown": rendering.to_markdown,
    "latex": rendering.to_latex,
    "csv": tables.to_csv,
}


@dataclasses.dataclass(frozen=True)
class Reading:
    """The records of a sweep, read by one protocol."""

    protocol: Protocol
    optima: Sequence[Optimum]
    published: Published | None = None
    answers: Sequence[Answer] = ()
    steps: Steps | None = None

    def table(self, form: str) -> str:
        """Returns the table in one of `FORMATS`."""
        return FORMATS[form](self.optima, self.protocol, self.published)

    def section(
        self, overview: Sequence[Figure] = (), details: Sequence[Figure] = ()
    ) -> page.Section:
        """Returns the section of a page, with figures above the table and below."""
        metric = display_name(self.protocol.metric.name)
        heading = capitalized(f"{metric} for each {display_name(self.protocol.row)}")
        reading = (self.optima, self.protocol, self.published)
        return page.Section(
            heading=heading,
            table=markupsafe.Markup(rendering.to_html(*reading)),
            answers=self.answers,
            evidence=markupsafe.Markup(evidence_tables.to_html(*reading)),
            overview=overview,
            details=details,
        )


@dataclasses.dataclass(frozen=True)
class Report:
    """A sweep's records and what its protocols read in them.

    Attributes:
      workdir: The directory of the sweep.
      content: Content of `sweep.json`: title, description, command.
      records: Records of planned runs and of those that extend the grid.
      missing: Number of these runs that have no record.
      readings: One for each protocol, the main one first.
      config: Config of the sweep's experiment, empty if a program made the sweep.
      curves: Curves of all records by run_id if they have been read, else empty.
    """

    workdir: pathlib.Path
    content: Mapping
    records: Sequence[Record]
    missing: int
    readings: Sequence[Reading]
    config: Mapping = dataclasses.field(default_factory=dict)
    curves: Mapping[str, Mapping] = dataclasses.field(default_factory=dict)

    def answer_texts(self) -> list[str]:
        """Returns the answers of each protocol as lines of text, those that have any."""
        return [answers.to_text(reading.answers) for reading in self.readings if reading.answers]

    def tables(self, form: str = "text") -> list[str]:
        """Returns the table of each protocol in one of `FORMATS`."""
        return [reading.table(form) for reading in self.readings]

    def describe_missing(self) -> str:
        """Says how many runs have no record yet; '' if every run has one."""
        if not self.missing:
            return ""
        if not self.records:
            return f"None of the {self.missing:,} runs has a record yet."
        total = self.missing + len(self.records)
        have = "has" if self.missing == 1 else "have"
        return f"{self.missing:,} of {total:,} runs {have} no record yet: the table is not final."

    def write(self) -> pathlib.Path:
        """Writes tables, answers, figure and page, see `write_report`; returns the page's path."""
        # The tables come first, since they need no Matplotlib, which may fail.
        for name, table in zip(table_names(self.readings), self.tables("csv"), strict=True):
            _write(self.workdir / f"{name}.csv", table)
        _write(self.workdir / "answers.txt", "\n\n".join(self.answer_texts()) + "\n")
        failures = self._write_figure()
        curves = self._curves()
        explorers, explorable = [None] * len(self.readings), None
        if can_explore(self.records):
            try:
                explorers, explorable = self._explore(curves)
            except Exception as error:  # of another version of Bokeh, for example
                failures.append(describe_failure("The explorable page", error))
        sections = []
        for reading, explorer in zip(self.readings, explorers, strict=True):
            optima, protocol = reading.optima, reading.protocol
            if not optima and not reading.published:  # The figures would be empty.
                sections.append(reading.section())
                continue
            overview = figures.make_overview(
                optima, protocol, reading.published, reading.steps, explorer
            )
            details = figures.make_details(optima, protocol, curves, explorer)
            failures += [each.failure for each in (*overview, *details) if each.failure]
            section = reading.section(overview, details)
            if explorer:
                section = dataclasses.replace(section, legend=explorer.legend())
            sections.append(section)
        path = self.workdir / "report.html"
        text = page.render_page(self.content, self.records, self.missing, sections, explorable)
        _write(path, text)
        if failures:
            warnings.warn(
                f"the report lacks {len(failures)} of its parts; its tables are whole."
                f" {failures[0]}. Fix this, then write the report again.",
                stacklevel=2,
            )
        return path

    def _write_figure(self):
        """Writes figure.png; returns why it cannot be drawn in a list, empty if it can."""
        path = self.workdir / "figure.png"
        main = self.readings[0]
        try:
            image = drawing.png(main.optima, main.protocol, main.published)
        except Exception as error:  # Matplotlib's, for example
            path.unlink(missing_ok=True)  # it would show older records
            return [describe_failure("figure.png", error)]
        storage.write_file(path, image)
        return []

    def _explore(self, curves):
        """Returns an explorer for each reading, and what the page needs besides."""
        from noisegen.reports import canvas, explorable_plots  # which import Bokeh

        explorers = [
            explorable_plots.Explorer(self.records, each.optima, each.protocol, each.published)
            for each in self.readings
        ]
        content = explorable_runs.runs_content(
            self.records,
            [
                (each.protocol, one.labels)
                for each, one in zip(self.readings, explorers, strict=True)
            ],
            curves,
            explorable_runs.run_command(str(self.content.get("command") or ""), self.config),
        )
        return explorers, page.Explorable(canvas.library(), canvas.curves_of_runs(), content)

    def _curves(self):
        """Returns curves by run_id: of the runs at the optima, or of all if a reader can choose."""
        if self.curves:
            return self.curves
        wanted = self.records
        if not can_explore(self.records):
            optima = [optimum for reading in self.readings for optimum in reading.optima]
            wanted = [record for optimum in optima for record in optimum.counted]
        return storage.read_curves(self.workdir, {record.run_id for record in wanted})


def load_report(sweep: Sweep) -> Report:
    """Reads the records of a sweep.

    Raises:
      FileNotFoundError: If nothing is trained yet.
      ValueError: If the sweep was made without a workdir, or as `select` does.
    """
    if sweep.workdir is None:
        raise ValueError("This sweep has no directory; give Sweep(..., workdir=...).")
    try:
        content = storage.read_sweep(sweep.workdir)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"Nothing is trained in {sweep.workdir} yet: call sweep.run() first."
        ) from None
    records = sweep.records()
    missing = len(sweep.state.wanted) - len(records)
    curves = {}
    if len(records) <= MOST_RUNS:
        curves = sweep.curves(record.run_id for record in records)
    readings = []
    for protocol in sweep.protocols:
        optima = select(records, protocol)
        steps = read_steps(records, protocol, curves) if curves else None
        found = answers.make_answers(
            optima,
            protocol,
            steps=steps,
            missing=missing,
            num_test_examples=content.get("num_test_examples"),
            more_seeds=_seeds_command(sweep, content),
            command=str(content.get("command") or ""),
        )
        readings.append(Reading(protocol, optima, answers=found, steps=steps))
    readings[0] = dataclasses.replace(readings[0], published=sweep.published)
    config = sweep.origin.config if sweep.origin else {}
    return Report(sweep.workdir, content, records, missing, readings, config, curves)


def can_explore(records: Sequence[Record]) -> bool:
    """Returns whether a page can be explored: Bokeh is installed, and the runs are not too many."""
    is_installed = importlib.util.find_spec("bokeh") is not None
    return is_installed and 0 < len(records) <= explorable_runs.MOST_EXPLORABLE


def _seeds_command(sweep: Sweep, content: Mapping) -> Callable[[int], str] | None:
    """Returns a function from a number of seeds to the command that trains so many, if any can."""
    command = content.get("command")
    if not command or sweep.origin is None:
        return None
    config = sweep.origin.config
    if "seed" not in config.get("grid", {}):
        return None
    # Given twice, a flag is refused.
    replaced = ("--config.grid.seed=", "--config.search=")
    words = [word for word in shlex.split(command) if not word.startswith(replaced)]
    race = ["--config.search=race"] if "search" in config else []
    return lambda number: shlex.join([*words, f"--config.grid.seed=range({number})", *race])


def write_report(sweep: Sweep) -> pathlib.Path:
    """Writes report.html, answers.txt, table.csv and figure.png into a sweep's directory.

    Further protocols make further tables, named by `table_names`, and sections of the page. A
    figure that cannot be drawn is left out with a warning, and the page says why.

    Returns:
      The path of the page.

    Raises:
      FileNotFoundError: If nothing is trained yet.
      ValueError: If the sweep was made without a workdir, or as `select` and `make_table` do.
      OSError: If the directory cannot be written to.
    """
    return load_report(sweep).write()


def table_names(protocols: Sequence) -> list[str]:
    """Returns the file names, without ending, of tables of protocols: `table`, `table_2`, ..."""
    return ["table", *(f"table_{number}" for number in range(2, len(protocols) + 1))]


def _write(path, text):
    """Writes text as UTF-8, which cannot hold the halves of characters that odd file names have."""
    storage.write_file(path, text.encode(errors="backslashreplace"))
