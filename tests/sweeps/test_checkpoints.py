"""Checkpoints on the disk: what was saved comes back, and what is damaged is skipped."""

import json
import pathlib
import time

import jax.numpy as jnp
import numpy as np
import pytest

from noisegen import sweeps

RUNS = [{"seed": 0}, {"seed": 1}, None]


def arrays(count):
    return {
        "params.['a'] / b.c": jnp.arange(12.0).reshape(3, 4) * count,
        "count": jnp.array([count, count + 1, 0]),
        "seconds": np.array([0.5, 1.5, 0.0]),
        "flags": jnp.ones((3, 2), bool),
    }


def save(workdir, *counts, runs=RUNS):
    with sweeps.Checkpoints(workdir, "task", 1e-9) as store:
        for count in counts:
            store.save(runs, arrays(count))


def found(workdir, run, task="task"):
    return list(sweeps.Checkpoints(workdir, task).load(run))


def steps(workdir):
    return sorted(pathlib.Path(workdir).glob("checkpoints/*/*"), key=lambda path: int(path.name))


def test_what_was_saved_comes_back_latest_first(tmp_path):
    save(tmp_path, 3, 7, 5)  # of one writer the last two
    for lane, run in enumerate(RUNS[:2]):
        back = found(tmp_path, run)
        assert [each["count"] for each in back] == [7 + lane, 5 + lane]
        for name, value in arrays(7).items():
            np.testing.assert_array_equal(back[0][name], value[lane])
            assert back[0][name].dtype == value.dtype
    assert found(tmp_path, {"seed": 2}) == found(tmp_path, {"seed": 0}, "another task") == []


def test_writers_add_up_and_the_run_that_is_furthest_counts(tmp_path):
    save(tmp_path, 4)
    save(tmp_path, 9, runs=[None, {"seed": 0}, None])
    save(tmp_path, 6)
    assert [each["count"] for each in found(tmp_path, {"seed": 0})] == [10, 6, 4]
    assert [each["count"] for each in found(tmp_path, {"seed": 1})] == [7, 5]


def damage_json(path):
    (path / "meta" / "metadata").write_text('{"format": 1, "ru')


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
        (damage_version, "it is of another version of noisegen .format 0."),
    ],
)
def test_a_damaged_or_foreign_checkpoint_is_skipped_for_the_one_before(tmp_path, damage, reason):
    save(tmp_path, 3, 7)
    last = steps(tmp_path)[-1]
    damage(last)
    with pytest.warns(UserWarning, match="skipped the checkpoint .*" + reason) as warned:
        assert [each["count"] for each in found(tmp_path, {"seed": 0})] == [3]
    assert len(warned) == 1 and str(last) in str(warned[0].message)


def test_one_that_was_not_finished_is_no_checkpoint(tmp_path):
    save(tmp_path, 3, 7)
    last = steps(tmp_path)[-1]
    last.rename(last.with_name(last.name + ".orbax-checkpoint-tmp"))
    assert [each["count"] for each in found(tmp_path, {"seed": 0})] == [3]


def test_what_cannot_be_written_is_a_warning(tmp_path):
    (tmp_path / "checkpoints").write_text("a file stands in the way")
    with pytest.warns(UserWarning, match="could not write a checkpoint to .*training goes on"):
        save(tmp_path, 3)


def test_due_after_the_interval(tmp_path):
    store = sweeps.Checkpoints(tmp_path, "task", 0.05)
    assert not store.due()
    time.sleep(0.06)
    assert store.due()
    store.save(RUNS, arrays(1))
    assert not store.due()
    store.close()
    assert not sweeps.Checkpoints(tmp_path, "task", 0).due()
    with pytest.raises(ValueError, match="must not be negative"):
        sweeps.Checkpoints(tmp_path, "task", -1)


def test_clear_leaves_nothing(tmp_path):
    save(tmp_path, 4)
    with sweeps.Checkpoints(tmp_path, "task") as store:
        store.save(RUNS, arrays(1))
        store.clear()
    assert list(tmp_path.iterdir()) == []
