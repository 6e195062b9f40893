"""Claims and heartbeats, with which workers share the runs of a sweep through its directory.

Each worker has a file `workers/<writer>.json` that lists the runs it claims and the progress of
each. The worker replaces its file about every second and removes it when it leaves. There is no
lock, no server and no common clock. If a file stays unchanged for longer than the timeout in it,
its worker counts as dead and its runs as free. If a live worker is mistaken for dead, a run may be
trained twice. Only the record that was finished first counts.

>>> import tempfile
>>> from noisegen import storage
>>> workdir = tempfile.mkdtemp()
>>> with storage.Claims(workdir) as one, storage.Claims(workdir) as other:
...     print(one.claim_all(["9f"]), other.claim_all(["9f", "a0"]))
...     one.release("9f")  # After its record is written.
{'9f'} {'a0'}
"""

import contextlib
import json
import math
import os
import pathlib
import random
import secrets
import shutil
import socket
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Self

_HEARTBEAT_SECONDS = 1.0  # Shortest time between two reports of progress.
_JITTER_SECONDS = 0.02  # Longest pause after a refused claim.
_MAX_COUNT = 2**63  # Counts of examples are below it.

# Types of the attributes of `WorkerStatus`, as they are in a file.
_KINDS = {
    "name": str,
    "host": str,
    "pid": int,
    "heartbeat": int,
    "timeout": int | float,
    "doing": str,
    "runs": dict,
    "settings": dict,
}


class WorkerStatus(NamedTuple):
    """State that a worker publishes.

    Attributes:
      name: Name of the writer, and of its file.
      host: Host and process namespace in which `pid` is valid.
      pid: Process id.
      heartbeat: Number of heartbeats so far.
      timeout: Seconds until the next heartbeat at most, unless the worker is dead.
      doing: Activity in words, "training" for example.
      runs: Examples trained so far, by run_id, of the runs that the worker claims.
      settings: Autotuned settings by what they were measured for.
    """

    name: str
    host: str
    pid: int
    heartbeat: int
    timeout: float
    doing: str
    runs: dict[str, int]
    settings: dict[str, dict]

    def is_here(self) -> bool:
        """Returns whether `pid` is a process id of this host."""
        return self.host == _host()


class Claims:
    """Claims runs for one worker and tracks the other workers of a sweep.

    A worker is visible to others after its first claim or heartbeat.

    Args:
      workdir: The directory of the sweep.
      timeout: Seconds without a heartbeat after which others may count this worker as dead.

    Attributes:
      name: Name of this worker, unique among all.
    """

    def __init__(self, workdir: str | os.PathLike, timeout: float = 300.0):
        self.name = writer_name()
        self.timeout = timeout
        self._root = pathlib.Path(workdir) / "workers"
        # What others read. Its dicts are changed in place, and published with the next heartbeat.
        self._status = WorkerStatus(
            name=self.name,
            host=_host(),
            pid=os.getpid(),
            heartbeat=0,
            timeout=timeout,
            doing="starting",
            runs={},
            settings={},
        )
        self._beaten_at = -math.inf  # Time of the last heartbeat.
        # As last read. Runs in it are not claimed again, which spares the files of other workers.
        self._claimed: set[str] = set()
        # Of each other worker the last heartbeat, and our time when we first read it. Only
        # differences of our own clock count, as clocks of hosts disagree.
        self._seen: dict[str, tuple[int, float]] = {}

    def claim_all(self, run_ids: Iterable[str]) -> set[str]:
        """Claims runs before they are trained, and returns the runs that this worker has.

        If two workers claim a run at the same moment, both may be refused, but never do both get
        it. The cost does not depend on the number of runs. One file is written, and the files of
        the other workers are read.
        """
        names = set(run_ids) - self._claimed
        if not names:
            return names
        # Writing before reading makes claims safe without a lock: of two workers that claim a run
        # at once, at least the second to write sees the claim of the first.
        self._status.runs.update(dict.fromkeys(names, 0))
        self.heartbeat()
        refused = names & self.claimed_by_others()
        if refused:
            for name in refused:
                del self._status.runs[name]
            self.heartbeat()
            # Keeps two workers that collided from colliding again at the next run.
            time.sleep(_JITTER_SECONDS * random.random())
        return names - refused

    def release(self, run_id: str) -> None:
        """Releases the claim on a recorded run. Other workers see this at the next heartbeat."""
        self._status.runs.pop(run_id, None)

    def report_progress(self, examples: Mapping[str, int]) -> bool:
        """Publishes the progress of the claimed runs if it is due.

        Args:
          examples: Examples trained so far, by run_id.

        Returns:
          Whether the progress was published.
        """
        runs = self._status.runs
        for name, count in examples.items():
            if name in runs:  # A run that has just ended is released already.
                runs[name] = count
        due = self.is_due()
        if due:
            self.heartbeat("training", self.timeout)
        return due

    def is_due(self) -> bool:
        """Returns whether progress is due: when training begins, and then about every second."""
        if self._status.doing != "training":
            return True
        elapsed = time.monotonic() - self._beaten_at
        # Ten heartbeats within a short timeout, so that a late one does no harm.
        return elapsed >= min(_HEARTBEAT_SECONDS, self.timeout / 10)

    def heartbeat(self, doing: str | None = None, timeout: float | None = None) -> None:
        """Publishes the state of this worker, which shows that it is alive.

        Args:
          doing: Activity in words. Unchanged by default.
          timeout: Seconds until the next heartbeat at most. Unchanged by default. Compiling, for
            example, needs a longer timeout than training.
        """
        self._status = self._status._replace(
            heartbeat=self._status.heartbeat + 1,
            doing=doing or self._status.doing,
            timeout=timeout or self._status.timeout,
        )
        self._beaten_at = time.monotonic()
        self._write()

    def shared_settings(self, key: str) -> dict[str, Any] | None:
        """Returns the settings that another live worker published for `key`, or None."""
        for worker in self.others():
            if key in worker.settings:
                return worker.settings[key]
        return None

    def share_settings(self, key: str, settings: Mapping[str, Any]) -> None:
        """Publishes the settings that this worker measured for `key`."""
        self._status.settings[key] = dict(settings)
        self.heartbeat()  # At once, since other workers may be about to measure the same.

    def others(self) -> list[WorkerStatus]:
        """Returns the other live workers, and removes the files of dead ones."""
        now = time.monotonic()
        alive = []
        for worker in read_workers(self._root.parent):
            if worker.name == self.name:
                continue
            # A worker that is seen for the first time, or has a new heartbeat, was alive just now.
            heartbeat, since = self._seen.get(worker.name, (None, now))
            if heartbeat != worker.heartbeat:
                since = now
            self._seen[worker.name] = (worker.heartbeat, since)
            silent_seconds = now - since
            if silent_seconds <= worker.timeout and not _is_gone(worker):
                alive.append(worker)
            else:
                # If it is alive after all, its next heartbeat writes the file again.
                self._path(worker.name).unlink(missing_ok=True)
        return alive

    def claimed_by_others(self) -> set[str]:
        """Returns the run_ids that other live workers claim."""
        self._claimed = {name for worker in self.others() for name in worker.runs}
        return self._claimed

    def close(self) -> None:
        """Releases all claims. The last worker removes the directory."""
        with contextlib.suppress(OSError):  # The file does not exist if the disk was full.
            self._path(self.name).unlink()
        if not any(self._root.glob("*.json")):
            # Removes drafts of killed workers as well.
            shutil.rmtree(self._root, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _path(self, name: str) -> pathlib.Path:
        """Returns the file of a worker."""
        return self._root / f"{name}.json"

    def _write(self) -> None:
        """Replaces this worker's file. It is not synced, since it is of no use after a crash."""
        content = self._status._asdict()
        del content["name"]  # The file's own name says it, and can be trusted.
        # Readers see the old file or the new one, never a part of it: replacing is atomic.
        draft = self._root / f".{self.name}"
        with contextlib.suppress(OSError):  # If the disk is full, the next record reports it.
            self._root.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps(content))
            draft.replace(self._path(self.name))


