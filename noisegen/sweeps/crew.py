"""Who else works on a sweep: heartbeats, and claims to runs.

A sweep's directory holds `workers/<writer>.json`, which its writer replaces every second or so
while it works and removes when it leaves: the runs that it claims and how far each is. There is no
lock, no server and no common clock: a worker is taken for dead, and its runs are free, when it is
seen not to change its file for as long as it promised to. One wrongly taken for dead harms nothing:
its runs are trained twice and have two records, of which readers take one.

>>> import tempfile
>>> from noisegen import sweeps
>>> workdir = tempfile.mkdtemp()
>>> with sweeps.Crew(workdir) as one, sweeps.Crew(workdir) as other:
...     print(one.claim("9f"), other.claim("9f"), other.claim("a0"))
...     one.release("9f")  # which has its record
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

_BEAT = 1.0  # seconds between two beats, at least
_KINDS = (str, str, int, int, int | float, str, dict, dict)  # of a worker's attributes
_JITTER = 0.02  # seconds, within which two that claimed one run at once try another


class Worker(NamedTuple):
    """What a worker says of itself.

    Attributes:
      name: of the writer, and of its file.
      place: host and process namespace, in which `pid` is its process.
      pid: number of its process.
      beat: counts its signs of life.
      patience: seconds within which the next one comes, unless it is dead.
      doing: in words, "training" for example.
      runs: examples trained so far, by run_id, of the runs that it claims.
      settings: speed settings that it uses, by what they were chosen for.
    """

    name: str
    place: str
    pid: int
    beat: int
    patience: float
    doing: str
    runs: dict[str, int]
    settings: dict[str, dict]

    def is_here(self) -> bool:
        """Returns whether `pid` is that of a process of this host."""
        return self.place == _place()


class Crew:
    """The workers of a sweep, as one of them sees them; one that never claims nor beats is unseen.

    Args:
      workdir: the directory of the sweep.
      patience: seconds without a sign of life after which others may take this worker for dead.

    Attributes:
      name: of this worker, unlike all others.
    """

    def __init__(self, workdir: str | os.PathLike, patience: float = 300.0):
        self.name, self.patience = writer_name(), patience
        self._root = pathlib.Path(workdir) / "workers"
        self._self = Worker(self.name, _place(), os.getpid(), 0, patience, "starting", {}, {})
        self._beaten_at = -float("inf")
        self._claimed: set[str] = set()  # by others, when last looked at
        self._seen: dict[str, tuple[int, float]] = {}  # last beat, and when it was first seen

    def claim(self, name: str) -> bool:
        """Claims a run, unless another worker has it; to be told before it is trained.

        Two that claim a run at the same moment may both be refused, never both be given it.
        """
        return bool(self.claim_all([name]))

    def claim_all(self, names: Iterable[str]) -> set[str]:
        """Claims runs at once, as `claim` does one; returns those that are this worker's now.

        Their number plays no part in the cost: a file is written, and those of others are read.
        """
        names = set(names) - self._claimed
        if not names:
            return names
        self._self.runs.update(dict.fromkeys(names, 0))
        self.beat()
        if refused := names & self.claimed():
            for name in refused:
                del self._self.runs[name]
            self.beat()
            time.sleep(_JITTER * random.random())
        return names - refused

    def release(self, name: str) -> None:
        """Gives a run up that has its record; others, who see the record, hear it with the beat."""
        self._self.runs.pop(name, None)

    def progress(self, examples: Mapping[str, int]) -> bool:
        """Says how far the claimed runs are, by run_id.

        Returns:
          Whether it was written down, as it is when `is_due`.
        """
        self._self.runs.update({n: e for n, e in examples.items() if n in self._self.runs})
        due = self.is_due()
        if due:
            self.beat("training", self.patience)
        return due

    def is_due(self) -> bool:
        """Returns whether to write progress: at first at once, then every second or so."""
        begins = self._self.doing != "training"
        return begins or time.monotonic() - self._beaten_at >= min(_BEAT, self.patience / 10)

    def beat(self, doing: str | None = None, patience: float | None = None) -> None:
        """Gives a sign of life.

        Args:
          doing: in words; by default what it was.
          patience: seconds until the next sign at most; by default what it was. Claims are signs,
            but what takes long may be yet to come.
        """
        self._self = self._self._replace(
            beat=self._self.beat + 1,
            doing=doing or self._self.doing,
            patience=patience or self._self.patience,
        )
        self._beaten_at = time.monotonic()
        self._write()

    def settings(self, key: str) -> dict[str, Any] | None:
        """The speed settings that another worker uses for the same, if any does."""
        return next((w.settings[key] for w in self.others() if key in w.settings), None)

    def share_settings(self, key: str, settings: Mapping[str, Any]) -> None:
        """Lets others know with which settings this worker trains what `key` stands for."""
        self._self.settings[key] = dict(settings)
        self.beat()

    def others(self) -> list[Worker]:
        """The other workers that are alive; the files of those that are not are removed."""
        now, alive = time.monotonic(), []
        for worker in workers(self._root.parent):
            if worker.name == self.name:
                continue
            beat, since = self._seen.get(worker.name, (None, now))
            if beat != worker.beat:
                since = now
            self._seen[worker.name] = worker.beat, since
            if now - since <= worker.patience and not _is_gone(worker):
                alive.append(worker)
            else:
                self._path(worker.name).unlink(missing_ok=True)
        return alive

    def claimed(self) -> set[str]:
        """The runs, by run_id, that other workers claim."""
        self._claimed = {name for worker in self.others() for name in worker.runs}
        return self._claimed

    def close(self) -> None:
        """Leaves: gives all runs up; the last one leaves nothing."""
        with contextlib.suppress(OSError):  # where none could be made
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
        """Replaces this worker's file; not synced to the disk, as it is worth nothing later."""
        content = self._self._asdict()
        del content["name"]
        draft = self._root / f".{self.name}"
        with contextlib.suppress(OSError):  # a full disk, say, of which the next record will tell
            self._root.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps(content))
            draft.replace(self._path(self.name))


