"""Records on disk: one JSON line for each finished run, one file for each writer, no lock.

A sweep's directory holds `sweep.json` (which sweep it is) and `records/<writer>.jsonl`. A writer
appends only to its own file and has flushed a record to the disk when `append` returns, so killing
it loses at most the run in flight; a torn line is skipped by readers and its run is done again, and
so is a line whose checksum shows that it has changed.

>>> import tempfile
>>> from noisegen import sweeps
>>> workdir = tempfile.mkdtemp()
>>> _ = sweeps.open_workdir(workdir, "example", "digits/mlp")
>>> record = {"run_id": "9f", "run": {"seed": 0}, "status": "finished", "metrics": {"loss": 0.5}}
>>> with sweeps.RecordWriter(workdir) as writer:
...     writer.append(record)
>>> sweeps.read(workdir) == [record]
True
"""

import contextlib
import json
import os
import pathlib
import re
import secrets
import warnings
import zlib
from collections.abc import Collection, Mapping
from typing import Self

from noisegen.sweeps import lines
from noisegen.sweeps.crew import writer_name

_NAMED = 5  # lines that a warning names one by one
_RUN_ID = re.compile(rb'"run_id": "([^"]*)"')


class RecordWriter:
    """Appends records to a file of its own, each durable when `append` returns.

    Args:
      workdir: The directory of the sweep.
      writer: Name of the file, unique among live writers; by default made of host, process and a
        random word.

    Raises:
      OSError: On `append`, naming the file and the remedy, when the disk is full or read-only.
        Lines written before stay whole, and `append` may be called again.
    """

    def __init__(self, workdir: str | os.PathLike, writer: str | None = None):
        if writer is None:
            writer = writer_name()
        self.path = pathlib.Path(workdir) / "records" / f"{writer}.jsonl"
        self._file = None
        self._torn = False

    def append(self, record: Mapping) -> None:
        """Writes one record and flushes it to the disk; non-finite numbers become null."""
        line = lines.encode(record)
        try:
            self._write(line)
        except OSError as error:
            raise _explained(error, self.path, "could not write a record to") from error

    def close(self) -> None:
        """Closes the file; a later `append` opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _write(self, line):
        """Appends one line, never to the end of a torn one, and waits for the disk."""
        if self._file is None:
            self._open()
        rest = b"\n" + line if self._torn else line
        self._torn = True
        while rest:  # One pass, unless the system takes only a part.
            rest = rest[os.write(self._file, rest) :]
        self._torn = False
        os.fsync(self._file)

    def _open(self):
        """Opens the file and looks whether its last line is whole."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        size = os.fstat(self._file).st_size
        self._torn = size > 0 and os.pread(self._file, 1, size - 1) != b"\n"
        _sync_directory(self.path.parent)


class RecordReader:
    """Follows the records of all writers while they are written.

    Args:
      workdir: The directory of the sweep.
      curves: Whether records keep their `curve`; without, reading is several times faster and
        smaller.
      task_identity: As for `run_id`; by default that of `sweep.json`, if there is one.
    """

    def __init__(
        self, workdir: str | os.PathLike, curves: bool = False, task_identity: str | None = None
    ):
        self._root, self._curves = pathlib.Path(workdir) / "records", curves
        self._task = task_identity
        self._read: dict[pathlib.Path, tuple[int, int]] = {}  # bytes and lines
        self._begun = False

    def new(self) -> list[dict]:
        """The records added since the last call, at first all; of a run there may be several.

        Lines that are no record are skipped: torn by a kill, changed since, edited by hand such
        that they no longer make sense. One warning for all of a kind names them.
        """
        found, skipped, begun, self._begun = [], {}, self._begun, True
        self._task = self._task or _task_identity(self._root.parent)
        for path in sorted(self._root.glob("*.jsonl")):
            offset, number = self._read.get(path, (0, 0))
            if path in self._read and path.stat().st_size == offset:
                continue
            with path.open("rb") as file:
                file.seek(offset)
                for line in file:
                    record, odd = lines.decode(line, self._curves, self._task)
                    ended = line.endswith(b"\n")
                    if ended or record is not None:  # else the rest of it may come
                        offset += len(line)
                    if record is not None:
                        found.append(record)
                    elif (ended or not begun) and line.strip():
                        skipped.setdefault(odd, []).append(f"{path.name} line {number + 1}")
                    if ended:
                        number += 1
            self._read[path] = offset, number
        for odd, places in skipped.items():
            _warn_skipped(self._root, odd, places)
        return found


def read(workdir: str | os.PathLike, curves: bool = True) -> list[dict]:
    """The records of all writers, one for each run, sorted by run_id.

    Of several records of one run the one finished first counts. Lines that are no record (torn by a
    kill, say) are skipped, with one warning for all of them.

    Args:
      workdir: The directory of the sweep.
      curves: Whether records keep their `curve`; without, reading is several times faster and
        smaller.

    Returns:
      The records; an empty list before the first one.
    """
    records = {}
    for record in RecordReader(workdir, curves).new():
        first_finished(records, record)
    return [records[name] for name in sorted(records)]


