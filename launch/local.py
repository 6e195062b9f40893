"""Workers on this host: a process for each accelerator, or for each group of processor cores.

A group is the cores that share a last-level cache. The first worker measures and compiles alone;
the others then find its settings and a compilation cache that is warm. The workers need nothing of
the process that starts them: killed, it leaves them at work.
"""

import collections
import contextlib
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from launch import command, display
from launch.ledger import Ledger
from launch.worker import COMPILING
from noisegen import sweeps
from noisegen._math import ceil_div

_RESTARTS = 3  # of each worker
_POLL = 0.2  # seconds
_GRACE = 30.0  # seconds in which a worker that has to stop keeps its runs
_MEMORY = 0.9  # of an accelerator, for all the workers on it
_FRACTIONS = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")
_ASK = "import jax; print(jax.default_backend(), jax.local_device_count())"


class Place(NamedTuple):
    """Where a worker runs.

    Attributes:
      cores: of the processor; none where they cannot be chosen.
      environment: variables that show it its accelerator.
    """

    cores: tuple[int, ...]
    environment: dict[str, str]


class Workers:
    """Starts workers, shows what all of them do, and starts those again that die or hang.

    Args:
      ledger: what there is to do.
      workdir: the directory of the sweep; what the workers print goes to `logs/` there.
      places: one for each worker.
      patience: seconds of silence after which a worker is taken for dead.
    """

    def __init__(self, ledger: Ledger, workdir: str, places: Sequence[Place], patience: float):
        self._ledger, self._places, self._patience = ledger, places, patience
        self._logs = pathlib.Path(workdir).absolute() / "logs"
        self._crew = sweeps.Crew(workdir)
        self._processes: dict[int, subprocess.Popen] = {}
        self._silent_at: dict[int, float] = {}  # when to take a worker's silence for death
        self._starts = collections.Counter()

    def run(self) -> None:
        """Works until every wanted run has its record.

        Raises:
          ChildProcessError: a worker met an error that the user can mend, or all died too often.
        """
        with command.signals(command.interrupt), self._ledger.show, contextlib.ExitStack() as stack:
            stack.callback(self._stop)
            if self._ledger.todo():
                several = display.count(len(self._places), "worker")
                self._ledger.show.note(f"{several}, of which {self._logs} has what they print")
                self._start(0)
            while self._processes:
                time.sleep(_POLL)
                workers = self._crew.others()
                self._ledger.watch(workers)
                here = (worker for worker in workers if worker.is_here())
                self._look_after({worker.pid: worker for worker in here})
            self._ledger.read()
            if left := self._ledger.todo():
                raise ChildProcessError(
                    f"{len(left)} runs are left, as the workers died too often, or were killed for "
                    f"their silence; see above and {self._logs}. The same command goes on."
                )

    def _start(self, index):
        """Starts a worker, anew if it was there before."""
        place = self._places[index]
        share = f"--share={index}/{len(self._places)}"
        self._logs.mkdir(exist_ok=True)
        with self._log(index).open("ab") as log, _on_cores(place.cores):
            self._processes[index] = subprocess.Popen(
                command.worker(share, "--noreport"),
                env=os.environ | place.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # so that Ctrl-C reaches this process alone
            )
        self._starts[index] += 1
        self._silent_at[index] = time.monotonic() + COMPILING * self._patience

    def _look_after(self, workers):
        """Starts those that are to be started, ends those that hang."""
        for index, process in list(self._processes.items()):
            if process.poll() is not None:
                del self._processes[index]
                self._ended(index, process.returncode)
            elif worker := workers.get(process.pid):
                # Alive; and when it has left its file, it should be gone as soon.
                self._silent_at[index] = time.monotonic() + self._patience
                if worker.doing == "training":
                    self._start_others()
            elif time.monotonic() > self._silent_at[index]:
                self._ledger.show.note(
                    f"worker {index} gives no sign of life and is killed; if it was evaluating, or "
                    f"compiling, --patience={self._patience:g} is too short for that"
                )
                process.kill()

    def _start_others(self):
        for index in range(len(self._places)):
            if not self._starts[index] and self._ledger.todo():
                self._start(index)

    def _ended(self, index, code):
        """What follows when a worker has ended."""
        if code == 0:
            self._start_others()
            return
        last = (
            self._log(index)
            .read_text(encoding="utf-8", errors="replace")
            .strip()
            .rpartition("\n")[2]
        )
        if code == 1 and last.startswith("error: "):
            raise ChildProcessError(f"worker {index}: {last.removeprefix('error: ')}")
        again = self._starts[index] <= _RESTARTS
        self._ledger.show.note(
            f"worker {index} ended with exit code {code} ({self._log(index)}); "
            + ("it is started again" if again else "it is not started again")
        )
        if again:
            self._start(index)
        self._start_others()

    def _stop(self):
        """Ends the workers, with time to keep their runs."""
        for process in self._processes.values():
            process.terminate()
        deadline = time.monotonic() + _GRACE
        for process in self._processes.values():
            try:
                process.wait(max(0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _log(self, index):
        return self._logs / f"worker-{index}.log"


def places(workers: str = "auto") -> list[Place]:
    """Where to run so many workers; `auto` is one for each accelerator or group of cores.

    From then on this process leaves the accelerators to them.

    Raises:
      ValueError: it is no such number.
    """
    if workers != "auto" and not (workers.isdecimal() and int(workers)):
        raise ValueError(f"--workers={workers} must be 'auto' or a number of at least 1.")
    count = 0 if workers == "auto" else int(workers)
    asked = subprocess.run(
        [sys.executable, "-c", _ASK], capture_output=True, encoding="utf-8", errors="replace"
    )
    if asked.returncode:
        raise ChildProcessError(command.no_devices(asked.stderr))
    backend, devices = asked.stdout.split()[-2:]
    jax.config.update("jax_platforms", "cpu")
    if backend == "tpu":
        return [Place((), {})]  # one process drives all the chips of a host
    groups = _groups()
    if backend == "cpu":
        count = count or len(groups)
        return [Place(cores, {}) for cores in _dealt(groups, count)]
    count = count or int(devices)
    cores = _dealt(groups, count)
    return [Place(cores[i], _accelerator(i, count, int(devices))) for i in range(count)]


def memory(part: float) -> dict[str, str]:
    """The variable that gives a worker part of an accelerator's memory, unless the user set it."""
    if any(name in os.environ for name in _FRACTIONS):
        return {}
    return {_FRACTIONS[0]: f"{_MEMORY * part:.3f}"}


def _groups():
    """The cores that this process may use, by the last-level cache that they share."""
    if not hasattr(os, "sched_getaffinity"):
        return [()]
    groups = {}
    for core in sorted(os.sched_getaffinity(0)):
        path = pathlib.Path(f"/sys/devices/system/cpu/cpu{core}/cache/index3/shared_cpu_list")
        groups.setdefault(path.read_text() if path.exists() else "", []).append(core)
    return [tuple(group) for group in groups.values()]


def _dealt(groups, count):
    """The cores of each of `count` workers, those of a group together."""
    if len(groups) == count or groups == [()]:
        return groups * (count // len(groups))
    cores = [core for group in groups for core in group]
    if count > len(cores):
        return [(cores[i % len(cores)],) for i in range(count)]
    return [tuple(part.tolist()) for part in np.array_split(cores, count)]


def _accelerator(index, count, devices):
    """The variables that show a worker one accelerator, and how much of its memory is its own."""
    environment = {}
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        visible = (os.environ.get(name) or ",".join(map(str, range(devices)))).split(",")
        environment[name] = visible[index % devices]
    if count > devices:
        environment |= memory(1 / ceil_div(count, devices))
    return environment


@contextlib.contextmanager
def _on_cores(cores):
    """Has the processes that are started meanwhile use these cores only."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
