"""Tests that saved checkpoints are restored, and that damaged ones are skipped."""

import json
import os
import pathlib
import shutil
import types
import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from noisegen import storage, sweeps, training
from noisegen.storage import checkpoints, checksums


def run_of(seed, task="task"):
    """Returns a run with a given seed and no plan, since checkpoints read only its id."""
    hparams = {"seed": seed}
    return training.Run(sweeps.run_id(task, hparams), hparams, None)


RUNS = [run_of(0), run_of(1), None]


def arrays(count):
    return {
        "params.['a'] / b.c": jnp.arange(12.0).reshape(3, 4) * count,
        "updates": jnp.array([count, count + 1, 0]),
        "seconds": np.array([0.5, 1.5, 0.0]),
        "flags": jnp.ones((3, 2), bool),
    }


def save(workdir, *counts, runs=RUNS):
    with storage.Checkpoints(workdir, 1e-9) as store:
        for count in counts:
            store.save(runs, [count, count + 1, 0], arrays(count))


def found(workdir, run):
    return list(storage.Checkpoints(workdir).load(run))


def steps(workdir):
    found = pathlib.Path(workdir).glob("checkpoints/*/*")
    return sorted(found, key=lambda path: int(path.name.partition(".")[0]))


def test_saved_states_are_restored_latest_first(tmp_path):
    save(tmp_path, 3, 7, 5)  # The last two of a writer are kept.
    for lane, run in enumerate(RUNS[:2]):
        back = found(tmp_path, run)
        assert [each["updates"] for each in back] == [7 + lane, 5 + lane]
        for name, value in arrays(7).items():
            np.testing.assert_array_equal(back[0][name], value[lane])
            assert back[0][name].dtype == value.dtype
    assert found(tmp_path, run_of(2)) == found(tmp_path, run_of(0, "another task")) == []


def test_states_of_all_writers_are_restored_furthest_first(tmp_path):
    save(tmp_path, 4)
    save(tmp_path, 9, runs=[None, run_of(0), None])
    save(tmp_path, 6)
    assert [each["updates"] for each in found(tmp_path, run_of(0))] == [10, 6, 4]
    assert [each["updates"] for each in found(tmp_path, run_of(1))] == [7, 5]


def test_checkpoints_that_another_writer_adds_later_are_found(tmp_path):
    with storage.Checkpoints(tmp_path) as store:
        assert not [*store.load(run_of(0))]
        save(tmp_path, 4)
        assert [each["updates"] for each in store.load(run_of(0))] == [4]


def damage_json(path):
    (path / "meta" / "metadata").write_text('{"format": 1, "ru')


def damage_counts(path):
    file = path / "meta" / "metadata"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"counts": ["a"]}))


def damage_kind(path):
    (path / "meta" / "metadata").write_text("[1]")


def damage_version(path):
    file = path / "meta" / "metadata"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 0}))


def damage_data(path):
    for file in [*path.glob("arrays/d/*"), *path.glob("arrays/ocdbt.process_0/d/*")]:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def damage_all(path):
    for file in path.rglob("*"):
        if file.is_file():
            file.write_bytes(b"")


@pytest.mark.parametrize(
    "damage, reason",
    [
        (damage_json, "Error"),
        (damage_data, "Error"),
        (damage_all, "Error"),
        (damage_version, "format 0"),
        (damage_counts, "metadata"),
        (damage_kind, "format None"),
    ],
)
def test_an_unusable_checkpoint_is_skipped_for_the_previous_one(tmp_path, damage, reason):
    save(tmp_path, 3, 7)
    last = steps(tmp_path)[-1]
    damage(last)
    with pytest.warns(UserWarning, match="skipped the checkpoint .*" + reason) as warned:
        assert [each["updates"] for each in found(tmp_path, run_of(0))] == [3]
    assert len(warned) == 1 and str(last) in str(warned[0].message)


