"""Tests that cache entries are complete or absent, even if their writer is killed."""

import json
import os
import pathlib
import signal
import stat
import subprocess
import sys
import tempfile
import threading

import numpy as np
import pytest

from noisegen import data
from noisegen.data import cache

ARRAYS = {
    "image": np.arange(24, dtype=np.uint8).reshape(2, 3, 4, 1),
    "label": np.array([3, 1], np.int32),
}

# Writes the arrays of this file, and dies just before or just after the n-th renaming.
KILLED_WRITER = """
import os, pathlib, signal, sys
import numpy as np
from noisegen import data
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


def other(path):
    """Writes an entry of arrays with the same types and other values."""
    cache.write(path, {name: array + 1 for name, array in ARRAYS.items()})


def exchange(one, two):
    """Exchanges two files or directories."""
    one.rename(one.with_name("between"))
    two.rename(one)
    one.with_name("between").rename(two)


@pytest.mark.parametrize("what", ["", "image.npy", "label.npy", "metadata.json"])
def test_files_exchanged_between_entries_are_noticed(tmp_path, what):
    cache.write(tmp_path / "a", ARRAYS)
    other(tmp_path / "b")
    exchange(tmp_path / "a" / what, tmp_path / "b" / what)
    for name in "ab":
        with pytest.raises(cache.CorruptCacheError, match=what or "of the entry"):
            cache.read(tmp_path / name, ARRAYS.keys())


def test_arrays_of_one_shape_that_were_exchanged_are_noticed(tmp_path):
    arrays = {"train": np.arange(4), "test": np.arange(4)[::-1].copy()}
    cache.write(tmp_path, arrays)
    exchange(tmp_path / "train.npy", tmp_path / "test.npy")
    with pytest.raises(cache.CorruptCacheError, match="train.npy"):
        cache.read(tmp_path, arrays.keys())


def test_no_changed_byte_is_read(tmp_path):
    cache.write(tmp_path, ARRAYS)
    fingerprint = cache.read(tmp_path, ARRAYS.keys()).fingerprint
    for file in list(tmp_path.iterdir()):
        whole = file.read_bytes()
        for at in range(len(whole)):
            for damaged in (
                whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :],
                whole[:at] + bytes(len(whole) - at),
                whole[:at],
            ):
                file.write_bytes(damaged)
                try:
                    entry = cache.read(tmp_path, ARRAYS.keys())
                except cache.CorruptCacheError:
                    continue
                assert_whole(entry)  # Blanks in the header of a file mean nothing.
                assert entry.fingerprint == fingerprint
        file.write_bytes(whole)


def test_an_entry_of_an_older_version_is_read(tmp_path):
    cache.write(tmp_path, ARRAYS)
    file = tmp_path / "metadata.json"
    described = json.loads(file.read_text())
    del described["entry"]
    file.write_text(json.dumps(described))
    assert_whole(cache.read(tmp_path, ARRAYS.keys()))


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """Returns the cache directory of a user without a home directory."""
    for name in ("HOME", "NOISEGEN_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as of a user without a name
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"noisegen-{os.getuid()}"


def test_without_a_home_directory_entries_lie_with_temporary_files(nowhere):
    for _ in range(2):
        assert cache.directory() == nowhere
    assert stat.S_IMODE(nowhere.stat().st_mode) == 0o700


@pytest.mark.parametrize("home", ["", "/", "relative"])
def test_a_home_that_is_none_is_none(monkeypatch, tmp_path, home):
    for name in ("NOISEGEN_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert cache.directory() == tmp_path / f"noisegen-{os.getuid()}"


def test_a_temporary_directory_of_another_user_is_refused(nowhere, monkeypatch):
    nowhere.mkdir()
    user = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: user)
    nowhere.rename(nowhere.with_name(f"noisegen-{os.getuid()}"))
    with pytest.raises(PermissionError, match="open to other users; .*NOISEGEN_CACHE_DIR"):
        cache.directory()


def test_a_temporary_directory_into_which_others_may_write_is_refused(nowhere):
    nowhere.mkdir()
    nowhere.chmod(0o777)
    with pytest.raises(PermissionError, match="open to other users; .*NOISEGEN_CACHE_DIR"):
        cache.directory()


@pytest.mark.parametrize("make", [pathlib.Path.touch, lambda path: path.symlink_to("/tmp")])
def test_files_in_place_of_the_directory_are_refused(nowhere, make):
    make(nowhere)
    with pytest.raises((PermissionError, FileExistsError)):
        cache.directory()


def test_a_directory_that_is_named_is_taken(nowhere, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.directory() == tmp_path / "xdg" / "noisegen"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NOISEGEN_CACHE_DIR", "beside")
    assert cache.directory() == tmp_path / "beside"
    assert cache.directory("given") == tmp_path / "given"
    with pytest.raises(FileNotFoundError, match="no home directory is known for ~/x"):
        cache.directory("~/x")


def test_where_prepared_data_lie_is_asked_for_without_a_home_directory(nowhere, monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    with pytest.raises(FileNotFoundError, match="no home directory .* data_dir or TFDS_DATA_DIR"):
        data.load("mnist")


def test_data_are_read_where_there_is_no_place_for_a_cache(nowhere, tmp_path, write_prepared):
    arrays = write_prepared(tmp_path / "data")
    nowhere.write_text("")  # in its way
    with pytest.warns(UserWarning, match="cannot keep mnist .*; name a writable .*NOISEGEN_CACHE"):
        found = data.load("mnist", data_dir=str(tmp_path / "data"))
    np.testing.assert_array_equal(found.train["image"], arrays["train"]["image"])


@pytest.mark.parametrize("old, new", [('["7"]', '["5"]'), ('["3"]', '["2"]')])
def test_a_description_that_lacks_examples_is_refused(tmp_path, write_prepared, old, new):
    write_prepared(tmp_path / "data")
    info = tmp_path / "data" / "mnist" / "3.0.1" / "dataset_info.json"
    text = info.read_text()
    assert old in text
    info.write_text(text.replace(old, new))
    with pytest.raises(OSError, match="cannot read mnist .* has . examples, not the . of dataset"):
        data.load("mnist", data_dir=str(tmp_path / "data"), cache_dir=str(tmp_path / "cache"))
