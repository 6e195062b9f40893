"""Tests that no finished run is lost, whatever happens to the files of records."""

import contextlib
import dataclasses
import errno
import json
import math
import os
import pathlib
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest

from noisegen import storage, sweeps, training
from noisegen.storage import workdir as workdir_lib
from noisegen.storage.record import LineError


def make_record(index, **changes):
    fields = {
        "run_id": f"{index:016x}",
        "hparams": {"batch_size": 64, "learning_rate": 0.1, "seed": index},
        "status": "finished",
        "metrics": {"test_accuracy": 0.5, "test_loss": 1.25},
        "curve": {"epoch": [1, 2], "test_accuracy": [0.25, 0.5]},
        "versions": {"noisegen": "0"},
        "finished_at": f"2026-01-01T00:00:{index % 60:02d}Z",
    }
    return storage.Record(**fields | changes)


def older_fields(index):
    """Returns the fields of a line as older versions wrote them, without a checksum."""
    fields = json.loads(make_record(index).to_json())
    del fields["crc32"]
    return fields


def write(workdir, records, writer=None):
    with storage.RecordWriter(workdir, writer) as file:
        for record in records:
            file.append(record)
    return file.path


def without_curve(record):
    return dataclasses.replace(record, curve=None)


@pytest.mark.parametrize("status", ["finished", "diverged"])
def test_a_record_keeps_all_of_a_result_but_its_parameters(status):
    loss = 0.5 if status == "finished" else math.nan
    result = training.Result(
        run_id="9f",
        hparams={"seed": 0},
        status=status,
        diverged_at=None if status == "finished" else 3,
        metrics={"test_loss": loss},
        curve={"epoch": [1.0], "update": [3], "test_loss": [loss]},
        num_updates=3,
        num_examples=12,
        seconds=0.25,
        params={"w": np.ones(2)},
    )
    record = storage.Record.from_result(result, device="a GPU")
    fields = json.loads(record.to_json())
    assert fields.pop("run") == result.hparams and fields.pop("device") == "a GPU"
    assert list(fields)[-2:] == ["curve", "crc32"]
    del fields["crc32"]
    expected = {name: value for name, value in vars(result).items() if name in fields}
    assert expected.keys() | {"hparams", "params"} == vars(result).keys()
    if status == "diverged":
        expected |= {"metrics": {"test_loss": None}}
        expected |= {"curve": result.curve | {"test_loss": [None]}}
    assert fields == expected


def test_records_of_several_writers_are_read_sorted_by_run_id(tmp_path):
    assert storage.read_records(tmp_path) == []
    write(tmp_path, [make_record(3), make_record(1)])
    write(tmp_path, [make_record(2)])
    assert len(list(tmp_path.glob("records/*.jsonl"))) == 2
    assert storage.read_records(tmp_path) == [make_record(index) for index in (1, 2, 3)]


def test_curves_are_read_for_all_no_or_some_runs(tmp_path):
    write(tmp_path, [make_record(1), make_record(2, curve=None), make_record(3, curve={})])
    write(tmp_path, [without_curve(make_record(4))])
    everything = [make_record(1), make_record(2, curve=None), make_record(3, curve={})]
    everything.append(make_record(4, curve=None))
    assert storage.read_records(tmp_path) == everything
    assert storage.read_records(tmp_path, curves=False) == [
        without_curve(record) for record in everything
    ]
    names = {record.run_id for record in everything[:1] + everything[3:]} | {"unknown"}
    curves = storage.read_curves(tmp_path, names)
    assert curves == {make_record(1).run_id: make_record(1).curve}


def test_a_nested_field_named_curve_is_kept(tmp_path):
    record = make_record(1, curve=None, settings={"a": 1, "curve": {"b": 2}})
    write(tmp_path, [record])
    assert storage.read_records(tmp_path, curves=False) == [record]


def test_numbers_are_written_as_strict_json(tmp_path):
    metrics = {"a": math.nan, "b": np.float32(0.5), "c": np.arange(2), "d": -np.inf, "e": np.nan}
    path = write(tmp_path, [make_record(1, metrics=metrics)])

    def refuse(word):
        raise AssertionError(word)

    record = json.loads(path.read_text(), parse_constant=refuse)
    assert record["metrics"] == {"a": None, "b": 0.5, "c": [0, 1], "d": None, "e": None}


def test_the_duplicate_that_finished_first_counts(tmp_path):
    write(tmp_path, [make_record(1, finished_at="2026-01-02", device="late")], "a")
    write(tmp_path, [make_record(1, finished_at="2026-01-01", device="early")], "b")
    write(tmp_path, [make_record(1, finished_at="2026-01-03", device="later")], "c")
    assert [record.device for record in storage.read_records(tmp_path)] == ["early"]


