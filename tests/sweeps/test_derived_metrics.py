"""Derived metrics: functions of a finished run that protocols read like any other metric."""

import dataclasses
import math

import numpy as np
import pytest

from noisegen import reports, storage, sweeps
from noisegen.sweeps.progress import Tally
from tests.sweeps.test_sweep import make_task, trainable

PERPLEXITY = sweeps.Metric("perplexity", derive=lambda run: math.exp(run.metrics["test_loss"]))


def at_best(run):
    """The update of the best evaluation."""
    return run.curve["update"][np.nanargmin(run.curve["test_loss"])]


BEST = sweeps.Metric("best_update", derive=at_best)
GRID = sweeps.grid(batch_size=[4], learning_rate=[0.1, 0.2, 0.4], seed=[0])
PROTOCOL = sweeps.Protocol(metric=BEST, mode="min", report=(PERPLEXITY,), max_extensions=0)
CURVES = ([3.0, 2.0, 1.0], [2.0, None, 3.0], [2.0, 1.0, 5.0])


def make_records(runs=GRID, **fields):
    """Records whose curves are best at the updates 30, 10 and 20."""
    return [
        storage.Record(
            run_id=run_id,
            hparams=run,
            status="finished",
            metrics={"test_loss": losses[-1]},
            curve={"epoch": [1, 2, 3], "update": [10, 20, 30], "test_loss": losses},
            num_updates=30,
            num_examples=120,
            **fields,
        )
        for (run_id, run), losses in zip(sweeps.by_run_id("t", runs).items(), CURVES, strict=True)
    ]


@pytest.fixture
def begun(tmp_path):
    """Returns begun(protocol) -> a sweep with these records on disk."""

    def make(protocol=PROTOCOL, records=None):
        sweep = sweeps.Sweep(make_task, GRID, protocol, tmp_path)
        with storage.RecordWriter(tmp_path) as writer:
            for record in make_records() if records is None else records:
                writer.append(record)
        return sweep

    return make


def test_a_function_of_the_curve_chooses_the_optimum():
    [optimum] = sweeps.select(make_records(), PROTOCOL)
    assert optimum.values == {"learning_rate": 0.2} and optimum.mean == 10
    assert optimum.report["perplexity"][0] == pytest.approx(math.exp(3))


def test_it_is_computed_when_records_are_read_and_never_stored(begun, tmp_path):
    sweep = begun()
    before = {path: path.read_bytes() for path in tmp_path.glob("records/*")}
    assert sorted(sweep.to_frame()["best_update"]) == [10, 20, 30]
    assert sweep.optima()[0].mean == 10
    assert "best update" in sweep.to_text() and "perplexity" in sweep.to_text()
    [headings] = {tuple(column.header._said for column in Tally(sweep).table().columns)}
    assert any("best update" in heading for heading in headings)
    assert before == {path: path.read_bytes() for path in tmp_path.glob("records/*")}
    assert all(record.curve is None for record in sweep.records())


def test_it_can_be_added_to_a_finished_sweep(begun):
    sweep = begun(sweeps.Protocol(metric="test_loss", mode="min", max_extensions=0))
    assert "best_update" not in sweep.to_frame()
    [optimum] = sweep.optima(PROTOCOL)
    assert optimum.mean == 10
    assert "best_update_mean" in sweep.table(PROTOCOL)
    assert "best_update" in sweep.replace(protocol=PROTOCOL).to_frame()


def test_steps_to_a_target_are_one_case_of_it(begun):
    steps = sweeps.Metric(
        "steps", derive=lambda run: sweeps.first_crossing(run, 1.5, "test_loss", "min").updates
    )
    [optimum] = begun(sweeps.Protocol(metric=steps, mode="min", max_extensions=0)).optima()
    assert optimum.mean == 15 and optimum.values == {"learning_rate": 0.4}
    # A run that never reaches the target is worse than any other.
    assert [point.scores for point in optimum.points] == [(25.0,), (None,), (15.0,)]


