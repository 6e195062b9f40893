"""The report of a sweep: its tables, a figure and a page."""

import dataclasses
import os
import pathlib
import warnings
from collections.abc import Iterable, Mapping, Sequence

import markupsafe

from noisegen.reports import drawing, page, tables
from noisegen.reports.figures import Figure, describe_failure, make_figures
from noisegen.reports.formatting import display_name
from noisegen.reports.published import Published
from noisegen.sweeps import growth, identity
from noisegen.sweeps import records as records_lib
from noisegen.sweeps.protocol import Optimum, Protocol, select

FORMATS = {
    "text": tables.to_text,
    "markdown": tables.to_markdown,
    "latex": tables.to_latex,
    "csv": tables.to_csv,
}


@dataclasses.dataclass(frozen=True)
class Reading:
    """The records of a sweep, read by one protocol."""

    protocol: Protocol
    optima: Sequence[Optimum]
    published: Published | None = None

    def table(self, form: str) -> str:
        """Returns the table in one of `FORMATS`."""
        return FORMATS[form](self.optima, self.protocol, self.published)

    def section(self, heading: str, figures: Sequence[Figure] = ()) -> page.Section:
        """Returns the section of a page, with the given figures."""
        table = tables.to_html(self.optima, self.protocol, self.published)
        return page.Section(heading, markupsafe.Markup(table), figures)


@dataclasses.dataclass(frozen=True)
class Report:
    """A sweep's records and what its protocols read in them.

    Attributes:
      workdir: The directory of the sweep.
      sweep: What `sweep.json` says: title, description, command.
      records: Records of planned runs and of extensions of the plan.
      missing: Number of these runs that have no record.
      readings: One for each protocol, the main one first.
    """

    workdir: pathlib.Path
    sweep: Mapping
    records: Sequence[Mapping]
    missing: int
    readings: Sequence[Reading]

    def tables(self, form: str = "text") -> list[str]:
        """Returns the table of each protocol in one of `FORMATS`."""
        return [reading.table(form) for reading in self.readings]

    def write(self) -> pathlib.Path:
        """Writes tables, figure and page, see `write_report`; returns the path of the page."""
        # The tables come first, since they need no Matplotlib, which may fail.
        for name, table in zip(table_names(self.readings), self.tables("csv"), strict=True):
            _write(self.workdir / f"{name}.csv", table)
        failures = self._write_figure()
        curves = self._curves()
        sections = []
        for reading in self.readings:
            figures = make_figures(reading.optima, reading.protocol, reading.published, curves)
            failures += [figure.failure for figure in figures if figure.failure]
            sections.append(reading.section(self._heading(reading), figures))
        path = self.workdir / "report.html"
        _write(path, page.render_page(self.sweep, self.records, self.missing, sections))
        if failures:
            warnings.warn(
                f"the report lacks {len(failures)} of its parts; its tables are whole."
                f" {failures[0]}. Once that is mended, launch.report makes the report anew.",
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
        records_lib.write_file(path, image)
        return []

    def _curves(self):
        """Returns the curves of the runs at the optima by run_id."""
        optima = [optimum for reading in self.readings for optimum in reading.optima]
        wanted = {record["run_id"] for optimum in optima for record in optimum.best}
        return records_lib.read_curves(self.workdir, wanted)

    def _heading(self, reading):
        """Returns the heading of a reading's section."""
        if len(self.readings) == 1:
            return "Optima"
        return f"Optima of {display_name(reading.protocol.metric.name)}"


def load_report(
    workdir: str | os.PathLike,
    protocol: Protocol | Sequence[Protocol],
    runs: Iterable[Mapping] | None = None,
    published: Published | None = None,
) -> Report:
    """Reads the records of a sweep; for the arguments see `write_report`.

    Raises:
      FileNotFoundError: If workdir is not the directory of a sweep.
      ValueError: As `select` does.
    """
    protocols = (protocol,) if isinstance(protocol, Protocol) else tuple(protocol)
    sweep = records_lib.read_sweep(workdir)
    records = records_lib.read(workdir, curves=False)
    missing = 0
    if runs is not None:
        planned = identity.by_run_id(sweep["task"], runs)
        wanted = growth.wanted(sweep["task"], planned, protocols, records)
        records = [record for record in records if record["run_id"] in wanted]
        missing = len(wanted) - len(records)
    readings = [Reading(each, select(records, each)) for each in protocols]
    readings[0] = dataclasses.replace(readings[0], published=published)
    return Report(pathlib.Path(workdir), sweep, records, missing, readings)


def write_report(
    workdir: str | os.PathLike,
    protocol: Protocol | Sequence[Protocol],
    runs: Iterable[Mapping] | None = None,
    published: Published | None = None,
) -> pathlib.Path:
    """Writes report.html, table.csv and figure.png into a sweep's directory.

    Further protocols make further tables, named by `table_names`, and sections of the page. Title,
    description and command are those of `sweep.json`, if it has them (see `open_workdir`).

    A figure that cannot be drawn is left out with a warning, and the page says why.

    Args:
      workdir: The directory of the sweep.
      protocol: How to read its records, or several ways of it, the main one first.
      runs: The planned runs. With them, missing runs are counted, and records of runs that are
        neither planned nor an extension of the plan are left out.
      published: As for `make_table`, beside the first protocol's numbers.

    Returns:
      The path of the page.

    Raises:
      FileNotFoundError: If workdir is not the directory of a sweep.
      ValueError: As `select` and `make_table` do.
      OSError: If the directory cannot be written to.
    """
    return load_report(workdir, protocol, runs, published).write()


def table_names(protocols: Sequence) -> list[str]:
    """Returns the file names, without ending, of tables of protocols: `table`, `table_2`, ..."""
    return ["table", *(f"table_{number}" for number in range(2, len(protocols) + 1))]


def _write(path, text):
    """Writes text as UTF-8, which cannot hold the halves of characters that odd file names have."""
    records_lib.write_file(path, text.encode(errors="backslashreplace"))