def read_workers(workdir: str | os.PathLike) -> list[WorkerStatus]:
    """Returns the published state of a sweep's workers, including dead ones."""
    workers = []
    for path in sorted(pathlib.Path(workdir, "workers").glob("*.json")):
        # The file may have been removed meanwhile, or may not be a worker's.
        with contextlib.suppress(OSError, ValueError, TypeError, RecursionError):
            worker = WorkerStatus(path.stem, **json.loads(path.read_text()))
            if _is_valid(worker):
                workers.append(worker)
    return workers


def _is_valid(worker: WorkerStatus) -> bool:
    """Returns whether every attribute of a worker has the right type.

    The file may be of another version, or written by hand. Whatever passes must not crash those
    who read it.
    """
    if not all(isinstance(getattr(worker, name), kind) for name, kind in _KINDS.items()):
        return False
    for count in worker.runs.values():
        # Compared by type, because a boolean is an instance of int.
        if type(count) is not int or not 0 <= count < _MAX_COUNT:
            return False
    return all(isinstance(settings, dict) for settings in worker.settings.values())


def writer_name() -> str:
    """Returns a unique name for a writer, made of host, process id and a random word."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


def has_ended(name: str) -> bool:
    """Returns whether a writer's name is that of an ended process of this host."""
    # From the right, because the name of a host may have dashes: HOST-PID-WORD.
    host, _, pid = name.rpartition("-")[0].rpartition("-")
    return host == socket.gethostname() and pid.isdecimal() and not _is_running(int(pid))


def _host() -> str:
    """Returns the host, and on Linux the container, in which process ids are valid."""
    with contextlib.suppress(OSError):  # Only Linux has /proc.
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname()


def _is_gone(worker: WorkerStatus) -> bool:
    """Returns whether a worker's process is known to have ended, without waiting for a timeout."""
    return worker.is_here() and not _is_running(worker.pid)


def _is_running(pid: int) -> bool:
    """Returns whether a process of this host is running. A zombie is not."""
    try:
        os.kill(pid, 0)  # Sends nothing, but fails if there is no such process.
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # The process belongs to another user.
        pass
    with contextlib.suppress(OSError):  # Only Linux has /proc.
        # The line reads "pid (name) state ...", and the name may hold brackets and any bytes.
        stat = pathlib.Path(f"/proc/{pid}/stat").read_bytes()
        state = stat.rpartition(b") ")[2][:1]
        return state not in (b"Z", b"X")  # Zombie, dead.
    return True
