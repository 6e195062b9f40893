"""Checkpoints of runs in training, so that long runs survive interruptions.

A sweep's directory holds `checkpoints/<writer>/<number>/`, written by orbax: the arrays of all
lanes of a pool, and the run that each lane trains. Checkpoints are data without code. The worker
that trains a run next, on this machine or another, resumes from the latest readable checkpoint of
the run. Checksums of all content are verified on reading.
"""

import contextlib
import os
import pathlib
import shutil
import time
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from noisegen._errors import one_line
from noisegen.storage import checkpoint_files
from noisegen.storage.claims import Claims, has_ended
from noisegen.training.run import Run

if TYPE_CHECKING:
    import orbax.checkpoint as ocp

_NEGLIGIBLE_SECONDS = 10.0  # Training time that is not worth a checkpoint before a stop.
_STALE_SECONDS = 3600.0  # Age after which an unfinished checkpoint counts as abandoned.


class _Location(NamedTuple):
    """Location of a run's state. Sorts by the number of updates first."""

    num_updates: int
    path: pathlib.Path  # Directory of the checkpoint.
    lane: int  # Index of the run's entry in every array.
    checksums: dict[str, int]  # Of the arrays, by name.


class Checkpoints:
    """Writes and reads the checkpoints of a sweep, for `noisegen.training.Pool.train`.

    Read and write failures are reported as warnings, and training continues. The last two
    checkpoints of this writer are kept. Those of other writers are removed once they are
    superseded.

    Args:
      workdir: The directory of the sweep.
      seconds: Seconds between two checkpoints. If 0, none are written, but existing ones are read.
      recorded: The run_ids of the runs that have a record. Read again at every use.
      claims: The workers of the sweep. Live workers remove their checkpoints themselves.

    Attributes:
      hurried: Whether `hurry` has requested a checkpoint that is not begun yet.

    Raises:
      ValueError: If `seconds` is negative.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        seconds: float = 300.0,
        recorded: Collection[str] = (),
        claims: Claims | None = None,
    ):
        if not seconds >= 0:  # Refuses nan, too.
            raise ValueError(f"seconds={seconds} between checkpoints must not be negative.")
        self._root = pathlib.Path(workdir).absolute() / "checkpoints"
        self._seconds = seconds
        self._recorded = recorded
        # Without claims there are no other workers, but a name is still needed.
        self._claims = claims or Claims(workdir)
        self._own = self._root / self._claims.name
        self._manager: ocp.CheckpointManager | None = None  # Made for the first checkpoint.
        self._step = 0  # Number of the last checkpoint.
        self._saved_at = time.monotonic()
        self._latest: dict[str | None, int] = {}  # Updates by run in our last checkpoint.
        # The arrays of the checkpoint that was read last, since lanes of one come together.
        self._read_path: pathlib.Path | None = None
        self._read_arrays: dict[str, Any] = {}
        # What was found out about other checkpoints, so that each is read, and warned of, once.
        self._unreadable: set[pathlib.Path] = set()
        self._metas: dict[pathlib.Path, dict | None] = {}
        self.hurried = False

    def due(self) -> bool:
        """Returns whether it is time to save."""
        if self.hurried:
            return True
        return self._seconds > 0 and time.monotonic() - self._saved_at >= self._seconds

    def hurry(self) -> None:
        """Requests a checkpoint now, before a stop, unless little training would be lost."""
        unsaved = time.monotonic() - self._saved_at
        self.hurried = self._seconds > 0 and unsaved > _NEGLIGIBLE_SECONDS

    def save(
        self,
        runs: Sequence[Run | None],
        counts: Sequence[int],
        arrays: Mapping[str, Any],
    ) -> None:
        """Begins to write a checkpoint, in the background.

        Args:
          runs: The run of each lane, or None for an idle lane.
          counts: The number of updates of each lane.
          arrays: Arrays by name, with one entry for each lane. They are copied before this returns.
        """
        # Even if the write fails: the next attempt comes after the whole interval.
        self._saved_at = time.monotonic()
        self.hurried = False
        self._forget_read()  # Runs that resume have been read by now.
        names = [None if run is None else run.id for run in runs]
        counts = [int(count) for count in counts]
        self._step += 1
        try:
            manager = self._writer()
            # Once the previous checkpoint is whole, it may supersede those of other writers.
            manager.wait_until_finished()
            self._remove_superseded()
            _check_space(self._root, arrays)
            place = f"{self._own.name}/{self._step}"
            meta = checkpoint_files.describe(place, names, counts, arrays)
            manager.save(self._step, args=checkpoint_files.save_arguments(arrays, meta))
            self._latest = dict(zip(names, counts, strict=True))
        except Exception as error:  # Of any kind: training matters more than its checkpoints.
            self._failed(error)

    def load(self, run: Run) -> Iterator[dict[str, Any]]:
        """Yields the saved states of a run by all writers, the latest first.

        Args:
          run: The run.

        Yields:
          The run's entry of each array, by name, in NumPy.
        """
        locations = self._locations().get(run.id, [])
        for location in sorted(locations, reverse=True):
            arrays = self._read(location)
            if arrays is None:
                continue
            if all(location.lane < len(array) for array in arrays.values()):
                yield {name: array[location.lane] for name, array in arrays.items()}
            else:
                self._unreadable.add(location.path)
                checkpoint_files.warn_skipped(
                    location.path, f"it names a run of lane {location.lane}, which it lacks"
                )

    def known(self, names: Iterable[str]) -> list[str]:
        """Returns the given run_ids that have a checkpoint."""
        locations = self._locations()
        return [name for name in names if name in locations]

    def close(self) -> None:
        """Waits for the last checkpoint to be written, and removes those that are superseded."""
        manager, self._manager = self._manager, None
        if manager is not None:
            try:
                manager.close()
            except Exception as error:
                self._failed(error)
        self._latest = {}
        self._remove_superseded()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _finished(self) -> dict[pathlib.Path, dict | None]:
        """Returns the metadata of every finished checkpoint, or None if it must not be used.

        A checkpoint without metadata is left over from an interrupted deletion.
        """
        metas = {}
        for file in sorted(self._root.glob("*/*/meta/metadata")):
            path = file.parents[1]
            if not path.name.isdigit():
                continue  # Orbax renames a directory to its number once it is whole.
            if path in self._metas:
                metas[path] = self._metas[path]
            else:
                metas[path] = checkpoint_files.read_meta(path)
        self._metas = metas  # Forgets the checkpoints that were removed.
        return metas

    def _locations(self) -> dict[str | None, list[_Location]]:
        """Returns the locations of each run's state, by run_id."""
        locations: dict[str | None, list[_Location]] = {}
        for path, meta in self._finished().items():
            if meta is None:
                continue
            for lane, name in enumerate(meta["runs"]):
                location = _Location(meta["counts"][lane], path, lane, meta["arrays"])
                locations.setdefault(name, []).append(location)
        return locations

    def _read(self, location: _Location) -> dict[str, Any] | None:
        """Returns the arrays of a checkpoint, or None if they are unreadable."""
        if location.path in self._unreadable:
            return None
        if location.path != self._read_path:
            arrays = checkpoint_files.read_arrays(location.path, location.checksums)
            if arrays is None:
                self._unreadable.add(location.path)
                return None
            self._read_path = location.path
            self._read_arrays = arrays
        return self._read_arrays

    def _forget_read(self) -> None:
        """Frees the memory of the checkpoint that was read last."""
        self._read_path = None
        self._read_arrays = {}

    def _failed(self, error: Exception) -> None:
        """Warns that a checkpoint could not be written, and removes its parts."""
        self._latest = {}  # Nothing of ours supersedes the checkpoints of others.
        self._manager = None  # The next checkpoint gets a new one.
        for path in self._own.glob("*-tmp"):
            shutil.rmtree(path, ignore_errors=True)
        warnings.warn(
            f"could not write a checkpoint to {self._root}: {one_line(error)}; training goes on,"
            " but runs that are interrupted now resume from an older checkpoint or from the start.",
            stacklevel=3,
        )

    def _remove_superseded(self) -> None:
        """Removes the directories of writers that are no longer needed.

        A writer's directory stays if any of these is true:
        * Its worker is alive. It removes the directory itself.
        * It has a checkpoint that we cannot judge: a damaged one, or one of another version.
        * It has a checkpoint that is not superseded.
        * A worker that we cannot see may be writing to it.
        """
        kept = {self._root / worker.name for worker in self._claims.others()}
        if self._manager is not None:
            kept.add(self._own)
        # Directories that certainly have no writer any more.
        abandoned = {self._own}
        for path, meta in self._finished().items():
            if meta is None or not self._is_superseded(meta):
                kept.add(path.parent)
            elif self._is_recorded(meta):
                # A worker whose runs are all recorded has nothing left to write.
                abandoned.add(path.parent)
        for directory in list(self._root.glob("*")):
            if directory in kept:
                continue
            # Workers of other hosts show by their files only that they write.
            idle = directory in abandoned or has_ended(directory.name)
            if idle or not _may_be_written(directory):
                shutil.rmtree(directory, ignore_errors=True)
        with contextlib.suppress(OSError):  # The directory is not empty, or does not exist.
            self._root.rmdir()

    def _is_recorded(self, meta: Mapping[str, Any]) -> bool:
        """Returns whether every run of a checkpoint has a record."""
        return all(name is None or name in self._recorded for name in meta["runs"])

    def _is_superseded(self, meta: Mapping[str, Any]) -> bool:
        """Returns whether each run of a checkpoint is recorded, or as far in our own last one."""
        for name, count in zip(meta["runs"], meta["counts"], strict=True):
            if name is None or name in self._recorded:
                continue
            if self._latest.get(name, -1) < count:
                return False
        return True

    def _writer(self) -> "ocp.CheckpointManager":
        """Returns orbax's manager of our own directory."""
        if self._manager is None:
            self._own.mkdir(parents=True, exist_ok=True)
            self._manager = checkpoint_files.make_manager(self._own)
        return self._manager


def _may_be_written(directory: pathlib.Path) -> bool:
    """Returns whether a writer's directory has recent unfinished parts, or is recent and empty."""
    with contextlib.suppress(OSError):  # Another worker has removed it meanwhile.
        parts = list(directory.iterdir())
        unfinished = [part for part in parts if not part.name.isdigit()]
        if not parts:  # Its writer may be about to begin.
            unfinished = [directory]
        # The clocks of hosts disagree by seconds, which hardly count against an hour.
        now = time.time()
        return any(now - part.stat().st_mtime < _STALE_SECONDS for part in unfinished)
    return False


def _check_space(root: pathlib.Path, arrays: Mapping[str, Any]) -> None:
    """Raises OSError if a checkpoint would fill the disk, which records need too."""
    root.mkdir(parents=True, exist_ok=True)
    needed = sum(array.nbytes for array in arrays.values())
    free = shutil.disk_usage(root).free
    if free < needed:
        raise OSError(f"no space left on the disk: {needed:,} bytes needed, {free:,} free")
