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
from concurrent import futures
from typing import Any, NamedTuple, Self

from noisegen._errors import one_line
from noisegen.storage import checksums
from noisegen.storage.claims import Claims, has_ended
from noisegen.training.run import Run

FORMAT = 2  # Changes when older checkpoints would be misread.
_NEGLIGIBLE_SECONDS = 10.0  # Training time that is not worth a checkpoint before a stop.
_STALE_SECONDS = 3600.0  # Age after which an unfinished checkpoint counts as abandoned.


class _Location(NamedTuple):
    """Location of a run's state. Sorts by the number of updates first."""

    num_updates: int
    path: pathlib.Path  # Directory of the checkpoint.
    lane: int
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
        self._claims = claims or Claims(workdir)
        self._own = self._root / self._claims.name
        self._manager = None  # Orbax's, made for the first checkpoint.
        self._step = 0
        self._saved_at = time.monotonic()
        self._latest: dict[str | None, int] = {}  # Updates by run in our last checkpoint.
        # The arrays of the checkpoint that was read last, since lanes of one come together.
        self._read_path: pathlib.Path | None = None
        self._read_arrays: dict[str, Any] = {}
        self._unreadable: set[pathlib.Path] = set()
        self._metas: dict[pathlib.Path, dict | None] = {}
        self.hurried = False

    def due(self) -> bool:
        """Returns whether it is time to save."""
        return self.hurried or 0 < self._seconds <= time.monotonic() - self._saved_at

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
            meta = self._describe(names, counts, _checksums(arrays))
            manager.save(self._step, args=_arguments(arrays=dict(arrays), meta=meta))
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
                _warn_skipped(
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
            if path.name.isdigit():  # Else orbax has not finished it.
                metas[path] = self._metas[path] if path in self._metas else _read_meta(path)
        self._metas = metas
        return metas

    def _describe(self, names, counts, sums) -> dict[str, Any]:
        """Returns a checkpoint's metadata."""
        meta = {
            "format": FORMAT,
            "place": f"{self._own.name}/{self._step}",
            "runs": names,
            "counts": counts,
            "arrays": sums,
        }
        return meta | {"checksum": checksums.of_json(meta)}

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

    def _read(self, location) -> dict[str, Any] | None:
        """Returns the arrays of a checkpoint, or None if they are unreadable."""
        if location.path in self._unreadable:
            return None
        if location.path != self._read_path:
            arrays = _read_arrays(location.path, location.checksums)
            if arrays is None:
                self._unreadable.add(location.path)
                return None
            self._read_path, self._read_arrays = location.path, arrays
        return self._read_arrays

    def _forget_read(self) -> None:
        """Frees the memory of the checkpoint that was read last."""
        self._read_path, self._read_arrays = None, {}

    def _failed(self, error) -> None:
        """Warns that a checkpoint could not be written, and removes its parts."""
        self._latest = {}
        self._manager = None  # The next checkpoint gets a new one.
        for path in self._own.glob("*-tmp"):
            shutil.rmtree(path, ignore_errors=True)
        warnings.warn(
            f"could not write a checkpoint to {self._root}: {one_line(error)}; training goes on,"
            " but runs that are interrupted now resume from an older checkpoint or from the start.",
            stacklevel=3,
        )

    def _remove_superseded(self) -> None:
        """Removes the directories of writers that nobody needs any more.

        A writer's directory stays if any of these is true:
        * Its worker is alive. It removes the directory itself.
        * It has a checkpoint that we cannot judge: a damaged one, or one of another version.
        * It has a checkpoint that is not superseded.
        * A worker that we cannot see may be writing to it.
        """
        kept = {self._root / worker.name for worker in self._claims.others()}
        if self._manager is not None:
            kept.add(self._own)
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
            idle = directory in abandoned or has_ended(directory.name)
            if idle or not _may_be_written(directory):
                shutil.rmtree(directory, ignore_errors=True)
        with contextlib.suppress(OSError):  # The directory is not empty, or does not exist.
            self._root.rmdir()

    def _is_recorded(self, meta) -> bool:
        """Returns whether every run of a checkpoint has a record."""
        return all(name is None or name in self._recorded for name in meta["runs"])

    def _is_superseded(self, meta) -> bool:
        """Returns whether each run of a checkpoint is recorded, or as far in our own last one."""
        for name, count in zip(meta["runs"], meta["counts"], strict=True):
            if name is None or name in self._recorded:
                continue
            if self._latest.get(name, -1) < count:
                return False
        return True

    def _writer(self):
        """Returns orbax's manager of our own directory."""
        import orbax.checkpoint as ocp  # Slow to import, and few sweeps take so long as to need it.

        if self._manager is None:
            self._own.mkdir(parents=True, exist_ok=True)
            options = ocp.CheckpointManagerOptions(max_to_keep=2, create=False, **_alone())
            self._manager = ocp.CheckpointManager(
                self._own, options=options, item_handlers=_handlers()
            )
        return self._manager


def _read_meta(path) -> dict[str, Any] | None:
    """Returns a checkpoint's metadata, or None, with a warning, if it must not be used."""
    import orbax.checkpoint as ocp

    meta = _restored(_checkpointer("meta"), path / "meta", ocp.args.JsonRestore())
    if meta is None:
        return None
    problem = _find_problem(path, meta)
    if problem:
        _warn_skipped(path, problem)
        return None
    return meta


def _find_problem(path, meta) -> str | None:
    """Returns why a checkpoint must not be used, or None if it may be."""
    version = meta.get("format") if isinstance(meta, dict) else None
    if version != FORMAT:
        return f"it is of another version (format {version})"
    if not _has_fields(meta):
        return "its metadata makes no sense"
    unsigned = {name: value for name, value in meta.items() if name != "checksum"}
    if meta["checksum"] != checksums.of_json(unsigned):
        return "its metadata has changed since it was written (checksum)"
    place = f"{path.parent.name}/{path.name}"
    if meta["place"] != place:
        return f"it was written as {meta['place']}, and is now in {place}"
    return None


def _has_fields(meta) -> bool:
    """Returns whether the metadata has every field, and a run and a count for each lane."""
    kinds = {"runs": list, "counts": list, "arrays": dict, "place": str, "checksum": int}
    return (
        all(isinstance(meta.get(name), kind) for name, kind in kinds.items())
        and all(isinstance(name, str | None) for name in meta["runs"])
        and all(isinstance(count, int) for count in meta["counts"])
        and len(meta["runs"]) == len(meta["counts"])
    )


def _may_be_written(directory) -> bool:
    """Returns whether a writer's directory has recent unfinished parts, or is recent and empty."""
    with contextlib.suppress(OSError):  # Another worker has removed it meanwhile.
        parts = list(directory.iterdir())
        unfinished = [part for part in parts if not part.name.isdigit()]
        if not parts:  # Its writer may be about to begin.
            unfinished = [directory]
        now = time.time()
        return any(now - part.stat().st_mtime < _STALE_SECONDS for part in unfinished)
    return False


def _check_space(root, arrays) -> None:
    """Raises OSError if a checkpoint would fill the disk, which records need too."""
    root.mkdir(parents=True, exist_ok=True)
    needed = sum(array.nbytes for array in arrays.values())
    free = shutil.disk_usage(root).free
    if free < needed:
        raise OSError(f"no space left on the disk: {needed:,} bytes needed, {free:,} free")


def _checksums(arrays) -> dict[str, int]:
    """Computes the checksum of each array by name, on all cores, since training waits."""
    import jax

    on_host = jax.device_get(list(arrays.values()))
    with futures.ThreadPoolExecutor() as executor:
        sums = executor.map(checksums.of_array, on_host)
        return dict(zip(arrays, sums, strict=True))


def _arguments(arrays, meta):
    """Returns orbax's arguments for saving a checkpoint."""
    import orbax.checkpoint as ocp

    return ocp.args.Composite(arrays=ocp.args.PyTreeSave(arrays), meta=ocp.args.JsonSave(meta))


def _read_arrays(path, expected) -> dict[str, Any] | None:
    """Reads the arrays of a checkpoint.

    Args:
      path: Directory of the checkpoint.
      expected: The checksum of each array, by name.

    Returns:
      The arrays by name, or None, with a warning, if one is unreadable or has another checksum.
    """
    import numpy as np
    import orbax.checkpoint as ocp

    arrays = {}
    checkpointer = _checkpointer("arrays")
    for name, checksum in expected.items():
        # One array at a time: if several fail at once, orbax raises one error and prints the rest.
        kinds = {name: ocp.RestoreArgs(restore_type=np.ndarray)}
        item = ocp.args.PyTreeRestore({name: 0}, restore_args=kinds, partial_restore=True)
        restored = _restored(checkpointer, path / "arrays", item)
        if restored is None:
            return None
        if checksums.of_array(restored[name]) != checksum:
            _warn_skipped(path, f"its {name} has changed since it was written (checksum)")
            return None
        arrays |= restored
    return arrays


def _checkpointer(item):
    """Returns orbax's reader of one item of a checkpoint, "arrays" or "meta"."""
    import orbax.checkpoint as ocp

    return ocp.Checkpointer(_handlers()[item], **_alone())


def _restored(checkpointer, path, arguments):
    """Reads one item of a checkpoint, or one array. Returns None, with a warning, if this fails."""
    try:
        return checkpointer.restore(path, args=arguments)
    except Exception as error:  # Damaged files fail in many ways.
        _warn_skipped(path.parent, one_line(error))
    return None


def _warn_skipped(path, reason) -> None:
    """Warns that a checkpoint is not used."""
    warnings.warn(
        f"skipped the checkpoint {path}: {reason}; its runs resume from an older checkpoint or from"
        " the start. Delete it if nobody needs it.",
        stacklevel=2,
    )


def _handlers():
    """Returns orbax's handlers of the items of a checkpoint."""
    import orbax.checkpoint as ocp

    return {
        "arrays": ocp.PyTreeCheckpointHandler(**_alone()),
        "meta": ocp.JsonCheckpointHandler(**_alone()),
    }


def _alone() -> dict[str, Any]:
    """Returns options that keep orbax from waiting for other processes of `jax.distributed`."""
    import jax
    import orbax.checkpoint as ocp

    if jax.process_count() == 1:
        return {}
    index = jax.process_index()
    options = ocp.options.MultiprocessingOptions(index, {index}, f"noisegen {index}")
    return {"multiprocessing_options": options}
