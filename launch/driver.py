"""Drives the workers of a sweep: starts them, shows their progress, restarts the dead, stops all.

An executor starts them as processes of this host (`local`) or as tasks of Ray (`ray`). The driver
schedules nothing. Workers share the runs through the sweep's directory and do not need the driver:
if it is killed, local workers finish the sweep.
"""

import collections
import contextlib
import dataclasses
import json
import pathlib
import sys
import time
from typing import Any, NamedTuple, Protocol

from noisegen import storage
from noisegen._text import count
from noisegen.sweeps import Sweep, signals
from noisegen.sweeps.progress import Observer
from noisegen.sweeps.worker import COMPILE_TIMEOUT_FACTOR, WorkerOptions, extend_and_list, watch

_POLL_SECONDS = 0.2


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkerCommand:
    """The command of a worker that an executor starts.

    Attributes:
      workdir: Directory of the sweep, which the driver has begun.
      experiment: The experiment's file, with its scale after a colon.
      options: Options of every worker, except for its share.
    """

    workdir: str
    experiment: str
    options: WorkerOptions

    def options_of(self, index: int, num_workers: int) -> dict[str, Any]:
        """Returns the options of one worker, as JSON can hold them."""
        return dataclasses.asdict(self.options) | {"share": (index, num_workers)}

    def words(self, index: int, num_workers: int) -> list[str]:
        """Returns the command of one worker."""
        return [
            *(sys.executable, "-m", f"{__package__}.worker"),
            f"--workdir={self.workdir}",
            f"--experiment={self.experiment}",
            f"--options={json.dumps(self.options_of(index, num_workers))}",
        ]

    def log(self, index: int) -> pathlib.Path:
        """Returns the file for the output of one worker."""
        return pathlib.Path(self.workdir).absolute() / "logs" / f"worker-{index}.log"


class Exit(NamedTuple):
    """The end of a worker.

    Attributes:
      reason: Exit code, or another reason, in words.
      error: The one-line error that the user can correct, or None.
      ok: Whether the worker had nothing more to do.
    """

    reason: str = "exit code 0"
    error: str | None = None
    ok: bool = True


def make_exit(code: int, log: pathlib.Path) -> Exit:
    """Returns the end of a worker from its exit code and the last line of its output."""
    if code == 0:
        return Exit()
    last = log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
    # A worker that ends with a traceback, and so should be restarted, has code 1 as well.
    is_error = code == 1 and last.startswith("error: ")
    return Exit(f"exit code {code}", last.removeprefix("error: ") if is_error else None, ok=False)


class Executor(Protocol):
    """Starts the workers of a sweep.

    Attributes:
      command: The command of the workers.
      num_workers: Number of workers.
      max_restarts: Number of times that the driver restarts each worker.
      can_kill: Whether the executor can find and kill a worker that hangs.
    """

    command: WorkerCommand
    num_workers: int
    max_restarts: int
    can_kill: bool

    def start(self, index: int) -> None:
        """Starts a worker, or starts it again."""

    def poll(self) -> dict[int, Exit]:
        """Returns the workers, by index, that have ended since the last call."""

    def find(self, status: storage.WorkerStatus) -> int | None:
        """Returns the index of the worker with a heartbeat, or None if that is not known."""

    def kill(self, index: int) -> None:
        """Kills a worker that hangs."""

    def stop(self) -> None:
        """Stops all workers, with time to checkpoint their runs."""


class Driver:
    """Drives workers until every wanted run has its record.

    The first worker starts alone. Once it trains, the others start and find its settings and
    compiled programs.

    Args:
      sweep: The sweep, whose directory is begun (see `Sweep.begun`).
      executor: Starts the workers.
      observer: Receives the progress.
    """

    def __init__(self, sweep: Sweep, executor: Executor, observer: Observer):
        self._sweep, self._executor, self._observer = sweep, executor, observer
        self._log = executor.command.log
        self._timeout = executor.command.options.heartbeat_timeout
        self._claims = storage.Claims(sweep.workdir)  # only observes the workers
        self._running: dict[int, float] = {}  # index -> time at which the worker counts as hung
        self._starts: collections.Counter[int] = collections.Counter()  # of each worker

    def run(self) -> None:
        """Works until every wanted run has its record.

        Raises:
          ChildProcessError: If a worker met an error that the user can correct, or all workers
            died too often.
          KeyboardInterrupt: On Ctrl-C, after the workers have checkpointed their runs.
        """
        with signals.on_stop(signals.interrupt), self._observer, contextlib.ExitStack() as stack:
            stack.callback(self._executor.stop)  # whatever happens, no worker outlives this
            if extend_and_list(self._sweep, self._observer):
                self._begin()
            while self._running:
                time.sleep(_POLL_SECONDS)
                workers = self._claims.others()
                self._show(workers)
                self._handle_exits()
                if self._executor.can_kill:
                    self._kill_hung(workers)
                # Its settings and compiled programs are there for the others to find.
                if any(worker.doing == "training" for worker in workers):
                    self._start_others()
            self._show(())  # records since the last look
            left = extend_and_list(self._sweep, self._observer)
            if left:
                raise ChildProcessError(
                    f"{count(len(left), 'run')} left, because workers died too often or gave no "
                    f"heartbeat; see {self._log(0).parent}. The same command resumes the sweep."
                )

    def _begin(self):
        """Starts the first worker."""
        logs = self._log(0).parent
        logs.mkdir(exist_ok=True)
        workers = count(self._executor.num_workers, "worker")
        self._observer.note(f"{workers}, with output in {logs}")
        self._start(0)

    def _start(self, index):
        self._executor.start(index)
        self._starts[index] += 1
        # It has no heartbeat until it has imported JAX, and then compiles.
        self._running[index] = time.monotonic() + COMPILE_TIMEOUT_FACTOR * self._timeout

    def _start_others(self):
        """Starts each worker that has not started yet, as long as runs are left."""
        for index in range(self._executor.num_workers):
            if not self._starts[index] and self._sweep.state.todo():
                self._start(index)

    def _show(self, workers):
        """Shows the observer new records and the runs in training."""
        for record in self._sweep.state.refresh():
            self._observer.finished(record)
        extend_and_list(self._sweep, self._observer)  # notes extensions of the grid
        watch(self._sweep, self._observer, workers)

    def _handle_exits(self):
        """Restarts workers that died. If one needs no restart, the next one starts."""
        for index, end in self._executor.poll().items():
            del self._running[index]
            if end.error:  # others would meet it, too
                raise ChildProcessError(f"worker {index}: {end.error}")
            restart = not end.ok and self._starts[index] <= self._executor.max_restarts
            if not end.ok:
                consequence = "is restarted" if restart else "is not restarted"
                self._observer.note(
                    f"worker {index} died with {end.reason} and {consequence} ({self._log(index)})"
                )
            if restart:
                self._start(index)
            else:
                self._start_others()

    def _kill_hung(self, workers):
        """Kills workers without a heartbeat. `poll` then returns them among the dead."""
        for worker in workers:
            index = self._executor.find(worker)
            if index in self._running:
                # Others count a worker as dead after its timeout, and remove its file. From then
                # on it is not among `workers`.
                self._running[index] = time.monotonic() + self._timeout
        for index, deadline in self._running.items():
            if time.monotonic() > deadline:
                self._observer.note(
                    f"worker {index} gave no heartbeat and is killed; if it was compiling or "
                    f"evaluating, --heartbeat_timeout={self._timeout:g} is too short"
                )
                self._executor.kill(index)
                # Until `poll` returns it, it is not to be killed again.
                self._running[index] = time.monotonic() + self._timeout
