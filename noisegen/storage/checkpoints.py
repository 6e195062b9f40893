"""Checkpoints: runs in training, kept on the disk, so that a long run survives whatever stops it.

A sweep's directory holds `checkpoints/<writer>/<number>/`, written by orbax: all the lanes of a
pool as arrays, and which run each lane trains. They are data, no code, and whoever trains one of
these runs next, on this machine or another, takes the latest that can be read. Checksums of
everything written are verified on reading.
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

from noisegen.storage import checksums
from noisegen.storage.claims import Claims, has_ended
from noisegen.training.run import Run

FORMAT = 2  # changes when older checkpoints would be misread
_LITTLE = 10.0  # seconds of training that need not be kept
_STALE = 3600.0  # seconds after which nobody writes any more to what is not finished


class _Place(NamedTuple):
    """Where a run's state is kept."""

    count: int  # updates made
    path: pathlib.Path
    lane: int
    checksums: dict[str, int]  # of the arrays, by name


class Checkpoints:
    """The checkpoints of a sweep, for `noisegen.training.Pool.train`.

    One that cannot be written, or read, is a warning: training goes on. Of this writer the last two
    stay; those of others are removed once each of their runs is recorded, or further in a finished
    checkpoint of this one.

    Args:
      workdir: the directory of the sweep.
      seconds: between two checkpoints; 0 for none (those there are are read all the same).
      recorded: run_ids of the runs that have a record; looked at again at every use.
      claims: The workers of the sweep. Checkpoints of live workers are theirs to remove.

    Attributes:
      hurried: whether `hurry` has asked for a checkpoint that is not begun yet.

    Raises:
      ValueError: `seconds` is negative.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        seconds: float = 300.0,
        recorded: Collection[str] = (),
        claims: Claims | None = None,
    ):
        if not seconds >= 0:
            raise ValueError(f"seconds={seconds} between checkpoints must not be negative.")
        self._root = pathlib.Path(workdir).absolute() / "checkpoints"
        self._seconds, self._recorded = seconds, recorded
        self._claims = claims or Claims(workdir)
        self._own = self._root / self._claims.name
        self._manager, self._step, self._saved_at = None, 0, time.monotonic()
        self._latest: dict[str, int] = {}  # runs and updates of the last checkpoint begun
        self._read: tuple[pathlib.Path | None, dict] = (None, {})
        self._unreadable: set[pathlib.Path] = set()
        self._metas: dict[pathlib.Path, dict | None] = {}
        self.hurried = False

    def due(self) -> bool:
        """Returns whether it is time to save."""
        return self.hurried or 0 < self._seconds <= time.monotonic() - self._saved_at

    def hurry(self) -> None:
        """Makes it time to save, as training is to stop, unless little would be lost."""
        self.hurried = self._seconds > 0 and time.monotonic() - self._saved_at > _LITTLE

    def save(
        self,
        runs: Sequence[Run | None],
        counts: Sequence[int],
        arrays: Mapping[str, Any],
    ) -> None:
        """Begins to write a checkpoint, in the background.

        Args:
          runs: of every lane, or None where there is none in training.
          counts: updates that each has made.
          arrays: with one entry a lane; copied before this returns.
        """
        self._saved_at, self.hurried = time.monotonic(), False
        self._read = (None, {})  # what is not taken up by now is not needed soon
        names = [None if run is None else run.id for run in runs]
        counts = [int(count) for count in counts]
        self._step += 1
        try:
            manager = self._writer()
            manager.wait_until_finished()
            self._remove()
            _check_space(self._root, arrays)
            meta = self._describe(names, counts, _checksums(arrays))
            manager.save(self._step, args=_arguments(arrays=dict(arrays), meta=meta))
            self._latest = dict(zip(names, counts, strict=True))
        except Exception as error:  # of whatever kind: the runs matter more
            self._failed(error)

    def load(self, run: Run) -> Iterator[dict[str, Any]]:
        """What the checkpoints keep of a run, whoever wrote them, the latest first, in NumPy."""
        places = self._places().get(run.id, [])
        for place in sorted(places, reverse=True):
            if place.path in self._unreadable:
                continue
            if self._read[0] != place.path:  # the last one stays, since its lanes come together
                found = _arrays(place.path, place.checksums)
                if found is None:
                    self._unreadable.add(place.path)
                    continue
                self._read = place.path, found
            arrays = self._read[1]
            if all(place.lane < len(array) for array in arrays.values()):
                yield {name: array[place.lane] for name, array in arrays.items()}
            else:
                self._unreadable.add(place.path)
                _skipped(place.path, f"it names a run of lane {place.lane}, which it lacks")

    def known(self, names: Iterable[str]) -> list[str]:
        """Those of some runs, by run_id, that have a checkpoint."""
        places = self._places()
        return [name for name in names if name in places]

    def close(self) -> None:
        """Waits until the last checkpoint is written, and removes those that nobody needs."""
        manager, self._manager = self._manager, None
        if manager is not None:
            try:
                manager.close()
            except Exception as error:
                self._failed(error)
        self._latest = {}
        self._remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _finished(self):
        """Returns the finished checkpoints and the metadata of each; None if not ours.

        A checkpoint without metadata was half removed when its remover was killed.
        """
        paths = sorted(file.parents[1] for file in self._root.glob("*/*/meta/metadata"))
        paths = [path for path in paths if path.name.isdigit()]
        known = self._metas
        self._metas = {path: known[path] if path in known else _meta(path) for path in paths}
        return self._metas

    def _describe(self, names, counts, sums):
        """Returns a checkpoint's metadata."""
        meta = {
            "format": FORMAT,
            "place": f"{self._own.name}/{self._step}",
            "runs": names,
            "counts": counts,
            "arrays": sums,
        }
        return meta | {"checksum": checksums.of_json(meta)}

    def _places(self):
        """Where each run is kept, by run_id."""
        places: dict[str, list[_Place]] = {}
        for path, meta in self._finished().items():
            for lane, name in enumerate(meta["runs"] if meta else ()):
                place = _Place(meta["counts"][lane], path, lane, meta["arrays"])
                places.setdefault(name, []).append(place)
        return places

    def _failed(self, error):
        self._latest, self._manager = {}, None  # the next one begins with a directory of its own
        for path in self._own.glob("*-tmp"):
            shutil.rmtree(path, ignore_errors=True)
        warnings.warn(
            f"could not write a checkpoint to {self._root}: {_line(error)}; training goes on, and "
            "would begin anew, or from an older one, if stopped.",
            stacklevel=3,
        )

    def _remove(self):
        """Removes the directories of writers that nobody needs.

        What is not ours to judge stays, and so does what another may be writing.
        """
        needed = {self._root / worker.name for worker in self._claims.others()}
        if self._manager is not None:
            needed.add(self._own)
        recorded = set()
        for path, meta in self._finished().items():
            if meta is None or not self._is_past(meta):
                needed.add(path.parent)
            elif {*meta["runs"]} <= {*self._recorded, None}:
                recorded.add(path.parent)
        for path in set(self._root.glob("*")) - needed:
            ours = path == self._own or path in recorded or has_ended(path.name)
            if ours or not _may_be_written(path):
                shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):  # it is not empty, or not there
            self._root.rmdir()

    def _is_past(self, meta):
        """Returns whether each run of a checkpoint is recorded, or as far in our own last one."""
        return all(
            name is None or name in self._recorded or self._latest.get(name, -1) >= count
            for name, count in zip(meta["runs"], meta["counts"], strict=True)
        )

    def _writer(self):
        import orbax.checkpoint as ocp  # here, since few sweeps take so long as to need it

        if self._manager is None:
            self._own.mkdir(parents=True, exist_ok=True)
            options = ocp.CheckpointManagerOptions(max_to_keep=2, create=False, **_alone())
            self._manager = ocp.CheckpointManager(
                self._own, options=options, item_handlers=_handlers()
            )
        return self._manager


