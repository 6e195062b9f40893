"""A race finds what the whole grid finds with a part of its runs, always the same ones."""

import dataclasses
import math
import random

import numpy as np
import pytest

from noisegen import storage, sweeps
from noisegen.sweeps import checks
from noisegen.sweeps.search import Search
from noisegen.training.run_id import by_run_id

BATCHES = sweeps.powers_of_two(16, 256)
RATES = sweeps.powers_of_two(2**-6, 4)
RACE = sweeps.Protocol(search="race", best=4, of=5)


def planned(seeds=5, rates=RATES, **fields):
    grid = sweeps.grid(batch_size=BATCHES, learning_rate=rates, seed=range(seeds), **fields)
    return by_run_id("task", grid)


def accuracy(run, noise=0.01):
    """Rises and falls with the learning rate, the best one grows with the batch size."""
    best = run["batch_size"] / 128
    random = np.random.default_rng([run["seed"], int(1e6 * run["learning_rate"])])
    octaves = math.log2(run["learning_rate"] / best)
    if octaves > 3.5:
        return None
    return 0.9 - 0.02 * octaves**2 + noise * random.normal()


def record(name, run, measure=accuracy):
    score = measure(run)
    return storage.Record(
        run_id=name,
        hparams=run,
        status="finished" if score is not None else "diverged",
        metrics={"test_accuracy": math.nan if score is None else score},
    )


def train(runs, protocol, measure=accuracy, order=None, workers=3):
    """Trains what the search wants, a few runs at a time, until it wants no more."""
    records = {}
    while True:
        search = Search("task", runs, [protocol])  # as after a kill: nothing is remembered
        search.wanted({})
        wanted = search.wanted(records)
        todo = [name for name in wanted if name not in records]
        if not todo:
            return wanted, records
        if order is not None:
            order.shuffle(todo)
        for name in todo[:workers]:
            records[name] = record(name, wanted[name], measure)


@pytest.fixture(scope="module")
def raced():
    return train(planned(), RACE)


def test_a_race_finds_the_optimum_of_the_grid_with_half_of_its_runs(raced):
    wanted, records = raced
    full = {name: record(name, run) for name, run in planned().items()}
    grid = sweeps.select(full.values(), dataclasses.replace(RACE, search="grid"))
    race = sweeps.select(records.values(), RACE)
    assert [optimum.values for optimum in race] == [optimum.values for optimum in grid]
    assert [optimum.mean for optimum in race] == [optimum.mean for optimum in grid]
    assert [(o.low, o.high) for o in race] == [(o.low, o.high) for o in grid]
    assert all(optimum.flags == () for optimum in race)
    assert len(wanted) < len(full) / 2


@pytest.mark.parametrize("seed", range(5))
def test_order_workers_and_kills_change_no_run(raced, seed):
    order = random.Random(seed)
    wanted, _ = train(planned(), RACE, order=order, workers=order.choice([1, 2, 7, 1000]))
    assert wanted.keys() == raced[0].keys()


def test_a_race_begins_a_row_where_the_row_before_had_its_best_value():
    def clear(run):
        return accuracy(run, noise=0)

    records = {}
    search = Search("task", planned(), [RACE])
    wanted = search.wanted(records)
    assert {run["batch_size"] for run in wanted.values()} == {16}
    while {run["batch_size"] for run in wanted.values()} == {16}:
        records |= {name: record(name, run, clear) for name, run in wanted.items()}
        wanted = search.wanted(records)
    begun = [run["learning_rate"] for run in wanted.values() if run["batch_size"] == 32]
    assert sorted(begun) == [1 / 16, 1 / 8, 1 / 4]


def test_other_records_change_no_decision(raced):
    search = Search("task", planned(), [RACE])
    others = {name: run for name, run in planned().items() if name not in raced[0]}
    found = {name: record(name, run) for name, run in others.items()}
    assert search.wanted(found).keys() >= found.keys()  # what is there counts
    assert search.wanted(found | raced[1]).keys() == planned().keys()


def test_a_race_after_a_grid_counts_planned_runs_and_extensions_of_its_own():
    runs = planned(rates=sweeps.powers_of_two(2**-8, 2**-5))
    grid = dataclasses.replace(RACE, search="grid")
    _, records = train(runs, grid)
    alone, _ = train(runs, RACE)
    wanted = Search("task", runs, [RACE]).wanted(records).keys()
    assert wanted == runs.keys() | alone.keys()
    extensions = records.keys() - runs.keys()
    assert set() < records.keys() - wanted < extensions
    # In the table of the grid they are all there again.
    assert Search("task", runs, [grid]).wanted(records).keys() == records.keys()


