"""Decoded arrays on disk, memory-mapped: a later start takes milliseconds.

An entry is a directory with one `.npy` file per array and `metadata.json`, which holds the shape,
dtype and checksum of each, and the name of the directory: an entry in another's place is no entry.
Every file is written beside its place and then renamed into it, the metadata last, so that a writer
killed at any moment leaves the entry absent or whole. Writers of the same entry write the same
bytes and need no lock.
"""

import hashlib
import json
import os
import pathlib
import stat
import tempfile
import uuid
import zlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np

_METADATA = "metadata.json"
_ENTRY = "entry"  # in the metadata, the name of the directory


class CorruptCacheError(Exception):
    """An entry that is there but is not what was written; the message names the file."""


def directory(cache_dir: str | None = None) -> pathlib.Path:
    """Returns where entries lie, an absolute path.

    That is the argument, NOISEGEN_CACHE_DIR, noisegen in XDG_CACHE_HOME or in ~/.cache; without a
    home directory one for temporary files, made for this user alone.

    Raises:
      OSError: If there is neither a home directory nor one for temporary files of this user's own.
    """
    if chosen := cache_dir or os.environ.get("NOISEGEN_CACHE_DIR"):
        return in_home(chosen).absolute()
    above = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(above):  # Then it is to be ignored, says the specification.
        above = os.path.expanduser("~/.cache")
    # expanduser leaves "~" if there is no home directory; system users often have "" or "/".
    if not os.path.isabs(above) or above == "/.cache":
        return _temporary()
    return pathlib.Path(above, "noisegen")


def can_be_written(path: pathlib.Path) -> bool:
    """Returns whether this user may write into a directory, or make it."""
    there = next(part for part in (path, *path.parents) if os.path.exists(part))
    return os.path.isdir(there) and os.access(there, os.W_OK | os.X_OK)


def in_home(path: str) -> pathlib.Path:
    """Returns a path whose "~" is the home directory.

    Raises:
      FileNotFoundError: If there is no home directory.
    """
    found = os.path.expanduser(path)
    if found.startswith("~"):
        raise FileNotFoundError(f"no home directory is known for {path}; give a path without ~")
    return pathlib.Path(found)


class Entry(NamedTuple):
    """Arrays by name and a fingerprint of their content."""

    arrays: dict[str, np.ndarray]
    fingerprint: str  # 16 hexadecimal digits: equal for equal dtypes, shapes and checksums.


def read(path: pathlib.Path, names: Collection[str]) -> Entry | None:
    """Returns the memory-mapped, read-only arrays at `path`, or None if they were never finished.

    Raises CorruptCacheError when a file is missing, of another shape or entry, or fails its
    checksum, PermissionError when the entry is not to be looked at. The checksum reads everything:
    20 ms for MNIST, 70 ms for CIFAR-10, and the pages are wanted anyway.
    """
    metadata = path / _METADATA
    try:
        described = json.loads(metadata.read_bytes())
        wanted = {name: described[name] for name in names}
        entry = described.get(_ENTRY, path.name)  # Older versions wrote none.
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError, AttributeError) as error:
        raise CorruptCacheError(f"{metadata}: {error!r}") from error
    if entry != path.name:
        raise CorruptCacheError(f"{metadata}: it is of the entry {entry!r}, not {path.name!r}")
    arrays = {name: _read_array(path / f"{name}.npy", wanted[name]) for name in names}
    return Entry(arrays, _fingerprint(wanted))


def in_memory(arrays: Mapping[str, np.ndarray]) -> Entry:
    """Returns the entry that `arrays` would have, without writing it."""
    for array in arrays.values():
        array.setflags(write=False)
    return Entry(dict(arrays), _fingerprint({k: _describe(v) for k, v in arrays.items()}))


def write(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes `arrays` to `path`, or raises OSError when the disk is full or not writable."""
    path.mkdir(parents=True, exist_ok=True)
    for name, array in arrays.items():
        _replace(path / f"{name}.npy", lambda file, array=array: np.save(file, array))
    described = {name: _describe(array) for name, array in arrays.items()}
    text = json.dumps({_ENTRY: path.name, **described}, indent=1)
    _replace(path / _METADATA, lambda file: file.write(text.encode()))


def _temporary() -> pathlib.Path:
    """Returns this user's directory for temporary files, and makes it if needed."""
    path = pathlib.Path(tempfile.gettempdir(), f"noisegen-{os.getuid()}")
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(
            f"{path}, in place of a home directory, is open to other users; name a directory of "
            "your own with NOISEGEN_CACHE_DIR"
        )
    return path


def _read_array(path: pathlib.Path, described: Mapping[str, Any]) -> np.ndarray:
    """Returns one memory-mapped array, once it is what `described` says."""
    try:
        array = np.load(path, mmap_mode="r")
    except Exception as error:  # A damaged header fails in many ways.
        raise CorruptCacheError(f"{path}: {error!r}") from error
    if (found := _describe(array)) != described:
        raise CorruptCacheError(f"{path}: expected {described}, found {found}")
    return array


def _describe(array: np.ndarray) -> dict[str, Any]:
    """Returns dtype, shape and checksum of an array: equal for equal content."""
    checksum = zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return {"dtype": array.dtype.str, "shape": list(array.shape), "crc32": checksum}


def _fingerprint(described: Mapping[str, Mapping[str, Any]]) -> str:
    """Hashes the descriptions of all arrays."""
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


def _replace(path: pathlib.Path, write_fn: Callable[[BinaryIO], Any]) -> None:
    """Writes a file beside `path` and renames it to `path`, all or nothing."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            write_fn(file)
        os.replace(temporary, path)
    finally:  # Ctrl-C and a full disk too must not leave the temporary file.
        temporary.unlink(missing_ok=True)