def _meta(path):
    """Returns a checkpoint's metadata, or None, with a warning, if it must not be used."""
    import orbax.checkpoint as ocp

    meta = _restored(_checkpointer("meta"), path / "meta", ocp.args.JsonRestore())
    if meta is None:
        return None
    found = meta.get("format") if isinstance(meta, dict) else None
    place = f"{path.parent.name}/{path.name}"
    if found != FORMAT:
        _skipped(path, f"it is of another version (format {found})")
    elif not _is_whole(meta):
        _skipped(path, "its metadata makes no sense")
    elif meta["checksum"] != checksums.of_json(_without_checksum(meta)):
        _skipped(path, "its metadata has changed since it was written (checksum)")
    elif meta["place"] != place:
        _skipped(path, f"it was written as {meta['place']}, and is now in {place}")
    else:
        return meta
    return None


def _without_checksum(meta):
    return {name: value for name, value in meta.items() if name != "checksum"}


def _is_whole(meta):
    """Returns whether a checkpoint names each lane's run and updates, and has the other fields."""
    kinds = {"runs": list, "counts": list, "arrays": dict, "place": str, "checksum": int}
    return (
        all(isinstance(meta.get(name), kind) for name, kind in kinds.items())
        and all(isinstance(name, str | None) for name in meta["runs"])
        and all(isinstance(count, int) for count in meta["counts"])
        and len(meta["runs"]) == len(meta["counts"])
    )


