"""Checkpoints: runs in training, kept on the disk, so that a long run survives whatever stops it.

A sweep's directory holds `checkpoints/<writer>/<number>/`, written by orbax: all the lanes of a
pool as arrays, and which run each lane trains. They are data, no code, and whoever trains one of
these runs next, on this machine or another, takes the latest that can be read.
"""

import os
import pathlib
import secrets
import shutil
import socket
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

from noisegen.sweeps.identity import run_id

FORMAT = 1  # changes when older checkpoints would be misread


class _Place(NamedTuple):
    """Where a run's state is kept."""

    count: int  # updates made
    path: pathlib.Path
    lane: int
    names: tuple[str, ...]  # of the arrays


class Checkpoints:
    """The checkpoints of a sweep, for `noisegen.training.Pool.train`.

    One that cannot be written, or read, is a warning: training goes on.

    Args:
      workdir: the directory of the sweep.
      task_name: identity of the task, which with a run's numbers makes its `run_id`.
      seconds: between two checkpoints; 0 for none (those there are are read all the same).

    Raises:
      ValueError: `seconds` is negative.
    """

    def __init__(self, workdir: str | os.PathLike, task_name: str, seconds: float = 300.0):
        if seconds < 0:
            raise ValueError(f"seconds={seconds} between checkpoints must not be negative.")
        self._root = pathlib.Path(workdir).absolute() / "checkpoints"
        self._task_name, self._seconds = task_name, seconds
        self._manager, self._step, self._saved_at = None, 0, time.monotonic()
        self._read: tuple[pathlib.Path | None, dict] = (None, {})
        self._places: dict[str, list[_Place]] = {}
        for path in self._root.glob("*/*"):
            if path.name.isdigit():  # others are not whole
                self._find(path)

    def due(self) -> bool:
        """Whether it is time to save."""
        return 0 < self._seconds <= time.monotonic() - self._saved_at

    def save(self, runs: Sequence[Mapping[str, Any] | None], arrays: Mapping[str, Any]) -> None:
        """Begins to write a checkpoint, in the background.

        Args:
          runs: of every lane, or None where there is none in training.
          arrays: see `noisegen.training.pack`; copied before this returns.
        """
        self._saved_at = time.monotonic()
        meta = {
            "format": FORMAT,
            "runs": [None if run is None else run_id(self._task_name, run) for run in runs],
            "counts": arrays["count"].tolist(),
            "names": list(arrays),
        }
        self._step += 1
        self._read = (None, {})  # what is not taken up by now is not needed soon
        try:
            self._writer().save(self._step, args=_arguments(arrays=dict(arrays), meta=meta))
        except Exception as error:  # of whatever kind: the runs matter more
            warnings.warn(
                f"could not write a checkpoint to {self._root}: {_line(error)}; training goes on, "
                "and would begin anew if stopped.",
                stacklevel=2,
            )

    def load(self, run: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """What the checkpoints keep of a run, the latest first, as NumPy arrays."""
        places = self._places.get(run_id(self._task_name, run), [])
        for place in sorted(places, reverse=True):
            if arrays := self._arrays(place):
                yield {name: array[place.lane] for name, array in arrays.items()}

    def known(self, names: Iterable[str]) -> list[str]:
        """Those of some runs, by run_id, that a checkpoint keeps."""
        return [name for name in names if name in self._places]

    def clear(self) -> None:
        """Removes all checkpoints: every run has its record."""
        self.close()
        shutil.rmtree(self._root, ignore_errors=True)

    def close(self) -> None:
        """Waits until the last checkpoint is written."""
        if self._manager is not None:
            self._manager.close()
            self._manager = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _find(self, path):
        """Notes which runs a checkpoint keeps."""
        meta = _restored(path, "meta") or {}
        if not meta:
            return
        if meta.get("format") != FORMAT:
            _skipped(path, f"it is of another version of noisegen (format {meta.get('format')})")
            return
        for lane, (name, count) in enumerate(zip(meta["runs"], meta["counts"], strict=True)):
            if name is not None:
                place = _Place(count, path, lane, tuple(meta["names"]))
                self._places.setdefault(name, []).append(place)

    def _arrays(self, place):
        """The arrays of a checkpoint; the last one read is kept, since its lanes come together."""
        if self._read[0] != place.path:
            self._read = place.path, _restored(place.path, "arrays", place.names) or {}
        return self._read[1]

    def _writer(self):
        import orbax.checkpoint as ocp  # here, since few sweeps take so long as to need it

        if self._manager is None:
            name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
            options = ocp.CheckpointManagerOptions(max_to_keep=2)
            self._manager = ocp.CheckpointManager(self._root / name, options=options)
        return self._manager


def _arguments(arrays, meta):
    import orbax.checkpoint as ocp

    return ocp.args.Composite(arrays=ocp.args.PyTreeSave(arrays), meta=ocp.args.JsonSave(meta))


def _restored(path, item, names=()):
    """One item of a checkpoint; None, with a warning, where it cannot be read."""
    import numpy as np
    import orbax.checkpoint as ocp

    try:
        if item == "meta":
            return ocp.Checkpointer(ocp.JsonCheckpointHandler()).restore(path / item)
        kinds = dict.fromkeys(names, ocp.RestoreArgs(restore_type=np.ndarray))
        return ocp.PyTreeCheckpointer().restore(path / item, restore_args=kinds)
    except Exception as error:  # truncated, of another kind, gone: whatever it is
        _skipped(path, _line(error))


def _skipped(path, why):
    warnings.warn(
        f"skipped the checkpoint {path}: {why}; its runs go on from an older one, or begin anew.",
        stacklevel=2,
    )


def _line(error):
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
