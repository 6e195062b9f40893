"""Shows the progress of a sweep: a panel in a terminal, plain lines elsewhere.

Titles, labels and words are shown as they are: brackets in them are no styles, and characters that
the terminal lacks turn into those of ASCII.
"""

import collections
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

from rich import box, console, live, measure, panel, progress_bar, table, text

from noisegen import training
from noisegen.reports import formatting, markup
from noisegen.storage import RUN_TOTALS, Record
from noisegen.sweeps import encoding
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
    """Counts runs, done and diverged, and keeps the best run of every series and row.

    Args:
      sweep: The sweep; its records are counted.
    """

    def __init__(self, sweep: Sweep):
        self.protocol: Protocol = sweep.protocols[0]
        self.wanted = len(sweep.state.wanted)
        self.done = self.diverged = 0
        self.best: dict[tuple, Record] = {}
        for record in sweep.state.records():
            self.add(record)

    def add(self, record: Record) -> None:
        """Counts a finished run."""
        self.done += 1
        self.diverged += record.status == "diverged"
        group = self.protocol.group(record.hparams)
        if self._score(record) > self._score(self.best.get(group)):
            self.best[group] = record

    def line(self) -> str:
        """Returns the numbers of runs in words."""
        diverged = f" ({self.diverged:,} diverged)" if self.diverged else ""
        return f"{self.done:,}/{self.wanted:,} runs{diverged}"

    def table(self) -> table.Table:
        """Returns a table of the best run of every series and row so far."""
        protocol, several = self.protocol, self.protocol.series is not None
        shown = table.Table(box=box.SIMPLE_HEAD, pad_edge=False)
        if several:
            shown.add_column("", overflow="fold")
        best = f"best run's {formatting.display_name(protocol.metric)}"
        tuned = [formatting.display_name(name) for name in protocol.tune]
        for name in (formatting.display_name(protocol.row), best, *tuned):
            shown.add_column(_Plain(name), justify="right", overflow="fold")
        groups = protocol.order(self.best)
        row_as = formatting.decimal_formatter(row for _, row in groups)
        runs = [record.hparams for record in self.best.values()]
        tuned_as = {
            name: formatting.decimal_formatter(run[name] for run in runs) for name in protocol.tune
        }
        for label, row in groups:
            record = self.best[label, row]
            value = protocol.metric.factor * _metric(record, protocol.metric.name)
            size = abs(value)
            score = f"{value:.2f}" if size == 0 or 0.01 <= size < 1e9 else f"{value:.3g}"
            tuned = [tuned_as[name](record.hparams[name]) for name in protocol.tune]
            cells = (*[markup.visible(label)] * several, row_as(row), score, *tuned)
            shown.add_row(*map(_Plain, cells))
        return shown

    def _score(self, record):
        """Returns the score to maximize, -inf without a record or if the run diverged."""
        score = record and _metric(record, self.protocol.metric.name)
        if score is None or record.status == "diverged":
            return -float("inf")
        return self.protocol.sign * score


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
        self._live, self._encoding = None, getattr(sys.stderr, "encoding", None)
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
            self._live.__exit__(*error)

    def say(self, doing: str) -> None:
        if doing != self._doing:
            self._doing = doing
            self._print(self.line())

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
            if name in self._state.done:
                del self._examples[name]
                self._tally.add(self._state.done[name])

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
        """Returns runs done, speed and time left in words."""
        words = [self._tally.line()]
        rate = self._rate()
        if rate:
            left = sum(self._examples.values()) - sum(run.examples for run in self._running)
            words += [f"{rate:,.0f} examples/s"]
            words += [f"{duration(left / rate)} left"] * (left > 0)
        return ", ".join([*words, self._doing] if self._doing else words)

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
        under_way = sum(each.examples / each.run.plan.num_examples for each in self._running)
        done, wanted = self._tally.done + under_way, max(self._tally.wanted, 1)
        rows = table.Table.grid()
        rows.add_row(progress_bar.ProgressBar(wanted, done, width=64))
        rows.add_row(_Plain(self.line()))
        if self._tally.best and not (self._live and self._live.console.width < _NARROW):
            rows.add_row(self._tally.table())
        title = text.Text(encoding.for_encoding(self._title, self._encoding))
        return panel.Panel.fit(rows, title=title, padding=(1, 2))

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


def _metric(record, name):
    """Returns a metric of a record, or one of its totals, or None if it has neither."""
    return getattr(record, name) if name in RUN_TOTALS else record.metrics.get(name)


def describe_extension(
    protocol: Protocol,
    runs: Iterable[Mapping[str, Any]],
    known: Iterable[Mapping[str, Any]] | None = None,
) -> str:
    """Returns in words why a grid is extended, and by which values.

    Args:
      protocol: Names the tuned fields.
      runs: The new runs.
      known: The runs before. Without them, only values of the first tuned field are listed.
    """
    names = protocol.tune[:1] if known is None else protocol.tune
    new, old = _tuned(protocol, runs), _tuned(protocol, known or ())
    sentences = []
    for name in names:
        added = {where: values[name] - old[where][name] for where, values in new.items()}
        if written := set().union(*added.values()):
            write = formatting.number_formatter(written)
            lists = (
                f"{write(value)} at {where}" for where in added for value in sorted(added[where])
            )
            why = formatting.display_name(name)
            if name == protocol.tune[0]:
                why += ", its bar or a divergence"
            sentences.append(f"The grid ends at the best {why}; next: {', '.join(lists)}")
    return ". ".join(sentences or ["The grid grows for another protocol"])


def _tuned(protocol, runs):
    """Returns the values of each tuned field by series and row, which are named in words."""
    found = collections.defaultdict(lambda: collections.defaultdict(set))
    for run in runs:
        label, row = protocol.group(run)
        series = f"{markup.visible(label)} " if label else ""
        place = found[
            f"{series}{formatting.display_name(protocol.row)} {formatting.format_number(row)}"
        ]
        for name in protocol.tune:
            place[name].add(run[name])
    return found


def count(number: int, what: str) -> str:
    """Returns a number of things in words."""
    return f"{number:,} {what}" + "s" * (number != 1)


def duration(seconds: float) -> str:
    """Returns a time as hours, minutes and seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
