"""Records on disk: one JSON line for each finished run, one file for each writer, no lock.

A writer appends to its own file only and has flushed a record to the disk when `append` returns.
Killing a writer loses at most the run in flight. Readers skip a torn line, and a line whose
checksum shows that it has changed, and the run is trained again.

>>> import tempfile
>>> from noisegen import storage
>>> workdir = tempfile.mkdtemp()
>>> _ = storage.open_workdir(workdir, "example", "digits/mlp")
>>> record = storage.Record(
...     run_id="9f", hparams={"seed": 0}, status="finished", metrics={"loss": 0.5}
... )
>>> with storage.RecordWriter(workdir) as writer:
...     writer.append(record)
>>> storage.read_records(workdir) == [record]
True
"""

import contextlib
import os
import pathlib
import re
import warnings
from collections.abc import Collection
from typing import Self

from noisegen._text import count
from noisegen.storage import record as record_lib
from noisegen.storage import workdir as workdir_lib
from noisegen.storage.claims import writer_name
from noisegen.storage.record import LineError, Record

_NAMED = 5  # lines that a warning names one by one
_RUN_ID = re.compile(rb'"run_id": "([^"]*)"')  # As `Record.to_json` writes it.


class RecordWriter:
    """Appends records to a file of its own. Each is durable when `append` returns.

    Args:
      workdir: The directory of the sweep.
      writer: Name of the file, unique among live writers. By default it is made of the host, the
        process and a random word.
    """

    def __init__(self, workdir: str | os.PathLike, writer: str | None = None):
        if writer is None:
            writer = writer_name()
        self.path = pathlib.Path(workdir) / "records" / f"{writer}.jsonl"
        self._file: int | None = None  # Descriptor of the open file.
        self._torn = False  # Whether the file may end within a line.

    def append(self, record: Record) -> None:
        """Writes one record and flushes it to the disk.

        Raises:
          OSError: If the disk is full or read-only. Lines written before stay whole, and `append`
            may be called again.
        """
        line = record.to_json()
        try:
            self._write(line)
        except OSError as error:
            raise workdir_lib.explained(error, self.path, "could not write a record to") from error

    def close(self) -> None:
        """Closes the file. A later `append` opens it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _write(self, line: bytes) -> None:
        """Appends one line, never to the end of a torn one, and waits for the disk."""
        if self._file is None:
            self._open()
        # The torn line becomes a line of its own, which readers skip.
        rest = b"\n" + line if self._torn else line
        # Until the whole line is written, since any write may fail or be interrupted.
        self._torn = True
        while rest:  # One pass, unless the system takes only a part.
            num_written = os.write(self._file, rest)
            rest = rest[num_written:]
        self._torn = False
        os.fsync(self._file)

    def _open(self) -> None:
        """Opens the file and looks whether its last line is whole."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # A descriptor, and not a file of Python's, whose buffer would keep a line that could not be
        # written, and write it later.
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        size = os.fstat(self._file).st_size
        self._torn = size > 0 and os.pread(self._file, 1, size - 1) != b"\n"
        # The name of a new file is durable only with its directory.
        workdir_lib.sync_directory(self.path.parent)


