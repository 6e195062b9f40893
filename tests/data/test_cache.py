"""The cache is all or nothing, whatever kills its writer."""

import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from noisegen.data import cache

ARRAYS = {
    "image": np.arange(24, dtype=np.uint8).reshape(2, 3, 4, 1),
    "label": np.array([3, 1], np.int32),
}

# Writes the arrays of this file, and dies just before or just after the n-th renaming.
KILLED_WRITER = """
import os, pathlib, signal, sys
import numpy as np
from noisegen.data import cache
path, count, after = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == 'after'
rename = os.replace
def replace_or_die(*args):
  global count
  if count == 0 and after:
    rename(*args)
  if count == 0:
    os.kill(os.getpid(), signal.SIGKILL)
  count -= 1
  rename(*args)
os.replace = replace_or_die
cache.write(path, {
    'image': np.arange(24, dtype=np.uint8).reshape(2, 3, 4, 1),
    'label': np.array([3, 1], np.int32),
})
"""


def assert_whole(entry):
    assert entry.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(entry.arrays[name], array, strict=True)


def test_round_trip(tmp_path):
    cache.write(tmp_path / "a" / "b", ARRAYS)
    entry = cache.read(tmp_path / "a" / "b", ARRAYS.keys())
    assert_whole(entry)
    assert all(isinstance(array, np.memmap) for array in entry.arrays.values())
    with pytest.raises(ValueError, match="read-only"):
        entry.arrays["label"][0] = 0


def test_fingerprint_is_of_content(tmp_path):
    cache.write(tmp_path, ARRAYS)
    copies = {name: array.copy() for name, array in ARRAYS.items()}
    fingerprint = cache.read(tmp_path, ARRAYS.keys()).fingerprint
    assert cache.in_memory(copies).fingerprint == fingerprint
    relabelled = {**ARRAYS, "label": np.array([3, 2], np.int32)}
    reshaped = {**ARRAYS, "image": ARRAYS["image"].reshape(2, 4, 3, 1)}
    assert cache.in_memory(relabelled).fingerprint != fingerprint
    assert cache.in_memory(reshaped).fingerprint != fingerprint


def test_absent_is_none(tmp_path):
    assert cache.read(tmp_path / "nothing", ARRAYS.keys()) is None
    (tmp_path / "file").touch()
    assert cache.read(tmp_path / "file", ARRAYS.keys()) is None


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("count", [0, 2])
def test_killed_writer_leaves_nothing_or_all(tmp_path, count, moment):
    command = [sys.executable, "-c", KILLED_WRITER, str(tmp_path), str(count), moment]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    entry = cache.read(tmp_path, ARRAYS.keys())
    if (count, moment) == (2, "after"):  # The metadata, the third and last file, was in place.
        assert_whole(entry)
    else:
        assert entry is None
    cache.write(tmp_path, ARRAYS)
    assert_whole(cache.read(tmp_path, ARRAYS.keys()))


def test_failed_write_leaves_no_temporary_file(tmp_path, monkeypatch):
    def full_disk(file, array):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        cache.write(tmp_path, ARRAYS)
    assert list(tmp_path.iterdir()) == []


def test_readers_and_writers_at_the_same_time(tmp_path):
    cache.write(tmp_path, ARRAYS)
    writers = [
        threading.Thread(target=lambda: [cache.write(tmp_path, ARRAYS) for _ in range(20)])
        for _ in range(4)
    ]
    for thread in writers:
        thread.start()
    while any(thread.is_alive() for thread in writers):
        assert_whole(cache.read(tmp_path, ARRAYS.keys()))
    for thread in writers:
        thread.join()
    assert not list(tmp_path.glob("*.tmp"))
