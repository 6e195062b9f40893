"""Begins the directory of a sweep so that a command that is refused leaves nothing."""

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator

_MADE = ("records", "checkpoints", "workers", "params", "jobs", "logs")  # within the directory


def check_writable(workdir: str | os.PathLike) -> None:
    """Checks that a directory, or the next one above that is there, can be written to.

    Raises:
      OSError: If it cannot.
    """
    place = pathlib.Path(workdir)
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        return  # open_workdir reports this
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"0")
    except OSError as error:
        raise type(error)(
            error.errno,
            f"could not write in {workdir}: {error.strerror or error}; free space on the disk or "
            "choose a writable --workdir, then give the same command again (runs are kept)",
        ) from error


@contextlib.contextmanager
def undone_if_refused(workdir: str | os.PathLike) -> Iterator[None]:
    """Removes a directory that was begun in this context if an error ends it before any result.

    Nothing but `sweep.json` and empty directories is removed, and nothing that was there before.
    """
    workdir = pathlib.Path(workdir)
    had_sweep = (workdir / "sweep.json").exists()
    inner = [workdir / name for name in _MADE]
    made = [path for path in (*inner, workdir, *workdir.parents) if not path.exists()]
    try:
        yield
    except Exception:
        if not had_sweep:
            _undo(workdir, made)
        raise


def _undo(workdir, made):
    with contextlib.suppress(OSError):
        for path in made:
            if path.parent == workdir and path.exists():
                path.rmdir()
        if os.listdir(workdir) == ["sweep.json"]:
            (workdir / "sweep.json").unlink()
        for path in made:
            if path.parent != workdir:
                path.rmdir()