class RecordReader:
    """Follows the records of all writers while they are written.

    Args:
      workdir: The directory of the sweep.
      curves: Whether records keep their curve. Without, reading is several times faster.
      task_name: Name of the task, which lines without a checksum are checked against. By default
        that of `sweep.json`, if there is one.
    """

    def __init__(
        self, workdir: str | os.PathLike, curves: bool = False, task_name: str | None = None
    ):
        self._root = pathlib.Path(workdir) / "records"
        self._curves = curves
        self._task_name = task_name
        self._read: dict[pathlib.Path, tuple[int, int]] = {}  # bytes and lines read of each file
        self._skipped: dict[str, list[str]] = {}  # reason -> places
        self._begun = False  # Whether `new` was called before.

    def new(self) -> list[Record]:
        """Returns the records added since the last call, at first all of them.

        There may be several of one run. Lines that are not valid records are skipped, with one
        warning for each reason.
        """
        found: list[Record] = []
        # `sweep.json` may be written after this reader was made.
        self._task_name = self._task_name or _task_name(self._root.parent)
        for path in sorted(self._root.glob("*.jsonl")):
            offset, _ = self._read.get(path, (0, 0))
            # Most files have nothing new, and their size says so without opening them.
            if path not in self._read or path.stat().st_size != offset:
                self._read[path] = self._read_file(path, found)
        for reason, places in self._skipped.items():
            _warn_skipped(self._root, reason, places)
        self._skipped = {}
        self._begun = True
        return found

    def _read_file(self, path: pathlib.Path, found: list[Record]) -> tuple[int, int]:
        """Adds the new records of one file; returns how many bytes and lines of it are read."""
        offset, number = self._read.get(path, (0, 0))
        with path.open("rb") as file:
            file.seek(offset)
            for line in file:
                ended = line.endswith(b"\n")
                try:
                    found.append(Record.from_json(line, self._curves, self._task_name))
                    is_record = True
                except LineError as error:
                    is_record = False
                    # A last line without its end may be half written. It is read again by the next
                    # call, so only the first call, of a sweep that may have crashed, warns of it.
                    if line.strip() and (ended or not self._begun):
                        place = f"{path.name} line {number + 1}"
                        self._skipped.setdefault(str(error), []).append(place)
                if is_record or ended:
                    offset += len(line)
                if ended:
                    number += 1
        return offset, number


def read_records(workdir: str | os.PathLike, curves: bool = True) -> list[Record]:
    """Returns the records of all writers, one for each run, sorted by run_id.

    Of several records of one run, the one finished first counts. Lines that are not valid records
    are skipped with a warning.

    Args:
      workdir: The directory of the sweep.
      curves: Whether records keep their curve. Without, reading is several times faster.

    Returns:
      The records, an empty list before the first one.
    """
    records: dict[str, Record] = {}
    for record in RecordReader(workdir, curves).new():
        add_first_finished(records, record)
    return [records[name] for name in sorted(records)]


def read_curves(workdir: str | os.PathLike, names: Collection[str]) -> dict[str, dict]:
    """Returns the curves of some runs by run_id, as far as they have any.

    Args:
      workdir: The directory of the sweep.
      names: The run_ids. Lines of other runs are skipped without parsing.
    """
    records: dict[str, Record] = {}
    for path in sorted(pathlib.Path(workdir).glob("records/*.jsonl")):
        with path.open("rb") as file:
            for line in file:
                # A search in the bytes is much faster than parsing a line with a long curve.
                named = _RUN_ID.search(line)
                if named and named[1].decode(errors="replace") in names:
                    with contextlib.suppress(LineError):  # `RecordReader` warns of these.
                        add_first_finished(records, Record.from_json(line))
    return {name: record.curve for name, record in records.items() if record.curve}


def add_first_finished(records: dict[str, Record], record: Record) -> None:
    """Adds a record to others by run_id. Of several of one run, the one finished first stays."""
    known = records.get(record.run_id)
    if known is None or _finished_at(record) < _finished_at(known):
        records[record.run_id] = record


def _task_name(workdir: pathlib.Path) -> str | None:
    """Returns the task's name from `sweep.json`, if the file is there and says so."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        if (workdir / "sweep.json").exists():
            return str(workdir_lib.read_sweep(workdir)["task"])
    return None


def _warn_skipped(root: pathlib.Path, reason: str, places: list[str]) -> None:
    """Warns of lines that were skipped for one reason."""
    more = f" and {len(places) - _NAMED} more" if len(places) > _NAMED else ""
    remedy = ""
    if reason == record_lib.CHANGED:
        remedy = ' To accept a change of your own, remove "crc32" and its value from the line.'
    warnings.warn(
        f"skipped {count(len(places), 'line')} in {root}: {reason}: "
        f"{', '.join(places[:_NAMED])}{more}; give the sweep command again to repeat "
        f"runs that are missing.{remedy}",
        stacklevel=3,
    )


def _finished_at(record: Record) -> str:
    """Returns when a run finished, as text that sorts by time; runs without a time come last."""
    return str(record.finished_at or "~")  # In ASCII, the tilde comes after digits and letters.
