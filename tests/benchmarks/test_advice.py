"""The benchmark of advice describes predictions correctly, and its records fit together."""

import json
import math

import pytest

from experiments.benchmarks import advice
from noisegen import sweeps


def prediction(predicted, truth=200.0, low=100.0, high=400.0, baseline=900.0, flags=()):
    return {
        "truth": truth,
        "truth_error": 0.5,
        "truth_flags": flags,
        "predicted": predicted,
        "low": low,
        "high": high,
        "flags": flags,
        "from_the_others": {"predicted": predicted, "low": low, "high": high, "flags": flags},
        "fractions": (0.125, 0.25),
        "learning_rate": (0.1, 0.05, 0.2),
        "true_learning_rate": 0.125,
        "noise_scale": 50.0,
        "baseline": baseline,
        "minutes": 1.0,
        "grid_minutes": 8.0,
    }


def test_hits_misses_and_refusals_are_counted():
    record = {
        "workloads": {
            "hit": prediction(300.0),
            "far": prediction(450.0, high=800.0),
            "outside": prediction(50.0, low=30.0, high=100.0, baseline=250.0),
            "refused": prediction(math.nan, low=math.nan, high=math.nan, flags=("all_lost",)),
            "unlike": prediction(30.0, flags=("all_lost",)) | {"flags": ("uncertain",)},
        }
    }
    record["workloads"]["hit"]["from_the_others"] |= {"predicted": 500.0, "high": 190.0}
    values = [value for _, value, _ in advice.rows(record)]
    assert values == ["2 of 5", "2 of 5", "1 of 5", "1 of 3", "2 of 3"]
    table = advice.details(record)
    assert "| hit | 1/8 and 1/4 | 300 (100 to 400) | 500 (100 to 190) | 200 (140 to 280) |" in table
    assert "| refused | 1/8 and 1/4 | none: all lost | none: all lost | 200, all lost |" in table


def test_the_growth_of_a_workload_does_not_enter_its_own_prediction():
    def short(log2):
        flags, rows = (), (16.0, 2048.0)
        each = {"log2": log2, "error": 0.0, "tolerance": 0.01, "rows": rows, "flags": flags}
        return {"measured": {"0.25": each}, "flags": []}

    found = {"a": short(6) | {"truth_growth": 1.0}, "b": short(6) | {"truth_growth": 9.0}}
    found["c"] = short(6) | {"truth_growth": math.nan}
    other = advice._from_the_others("b", found)
    assert other["others_growth"] == 1.0
    assert other["from_the_others"]["predicted"] == pytest.approx(2**8)


@pytest.mark.parametrize("name", advice.WORKLOADS)
def test_every_workload_has_the_records_of_its_full_sweep(name):
    sweep = sweeps.Sweep.open(advice.RESULTS / advice.WORKLOADS[name].sweep)
    assert sweep.is_complete() and sweep.records()


@pytest.mark.parametrize("name", advice.WORKLOADS)
def test_every_prediction_is_that_of_the_races_in_its_plan(name):
    results = advice.RESULTS / "benchmarks"
    prediction = json.loads((results / "advice.json").read_text())["workloads"][name]
    path = results / "advice" / name.replace(" ", "_") / "advice" / "plan.json"
    plan = json.loads(path.read_text())
    *races, end = plan["races"]
    assert end is None
    assert prediction["fractions"] == [fraction for fraction, _ in races[-2:]]
    assert prediction["seeds"] == races[-1][1]
    assert plan["minutes"] == advice.WORKLOADS[name].minutes
