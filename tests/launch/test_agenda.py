"""Which runs are wanted, and which are still to be trained."""

import json
import time
import tracemalloc

import numpy as np
import pytest

from launch import agenda, tasks
from noisegen import sweeps, training
from noisegen.tasks import check_matched_noise

PROTOCOL = sweeps.Protocol(best=1, of=1, max_extensions=2)
RUNS = [{"batch_size": 4, "learning_rate": rate, "seed": 0} for rate in (0.25, 0.5, 1.0)]


def record(name, run, accuracy):
    metrics = {"test_accuracy": accuracy}
    fields = {"run_id": name, "run": run, "status": "finished", "metrics": metrics}
    return fields | {"curve": {}, "seconds": 1.0}


def train(runs, until):
    """Gives each run to do an accuracy that rises up to the learning rate `until`."""
    rates = []
    while todo := runs.todo():
        for name, run in todo.items():
            rates.append(run["learning_rate"])
            runs.add(record(name, run, -abs(run["learning_rate"] - until)))
        runs.extend()
    return rates


def test_runs_are_wanted_once_in_the_order_of_the_plan():
    runs = agenda.Agenda("t", [*RUNS, {**RUNS[0], "batch_size": 4.0}], [PROTOCOL], [])
    assert list(runs.todo().values()) == RUNS
    assert list(runs.todo()) == [sweeps.run_id("t", run) for run in RUNS]


def test_the_grid_grows_until_the_optimum_is_inside():
    assert train(agenda.Agenda("t", RUNS, [PROTOCOL], []), 0.5) == [0.25, 0.5, 1.0]
    assert train(agenda.Agenda("t", RUNS, [PROTOCOL], []), 2.0) == [0.25, 0.5, 1.0, 2.0, 4.0]
    assert train(agenda.Agenda("t", RUNS, [PROTOCOL], []), 99) == [0.25, 0.5, 1.0, 2.0, 4.0]


def test_the_grid_does_not_grow_by_runs_that_cannot_be_trained():
    def check(run):
        if run["learning_rate"] > 3:
            raise ValueError("too large")

    with pytest.warns(UserWarning, match="to learning_rate=4, which is refused: too large"):
        rates = train(agenda.Agenda("t", RUNS, [PROTOCOL], [], check), 99)
    assert rates == [0.25, 0.5, 1.0, 2.0]


def test_the_planner_says_which_runs_cannot_be_trained():
    data = np.zeros((100, 1))
    functions = dict.fromkeys(("init", "loss", "metrics", "make_optimizer"))
    task = training.Task(
        name="t", train=data, test=data, check_run=check_matched_noise, **functions
    )
    plan = tasks.Tasks(task, RUNS).plan
    run = {"batch_size": 64, "num_epochs": 3, "last_batch": "keep", "learning_rate": 1, "seed": 0}
    runs = [run | {"reference_batch_size": size} for size in (16, 32)]  # the last batch has 36
    protocol = sweeps.Protocol(tune=("reference_batch_size",))
    plans = agenda.Agenda("t", runs, [protocol], [], plan)
    for name, planned in plans.todo().items():
        plans.add(record(name, planned, planned["reference_batch_size"]))
    with pytest.warns(UserWarning, match="64, which is refused: .* at most 36"):
        plans.extend()
    assert plans.todo() == {}


def test_a_resumed_sweep_wants_the_same_runs():
    whole = agenda.Agenda("t", RUNS, [PROTOCOL], [])
    train(whole, 2.0)
    records = list(whole.records.values())
    for count in range(len(records) + 1):
        resumed = agenda.Agenda("t", RUNS, [PROTOCOL], reversed(records[:count]))
        assert len(resumed.done()) == count
        train(resumed, 2.0)
        assert resumed.wanted == whole.wanted and resumed.records == whole.records


def test_records_of_other_plans_do_not_count():
    other = record("0" * 16, {"batch_size": 8, "learning_rate": 1.0, "seed": 0}, 1.0)
    runs = agenda.Agenda("t", RUNS, [PROTOCOL], [other])
    assert runs.done() == [] and len(runs.todo()) == 3


def test_runs_that_the_protocol_cannot_tell_apart_are_refused_before_training():
    runs = [run | {"noise": noise} for run in RUNS for noise in (0.0, 0.1)]
    with pytest.raises(ValueError, match=r"differ in noise \(\[0.1\] and \[0\]\).*tune"):
        agenda.Agenda("t", runs, [PROTOCOL], [])


def test_only_what_is_needed_stays_in_memory():
    runs = agenda.Agenda("t", RUNS, [PROTOCOL], [record("a", RUNS[0], 0.5)])
    kept = {"run_id", "run", "status", "metrics", "num_updates", "num_examples", "seconds"}
    assert set(runs.records["a"]) <= kept


def test_memory_stays_nearly_flat_while_runs_get_their_records():
    grid = sweeps.values(batch_size=(4, 8), learning_rate=(0.25, 0.5, 1.0), seed=range(500))
    runs = agenda.Agenda("t", grid, [PROTOCOL], [])
    grown = []
    tracemalloc.start()
    try:
        for name, run in runs.wanted.items():
            text = json.dumps(record(name, run, 0.5) | {"finished_at": "2026-01-01T00:00:00.000Z"})
            runs.add(json.loads(text))
            grown.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert len(runs.records) == len(grown) == 3000 and not runs.todo()
    assert (grown[-1] - grown[300]) / 2700 < 300  # bytes a record; of dicts more than 1,000


def test_records_are_those_that_were_added():
    protocol = sweeps.Protocol(metric="test_loss", report=("seconds",), best=1, of=1)
    runs = agenda.Agenda("t", RUNS, [protocol], [])
    names = list(runs.wanted)
    assert len(runs.records) == 0 and names[0] not in runs.records
    added = {
        name: record(name, run, 0.5) | {"metrics": {"test_loss": 0.25}, "status": status}
        for name, run, status in zip(names[:2], RUNS, ("finished", "diverged"), strict=False)
    }
    for each in added.values():
        assert runs.add(each) and not runs.add(each)
    for name, each in added.items():
        found = runs.records[name]
        assert {field: each[field] for field in found if field != "finished_at"} == {
            field: value for field, value in found.items() if field != "finished_at"
        }
        assert found["seconds"] == 1.0 and found["finished_at"] is None
    assert list(runs.records) == names[:2] and len(runs.records) == 2
    with pytest.raises(KeyError):
        runs.records[names[2]]


def test_of_several_records_of_a_run_the_first_finished_stays():
    runs = agenda.Agenda("t", RUNS, [PROTOCOL], [])
    name = next(iter(runs.wanted))
    for day, accuracy in ((2, 0.2), (1, 0.1), (3, 0.3)):
        runs.add(record(name, RUNS[0], accuracy) | {"finished_at": f"2026-01-0{day}"})
    assert runs.records[name]["metrics"] == {"test_accuracy": 0.1} and len(runs.records) == 1


def test_100_000_runs_are_planned_in_seconds():
    rates = tuple(2.0**k for k in range(-12, 1))
    sizes = tuple(2**k for k in range(4, 11))
    grid = sweeps.values(batch_size=sizes, learning_rate=rates, seed=range(1100))
    started = time.process_time()
    runs = agenda.Agenda("t", grid * sweeps.fixed(num_epochs=30, momentum=0.9), [PROTOCOL], [])
    plans = [training.plan(run, 1437) for run in runs.todo().values()]
    assert len(plans) == 100_100 and len(set(plans)) == 7  # alike runs share a plan
    assert time.process_time() - started < 15  # 3 s on a quiet machine