def rewrite(path, **changes):
    """Changes the metadata of a checkpoint together with its checksum."""
    file = path / "meta" / "metadata"
    meta = json.loads(file.read_text()) | changes
    del meta["checksum"]
    file.write_text(json.dumps(meta | {"checksum": checksums.of_json(meta)}))


def test_a_lane_that_the_arrays_lack_is_skipped_with_a_warning(tmp_path):
    save(tmp_path, 3, 7)
    last = steps(tmp_path)[-1]
    rewrite(last, runs=[None] * 9 + [run_of(0).id], counts=[0] * 9 + [7])
    with pytest.warns(UserWarning, match="lane 9") as warned:
        assert [each["updates"] for each in found(tmp_path, run_of(0))] == [3]
    assert len(warned) == 1 and str(last) in str(warned[0].message)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Makes a sweep with two checkpoints, at updates 3 and 7, whose arrays span several pages."""
    workdir = tmp_path_factory.mktemp("large")
    weights = np.random.default_rng(0).normal(size=(2, 3, 5000)).astype(np.float32)
    with storage.Checkpoints(workdir, 1e-9) as store:
        for count, values in zip((3, 7), weights, strict=True):
            store.save(RUNS, [count] * 3, {"weights": values, "updates": np.full(3, count)})
    return workdir


@pytest.fixture
def copy(large, tmp_path):
    """Copies that sweep, to be damaged. Returns its older and its newer checkpoint."""
    shutil.copytree(large, tmp_path, dirs_exist_ok=True)
    return steps(tmp_path)


def updates(workdir, lane=0):
    return [int(each["updates"]) for each in found(workdir, RUNS[lane])]


def data_file(path):
    return max(path.rglob("d/*"), key=lambda file: file.stat().st_size)


def flip_bit(content, at):
    return content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :]


def zero_page(content, at):
    size = min(4096, len(content) - at)
    return content[:at] + bytes(size) + content[at + size :]


def cut(content, at):
    return content[:at]


@pytest.mark.parametrize("damage", [flip_bit, zero_page, cut])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.6, 0.9])
def test_arrays_with_changed_bytes_are_never_used(copy, tmp_path, damage, part):
    file = data_file(copy[1])
    content = file.read_bytes()
    file.write_bytes(damage(content, int(part * len(content))))
    with pytest.warns(UserWarning, match="skipped the checkpoint") as warned:
        assert updates(tmp_path) == [3] and updates(tmp_path, 1) == [3]
    assert {str(copy[1]) in str(each.message) for each in warned} == {True}
    assert len(warned) == 2  # One for each of the two readers.


@pytest.mark.parametrize("damage", [flip_bit, zero_page, cut])
def test_any_damaged_file_gives_correct_arrays_or_a_warning(copy, large, tmp_path, damage):
    names = [file.relative_to(tmp_path) for file in copy[1].rglob("*") if file.is_file()]
    right = {step: found(large, RUNS[0])[i]["weights"] for i, step in enumerate((7, 3))}
    for name in names:
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(damage(content, len(content) // 2))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            back = found(tmp_path, RUNS[0])
        (tmp_path / name).write_bytes(content)
        kept = (7, 3) if len(back) == 2 else (3,)
        for each, step in zip(back, kept, strict=True):
            np.testing.assert_array_equal(each["weights"], right[step])
        assert len(caught) == (len(back) == 1), name


def swap(one, other):
    one.rename(one.with_name("between"))
    other.rename(one)
    one.with_name("between").rename(other)


def swap_arrays(one, other):
    swap(one / "arrays", other / "arrays")


def swap_metas(one, other):
    swap(one / "meta", other / "meta")


@pytest.mark.parametrize("exchange", [swap, swap_arrays, swap_metas])
def test_checkpoints_with_exchanged_parts_are_not_used(copy, tmp_path, exchange):
    exchange(*copy)
    with pytest.warns(UserWarning, match="skipped the checkpoint") as warned:
        assert updates(tmp_path) == []
    assert len(warned) == 2


def test_a_renamed_checkpoint_is_not_used(copy, tmp_path):
    copy[1].rename(copy[1].with_name("9"))
    with pytest.warns(UserWarning, match=r"/2.*/9"):
        assert updates(tmp_path) == [3]


def test_a_checkpoint_with_exchanged_lanes_is_not_used(copy, tmp_path):
    runs = [RUNS[1].id, RUNS[0].id, None]
    file = copy[1] / "meta" / "metadata"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"runs": runs}))
    with pytest.warns(UserWarning, match="checksum"):
        assert updates(tmp_path) == [3]


def test_checkpoints_of_an_older_version_are_skipped(copy, tmp_path):
    file = copy[1] / "meta" / "metadata"
    meta = json.loads(file.read_text())
    old = {"format": 1, "names": ["weights", "updates"]}
    file.write_text(json.dumps({"runs": meta["runs"], "counts": meta["counts"]} | old))
    with pytest.warns(UserWarning, match="format 1"):
        assert updates(tmp_path) == [3]


def test_an_unfinished_checkpoint_is_not_used(tmp_path):
    save(tmp_path, 3, 7)
    last = steps(tmp_path)[-1]
    last.rename(last.with_name(last.name + ".orbax-checkpoint-tmp"))
    assert [each["updates"] for each in found(tmp_path, run_of(0))] == [3]


def test_a_failed_write_is_a_warning(tmp_path):
    (tmp_path / "checkpoints").write_text("A file is in the way.")
    with pytest.warns(UserWarning, match="could not write a checkpoint"):
        save(tmp_path, 3)


def test_a_checkpoint_is_due_after_the_interval(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(checkpoints, "time", types.SimpleNamespace(monotonic=lambda: now[0]))
    store = storage.Checkpoints(tmp_path, 60)
    for _ in range(2):
        now[0] += 59
        assert not store.due()
        now[0] += 1
        assert store.due()
        store.save(RUNS, [1, 2, 0], arrays(1))
    store.close()
    assert not storage.Checkpoints(tmp_path, 0).due()
    for wrong in (-1, float("nan")):
        with pytest.raises(ValueError, match="negative"):
            storage.Checkpoints(tmp_path, wrong)


@pytest.mark.parametrize(
    "seconds, passed, hurries", [(300, 11, True), (300, 9, False), (0, 1000, False)]
)
def test_hurry_requests_a_checkpoint_unless_little_would_be_lost(
    tmp_path, monkeypatch, seconds, passed, hurries
):
    clock = types.SimpleNamespace(monotonic=lambda: 50.0, time=lambda: 0.0)
    monkeypatch.setattr(checkpoints, "time", clock)
    with storage.Checkpoints(tmp_path, seconds) as store:
        clock.monotonic = lambda: 50.0 + passed
        assert not store.due()
        store.hurry()
        assert store.due() == store.hurried == hurries
        if hurries:
            store.save(RUNS, [1, 2, 0], arrays(1))
            assert not store.due() and not store.hurried


def test_all_checkpoints_are_removed_once_every_run_is_recorded(tmp_path):
    save(tmp_path, 4)
    recorded = set()
    with storage.Checkpoints(tmp_path, recorded=recorded) as store:
        store.save(RUNS, [1, 2, 0], arrays(1))
        recorded |= {run.id for run in RUNS[:2]}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("left", ["", "arrays"])
def test_a_half_removed_checkpoint_is_not_used_and_is_removed_with_the_rest(tmp_path, left):
    save(tmp_path, 3, 7)
    last = steps(tmp_path)[-1]
    shutil.rmtree(last)
    (last / left).mkdir(parents=True)
    assert [each["updates"] for each in found(tmp_path, run_of(0))] == [3]
    with storage.Checkpoints(tmp_path, recorded={run.id for run in RUNS[:2]}):
        pass
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_of_other_unrecorded_runs_stay(tmp_path):
    save(tmp_path, 4)
    save(tmp_path, 9, runs=[run_of(5), None, None])
    recorded = {run.id for run in RUNS[:2]}
    with storage.Checkpoints(tmp_path, recorded=recorded):
        pass
    assert found(tmp_path, run_of(0)) == []
    assert [each["updates"] for each in found(tmp_path, run_of(5))] == [9]


def test_checkpoints_of_other_writers_are_removed_once_superseded(tmp_path):
    save(tmp_path, 4)
    save(tmp_path, 5, runs=[run_of(0), run_of(5), None])
    with storage.Checkpoints(tmp_path) as store:
        store.save(RUNS, [6, 7, 0], arrays(6))
        assert len(list((tmp_path / "checkpoints").iterdir())) == 3  # Ours may not be whole yet.
        store.save(RUNS, [7, 8, 0], arrays(7))
        assert len(list((tmp_path / "checkpoints").iterdir())) == 2
    assert [each["updates"] for each in found(tmp_path, run_of(0))] == [7, 6, 5]
    assert [each["updates"] for each in found(tmp_path, run_of(5))] == [6]


def test_a_checkpoint_that_is_further_than_ours_stays(tmp_path):
    save(tmp_path, 50)
    with storage.Checkpoints(tmp_path) as store:
        for count in (6, 49, 50, 51):
            store.save(RUNS, [count, count + 1, 0], arrays(count))
            left = 1 if count == 51 else 2  # 50 was whole when 51 began.
            assert len(list((tmp_path / "checkpoints").iterdir())) == left


def test_a_directory_that_another_may_be_writing_stays(tmp_path):
    save(tmp_path, 4)
    (steps(tmp_path)[0].parent / "2.orbax-checkpoint-tmp").mkdir()
    with storage.Checkpoints(tmp_path) as store:
        for count in (6, 7, 8):
            store.save(RUNS, [count, count + 1, 0], arrays(count))
        assert len(list((tmp_path / "checkpoints").iterdir())) == 2


def test_nothing_is_written_if_the_disk_lacks_space(tmp_path, monkeypatch):
    full = types.SimpleNamespace(free=10)
    monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda path: full)
    with pytest.warns(UserWarning, match="no space left.* 10 free"):
        save(tmp_path, 3)
    assert not steps(tmp_path)


def test_checkpoints_of_another_version_stay(tmp_path):
    save(tmp_path, 4)
    save(tmp_path, 5)
    damage_version(steps(tmp_path)[0])
    (tmp_path / "checkpoints" / "another" / "1.orbax-checkpoint-tmp").mkdir(parents=True)
    recorded = {run.id for run in RUNS[:2]}
    with (
        pytest.warns(UserWarning, match="another version"),
        storage.Checkpoints(tmp_path, recorded=recorded),
    ):
        pass
    assert len(steps(tmp_path)) == 2  # The foreign one, and one that another may be writing.
    os.utime(tmp_path / "checkpoints" / "another" / "1.orbax-checkpoint-tmp", (0, 0))
    with (
        pytest.warns(UserWarning, match="another version"),
        storage.Checkpoints(tmp_path, recorded=recorded),
    ):
        pass
    assert len(steps(tmp_path)) == 1


def test_a_write_that_fails_in_the_background_is_a_warning(tmp_path, monkeypatch):
    def fail(store):
        """Makes the last write fail."""
        close = store._manager.close

        def failing():
            close()
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(store._manager, "close", failing)

    with (
        pytest.warns(UserWarning, match="No space left on device") as warned,
        storage.Checkpoints(tmp_path) as store,
    ):
        store.save(RUNS, [1, 2, 0], arrays(1))
        fail(store)
        (store._own / "9.orbax-checkpoint-tmp").mkdir()
    assert len(warned) == 1
    assert not list(tmp_path.glob("checkpoints/*/*-tmp"))
    with (
        pytest.raises(KeyboardInterrupt),
        pytest.warns(UserWarning),
        storage.Checkpoints(tmp_path) as store,
    ):
        store.save(RUNS, [1, 2, 0], arrays(1))
        fail(store)
        raise KeyboardInterrupt
