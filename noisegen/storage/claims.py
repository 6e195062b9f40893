"""Claims and heartbeats: how the workers of a sweep share its runs through its directory.

A sweep's directory holds `workers/<writer>.json`. Its writer replaces it about every second while
it works and removes it when it leaves. The file says which runs the worker claims and how far each
is. There is no lock, no server and no common clock. A worker counts as dead, and its runs as free,
when its file does not change for as long as it promised. If a live worker is mistaken for dead, a
run may be trained twice, and readers take the record that was finished first.

>>> import tempfile
>>> from noisegen import storage
>>> workdir = tempfile.mkdtemp()
>>> with storage.Claims(workdir) as one, storage.Claims(workdir) as other:
...     print(one.claim("9f"), other.claim("9f"), other.claim("a0"))
...     one.release("9f")  # its record is written
True False True
"""

import contextlib
import json
import os
import pathlib
import random
import secrets
import shutil
import socket
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Self

_HEARTBEAT_SECONDS = 1.0  # between two heartbeats, at least
_KINDS = (str, str, int, int, int | float, str, dict, dict)  # of a worker's attributes
_JITTER_SECONDS = 0.02  # after which two workers that claimed one run at once try another


class WorkerStatus(NamedTuple):
    """The state that a worker publishes.

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
        self.name, self.timeout = writer_name(), timeout
        self._root = pathlib.Path(workdir) / "workers"
        self._self = WorkerStatus(self.name, _host(), os.getpid(), 0, timeout, "starting", {}, {})
        self._beaten_at = -float("inf")
        self._claimed: set[str] = set()  # by others, at the last look
        self._seen: dict[str, tuple[int, float]] = {}  # last heartbeat, and when it was first seen

    def claim(self, run_id: str) -> bool:
        """Claims a run before it is trained; returns whether this worker has it.

        Of two workers that claim a run at the same moment both may be refused, but never will
        both be given the run.
        """
        return bool(self.claim_all([run_id]))

    def claim_all(self, run_ids: Iterable[str]) -> set[str]:
        """Claims several runs at once; returns those that this worker has.

        The cost does not depend on their number: one file is written and those of others are read.
        """
        names = set(run_ids) - self._claimed
        if not names:
            return names
        self._self.runs.update(dict.fromkeys(names, 0))
        self.heartbeat()
        refused = names & self.claimed_by_others()
        if refused:
            for name in refused:
                del self._self.runs[name]
            self.heartbeat()
            time.sleep(_JITTER_SECONDS * random.random())
        return names - refused

    def release(self, run_id: str) -> None:
        """Releases the claim on a recorded run. Others see this at the next heartbeat."""
        self._self.runs.pop(run_id, None)

    def report_progress(self, examples: Mapping[str, int]) -> bool:
        """Publishes the examples trained so far of the claimed runs, by run_id, if it is due.

        Returns:
          Whether it was published.
        """
        known = self._self.runs
        known.update({name: count for name, count in examples.items() if name in known})
        due = self.is_due()
        if due:
            self.heartbeat("training", self.timeout)
        return due

    def is_due(self) -> bool:
        """Returns whether progress is to be published: when training begins, then each second."""
        begins = self._self.doing != "training"
        since = time.monotonic() - self._beaten_at
        return begins or since >= min(_HEARTBEAT_SECONDS, self.timeout / 10)

    def heartbeat(self, doing: str | None = None, timeout: float | None = None) -> None:
        """Gives a sign of life.

        Args:
          doing: Activity in words, by default as before.
          timeout: Seconds until the next heartbeat at most, by default as before. Compiling, for
            example, takes longer than usual.
        """
        self._self = self._self._replace(
            heartbeat=self._self.heartbeat + 1,
            doing=doing or self._self.doing,
            timeout=timeout or self._self.timeout,
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
        self._self.settings[key] = dict(settings)
        self.heartbeat()

    def others(self) -> list[WorkerStatus]:
        """Returns the other live workers, and removes the files of the dead."""
        now, alive = time.monotonic(), []
        for worker in read_workers(self._root.parent):
            if worker.name == self.name:
                continue
            heartbeat, since = self._seen.get(worker.name, (None, now))
            if heartbeat != worker.heartbeat:
                since = now
            self._seen[worker.name] = worker.heartbeat, since
            if now - since <= worker.timeout and not _is_gone(worker):
                alive.append(worker)
            else:
                self._path(worker.name).unlink(missing_ok=True)
        return alive

    def claimed_by_others(self) -> set[str]:
        """Returns the run_ids that other live workers claim."""
        self._claimed = {name for worker in self.others() for name in worker.runs}
        return self._claimed

    def close(self) -> None:
        """Releases all claims. The last worker removes the directory."""
        with contextlib.suppress(OSError):  # if none could be written
            self._path(self.name).unlink()
        if not any(self._root.glob("*.json")):
            shutil.rmtree(self._root, ignore_errors=True)  # drafts of killed workers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _path(self, name):
        return self._root / f"{name}.json"

    def _write(self):
        """Replaces this worker's file. It is not synced to the disk, being worth nothing later."""
        content = self._self._asdict()
        del content["name"]
        draft = self._root / f".{self.name}"
        # On a full disk, the next record reports the error.
        with contextlib.suppress(OSError):
            self._root.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps(content))
            draft.replace(self._path(self.name))


def read_workers(workdir: str | os.PathLike) -> list[WorkerStatus]:
    """Returns the published state of a sweep's workers, dead ones included."""
    found = []
    for path in sorted(pathlib.Path(workdir, "workers").glob("*.json")):
        # The file may be gone by now, or be of another kind.
        with contextlib.suppress(OSError, ValueError, TypeError, RecursionError):
            worker = WorkerStatus(path.stem, **json.loads(path.read_text()))
            if _is_whole(worker):
                found.append(worker)
    return found


def _is_whole(worker):
    """Returns whether every attribute is of the right kind."""
    return (
        all(isinstance(value, kind) for value, kind in zip(worker, _KINDS, strict=True))
        and all(type(count) is int and 0 <= count < 2**63 for count in worker.runs.values())
        and all(isinstance(settings, dict) for settings in worker.settings.values())
    )


def writer_name() -> str:
    """Returns a name that no other writer has: host, process id and a random word."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


def has_ended(name: str) -> bool:
    """Returns whether a writer, by name, was a process of this host that has ended."""
    host, _, pid = name.rpartition("-")[0].rpartition("-")
    return host == socket.gethostname() and pid.isdecimal() and not _is_running(int(pid))


def _host():
    """Returns where process ids are valid: the host, and on Linux the container."""
    with contextlib.suppress(OSError):
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname()


def _is_gone(worker):
    """Returns whether a worker's process is known to have ended."""
    return worker.is_here() and not _is_running(worker.pid)


def _is_running(pid):
    """Returns whether a process of this host is running. A zombie is not."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # a process of another user
        pass
    with contextlib.suppress(OSError):  # only Linux has /proc
        state = pathlib.Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1]
        return state not in (b"Z", b"X")
    return True
