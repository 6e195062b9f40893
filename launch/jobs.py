"""Which jobs were submitted for a sweep, and what has become of them.

A sweep's directory holds `jobs/slurm-<id>.json`, one for each array of jobs: data, of which nothing
is executed. What a job prints is in `logs/slurm-<id>_<index>.log`.
"""

import collections
import contextlib
import datetime
import json
import pathlib
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from launch import display
from noisegen import sweeps

_SECONDS = 20.0  # the longest that Slurm's answer is waited for
_FAILED = ("FAILED", "OUT_OF_MEMORY", "NODE_FAIL", "TIMEOUT", "BOOT_FAIL", "DEADLINE")


class Submitted(NamedTuple):
    """An array of jobs that was submitted.

    Attributes:
      job: Slurm's number of it.
      size: how many workers it has.
      at: when, in UTC.
    """

    job: str
    size: int
    at: str


class State(NamedTuple):
    """What Slurm says of a job.

    Attributes:
      word: such as RUNNING.
      reason: why it is so, or None.
    """

    word: str
    reason: str


def remember(workdir: pathlib.Path, job: str, size: int) -> None:
    """Notes in a sweep's directory that jobs were submitted."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    path = pathlib.Path(workdir, "jobs", f"slurm-{job}.json")
    path.parent.mkdir(exist_ok=True)
    sweeps.write_file(path, json.dumps(Submitted(job, size, now)._asdict()) + "\n")


def submitted(workdir: pathlib.Path) -> list[Submitted]:
    """The jobs that were submitted for a sweep, the oldest first; other files are skipped."""
    found = []
    for path in pathlib.Path(workdir, "jobs").glob("slurm-*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError):
            each = Submitted(**json.loads(path.read_text(encoding="utf-8")))
            if re.fullmatch(r"\d+", each.job) and isinstance(each.size, int):
                found.append(each)
    return sorted(found, key=lambda each: int(each.job))


def states(known: Iterable[Submitted]) -> dict[str, State]:
    """What Slurm says of the jobs, by `job` or `job_index`; it forgets those that ended.

    Raises:
      OSError: there is no Slurm here, or it does not answer.
    """
    if not shutil.which("squeue"):
        raise FileNotFoundError("there is no squeue on this machine")
    numbers = ",".join(each.job for each in known)
    ask = ["squeue", "--array", "--noheader", "--states=all", "--format=%i|%T|%r"]
    try:
        asked = subprocess.run(
            [*ask, f"--jobs={numbers}"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"squeue does not answer within {_SECONDS:.0f} seconds") from error
    if asked.returncode and "Invalid job id" not in asked.stderr:
        raise OSError(f"squeue does not answer: {asked.stderr.strip().partition(chr(10))[0]}")
    lines = (line.strip().split("|") for line in asked.stdout.splitlines())
    return {line[0]: State(*line[1:]) for line in lines if len(line) == 3}


def describe(workdir: pathlib.Path) -> list[str]:
    """What is to be said of a sweep's jobs, in lines."""
    if not (known := submitted(workdir)):
        return []
    try:
        found = states(known)
    except OSError as error:
        numbers = ", ".join(each.job for each in known)
        return [f"Slurm job {numbers}: state unknown here, as {error}."]
    lines = []
    for each in known:
        own = {name: s for name, s in found.items() if name.partition("_")[0] == each.job}
        workers = display.count(each.size, "worker")
        lines.append(f"Slurm job {each.job}, {workers}: {_counts(each, own)}")
        lines += _failures(pathlib.Path(workdir), own)
    return lines


def waiting(workdir: pathlib.Path) -> list[str]:
    """The jobs of a sweep that have yet to end, as far as Slurm says so."""
    if not (known := submitted(workdir)):
        return []
    with contextlib.suppress(OSError):
        alive = ("PENDING", "RUNNING", "SUSPENDED", "REQUEUED", "CONFIGURING")
        return [name for name, state in states(known).items() if state.word in alive]
    return []


def several(names: Sequence[str]) -> str:
    """The first of some names, and how many there are beside."""
    return names[0] + f" and {len(names) - 1} more" * (len(names) > 1)


def _counts(job, own: Mapping[str, State]):
    """How many workers of an array are in which state."""
    counts = collections.Counter(_words(state) for state in own.values())
    if forgotten := job.size - len(own):
        counts["ended some time ago"] = forgotten
    return ", ".join(f"{count} {words}" for words, count in counts.items())


def _words(state):
    """A state, with the reason where a job waits for something."""
    word = state.word.lower().replace("_", " ")
    return f"{word} ({state.reason})" if state.word == "PENDING" else word


def _failures(workdir, own: Mapping[str, State]):
    """The last error that those print that failed, each error once."""
    said = collections.defaultdict(list)
    for name, state in sorted(own.items()):
        if state.word in _FAILED:
            said[_last_error(workdir / "logs" / f"slurm-{name}.log")].append(name)
    for error, names in said.items():
        yield f"  {several(names)} failed: {error}"


def _last_error(log):
    """The last error in what a job printed, or where that is."""
    with contextlib.suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        if errors := [line for line in lines if line.startswith("error: ")]:
            return errors[-1].removeprefix("error: ")
    return f"see {log}"
