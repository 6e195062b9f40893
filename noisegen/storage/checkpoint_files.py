"""Writes and reads single checkpoints through orbax, and checks that they may be used.

A checkpoint is a directory with two items. `arrays` holds the arrays of all lanes of a pool. `meta`
is JSON with the run that each lane trains and the checksum of each array. Nothing in the directory
is executed.
"""

import pathlib
import warnings
from collections.abc import Mapping, Sequence
from concurrent import futures
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from noisegen._errors import one_line
from noisegen.storage import checksums

if TYPE_CHECKING:
    import orbax.checkpoint as ocp

# Orbax is imported where it is used, because it is slow to import and most sweeps are too short to
# need it.

FORMAT = 2  # Changes when older checkpoints would be misread.

# Types of the fields of the metadata.
_FIELDS = {"runs": list, "counts": list, "arrays": dict, "place": str, "checksum": int}


def make_manager(directory: pathlib.Path) -> "ocp.CheckpointManager":
    """Returns orbax's manager of a writer's directory, which keeps the last two checkpoints."""
    import orbax.checkpoint as ocp

    # Two, in case the last one is damaged.
    options = ocp.CheckpointManagerOptions(max_to_keep=2, create=False, **_alone())
    return ocp.CheckpointManager(directory, options=options, item_handlers=_handlers())


def save_arguments(arrays: Mapping[str, Any], meta: Mapping[str, Any]) -> "ocp.args.Composite":
    """Returns orbax's arguments for saving a checkpoint."""
    import orbax.checkpoint as ocp

    return ocp.args.Composite(
        arrays=ocp.args.PyTreeSave(dict(arrays)), meta=ocp.args.JsonSave(dict(meta))
    )


def describe(
    place: str, names: Sequence[str | None], counts: Sequence[int], arrays: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the metadata of a checkpoint.

    Args:
      place: Names of its writer and of its directory, to detect one that was moved or copied.
      names: The run_id of each lane, or None for an idle lane.
      counts: The number of updates of each lane.
      arrays: The arrays by name, on the device or the host.
    """
    meta = {
        "format": FORMAT,
        "place": place,
        "runs": names,
        "counts": counts,
        "arrays": _checksums(arrays),
    }
    return meta | {"checksum": checksums.of_json(meta)}


def read_meta(path: pathlib.Path) -> dict[str, Any] | None:
    """Returns a checkpoint's metadata, or None, with a warning, if it must not be used."""
    import orbax.checkpoint as ocp

    meta = _restore(_checkpointer("meta"), path / "meta", ocp.args.JsonRestore())
    if meta is None:
        return None
    problem = _find_problem(path, meta)
    if problem:
        warn_skipped(path, problem)
        return None
    return meta


def read_arrays(path: pathlib.Path, expected: Mapping[str, int]) -> dict[str, Any] | None:
    """Reads the arrays of a checkpoint.

    Args:
      path: Directory of the checkpoint.
      expected: The checksum of each array, by name.

    Returns:
      The arrays by name, or None, with a warning, if one is unreadable or has another checksum.
    """
    import orbax.checkpoint as ocp

    arrays = {}
    checkpointer = _checkpointer("arrays")
    for name, checksum in expected.items():
        # One array at a time: if several fail at once, orbax raises one error and prints the rest.
        kinds = {name: ocp.RestoreArgs(restore_type=np.ndarray)}
        item = ocp.args.PyTreeRestore({name: 0}, restore_args=kinds, partial_restore=True)
        restored = _restore(checkpointer, path / "arrays", item)
        if restored is None:
            return None
        if checksums.of_array(restored[name]) != checksum:
            warn_skipped(path, f"its {name} has changed since it was written (checksum)")
            return None
        arrays |= restored
    return arrays


def warn_skipped(path: pathlib.Path, reason: str) -> None:
    """Warns that a checkpoint is not used."""
    warnings.warn(
        f"skipped the checkpoint {path}: {reason}; its runs resume from an older checkpoint or from"
        " the start. Delete it if it is not needed.",
        stacklevel=2,
    )


def _find_problem(path: pathlib.Path, meta: Any) -> str | None:
    """Returns why a checkpoint must not be used, or None if it may be."""
    # The format comes first, because another version may have other fields.
    version = meta.get("format") if isinstance(meta, dict) else None
    if version != FORMAT:
        return f"it is of another version (format {version})"
    if not _has_fields(meta):
        return "its metadata lacks fields, or has some of another type"
    unsigned = {name: value for name, value in meta.items() if name != "checksum"}
    if meta["checksum"] != checksums.of_json(unsigned):
        return "its metadata has changed since it was written (checksum)"
    place = f"{path.parent.name}/{path.name}"
    if meta["place"] != place:
        return f"it was written as {meta['place']}, and is now in {place}"
    return None


def _has_fields(meta: Mapping[str, Any]) -> bool:
    """Returns whether the metadata has every field, and a run and a count for each lane."""
    if not all(isinstance(meta.get(name), kind) for name, kind in _FIELDS.items()):
        return False
    names_are_valid = all(isinstance(name, str | None) for name in meta["runs"])
    counts_are_valid = all(isinstance(count, int) for count in meta["counts"])
    return names_are_valid and counts_are_valid and len(meta["runs"]) == len(meta["counts"])


def _checksums(arrays: Mapping[str, Any]) -> dict[str, int]:
    """Computes the checksum of each array by name, on all cores, since training waits."""
    # One transfer of all arrays. Threads work in parallel, as zlib releases Python's lock.
    on_host = jax.device_get(list(arrays.values()))
    with futures.ThreadPoolExecutor() as executor:
        sums = executor.map(checksums.of_array, on_host)
        return dict(zip(arrays, sums, strict=True))


def _restore(checkpointer: "ocp.Checkpointer", path: pathlib.Path, arguments: Any) -> Any:
    """Reads one item of a checkpoint, or one array. Returns None, with a warning, if this fails."""
    try:
        return checkpointer.restore(path, args=arguments)
    except Exception as error:  # Damaged files fail in many ways.
        warn_skipped(path.parent, one_line(error))
    return None


def _checkpointer(item: str) -> "ocp.Checkpointer":
    """Returns orbax's reader of one item of a checkpoint, "arrays" or "meta"."""
    import orbax.checkpoint as ocp

    return ocp.Checkpointer(_handlers()[item], **_alone())


def _handlers() -> dict[str, Any]:
    """Returns orbax's handlers of the items of a checkpoint."""
    import orbax.checkpoint as ocp

    return {
        "arrays": ocp.PyTreeCheckpointHandler(**_alone()),
        "meta": ocp.JsonCheckpointHandler(**_alone()),
    }


def _alone() -> dict[str, Any]:
    """Returns options that keep orbax from waiting for other processes of `jax.distributed`."""
    import orbax.checkpoint as ocp

    if jax.process_count() == 1:
        return {}
    # Each process is its own only active process. Barriers need names that differ between them.
    index = jax.process_index()
    options = ocp.options.MultiprocessingOptions(index, {index}, f"noisegen {index}")
    return {"multiprocessing_options": options}