def workers(workdir: str | os.PathLike) -> list[Worker]:
    """What the workers of a sweep say of themselves, dead ones that nobody noticed among them."""
    found = []
    for path in sorted(pathlib.Path(workdir, "workers").glob("*.json")):
        # Gone meanwhile, or not ours.
        with contextlib.suppress(OSError, ValueError, TypeError, RecursionError):
            worker = Worker(path.stem, **json.loads(path.read_text()))
            if _is_whole(worker):
                found.append(worker)
    return found


def _is_whole(worker):
    """Returns whether all that a worker's file says is of the right kind."""
    return (
        all(isinstance(value, kind) for value, kind in zip(worker, _KINDS, strict=True))
        and all(type(count) is int and 0 <= count < 2**63 for count in worker.runs.values())
        and all(isinstance(settings, dict) for settings in worker.settings.values())
    )


def writer_name() -> str:
    """A name that no other writer has: made of host, process and a random word."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


def has_ended(name: str) -> bool:
    """Returns whether a writer, by name, is known to be an ended process of this host."""
    host, _, rest = name.rpartition("-")[0].rpartition("-")
    return host == socket.gethostname() and rest.isdecimal() and not _runs(int(rest))


def _place():
    """Where process numbers mean something: the host, and on Linux the container."""
    with contextlib.suppress(OSError):
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname()


def _is_gone(worker):
    """Returns whether a worker's process is known to have ended."""
    return worker.is_here() and not _runs(worker.pid)


def _runs(pid):
    """Returns whether a process of this host is there, and has not ended unknown to its parent."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # of another user
        pass
    with contextlib.suppress(OSError):  # only Linux has it
        state = pathlib.Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1]
        return state not in (b"Z", b"X")
    return True