def test_the_grid_is_extended_from_the_first_seed_on():
    few = planned(rates=RATES[:3])  # all below the best ones
    protocol = dataclasses.replace(RACE, max_extensions=10)
    wanted, records = train(few, protocol)
    whole, _ = train(planned(), RACE)
    by_race = {o.row: o.values for o in sweeps.select(records.values(), protocol)}
    assert by_race == {batch: {"learning_rate": batch / 128} for batch in BATCHES}
    assert len(wanted) < len(whole) * 2


def test_no_end_is_extended_more_often_than_the_protocol_allows():
    few = planned(rates=RATES[:3])
    _, records = train(few, dataclasses.replace(RACE, max_extensions=1))
    largest = {run.hparams["learning_rate"] for run in records.values()}
    assert max(largest) == 2 * RATES[2]
    at_edge = sweeps.select(records.values(), dataclasses.replace(RACE, max_extensions=1))
    assert "at_boundary" in at_edge[-1].flags


def test_where_all_runs_diverge_smaller_values_follow():
    large = planned(rates=[2**6, 2**7, 2**8])
    wanted, records = train(large, dataclasses.replace(RACE, max_extensions=20))
    found = sweeps.select(records.values(), RACE)
    assert found[0].values == {"learning_rate": 1 / 8}
    assert len([r for r in records.values() if r.status == "diverged"]) < 40


def test_a_race_of_one_value_trains_all_of_its_seeds():
    wanted, _ = train(planned(rates=[1.0]), RACE)
    assert wanted.keys() == planned(rates=[1.0]).keys()


def test_words_have_no_order_and_are_all_tried():
    protocol = dataclasses.replace(RACE, tune=("learning_rate", "kind"))
    runs = planned(kind=("a", "b", "c"))

    def measure(run):
        return accuracy(run) - {"a": 0.3, "b": 0.0, "c": 0.2}[run["kind"]]

    wanted, records = train(runs, protocol, measure)
    assert {optimum.values["kind"] for optimum in sweeps.select(records.values(), protocol)} == {
        "b"
    }
    assert len(wanted) < len(runs) / 4


def test_runs_without_seeds_race_with_one_run_a_value():
    runs = by_run_id("task", sweeps.grid(batch_size=BATCHES, learning_rate=RATES))
    protocol = sweeps.Protocol(search="race")
    wanted, records = train(runs, protocol, lambda run: accuracy(run | {"seed": 0}, noise=0))
    assert len(wanted) < 0.6 * len(runs)
    found = sweeps.select(records.values(), protocol)
    assert [o.values["learning_rate"] for o in found] == [batch / 128 for batch in BATCHES]


def test_two_protocols_race_side_by_side():
    def measure(name, run):
        found = record(name, run)
        loss = (math.log2(run["learning_rate"]) + 5) ** 2 + 0.01 * run["seed"]
        return dataclasses.replace(found, metrics=found.metrics | {"train_loss": loss})

    loss = dataclasses.replace(RACE, metric="train_loss", mode="min")
    records = {}
    search = Search("task", planned(), [RACE, loss])
    while missing := search.wanted(records).keys() - records.keys():
        records |= {name: measure(name, planned()[name]) for name in missing}
    assert {o.values["learning_rate"] for o in sweeps.select(records.values(), loss)} == {2**-5}
    assert sweeps.select(records.values(), RACE)[-1].values == {"learning_rate": 2.0}


def test_the_fewest_runs_of_a_race_in_which_runs_survive(raced):
    fewest = Search("task", planned(), [RACE]).fewest_runs()
    assert len(fewest) == len(BATCHES) * (5 + 2 + 1)
    assert len(fewest) <= len(raced[0])
    wanted, _ = train(planned(rates=RATES[:4]), RACE, lambda run: None)
    assert len(wanted) < len(fewest)  # every run diverges: one seed of each point


def test_a_race_needs_as_many_seeds_as_the_protocol_asks_for():
    runs = list(planned(seeds=5).values())
    checks.check_points(runs, RACE)
    with pytest.raises(ValueError, match="of=5 needs 5 seeds.*batch_size=16.* has 4"):
        checks.check_points(runs[:4] + runs[5:], RACE)
    checks.check_points(runs[:4], dataclasses.replace(RACE, search="grid"))
    # Equal on the device: one point.
    close = [run | {"learning_rate": run["learning_rate"] + 1e-12} for run in runs[4:5]]
    checks.check_points(runs[:4] + close + runs[5:], RACE)


def test_an_unknown_search_is_refused():
    with pytest.raises(ValueError, match="grid.*race"):
        sweeps.Protocol(search="hyperband")
