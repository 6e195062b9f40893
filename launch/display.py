"""Live progress of a sweep: a panel in a terminal, plain lines elsewhere.

Titles, labels and words are shown as they are: brackets in them are no styles, and characters that
the terminal lacks turn into those of ASCII.
"""

import collections
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box, console, live, measure, panel, progress_bar, table, text

from launch import encoding
from noisegen import sweeps, training
from noisegen.reports import formatting, markup

_LINE_SECONDS = 10.0  # between two plain lines
_NARROW = 40  # columns of a terminal in which a table would be torn


class Tally:
    """How far a sweep is: runs done, runs diverged, the best run of every series and row.

    Args:
      protocol: says what is best.
      wanted: number of runs of the whole sweep.
      records: of the runs that are done.
    """

    def __init__(
        self, protocol: sweeps.Protocol, wanted: int, records: Iterable[Mapping[str, Any]]
    ):
        self.protocol = protocol
        self.wanted = wanted
        self.done = self.diverged = 0
        self.best: dict[tuple, Mapping] = {}
        for record in records:
            self.add(record)

    def add(self, record: Mapping[str, Any]) -> None:
        """Takes note of a finished run."""
        self.done += 1
        self.diverged += record["status"] == "diverged"
        group = self.protocol.group(record["run"])
        if self._score(record) > self._score(self.best.get(group)):
            self.best[group] = record

    def line(self) -> str:
        """Runs done and diverged, in words."""
        diverged = f" ({self.diverged:,} diverged)" if self.diverged else ""
        return f"{self.done:,}/{self.wanted:,} runs{diverged}"

    def table(self) -> table.Table:
        """The best run of every series and row so far."""
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
        runs = [record["run"] for record in self.best.values()]
        tuned_as = {
            name: formatting.decimal_formatter(run[name] for run in runs) for name in protocol.tune
        }
        for label, row in groups:
            record = self.best[label, row]
            value = protocol.metric.factor * _metric(record, protocol.metric.name)
            size = abs(value)
            score = f"{value:.2f}" if size == 0 or 0.01 <= size < 1e9 else f"{value:.3g}"
            tuned = [tuned_as[name](record["run"][name]) for name in protocol.tune]
            cells = (*[markup.visible(label)] * several, row_as(row), score, *tuned)
            shown.add_row(*map(_Plain, cells))
        return shown

    def _score(self, record):
        """What is maximised; of no record, or one that diverged, the least."""
        score = record and _metric(record, self.protocol.metric.name)
        if score is None or record["status"] == "diverged":
            return -float("inf")
        return self.protocol.sign * score


class Display:
    """Shows a tally, and how fast it grows.

    Args:
      title: of the sweep.
      tally: of the runs that are done.
    """

    def __init__(self, title: str, tally: Tally):
        self._title, self._tally = " ".join(markup.printable(title).split()), tally
        self._examples: dict[str, int] = {}
        self._running: Sequence[training.Progress] = ()
        self._consumed = 0  # by the runs that ended in this session
        self._doing = ""
        self._started = self._at_start = None
        self._live, self._encoding = None, getattr(sys.stderr, "encoding", None)
        if sys.stderr is not None:  # which it is where standard error is closed
            terminal = console.Console(file=sys.stderr)
            if terminal.is_terminal and not terminal.is_dumb_terminal:
                self._live = live.Live(console=terminal, get_renderable=self._panel)

    def __enter__(self):
        if self._live:
            self._live.__enter__()
        return self

    def __exit__(self, *error):
        self._doing = ""
        if error[0] is None or self._started is not None:
            self._print(self.line())
        if self._live:
            self._live.__exit__(*error)

    def say(self, doing: str) -> None:
        """Shows what is being done while no run is trained."""
        if doing != self._doing:
            self._doing = doing
            self._print(self.line())

    def note(self, said: str) -> None:
        """Says something that stays on the screen."""
        if self._live:
            self._live.console.print(_Plain(said))
        self._print(said)

    def expect(self, examples: Mapping[str, int]) -> None:
        """Announces the runs that are trained next: training examples by run_id."""
        self._examples = dict(examples)
        self._tally.wanted = self._tally.done + len(examples)

    def progress(self, running: Sequence[training.Progress]) -> None:
        """Takes note of the runs in training."""
        self._running, self._doing = running, ""
        if self._started is None:  # what went before was compilation
            self._started, self._at_start = time.monotonic(), self._trained()
            self._printed = self._started
        elif time.monotonic() - self._printed > _LINE_SECONDS:
            self._print(self.line())

    def add(self, record: Mapping[str, Any]) -> None:
        """Takes note of a finished run."""
        self._running = [other for other in self._running if other.run != record["run"]]
        self._consumed += record.get("num_examples") or 0
        self._examples.pop(record["run_id"], None)
        self._tally.add(record)

    def line(self) -> str:
        """How far, how fast, how long to go."""
        words = [self._tally.line()]
        rate = self._rate()
        if rate:
            left = sum(self._examples.values()) - sum(run.examples for run in self._running)
            words += [f"{rate:,.0f} examples/s"]
            words += [f"{duration(left / rate)} left"] * (left > 0)
        return ", ".join([*words, self._doing] if self._doing else words)

    def _rate(self):
        """Training examples per second; 0 before there is anything to measure."""
        if self._started is None:
            return 0
        elapsed = time.monotonic() - self._started
        return (self._trained() - self._at_start) / elapsed if elapsed > 0 else 0

    def _trained(self):
        return self._consumed + sum(run.examples for run in self._running)

    def _panel(self):
        """What a terminal shows."""
        under_way = sum(run.examples / run.num_examples for run in self._running)
        done, wanted = self._tally.done + under_way, max(self._tally.wanted, 1)
        rows = table.Table.grid()
        rows.add_row(progress_bar.ProgressBar(wanted, done, width=64))
        rows.add_row(_Plain(self.line()))
        if self._tally.best and not (self._live and self._live.console.width < _NARROW):
            rows.add_row(self._tally.table())
        title = text.Text(encoding.for_encoding(self._title, self._encoding))
        return panel.Panel.fit(rows, title=title, padding=(1, 2))

    def _print(self, line):
        """A plain line, where there is no panel."""
        if not self._live:
            self._printed = time.monotonic()
            if sys.stderr is not None:  # else `print` would take standard output
                line = encoding.for_encoding(markup.printable(line), sys.stderr.encoding)
                print(line, file=sys.stderr, flush=True)


class _Plain:
    """Text without styles, in the characters of the terminal; long lines are folded."""

    def __init__(self, said: str):
        self._said = markup.printable(said)

    def __rich_console__(self, terminal, options):
        yield self._text(options)

    def __rich_measure__(self, terminal, options):
        return measure.Measurement.get(terminal, options, self._text(options))

    def _text(self, options):
        return text.Text(encoding.for_encoding(self._said, options.encoding), overflow="fold")


def _metric(record, name):
    """Reads a metric of a record, or a number beside these; None if there is none."""
    return record.get(name) if name in sweeps.RECORDED else record["metrics"].get(name)


def growth(
    protocol: sweeps.Protocol,
    runs: Iterable[Mapping[str, Any]],
    known: Iterable[Mapping[str, Any]] | None = None,
) -> str:
    """Says why a grid grows, and by which values.

    Args:
      protocol: Says what is tuned.
      runs: The new runs.
      known: The runs before; without them only the values of the first tuned field are listed.
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
    """Finds the values of each tuned field at each series and row, which are named in words."""
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
    """A number of things, in words."""
    return f"{number:,} {what}" + "s" * (number != 1)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