@pytest.mark.parametrize("curves", [True, False])
def test_a_torn_line_is_skipped_and_the_next_line_is_kept(tmp_path, curves):
    line = (json.dumps(older_fields(2)) + "\n").encode()
    # A line torn near its end, in the curve, looks most like a whole one.
    for cut in {*range(1, len(line) - 1, 23), *range(len(line) - 100, len(line) - 1)}:
        workdir = tmp_path / str(cut)
        path = write(workdir, [make_record(1)], "w")
        with open(path, "ab") as file:
            file.write(line[:cut])
        write(workdir, [make_record(3)], "w")
        with pytest.warns(UserWarning, match="skipped 1 line .* w.jsonl"):
            found = storage.read_records(workdir, curves=curves)
        assert [record.hparams["seed"] for record in found] == [1, 3]


def test_garbage_is_skipped_with_a_single_warning(tmp_path):
    write(tmp_path, [make_record(1)], "good")
    garbage = [b"\x00\xff{", b"[]", b'{"run_id": "1"}', b"null", b"", b'{"a": {}}']
    garbage.append(b"[" * 100_000)
    wrong = ({"run": {"seed": [1]}}, {"metrics": {"loss": "good"}}, {"status": "lost"})
    for changes in (*wrong, {"curve": [1]}):
        garbage.append(json.dumps(older_fields(1) | changes).encode())
    (tmp_path / "records" / "bad.jsonl").write_bytes(b"\n".join(garbage))
    with pytest.warns(UserWarning) as caught:
        assert len(storage.read_records(tmp_path)) == 1
    assert len(caught) == 1
    assert "skipped 10 lines" in str(caught[0].message)
    assert "bad.jsonl" in str(caught[0].message) and "good" not in str(caught[0].message)


