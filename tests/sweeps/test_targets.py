"""Steps to target: when curves cross a target, and the fastest learning rate of a row."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisegen import statistics, storage, sweeps

PROTOCOL = sweeps.Protocol(metric="loss", mode="min", best=1, of=3)
EPOCH = 64  # examples


def make_record(values, batch_size=8, rate=0.1, seed=0, every=4, metric="loss", **changes):
    """A run that was evaluated after every few updates."""
    updates = [every * (index + 1) for index in range(len(values))]
    fields = {
        "run_id": f"{batch_size} {rate} {seed}",
        "hparams": {"batch_size": batch_size, "learning_rate": rate, "seed": seed},
        "status": "finished",
        "metrics": {metric: values[-1] if values else None},
        "num_updates": updates[-1] if values else 1,
        "num_examples": updates[-1] * batch_size if values else 1,
        "curve": {
            "epoch": [update * batch_size / EPOCH for update in updates],
            "update": updates,
            metric: list(values),
        },
    }
    return storage.Record(**fields | changes)


def crossing(values, target, mode="min", **changes):
    return sweeps.first_crossing(make_record(values, **changes), target, "loss", mode)


def halving(steps, **changes):
    """A run whose loss falls by half in so many updates, from 1."""
    return make_record([0.5 ** (4 * (i + 1) / steps) for i in range(40)], **changes)


def test_between_evaluations_the_metric_is_interpolated():
    found = crossing([0.9, 0.5, 0.4], 0.6)
    assert (found.updates, found.examples) == pytest.approx((7, 56))  # 3/4 of the way from 4 to 8
    found = crossing([0.1, 0.3, 0.7], 0.4, mode="max")
    assert found.updates == pytest.approx(9)


def test_an_evaluation_at_the_target_has_reached_it():
    assert crossing([0.9, 0.7, 0.5], 0.7).updates == 8


def test_the_first_crossing_counts_whatever_comes_later():
    assert crossing([0.9, 0.5, 0.9, 0.1], 0.6).updates == crossing([0.9, 0.5], 0.6).updates


@given(st.floats(0.05, 0.9), st.integers(2, 30), st.sampled_from(["min", "max"]))
def test_a_straight_line_is_crossed_where_it_is_at_the_target(share, count, mode):
    values = np.linspace(1, 0, count) if mode == "min" else np.linspace(0, 1, count)
    target = values[0] + share * (values[-1] - values[0])
    found = crossing(values.tolist(), target, mode)
    assert found.updates == pytest.approx(4 + share * 4 * (count - 1))
    assert found.examples == pytest.approx(8 * found.updates)


def test_examples_are_counted_from_epochs_where_batches_are_ragged():
    record = make_record([0.9, 0.1], num_examples=60)
    record.curve["epoch"][:] = [0.75, 1.5]  # of 40 examples
    found = sweeps.first_crossing(record, 0.5, "loss", "min")
    assert found.examples == pytest.approx(45)


def test_a_target_that_is_never_reached_takes_for_ever():
    found = crossing([0.9, 0.5], 0.4)
    assert found.updates == found.examples == math.inf
    assert found.flags == ("not_reached",) and not found.is_reached


def test_reached_at_the_first_evaluation_is_an_upper_bound():
    found = crossing([0.9, 0.5], 0.95)
    assert (found.updates, found.examples, found.flags) == (4, 32, ("censored",))


def test_a_crossing_between_distant_evaluations_is_coarse():
    values = [0.9] * 9 + [0.1]  # between 36 and 40
    assert crossing(values, 0.5).flags == ()
    record = make_record(values)
    fine = sweeps.first_crossing(record, 0.5, "loss", "min", coarse=4 / 38 + 1e-9)
    coarse = sweeps.first_crossing(record, 0.5, "loss", "min", coarse=4 / 38 - 1e-9)
    assert (fine.flags, coarse.flags) == ((), ("coarse",))
    assert crossing([0.9, 0.1], 0.5).flags == ("coarse",)


@pytest.mark.parametrize("hole", [None, math.nan, math.inf])
def test_evaluations_without_a_finite_value_are_left_out(hole):
    assert crossing([0.9, hole, 0.1], 0.5).updates == pytest.approx(8)  # midway from 4 to 12
    assert crossing([hole, 0.1], 0.5).flags == ("censored",)
    assert crossing([hole, hole], 0.5).flags == ("not_reached",)


def test_a_diverged_run_reaches_nothing():
    assert not crossing([0.9, 0.1], 0.5, status="diverged").is_reached
    assert not crossing([], 0.5, status="diverged", curve=None).is_reached


def test_a_curve_given_apart_is_that_of_the_run():
    record = make_record([0.9, 0.1])
    bare = dataclasses.replace(record, curve=None)
    apart = sweeps.first_crossing(bare, 0.5, "loss", "min", record.curve)
    assert apart.updates == sweeps.first_crossing(record, 0.5, "loss", "min").updates


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"curve": None}, "no curve"),
        ({"curve": {"epoch": [1], "update": [1], "accuracy": [1]}}, "lacks 'loss'.*accuracy"),
        ({"curve": {"update": [1], "loss": [1]}}, "lacks 'epoch'"),
        ({"curve": {"epoch": [1, 2], "update": [2, 1], "loss": [1, 1]}}, "ascend"),
        ({"curve": {"epoch": [1, 2], "update": [1, 2], "loss": [1]}}, "ascend"),
        ({"num_examples": None}, "num_examples"),
    ],
)
def test_a_curve_that_cannot_be_read_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        crossing([0.9, 0.1], 0.5, **changes)


@pytest.mark.parametrize("bad", [{"target": math.nan}, {"mode": "least"}, {"coarse": 0}])
def test_arguments_without_sense_are_refused(bad):
    arguments = {"target": 0.5, "metric": "loss", "mode": "min"} | bad
    with pytest.raises(ValueError):
        sweeps.first_crossing(make_record([0.9, 0.1]), **arguments)


def test_the_learning_rate_of_fewest_mean_updates_is_the_optimum_of_a_row():
    records = [
        halving(steps, batch_size=size, rate=rate, seed=seed)
        for size, rate, by_seed in [
            (8, 0.1, (40, 50, 60)),
            (8, 0.2, (20, 30, 34)),
            (8, 0.4, (10, 60, 60)),
            (16, 0.1, (18, 20, 22)),
        ]
        for seed, steps in enumerate(by_seed)
    ]
    small, large = sweeps.steps_to_target(records, PROTOCOL, 0.25)
    assert (small.row, large.row) == (8, 16)
    assert small.values == {"learning_rate": 0.2} and small.n == 3
    each = [sweeps.first_crossing(record, 0.25, "loss", "min") for record in records[3:6]]
    assert small.updates == statistics.mean_interval([found.updates for found in each])
    assert small.examples == statistics.mean_interval([found.examples for found in each])
    assert small.updates.value == pytest.approx(56, rel=0.01)  # two halvings
    assert small.flags == () and large.flags == ("one_value",)
    assert [point.values["learning_rate"] for point in small.points] == [0.1, 0.2, 0.4]


def test_several_targets_are_read_from_one_sweep():
    records = [halving(20, seed=seed) for seed in range(3)]
    easy, hard = sweeps.steps_to_target(records, PROTOCOL, [0.5, 0.25])
    assert (easy.target, hard.target) == (0.5, 0.25)
    assert (easy.updates.value, hard.updates.value) == pytest.approx((20, 40))


def test_another_metric_of_the_curve_can_be_read():
    record = make_record([0.2, 0.4, 0.8], metric="accuracy")
    protocol = dataclasses.replace(PROTOCOL, metric="accuracy", mode="max", of=1)
    [row] = sweeps.steps_to_target([record], protocol, 0.6)
    assert row.updates.value == pytest.approx(10)


def test_a_rate_at_which_all_runs_get_there_beats_a_faster_one_at_which_some_do_not():
    records = [halving(40, rate=0.1, seed=seed) for seed in range(3)]
    records += [halving(10, rate=0.2, seed=seed) for seed in range(2)]
    for miss in (halving(1000, rate=0.2, seed=2), halving(10, rate=0.2, seed=2, status="diverged")):
        [row] = sweeps.steps_to_target([*records, miss], PROTOCOL, 0.25)
        assert row.values == {"learning_rate": 0.1} and "some_reached" not in row.flags


def test_if_runs_miss_the_target_at_every_rate_it_is_flagged():
    records = [halving(steps, seed=seed) for seed, steps in enumerate((40, 40, 1000))]
    [row] = sweeps.steps_to_target(records, PROTOCOL, 0.25)
    assert "some_reached" in row.flags and row.n == 2
    assert row.updates.value == pytest.approx(80)


def test_a_row_that_reaches_nothing_is_a_result():
    records = [halving(1000, seed=seed) for seed in range(3)]
    [row] = sweeps.steps_to_target(records, PROTOCOL, 0.25)
    assert row.updates.value == row.examples.value == math.inf
    assert (row.flags, row.n, row.point) == (("not_reached",), 0, None)
    diverged = [dataclasses.replace(record, status="diverged", curve=None) for record in records]
    [row] = sweeps.steps_to_target(diverged, PROTOCOL, 0.25)
    assert row.flags == ("not_reached",)


def test_flags_of_the_runs_are_those_of_the_row():
    records = [halving(4, seed=seed) for seed in range(3)]
    [row] = sweeps.steps_to_target(records, PROTOCOL, 0.9)
    assert "censored" in row.flags and not row.is_measured
    [row] = sweeps.steps_to_target(records, PROTOCOL, 0.4)
    assert "coarse" in row.flags and row.is_measured


def test_equal_runs_have_no_interval():
    records = [halving(20, seed=seed) for seed in range(3)]
    [row] = sweeps.steps_to_target(records, PROTOCOL, 0.25)
    assert math.isnan(row.updates.low) and "no_interval" in row.flags


def test_a_row_with_one_seed_has_no_interval():
    [row] = sweeps.steps_to_target([halving(20)], PROTOCOL, 0.25)
    assert row.updates.value == pytest.approx(40) and math.isnan(row.updates.low)
    assert set(row.flags) == {"no_interval", "few_runs", "one_value"}


def test_the_fastest_rate_at_the_edge_of_those_tried_is_flagged():
    records = [
        halving(steps + seed, rate=rate, seed=seed)
        for rate, steps in ((0.1, 40), (0.2, 20))
        for seed in range(3)
    ]
    [row] = sweeps.steps_to_target(records, PROTOCOL, 0.25)
    assert row.flags == ("at_boundary",)
    ends = dataclasses.replace(PROTOCOL, domains={"learning_rate": sweeps.Domain("log", high=0.2)})
    [row] = sweeps.steps_to_target(records, ends, 0.25)
    assert row.flags == ()


def test_curves_given_apart_are_those_of_the_runs():
    records = [halving(20 + seed, seed=seed) for seed in range(3)]
    bare = [dataclasses.replace(record, curve=None) for record in records]
    curves = {record.run_id: record.curve for record in records}
    [row] = sweeps.steps_to_target(bare, PROTOCOL, 0.25, curves)
    assert row.updates == sweeps.steps_to_target(records, PROTOCOL, 0.25)[0].updates
    with pytest.raises(ValueError, match="no curve"):
        sweeps.steps_to_target(bare, PROTOCOL, 0.25)


def test_no_records_are_refused():
    with pytest.raises(ValueError, match="no records"):
        sweeps.steps_to_target([], PROTOCOL, 0.25)


def test_a_mean_curve_crosses_later_than_runs_that_fluctuate():
    random = np.random.default_rng(0)
    mean = np.linspace(1, 0, 101)
    records = [
        make_record((mean + 0.1 * random.standard_normal(101)).tolist(), seed=seed)
        for seed in range(100)
    ]
    protocol = dataclasses.replace(PROTOCOL, of=100)
    [runs] = sweeps.steps_to_target(records, protocol, 0.5)
    [curve] = sweeps.steps_to_target(records, protocol, 0.5, mean_curve=True)
    assert curve.updates.value == pytest.approx(204, rel=0.03)  # of the expected values
    assert runs.updates.value < 0.85 * curve.updates.value
    assert curve.n == 100 and curve.flags == ("no_interval", "one_value")


def test_a_mean_curve_needs_all_runs_and_equal_evaluations():
    records = [halving(20, seed=0), halving(20, seed=1, status="diverged")]
    [row] = sweeps.steps_to_target(records, PROTOCOL, 0.25, mean_curve=True)
    assert row.flags == ("not_reached",)
    records = [make_record([0.9, 0.1], seed=0), make_record([0.9, 0.5, 0.1], seed=1)]
    with pytest.raises(ValueError, match="evaluated alike"):
        sweeps.steps_to_target(records, PROTOCOL, 0.25, mean_curve=True)


def test_the_frame_has_a_line_for_each_target_series_and_row():
    protocol = dataclasses.replace(PROTOCOL, series=lambda run: f"seed {run['seed'] % 2}", of=1)
    records = [halving(20, batch_size=size, seed=seed) for size in (8, 16) for seed in (0, 1)]
    rows = sweeps.steps_to_target(records, protocol, [0.5, 0.25])
    frame = sweeps.targets_frame(rows)
    assert frame[["target", "series", "row"]].values.tolist()[:3] == [
        [0.5, "seed 0", 8],
        [0.5, "seed 0", 16],
        [0.5, "seed 1", 8],
    ]
    assert len(frame) == 8
    assert frame["updates"].tolist() == [row.updates.value for row in rows]
    assert frame["learning_rate"].tolist() == [0.1] * 8


@pytest.mark.parametrize("mode", ["min", "max"])
def test_proposed_targets_are_reached_by_every_row_and_by_none_at_once(mode):
    records = [
        halving(steps, batch_size=size, rate=rate, seed=seed)
        for size, rate, steps in ((8, 0.1, 90), (8, 0.2, 50), (16, 0.1, 25), (16, 0.2, 4000))
        for seed in range(3)
    ]
    protocol = dataclasses.replace(PROTOCOL, mode=mode)
    if mode == "max":
        for record in records:
            record.curve["loss"][:] = [1 - value for value in record.curve["loss"]]
    targets = sweeps.propose_targets(records, protocol)
    assert len(targets) == 3
    assert list(targets) == sorted(targets, reverse=mode == "min")
    for row in sweeps.steps_to_target(records, protocol, targets):
        assert row.is_measured and "some_reached" not in row.flags
    beyond = targets[-1] + 0.02 * protocol.sign
    assert any(
        row.flags == ("not_reached",) for row in sweeps.steps_to_target(records, protocol, beyond)
    )


def test_a_row_that_is_left_out_excludes_no_target():
    records = [halving(50, batch_size=8, seed=seed) for seed in range(3)]
    expected = sweeps.propose_targets(records, PROTOCOL)
    # At batch size 16 a run diverged at every learning rate, and another one is low from the start.
    left_out = [
        make_record([0.001, 0.001], batch_size=16, seed=0),
        halving(50, batch_size=16, seed=1, status="diverged"),
    ]
    assert sweeps.propose_targets(records + left_out, PROTOCOL) == expected


def test_without_such_targets_none_is_proposed():
    records = [halving(20, seed=seed, status="diverged") for seed in range(3)]
    with pytest.raises(ValueError, match="diverged"):
        sweeps.propose_targets(records, PROTOCOL)
    records = [make_record([0.5, 0.6], batch_size=8), make_record([0.9, 0.7], batch_size=16)]
    with pytest.raises(ValueError, match="first evaluation"):
        sweeps.propose_targets(records, PROTOCOL)
    with pytest.raises(ValueError, match="quantiles"):
        sweeps.propose_targets([halving(20)], PROTOCOL, quantiles=(2,))
