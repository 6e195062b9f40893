"""Live progress of a sweep: a panel in a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box, console, live, panel, progress_bar, table

from noisegen import sweeps, training
from noisegen.sweeps import tables

_LINE_SECONDS = 10.0  # between two plain lines


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
            shown.add_column("")
        for name in (protocol.row, f"best run's {tables.title(protocol.metric)}", *protocol.tune):
            shown.add_column(name.replace("_", " "), justify="right")
        for label, row in protocol.order(self.best):
            record = self.best[label, row]
            value = tables.scale(protocol.metric) * record["metrics"][protocol.metric]
            tuned = (tables.number(record["run"][name]) for name in protocol.tune)
            shown.add_row(*[label] * several, tables.number(row), f"{value:.2f}", *tuned)
        return shown

    def _score(self, record):
        """What is maximised; of no record, or one that diverged, the least."""
        score = record and record["metrics"].get(self.protocol.metric)
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
        self._title, self._tally = title, tally
        self._examples: dict[str, int] = {}
        self._running: Sequence[training.Progress] = ()
        self._consumed = 0  # by the runs that ended in this session
        self._doing = ""
        self._started = self._at_start = None
        terminal = console.Console(file=sys.stderr)
        self._live = None
        if terminal.is_terminal:
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

    def note(self, text: str) -> None:
        """Says something that stays on the screen."""
        if self._live:
            self._live.console.print(text, markup=False, highlight=False)
        self._print(text)

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
        rows.add_row(self.line())
        if self._tally.best:
            rows.add_row(self._tally.table())
        return panel.Panel.fit(rows, title=self._title, padding=(1, 2))

    def _print(self, line):
        """A plain line, where there is no panel."""
        if not self._live:
            self._printed = time.monotonic()
            print(line, file=sys.stderr, flush=True)


def growth(protocol: sweeps.Protocol, runs: Iterable[Mapping[str, Any]]) -> str:
    """Why a grid grows, and by which values."""
    name, added = protocol.tune[0], {}
    for run in runs:
        label, row = protocol.group(run)
        where = f"{label} {protocol.row} {tables.number(row)}".strip()
        added.setdefault(where, set()).add(run[name])
    write = tables.writer(set().union(*added.values()))
    lists = (f"{write(value)} at {where}" for where in added for value in sorted(added[where]))
    text = f"The grid ends at the best {name}, its bar or a divergence; next: {', '.join(lists)}"
    return text.replace("_", " ")


def count(number: int, what: str) -> str:
    """A number of things, in words."""
    return f"{number:,} {what}" + "s" * (number != 1)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