def test_a_failure_at_one_run_names_it_and_loses_nothing(begun):
    failing = sweeps.Metric("tried", derive=lambda run: 1 / (run.hparams["learning_rate"] != 0.2))
    protocol = dataclasses.replace(PROTOCOL, report=(failing,))
    run_id = next(r.run_id for r in make_records() if r.hparams["learning_rate"] == 0.2)
    sweep = begun(protocol)
    with pytest.warns(UserWarning, match=f"tried cannot be derived for run {run_id}: ZeroDivision"):
        frame = sweep.to_frame()
    assert sorted(frame["best_update"]) == [10, 20, 30]
    assert frame["tried"].isna().sum() == 1 and len(sweep.optima()) == 1


def test_a_name_that_only_some_records_lack_is_named(begun):
    lacking = sweeps.Metric("lacking", derive=lambda run: run.metrics["absent"])
    with pytest.warns(UserWarning, match="run [0-9a-f]+: there is no 'absent' in the metrics"):
        begun(dataclasses.replace(PROTOCOL, report=(lacking,))).to_frame()


def test_a_diverged_run_has_none_and_a_row_without_any_says_so(begun):
    records = make_records()
    diverged = dataclasses.replace(records[0], status="diverged", curve={}, metrics={})
    sweep = begun(records=[diverged, *records[1:]])
    assert sweep.to_frame()["best_update"].isna().sum() == 1
    never = sweeps.Metric("never", derive=lambda run: math.inf)
    [optimum] = sweeps.select(records, sweeps.Protocol(metric=never))
    assert optimum.flags == ("no_value",) and optimum.n == 0
    text = reports.to_text([optimum], sweeps.Protocol(metric=never))
    assert "No run has a finite value" in text and "diverged." not in text


def test_a_race_reads_it_while_the_sweep_is_trained(tmp_path):
    last = sweeps.Metric("last", derive=lambda run: run.curve["test_loss"][-1])
    sweep = trainable(tmp_path).replace(
        protocol=sweeps.Protocol(metric=last, mode="min", search="race", max_extensions=0)
    )
    sweep.run(progress=False)
    losses = {r.run_id: r.metrics["test_loss"] for r in sweep.records()}
    assert {r.run_id: r.metrics["last"] for r in sweep.records()} == losses
    assert "last" not in storage.read_records(tmp_path)[0].metrics


@pytest.mark.parametrize(
    "metric, message",
    [
        (sweeps.Metric("x", derive=lambda run: run.curve["tset_loss"][-1]), "no 'tset_loss' in"),
        (sweeps.Metric("x", derive=lambda run: run.hparams["lr"]), "no 'lr' in the run"),
        (sweeps.Metric("test_loss", derive=lambda run: 0.0), "has a metric test_loss already"),
    ],
)
def test_a_mistake_is_refused_before_anything_is_trained(metric, message, tmp_path):
    sweep = trainable(tmp_path / "new").replace(protocol=sweeps.Protocol(metric=metric))
    with pytest.raises(ValueError, match=message):
        sweep.run(progress=False)
    assert not (tmp_path / "new").exists()


def test_a_definition_that_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="derive must be a function"):
        sweeps.Metric("x", derive=3)
    with pytest.raises(ValueError, match="Every record has seconds"):
        sweeps.Metric("seconds", derive=at_best)
    other = sweeps.Metric("best_update", derive=lambda run: 0)
    with pytest.raises(ValueError, match="Two metrics are named best_update"):
        sweeps.Sweep(make_task, GRID, [PROTOCOL, sweeps.Protocol(metric=other)])


def test_sweep_json_holds_no_function(begun, tmp_path):
    sweep = begun()
    with sweep.begun():
        pass
    with pytest.raises(ValueError, match="whose protocol has functions"):
        sweeps.Sweep.open(tmp_path)