def read_curves(workdir: str | os.PathLike, names: Collection[str]) -> dict[str, dict]:
    """The curves of some runs, by run_id, as far as they have any; the other records are skipped.

    Args:
      workdir: The directory of the sweep.
      names: The run_ids.
    """
    records = {}
    for path in sorted(pathlib.Path(workdir).glob("records/*.jsonl")):
        with path.open("rb") as file:
            for line in file:
                named = _RUN_ID.search(line)
                wanted = named and named[1].decode(errors="replace") in names
                if wanted and (record := lines.decode(line)[0]):
                    first_finished(records, record)
    return {name: record["curve"] for name, record in records.items() if record.get("curve")}


def first_finished(records: dict[str, dict], record: dict) -> None:
    """Adds a record to those known by run_id; of several of one run the first finished counts."""
    known = records.get(record["run_id"])
    if known is None or _finished_at(record) < _finished_at(known):
        records[record["run_id"]] = record


def open_workdir(
    workdir: str | os.PathLike,
    sweep_name: str,
    task_identity: str,
    meta: Mapping | None = None,
) -> dict:
    """Makes the directory of a sweep, or checks that it is this sweep's; then resuming is safe.

    Args:
      workdir: The directory, made if it does not exist.
      sweep_name: Name of the sweep.
      task_identity: As for `run_id`.
      meta: What else `sweep.json` should say (command, title, configuration ...); the latest stays.

    Returns:
      The content of `sweep.json`.

    Raises:
      ValueError: If the directory belongs to another sweep or task.
      OSError: If it cannot be written to.
    """
    workdir = pathlib.Path(workdir)
    try:
        (workdir / "records").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _explained(error, workdir, "cannot use the workdir") from error
    check_workdir(workdir, sweep_name, task_identity)
    wanted = {"sweep": sweep_name, "task": task_identity}
    content = {**wanted, **lines.plain(meta or {}), **wanted}
    text = json.dumps({**content, "crc32": _crc(content)}, indent=2)
    write_file(workdir / "sweep.json", text + "\n")
    return content


def check_workdir(workdir: str | os.PathLike, sweep_name: str, task_identity: str) -> None:
    """Checks that a directory, if it is that of a sweep at all, is this sweep's; writes nothing.

    Raises:
      ValueError: If it belongs to another sweep or task.
    """
    if not (pathlib.Path(workdir) / "sweep.json").exists():
        return
    found = read_sweep(workdir)
    for word, value in {"sweep": sweep_name, "task": task_identity}.items():
        if found.get(word) != value:
            raise ValueError(
                f"workdir {workdir} belongs to another {word}: {found.get(word)!r}, not {value!r};"
                " give a new --workdir, or the command this one was started with."
            )


def read_sweep(workdir: str | os.PathLike) -> dict:
    """The content of `sweep.json`.

    Raises:
      FileNotFoundError: If workdir is not the directory of a sweep.
      ValueError: If the file is damaged.
    """
    path = pathlib.Path(workdir) / "sweep.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(
            f"{workdir} is not the workdir of a sweep (it has no sweep.json); check the path."
        ) from None
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} is damaged; if this is the right workdir, delete that one file and give the"
            " sweep command again (records are kept)."
        )
    crc = content.pop("crc32", None)  # which older versions did not write
    if crc is not None and crc != _crc(content):
        raise ValueError(
            f"{path} has changed since it was written; if you edited it, remove its crc32, else"
            " delete that one file and give the sweep command again (records are kept)."
        )
    return content


def _crc(content):
    """Returns the checksum of the content of `sweep.json`."""
    return zlib.crc32(json.dumps(content).encode())


def write_file(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes a file whole or not at all; text as UTF-8.

    Raises:
      OSError: Naming the file and the remedy, when the disk is full or read-only.
    """
    path = pathlib.Path(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with open(draft, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
        _sync_directory(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise _explained(error, path, "could not write") from error


def _task_identity(workdir):
    """The task of a sweep's directory, as far as it says so."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        return str(read_sweep(workdir)["task"]) if (workdir / "sweep.json").exists() else None


def _warn_skipped(root, odd, places):
    """Warns of lines that were skipped."""
    more = f" and {len(places) - _NAMED} more" if len(places) > _NAMED else ""
    remedy = (
        ' To accept a change of your own, remove "crc32" and its value from the line.'
        if odd == lines.CHANGED
        else ""
    )
    found = f"{len(places)} lines that {odd}"
    if len(places) == 1:
        found = f"1 line that {lines.OF_ONE[odd]}"
    warnings.warn(
        f"skipped {found} in {root}: {', '.join(places[:_NAMED])}{more}; "
        f"give the sweep command again to repeat runs that are missing.{remedy}",
        stacklevel=3,
    )


def _finished_at(record):
    """When a run finished, as text that sorts by time; runs without a time come last."""
    return str(record.get("finished_at") or "~")


def _sync_directory(path):
    """Makes a new file's name durable, where the system can."""
    directory = os.open(path, os.O_RDONLY)
    with contextlib.suppress(OSError):  # Some network file systems refuse; the file is synced.
        os.fsync(directory)
    os.close(directory)


def _explained(error, path, what):
    """The same kind of error, saying what to do."""
    return type(error)(
        error.errno,
        f"{what} {path}: {error.strerror or error}; free space on the disk or choose a writable"
        " --workdir, then give the same command again (finished runs are kept)",
    )