def _may_be_written(path):
    """Returns whether a writer's directory has young unfinished parts, or is young and empty."""
    with contextlib.suppress(OSError):  # gone meanwhile
        parts = list(path.iterdir())
        open_ones = [part for part in parts if not part.name.isdigit()] or ([] if parts else [path])
        return any(time.time() - part.stat().st_mtime < _STALE for part in open_ones)
    return False


def _check_space(root, arrays):
    """Raises OSError where a checkpoint would fill the disk, which records need too."""
    root.mkdir(parents=True, exist_ok=True)
    needed, free = sum(array.nbytes for array in arrays.values()), shutil.disk_usage(root).free
    if free < needed:
        raise OSError(f"no space left on the disk: {needed:,} bytes wanted, {free:,} free")


def _checksums(arrays):
    """Computes the checksum of each array by name, on all cores, since training waits."""
    import jax

    with futures.ThreadPoolExecutor() as executor:
        found = executor.map(checksums.of_array, jax.device_get([*arrays.values()]))
        return dict(zip(arrays, found, strict=True))


def _arguments(arrays, meta):
    import orbax.checkpoint as ocp

    return ocp.args.Composite(arrays=ocp.args.PyTreeSave(arrays), meta=ocp.args.JsonSave(meta))


def _arrays(path, wanted):
    """Reads the arrays of a checkpoint; None, with a warning, unless each has its checksum."""
    import numpy as np
    import orbax.checkpoint as ocp

    arrays, checkpointer = {}, _checkpointer("arrays")
    for name, checksum in wanted.items():
        # One by one: of several that fail at once, orbax leaves all but one to Python's report.
        kinds = {name: ocp.RestoreArgs(restore_type=np.ndarray)}
        item = ocp.args.PyTreeRestore({name: 0}, restore_args=kinds, partial_restore=True)
        array = _restored(checkpointer, path / "arrays", item)
        if array is None:
            return None
        if checksums.of_array(array[name]) != checksum:
            _skipped(path, f"its {name} has changed since it was written (checksum)")
            return None
        arrays |= array
    return arrays


def _checkpointer(item):
    import orbax.checkpoint as ocp

    return ocp.Checkpointer(_handlers()[item], **_alone())


def _restored(checkpointer, path, arguments):
    """Reads one item of a checkpoint, or one array; None, with a warning, if it is unreadable."""
    try:
        return checkpointer.restore(path, args=arguments)
    except Exception as error:  # truncated, of another kind, gone: whatever it is
        _skipped(path.parent, _line(error))
    return None


def _skipped(path, why):
    warnings.warn(
        f"skipped the checkpoint {path}: {why}; a run that has no older one begins anew. Delete it "
        "if nobody needs it.",
        stacklevel=2,
    )


def _handlers():
    import orbax.checkpoint as ocp

    arrays, meta = ocp.PyTreeCheckpointHandler, ocp.JsonCheckpointHandler
    return {"arrays": arrays(**_alone()), "meta": meta(**_alone())}


def _alone():
    """What keeps orbax from waiting for other processes of `jax.distributed`."""
    import jax
    import orbax.checkpoint as ocp

    if jax.process_count() == 1:
        return {}
    index = jax.process_index()
    options = ocp.options.MultiprocessingOptions(index, {index}, f"noisegen {index}")
    return {"multiprocessing_options": options}


def _line(error):
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) < 240 else f"{text[:120]} ... {text[-120:]}"
