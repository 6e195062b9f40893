"""Live progress of a sweep: a panel in a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import rich.console
import rich.live
import rich.text

from noisegen import sweeps, training

_LINE_SECONDS = 10.0  # between two plain lines


class Display:
    """Shows how far a sweep is: runs, speed, time left, the best run of every row so far.

    Args:
      protocol: says what is best.
      examples: training examples of each planned run, by run_id.
      records: of the runs that are done.
    """

    def __init__(
        self,
        protocol: sweeps.Protocol,
        examples: Mapping[str, int],
        records: Sequence[Mapping[str, Any]],
    ):
        self._protocol = protocol
        self._examples = dict(examples)
        self._done: set[str] = set()
        self._diverged = 0
        self._best: dict[tuple, Mapping] = {}
        self._running: Sequence[training.Progress] = ()
        for record in records:
            self.add(record)
        self._started, self._before = time.monotonic(), self._consumed()
        self._printed = self._started
        console = rich.console.Console(file=sys.stderr)
        self._live = rich.live.Live(console=console) if console.is_terminal else None

    def __enter__(self):
        if self._live:
            self._live.__enter__()
        return self

    def __exit__(self, *error):
        self._refresh(last=True)
        if self._live:
            self._live.__exit__(*error)

    def expect(self, examples: Mapping[str, int]) -> None:
        """Adds runs that are to be trained as well."""
        self._examples |= examples

    def progress(self, running: Sequence[training.Progress]) -> None:
        """Takes note of the runs in training."""
        self._running = running
        self._refresh()

    def add(self, record: Mapping[str, Any]) -> None:
        """Takes note of a finished run."""
        self._done.add(record["run_id"])
        self._diverged += record["status"] == "diverged"
        value = record["metrics"].get(self._protocol.metric)
        if record["status"] == "diverged" or value is None:
            return
        series = self._protocol.series
        key = (series(record["run"]) if series else "", record["run"][self._protocol.row])
        known = self._best.get(key)
        sign = 1 if self._protocol.mode == "max" else -1
        if known is None or sign * value > sign * known["metrics"][self._protocol.metric]:
            self._best[key] = record

    def lines(self) -> list[str]:
        """What there is to see: one line of progress, one for the best of every row."""
        elapsed = time.monotonic() - self._started
        rate = (self._consumed() - self._before) / max(elapsed, 1e-9)
        left = sum(self._examples.values()) - self._consumed()
        head = f"{len(self._done)}/{len(self._examples)} runs"
        if self._diverged:
            head += f" ({self._diverged} diverged)"
        if rate > 0:
            head += f", {rate:,.0f} examples/s, {duration(left / rate)} left"
        return [head, *(self._best_line(key) for key in sorted(self._best))]

    def _best_line(self, key):
        record, protocol = self._best[key], self._protocol
        tuned = ", ".join(f"{name} {record['run'][name]:.4g}" for name in protocol.tune)
        value = record["metrics"][protocol.metric]
        series = f"{key[0]}, " if key[0] else ""
        return f"  {series}{protocol.row} {key[1]}: best {protocol.metric} {value:.4f} at {tuned}"

    def _consumed(self):
        done = sum(self._examples.get(name, 0) for name in self._done)
        return done + sum(run.examples for run in self._running)

    def _refresh(self, last=False):
        if self._live:
            self._live.update(rich.text.Text("\n".join(self.lines())))
        elif last or time.monotonic() - self._printed > _LINE_SECONDS:
            self._printed = time.monotonic()
            print(self.lines()[0], file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