def test_a_full_disk_is_reported_and_loses_no_line(tmp_path, monkeypatch):
    writer = storage.RecordWriter(tmp_path)
    writer.append(make_record(1))
    real = os.write
    room = [100]

    def full(file, data):
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real(file, data[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match=r"\.jsonl: No space left") as error:
        writer.append(make_record(2))
    assert error.value.errno == errno.ENOSPC
    with pytest.warns(UserWarning, match="skipped 1 line"):
        assert storage.read_records(tmp_path) == [make_record(1)]
    room[0] = 10**6
    writer.append(make_record(2))
    with pytest.warns(UserWarning, match="skipped 1 line"):
        assert storage.read_records(tmp_path) == [make_record(1), make_record(2)]


def test_a_short_write_is_completed(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, data: real(file, data[:7]))
    write(tmp_path, [make_record(1), make_record(2)])
    assert storage.read_records(tmp_path) == [make_record(1), make_record(2)]


def test_append_writes_once_and_syncs_once(tmp_path, monkeypatch):
    writer = storage.RecordWriter(tmp_path)
    writer.append(make_record(0))
    calls = []
    real_write, real_sync = os.write, os.fsync
    monkeypatch.setattr(os, "write", lambda *args: calls.append("write") or real_write(*args))
    monkeypatch.setattr(os, "fsync", lambda *args: calls.append("sync") or real_sync(*args))
    writer.append(make_record(1))
    assert calls == ["write", "sync"]


APPEND_FOREVER = """
import itertools, sys
from noisegen import storage
writer = storage.RecordWriter(sys.argv[1])
for seed in itertools.count():
  hparams = {"seed": seed}
  record = storage.Record(
    run_id=f"{seed:016x}", hparams=hparams, metrics={}, status="finished"
  )
  writer.append(record)
  print(seed, flush=True)
"""


def test_a_killed_writer_loses_no_record(tmp_path):
    root = str(pathlib.Path(sweeps.__file__).parents[2])
    command = [sys.executable, "-c", APPEND_FOREVER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as worker:
        while int(worker.stdout.readline()) < 20:
            pass
        worker.kill()
        written = [int(line) for line in worker.stdout.read().split("\n")[:-1]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The kill may have torn the last line.
        seeds = {record.hparams["seed"] for record in storage.read_records(tmp_path)}
    assert seeds >= set(range(max(written, default=20) + 1))


def test_every_writer_has_its_own_file(tmp_path):
    paths = {storage.RecordWriter(tmp_path).path for _ in range(50)}
    assert len(paths) == 50
    assert all(str(os.getpid()) in path.name for path in paths)


def test_a_workdir_is_made_resumed_or_refused(tmp_path):
    workdir = tmp_path / "a" / "b"
    first = storage.open_workdir(workdir, "table1", "mnist/conv", {"command": "x", "nan": math.nan})
    assert first == {"sweep": "table1", "task": "mnist/conv", "command": "x", "nan": None}
    assert storage.read_sweep(workdir) == first
    second = storage.open_workdir(workdir, "table1", "mnist/conv", {"command": "y", "task": "z"})
    assert storage.read_sweep(workdir) == second
    assert second == {"sweep": "table1", "task": "mnist/conv", "command": "y"}
    with pytest.raises(ValueError, match="'table1'.*'table2'.*--workdir"):
        storage.open_workdir(workdir, "table2", "mnist/conv")
    with pytest.raises(ValueError, match="'mnist/conv'.*'digits/mlp'"):
        storage.open_workdir(workdir, "table1", "digits/mlp")
    assert storage.read_sweep(workdir) == second
    assert [path.name for path in workdir.iterdir() if path.is_file()] == ["sweep.json"]


def test_an_unwritable_workdir_is_reported(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="workdir .*file.*writable"):
        storage.open_workdir(tmp_path / "file" / "x", "s", "t")

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(PermissionError, match=r"sweep.json: Permission denied; .*writable"):
        storage.open_workdir(tmp_path, "s", "t")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_missing_and_damaged_workdirs_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="not the workdir of a sweep"):
        storage.read_sweep(tmp_path / "typo")
    (tmp_path / "sweep.json").write_text('{"sweep": ')
    with pytest.raises(ValueError, match="sweep.json is damaged.*delete"):
        storage.open_workdir(tmp_path, "s", "t")


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    storage.write_file(tmp_path / "a", "old")

    def fail(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="could not write .*a: No space"):
        storage.write_file(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.slow
def test_100_000_records_load_in_seconds(tmp_path):
    (tmp_path / "records").mkdir()
    curve = {name: [0.123456789 + k for k in range(15)] for name in ("epoch", "test_accuracy")}
    with open(tmp_path / "records" / "w.jsonl", "wb") as file:
        for index in range(100_000):
            file.write(make_record(index, curve=curve).to_json())
    start = time.process_time()
    assert len(storage.read_records(tmp_path, curves=False)) == 100_000
    assert time.process_time() - start < 5


def test_explained_errors_keep_their_type_and_number():
    error = workdir_lib.explained(OSError(errno.EROFS, "Read-only"), "p", "could not write")
    assert (type(error), error.errno) == (OSError, errno.EROFS)


def edit(path, old, new):
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


@pytest.mark.parametrize("curves", [True, False])
@pytest.mark.parametrize(
    "old, new",
    [
        (b'"learning_rate": 0.1', b'"learning_rate": 0.2'),
        (b'"test_accuracy": 0.5', b'"test_accuracy": 0.9'),
        (b'"finished"', b'"diverged"'),
        (b"[0.25, 0.5]", b"[0.25, 0.6]"),
        (b"0000000000000001", b"0000000000000009"),
        (b', "crc32": "', b', "crc32":"'),
    ],
)
def test_a_changed_line_is_skipped_and_named(tmp_path, old, new, curves):
    path = write(tmp_path, [make_record(0), make_record(1), make_record(2)], "w")
    before, changed, after = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(before + changed.replace(old, new) + after)
    with pytest.warns(UserWarning, match="skipped 1 line .*checksum.* w.jsonl line 2") as warned:
        found = storage.read_records(tmp_path, curves=curves)
    assert [record.hparams["seed"] for record in found] == [0, 2] and len(warned) == 1


def test_an_edited_line_is_accepted_without_its_checksum(tmp_path):
    path = write(tmp_path, [make_record(1)])
    edit(path, b'"test_accuracy": 0.5', b'"test_accuracy": 0.9')
    with pytest.warns(UserWarning, match='remove "crc32" and its value from the line'):
        assert storage.read_records(tmp_path) == []
    record = json.loads(path.read_bytes())
    del record["crc32"]
    path.write_text(json.dumps(record) + "\n")
    assert storage.read_records(tmp_path)[0].metrics["test_accuracy"] == 0.9


@pytest.mark.parametrize("curves", [True, False])
def test_a_flipped_bit_never_changes_a_record(curves):
    line = make_record(1).to_json()
    right = storage.Record.from_json(line, curves)
    for at in range(len(line) - 1):
        for bit in (1, 16, 64):
            damaged = line[:at] + bytes([line[at] ^ bit]) + line[at + 1 :]
            with contextlib.suppress(LineError):
                assert storage.Record.from_json(damaged, curves) == right, damaged


def test_zeroed_or_missing_bytes_never_change_a_record():
    line = make_record(1).to_json()[:-1]
    for at in range(len(line)):
        for size in (1, 40):
            rest = line[at + size :]
            for damaged in (line[:at] + bytes(len(line) - len(rest) - at) + rest, line[:at] + rest):
                with contextlib.suppress(LineError):
                    assert storage.Record.from_json(damaged) == make_record(1), damaged


def old_line(record):
    return json.dumps(record) + "\n"


def named(run, **changes):
    """Returns the fields of an older line with the run_id that the run has in task `t`."""
    return older_fields(0) | {"run": run, "run_id": sweeps.run_id("t", run)} | changes


@pytest.mark.parametrize("curves", [True, False])
def test_an_older_line_whose_run_id_does_not_match_is_skipped_and_named(tmp_path, curves):
    storage.open_workdir(tmp_path, "s", "t")
    right = named({"batch_size": 64, "seed": 1})
    edited = named({"batch_size": 64, "seed": 2}) | {"run": {"batch_size": 64, "seed": 3}}
    path = tmp_path / "records" / "old.jsonl"
    path.write_text(old_line(right) + "\n" + old_line(edited) + old_line({**right, "run": {}}))
    with pytest.warns(UserWarning, match="run_id.* old.jsonl line 3, old.jsonl line"):
        found = storage.read_records(tmp_path, curves=curves)
    assert [record.hparams for record in found] == [right["run"]]
    (tmp_path / "sweep.json").unlink()
    with pytest.warns(UserWarning, match="run_id"):
        assert len(storage.RecordReader(tmp_path, task_name="t").new()) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"metrics": {"loss": float("nan")}},
        {"metrics": {"loss": 10**400}},
        {"num_examples": "many"},
        {"num_updates": [1]},
        {"seconds": float("inf")},
        {"versions": ["jax"]},
        {"curve": {"epoch": 1}},
        {"curve": {"epoch": ["first"]}},
    ],
)
def test_older_lines_with_invalid_content_are_skipped_and_named(tmp_path, changes):
    path = write(tmp_path, [make_record(1)], "new")
    odd = path.with_name("odd.jsonl")
    odd.write_text(old_line(older_fields(2)) + old_line(older_fields(3) | changes))
    with pytest.warns(UserWarning, match="skipped 1 line .* odd.jsonl line 2"):
        found = storage.read_records(tmp_path)
    assert [record.hparams["seed"] for record in found] == [1, 2]


