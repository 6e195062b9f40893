"""Makes and checks the directory of a sweep, and writes whole files.

A sweep's directory holds:
  sweep.json          name, task, title, configuration and command of the sweep
  records/*.jsonl     one line for each finished run, one file for each writer
  checkpoints/        runs in training
  workers/*.json      heartbeats and claims of the workers that are alive
  params/*.npz        parameters of finished runs, if they are kept
  jobs/               Slurm jobs that were submitted
  logs/               output of the workers
  export/             tables and files of `noisegen export`
  advice/             short runs of `sweeps.advise`, a directory like this one
  report.html, figure.png, table.csv (table_2.csv for a second protocol)
"""

import contextlib
import errno
import json
import os
import pathlib
import secrets
import tempfile
import zlib
from collections.abc import Iterator, Mapping

from noisegen.storage.record import plain

ADVICE = "advice"  # The directory of the short runs of `sweeps.advise`.
_PARTS = ("records", "checkpoints", "workers", "params", "jobs", "logs")  # Its directories.


def open_workdir(
    workdir: str | os.PathLike, sweep_name: str, task_name: str, meta: Mapping | None = None
) -> dict:
    """Makes the directory of a sweep, or checks that it belongs to this sweep.

    Args:
      workdir: The directory, made if it does not exist.
      sweep_name: Name of the sweep.
      task_name: Name of the task, which is part of every run_id.
      meta: Further content of `sweep.json`, such as title, command and configuration. Earlier
        content is replaced.

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
        raise explained(error, workdir, "cannot use the workdir") from error
    check_workdir(workdir, sweep_name, task_name)
    owner = {"sweep": sweep_name, "task": task_name}
    content = {**owner, **plain(meta or {}), **owner}  # The owner comes first, and always wins.
    text = json.dumps({**content, "crc32": _crc(content)}, indent=2)
    write_file(workdir / "sweep.json", text + "\n")
    return content


def check_workdir(workdir: str | os.PathLike, sweep_name: str, task_name: str) -> None:
    """Checks that a directory belongs to this sweep or to no sweep. Writes nothing.

    Raises:
      ValueError: If it belongs to another sweep or task.
    """
    try:
        content = read_sweep(workdir)
    except FileNotFoundError:
        return
    # Run ids depend on the task, and would name other runs.
    for word, value in {"sweep": sweep_name, "task": task_name}.items():
        if content.get(word) != value:
            raise ValueError(
                f"workdir {workdir} belongs to another {word}: {content.get(word)!r}, not"
                f" {value!r}; give a new --workdir, or the command this one was started with."
            )


def check_writable(workdir: str | os.PathLike) -> None:
    """Checks that a directory can be written to, or else its nearest existing parent.

    Raises:
      OSError: If it cannot be written to, or is a file.
    """
    existing = pathlib.Path(workdir)
    try:
        while not existing.exists():
            existing = existing.parent
    except OSError as error:  # A parent may not be searched, or the name is too long.
        raise explained(error, workdir, "cannot use the workdir") from error
    if not existing.is_dir():
        error = NotADirectoryError(errno.ENOTDIR, f"{existing} is a file, not a directory")
        raise explained(error, workdir, "cannot use the workdir")
    # Permissions alone do not tell: the disk may be full, or read-only.
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"0")
    except OSError as error:
        raise explained(error, workdir, "could not write in") from error


@contextlib.contextmanager
def undone_if_refused(workdir: str | os.PathLike) -> Iterator[None]:
    """Removes a directory that was made in this context if an error precedes every result.

    Only `sweep.json` and empty directories are removed, and only if they did not exist before.
    """
    workdir = pathlib.Path(workdir)
    had_sweep = (workdir / "sweep.json").exists()
    missing_parts = [workdir / name for name in _PARTS if not (workdir / name).exists()]
    missing_parents = [path for path in (workdir, *workdir.parents) if not path.exists()]
    try:
        yield
    except Exception:  # Not Ctrl-C, after which the user may want to look or to continue.
        if not had_sweep:
            _undo(workdir, missing_parts, missing_parents)
        raise


def _undo(
    workdir: pathlib.Path, made_parts: list[pathlib.Path], made_parents: list[pathlib.Path]
) -> None:
    """Removes the directories that were made, unless one holds a result.

    Args:
      workdir: The directory of the sweep.
      made_parts: Directories in it that did not exist.
      made_parents: The workdir and its parents that did not exist, inner ones first.
    """
    with contextlib.suppress(OSError):  # Stops at the first directory that is not empty.
        for path in made_parts:
            if path.exists():
                path.rmdir()
        if os.listdir(workdir) == ["sweep.json"]:
            (workdir / "sweep.json").unlink()
        for path in made_parents:
            path.rmdir()


def read_sweep(workdir: str | os.PathLike) -> dict:
    """Returns the content of `sweep.json`.

    Raises:
      FileNotFoundError: If workdir is not the directory of a sweep.
      OSError: If the file cannot be read.
      ValueError: If the file is damaged.
    """
    path = pathlib.Path(workdir) / "sweep.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        if (path.parent / ADVICE).is_dir():
            raise FileNotFoundError(
                f"{workdir} holds advice only, as its sweep was not begun; train the sweep with the"
                " command at the end of the advice, or with sweep.run()."
            ) from None
        raise FileNotFoundError(
            f"{workdir} is not the workdir of a sweep (it has no sweep.json); check the path."
        ) from None
    except OSError as error:
        raise type(error)(
            error.errno, f"{path} cannot be read: {error.strerror}; check its permissions"
        ) from error
    except ValueError:  # Neither UTF-8 nor JSON.
        content = None
    if not isinstance(content, dict):
        raise ValueError(
            f"{path} is damaged; if this is the right workdir, delete that one file and rerun the"
            " sweep command (records are kept)."
        )
    crc = content.pop("crc32", None)  # Older versions wrote none.
    if crc is not None and crc != _crc(content):
        raise ValueError(
            f"{path} has changed since it was written; if you edited it, remove its crc32, else"
            " delete that one file and rerun the sweep command (records are kept)."
        )
    return content


def write_file(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes a file completely or not at all. Text is written as UTF-8.

    Raises:
      OSError: If the disk is full or read-only. The message names the file and the remedy.
    """
    path = pathlib.Path(path)
    # Readers see the old file or the new one, since replacing a file by a draft is atomic. The
    # draft's name is unique, because other workers may write the same file at the same time.
    draft = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with open(draft, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            # Content before name: after a crash, a new name must not hold an empty file.
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
        sync_directory(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise explained(error, path, "could not write") from error


def sync_directory(path: pathlib.Path) -> None:
    """Makes the names of new files in a directory durable, if the file system can."""
    directory = os.open(path, os.O_RDONLY)
    with contextlib.suppress(OSError):  # Some network file systems refuse this.
        os.fsync(directory)
    os.close(directory)


def explained(error: OSError, path: str | os.PathLike, problem: str) -> OSError:
    """Returns an error of the same kind whose message says what to do.

    Args:
      error: The error of the operating system.
      path: The file or directory.
      problem: The beginning of the message, to which the path is added.
    """
    remedy = "choose a writable workdir"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):  # No space, or the user's quota is reached.
        remedy = "free space on the disk"
    return type(error)(
        error.errno,
        f"{problem} {path}: {error.strerror or error}; {remedy}, then give the same command again "
        "(finished runs are kept)",
    )


def _crc(content: Mapping) -> int:
    """Returns the checksum of the content of `sweep.json`."""
    # In the order of the file, which JSON keeps.
    return zlib.crc32(json.dumps(content).encode())
