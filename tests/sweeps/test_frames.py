"""A sweep as DataFrames, and as notebooks show it."""

import math

import pytest

from noisegen import storage, sweeps

GRID = sweeps.grid(batch_size=[4], learning_rate=[0.1, 0.2], seed=[0])
CURVE = {"epoch": [0.5, 1.0], "update": [10, 20], "test_accuracy": [0.25, 0.5], "odd": [None, None]}


def no_task():
    raise AssertionError("a sweep is shown without its task")


@pytest.fixture
def sweep(tmp_path):
    """A sweep with the record of one of two runs."""
    sweep = sweeps.Sweep(no_task, GRID, workdir=tmp_path / "new", title="<Slopes>")
    storage.open_workdir(sweep.workdir, "sweep", "t", {})
    run_id, run = next(iter(sweeps.by_run_id("t", GRID).items()))
    metrics = {"test_accuracy": 0.5, "odd": None}
    with storage.RecordWriter(sweep.workdir) as writer:
        writer.append(
            storage.Record(
                run_id=run_id, hparams=run, status="finished", metrics=metrics, curve=CURVE
            )
        )
    return sweep


def test_curves_are_a_row_for_each_run_and_evaluation(sweep):
    frame = sweep.curves_frame()
    columns = ["run_id", "batch_size", "learning_rate", "seed", *CURVE]
    assert list(frame.columns) == columns
    assert frame["update"].tolist() == [10, 20] and frame["test_accuracy"].tolist() == [0.25, 0.5]
    assert frame["odd"].dtype == float and math.isnan(frame["odd"][0])
    assert sweep.curves_frame([frame["run_id"][0], "no such run"]).equals(frame)
    assert sweep.curves_frame([]).empty


def test_a_notebook_shows_runs_and_table(sweep):
    html = sweep._repr_html_()
    assert "<b>&lt;Slopes&gt;</b>: 1/2 runs" in html and "50.00" in html


def test_a_sweep_that_is_not_begun_is_shown_without_its_task(tmp_path):
    sweep = sweeps.Sweep(no_task, GRID, workdir=tmp_path / "never")
    assert "2 planned runs, not begun" in sweep._repr_html_()
    assert repr(sweep) == "<Sweep 'sweep' of 2 planned runs>"
    assert not sweep.workdir.exists()


def test_a_sweep_without_a_record_has_empty_frames(tmp_path):
    sweep = sweeps.Sweep(no_task, GRID, workdir=tmp_path)
    storage.open_workdir(tmp_path, "sweep", "t", {})
    for frame in (sweep.to_frame(), sweep.curves_frame()):
        assert frame.empty and list(frame.columns) == ["run_id"]
    assert "0/2 runs" in sweep._repr_html_()