def test_skipped_lines_are_counted_and_the_first_are_named(tmp_path):
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "w.jsonl").write_text("{}\n" * 70)
    with pytest.warns(UserWarning, match="skipped 70 lines .* w.jsonl line 5 and 65 more"):
        assert storage.read_records(tmp_path) == []


def test_lines_added_later_are_named_by_their_number_in_the_file(tmp_path):
    reader = storage.RecordReader(tmp_path)
    path = write(tmp_path, [make_record(1), make_record(2)], "w")
    assert len(reader.new()) == 2
    write(tmp_path, [make_record(3), make_record(4)], "w")
    edit(path, b'"seed": 4', b'"seed": 5')
    with pytest.warns(UserWarning, match="w.jsonl line 4"):
        assert [record.hparams["seed"] for record in reader.new()] == [3]


def test_lines_are_counted_correctly_after_a_line_completed_later(tmp_path):
    reader = storage.RecordReader(tmp_path)
    path = write(tmp_path, [make_record(1)], "w")
    path.write_bytes(path.read_bytes().rstrip())
    assert reader.new() == [without_curve(make_record(1))]
    write(tmp_path, [make_record(2)], "w")
    edit(path, b'"seed": 2', b'"seed": 3')
    with pytest.warns(UserWarning, match="skipped 1 line .* w.jsonl line 2"):
        assert reader.new() == []


def test_a_line_that_is_being_written_is_read_later(tmp_path):
    reader = storage.RecordReader(tmp_path)
    assert reader.new() == []
    path = write(tmp_path, [make_record(1), make_record(2)])
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    assert [record.hparams["seed"] for record in reader.new()] == [1]
    path.write_bytes(whole)
    assert [record.hparams["seed"] for record in reader.new()] == [2]


def test_curves_of_changed_lines_are_not_used(tmp_path):
    path = write(tmp_path, [make_record(1), make_record(2)])
    edit(path, b"[0.25, 0.5]", b"[0.25, 0.6]")
    names = [make_record(index).run_id for index in (1, 2)]
    assert storage.read_curves(tmp_path, names) == {names[1]: make_record(2).curve}
