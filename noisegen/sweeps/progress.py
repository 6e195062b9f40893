"""Shows the progress of a sweep: a panel in a terminal, plain lines elsewhere.

Titles, labels and words are shown as they are: brackets in them are no styles, and characters that
the terminal lacks turn into those of ASCII.
"""

import collections
import math
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from rich import box, console, live, measure, panel, progress_bar, table, text

from noisegen import training
from noisegen.reports import formatting, markup, rendering
from noisegen.storage import Record
from noisegen.sweeps import encoding
from noisegen.sweeps import protocol as protocol_lib
from noisegen.sweeps.protocol import Protocol
from noisegen.sweeps.sweep import Sweep

_LINE_SECONDS = 10.0  # between two plain lines
_NARROW = 40  # columns of a terminal in which a table would be torn


class Observer:
    """Receives the progress of a sweep. This one ignores it; override the methods of interest.

    A worker uses it as a context manager.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        pass

    def say(self, doing: str) -> None:
        """Called when the activity changes while no run is trained."""

    def note(self, text: str) -> None:
        """Called with a sentence that should stay visible."""

    def extended(self, runs: Mapping[str, Mapping]) -> None:
        """Called with the runs that extend the grid, hyperparameters by run_id."""

    def progress(self, running: Sequence[training.Progress]) -> None:
        """Called with the runs in training."""

    def finished(self, record: Record) -> None:
        """Called with the first record of a run."""


class Tally:
    """Counts the runs of a sweep, done and diverged, and shows the optima so far.

    Args:
      sweep: The sweep; its records are counted.
    """

    def __init__(self, sweep: Sweep):
        self.protocol: Protocol = sweep.protocols[0]
        self.wanted = len(sweep.state.wanted)
        self.diverged = 0
        self._records: list[Record] = []
        for record in sweep.state.records():
            self.add(record)

    @property
    def done(self) -> int:
        """Number of runs with a record."""
        return len(self._records)

    def add(self, record: Record) -> None:
        """Counts a finished run."""
        self._records.append(record)
        self.diverged += record.status == "diverged"

    def line(self) -> str:
        """Returns the numbers of runs in words."""
        diverged = f" ({self.diverged:,} diverged)" if self.diverged else ""
        return f"{self.done:,}/{self.wanted:,} runs{diverged}"

    def table(self) -> table.Table:
        """Returns the optima so far, chosen as in the report. Each cell is the report's.

        Raises:
          ValueError: If a record lacks the metric, or another field that the protocol names.
        """
        # A copy, since a thread draws the panel while another adds records.
        optima = protocol_lib.select(list(self._records), self.protocol)
        headings, lines = rendering.format_optima(optima, self.protocol)
        # A sweep without series has a blank label in every line.
        first_column = 0 if self.protocol.series is not None else 1
        shown = table.Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for index, heading in enumerate(headings):
            if index >= first_column:
                justify = "left" if index == 0 else "right"
                shown.add_column(_Plain(heading), justify=justify, overflow="fold")
        for cells in lines:
            shown.add_row(*map(_Plain, cells[first_column:]))
        return shown


class Display(Observer):
    """Shows a sweep's progress on stderr: a panel in a terminal, elsewhere a line now and then.

    Args:
      sweep: The sweep, whose runs can be planned.
    """

    def __init__(self, sweep: Sweep):
        self._state, self._tally = sweep.state, Tally(sweep)
        self._title = " ".join(markup.printable(sweep.title).split())
        # Training examples of the runs that are left.
        self._examples = {name: run.plan.num_examples for name, run in sweep.state.todo().items()}
        self._running: Sequence[training.Progress] = ()
        self._consumed = 0  # examples of the runs that ended since the start
        self._doing = ""
        self._started = self._at_start = None
        self._table: console.RenderableType | None = None  # the one shown last
        self._table_runs = 0  # number of records in that table
        self._table_due = 0.0  # time at which it may be made again
        self._encoding = getattr(sys.stderr, "encoding", None)
        self._live = None
        if sys.stderr is not None:  # it is None if standard error is closed
            terminal = console.Console(file=sys.stderr)
            if terminal.is_terminal and not terminal.is_dumb_terminal:
                self._live = live.Live(console=terminal, get_renderable=self._panel)

    def __enter__(self) -> Self:
        if self._live:
            self._live.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self._doing = ""
        if error[0] is None or self._started is not None:
            self._print(self.line())
        if self._live:
            self._table_due = 0.0  # the last panel, which stays, holds all records
            self._live.__exit__(*error)

    def say(self, doing: str) -> None:
        if doing != self._doing:
            self._doing = doing
            self._print(self.line())
            if self._live:
                self._live.refresh()  # or what lasts less than a quarter of a second is not seen

    def note(self, text: str) -> None:
        if self._live:
            self._live.console.print(_Plain(text))
        self._print(text)

    def extended(self, runs: Mapping[str, Mapping]) -> None:
        self._tally.wanted += len(runs)
        planned = self._state.runs()
        for name in runs:
            self._examples[name] = planned[name].plan.num_examples
            # Another worker may have trained it before this process knew of it. Such a run says
            # nothing about the speed from now on.
            if name in self._state.records_by_id:
                del self._examples[name]
                self._tally.add(self._state.records_by_id[name])

    def progress(self, running: Sequence[training.Progress]) -> None:
        self._running, self._doing = running, ""
        if self._started is None:  # compilation came before
            self._started, self._at_start = time.monotonic(), self._trained()
            self._printed = self._started
        elif time.monotonic() - self._printed > _LINE_SECONDS:
            self._print(self.line())

    def finished(self, record: Record) -> None:
        self._running = [other for other in self._running if other.run.id != record.run_id]
        self._consumed += record.num_examples or 0
        self._examples.pop(record.run_id, None)
        self._tally.add(record)

    def line(self) -> str:
        """Returns runs done, speed, time left and evaluations of runs in training in words."""
        words = [self._tally.line()]
        rate = self._rate()
        if rate:
            words.append(f"{rate:,.0f} examples/s")
            left = sum(self._examples.values()) - sum(run.examples for run in self._running)
            if left > 0:
                words.append(f"{duration(left / rate)} left")
        if self._doing:
            words.append(self._doing)
        return ", ".join([*words, *self._describe_evaluations()])

    def _describe_evaluations(self):
        """Returns the metric at the last evaluations of runs in training: one phrase or none."""
        metric = self._tally.protocol.metric
        curves = [running.curve.get(metric.name) for running in self._running]
        values = [metric.factor * curve[-1] for curve in curves if curve]
        values = [f"{value:.4g}" for value in sorted(values) if math.isfinite(value)]
        if not values:
            return []
        span = values[0] if values[0] == values[-1] else f"{values[0]} to {values[-1]}"
        unit = f" {markup.visible(metric.unit)}" if metric.unit else ""
        return [f"{formatting.display_name(metric.name)} {span}{unit} in training"]

    def _rate(self):
        """Returns training examples per second, 0 before there is anything to measure."""
        if self._started is None:
            return 0
        elapsed = time.monotonic() - self._started
        return (self._trained() - self._at_start) / elapsed if elapsed > 0 else 0

    def _trained(self):
        return self._consumed + sum(run.examples for run in self._running)

    def _panel(self):
        """Returns the panel for a terminal."""
        # A run in training counts by the part of its examples that it has seen.
        done = float(self._tally.done)
        for running in self._running:
            done += running.examples / running.run.plan.num_examples
        rows = table.Table.grid()
        rows.add_row(progress_bar.ProgressBar(max(self._tally.wanted, 1), done, width=64))
        rows.add_row(_Plain(self.line()))
        self._update_table()
        is_narrow = self._live is not None and self._live.console.width < _NARROW
        if self._table is not None and not is_narrow:
            rows.add_row("")
            rows.add_row(_Plain("Best so far, as in the report:"))
            rows.add_row(self._table)
        title = text.Text(encoding.for_encoding(self._title, self._encoding))
        return panel.Panel.fit(rows, title=title, padding=(1, 2))

    def _update_table(self):
        """Makes the table of the panel again, if there are new records and it is time."""
        started = time.monotonic()
        if self._tally.done == self._table_runs or started < self._table_due:
            return
        self._table_runs = self._tally.done
        try:
            self._table = self._tally.table()
        except ValueError as error:  # older records may lack a metric: the sweep goes on
            self._table = _Plain(str(error))
        # The panel is drawn four times a second, but the table of 100,000 records takes a third of
        # a second. With this pause it takes at most 2 % of the time.
        finished = time.monotonic()
        self._table_due = finished + 50 * (finished - started)

    def _print(self, line):
        """Prints a plain line if no panel is shown."""
        if not self._live:
            self._printed = time.monotonic()
            if sys.stderr is not None:  # else `print` would take standard output
                line = encoding.for_encoding(markup.printable(line), sys.stderr.encoding)
                print(line, file=sys.stderr, flush=True)


class _Plain:
    """Renders text without styles in the characters of the terminal, with long lines folded."""

    def __init__(self, said: str):
        self._said = markup.printable(said)

    def __rich_console__(self, terminal, options):
        yield self._text(options)

    def __rich_measure__(self, terminal, options):
        return measure.Measurement.get(terminal, options, self._text(options))

    def _text(self, options):
        return text.Text(encoding.for_encoding(self._said, options.encoding), overflow="fold")


def describe_extension(
    protocol: Protocol, new: Iterable[Mapping[str, Any]], records: Iterable[Record]
) -> str:
    """Says by which values a grid is extended, in which rows, and why.

    Args:
      protocol: The protocol by which the grid is extended.
      new: The new runs.
      records: The records of all runs before.

    Returns:
      Two sentences for each field and reason, all in one line.
    """
    added = _find_added_values(protocol, new, protocol_lib.select(records, protocol))
    sentences = []
    for (name, reason), rows_by_value in added.items():
        write = formatting.number_formatter(rows_by_value)
        values = [
            f"{write(value)} at {_describe_rows(protocol, rows)}"
            for value, rows in sorted(rows_by_value.items())
        ]
        field = formatting.display_name(name)
        sentences.append(f"The grid is extended to the {field} {', '.join(values)}. {reason}")
    # A run whose tuned fields are all within the values tried was added by another protocol.
    return " ".join(sentences or ["The grid is extended for a further protocol of this sweep."])


def _find_added_values(protocol, new, optima):
    """Returns the rows that get a new value, by field and reason and then by value."""
    optima_by_row = {(optimum.series, optimum.row): optimum for optimum in optima}
    added = collections.defaultdict(lambda: collections.defaultdict(dict))
    for run in new:
        group = protocol.group(run)
        optimum = optima_by_row.get(group)
        if optimum is None:
            continue
        for name in protocol.tune:
            tried = {point.values[name] for point in optimum.points}
            end = max(tried) if run[name] > max(tried) else min(tried)
            if run[name] > max(tried) or run[name] < min(tried):
                reason = _describe_reason(name, end, tried, optimum)
                added[name, reason][run[name]][group] = None  # a dict keeps the order of the rows
    return added


def _describe_reason(name, end, tried, optimum):
    """Says why a field is extended beyond the largest or the smallest value tried."""
    if "no_value" in optimum.flags:
        return "There no run has a finite value of the metric."
    if not optimum.n:
        return "There every run diverged."
    which = "largest" if end == max(tried) else "smallest"
    quality = "the best" if optimum.values[name] == end else "as good within one standard deviation"
    return f"There the {which} {formatting.display_name(name)} tried is {quality}."


def _describe_rows(protocol, groups):
    """Names rows, those of one series together: 'noise batch size 64 and 128'."""
    rows_by_series = collections.defaultdict(list)
    for series, row in groups:
        rows_by_series[series].append(formatting.format_number(row))
    field = formatting.display_name(protocol.row)
    names = []
    for series, rows in rows_by_series.items():
        label = f"{markup.visible(series)} " if series else ""
        names.append(f"{label}{field} {_listed(rows)}")
    return _listed(names)


def _listed(words):
    """Joins words: 'a', 'a and b', 'a, b and c'."""
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last


def duration(seconds: float) -> str:
    """Returns a time as hours, minutes and seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
