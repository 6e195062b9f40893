"""Tests the simulation of false sentences in miniature."""

import json

import numpy as np
import pytest

from experiments.benchmarks import false_sentences, machine
from experiments.benchmarks.false_sentences import CASES, Case
from noisegen import reports

FALLS = Case(name="", peak="falls beyond 128")
TWO = Case(name="", peak="constant", effect=0.01)


def test_every_case_is_simulated_and_shown():
    record = json.loads(json.dumps(false_sentences.measure(machine.Options(quick=True))))
    assert [case["case"] for case in record["cases"]] == 2 * [case.name for case in CASES]
    for case in record["cases"]:
        assert case["stated"].keys() <= false_sentences.KINDS.keys()
        assert all(number <= case["stated"][kind] for kind, number in case["false"].items())
        assert case["sweeps_with_any"] <= sum(case["false"].values())
    assert sum(sum(case["stated"].values()) for case in record["cases"]) > 50
    rows = false_sentences.rows(record)
    assert [goal for _, _, goal in rows] == ["< 5", "< 5", "< 5", ""]
    assert "two equal series" in false_sentences.details(record)


def test_drawn_records_have_the_planted_means():
    case = Case(name="", peak="rises to 128, then falls", effect=0.05)
    records = false_sentences.draw(case, 400, np.random.default_rng(0))
    found = {}
    for record in records:
        run = record.hparams
        key = (run["series"], run["batch_size"], run["learning_rate"])
        found.setdefault(key, []).append(record.metrics["test_accuracy"])
    for key, scores in found.items():
        if np.isfinite(scores).all():
            assert np.mean(scores) == pytest.approx(case.mean(*key), abs=0.003)
        else:
            assert case.octaves(*key[1:]) > 3
    assert case.best("noise", 64) - case.best("plain", 64) == pytest.approx(0.05)


def answer(kind, series="plain", **numbers):
    return reports.Answer(kind=kind, series=series, text="", numbers=numbers)


def loss(case, size):
    """How far a batch size is below the best one."""
    means = [case.best("plain", each) for each in false_sentences.BATCH_SIZES]
    return max(means) - case.best("plain", size)


@pytest.mark.parametrize(
    "numbers, is_false",
    [
        ({"row": 128, "at_most": 0.02}, False),
        ({"row": 1024, "at_most": 0.02}, True),  # it is 0.03 worse there
        ({"row": 128, "at_most": 0.02, "next_row": 512, "lost": (0.01, 0.03)}, False),
        ({"row": 128, "at_most": 0.02, "next_row": 512, "lost": (0.0, 0.01)}, True),
    ],
)
def test_a_loss_is_false_if_a_number_is(numbers, is_false):
    assert loss(FALLS, 512) == pytest.approx(0.02, abs=0.005)
    assert false_sentences.is_false(answer("batch_size", **numbers), FALLS) == is_false


def test_a_drop_that_is_none_is_false():
    constant = Case(name="", peak="constant", exponent=1.0)
    assert loss(constant, 64) == 0
    stated = answer("batch_size", row=32, at_most=1.0, next_row=64, lost=(0.0, 1.0))
    assert false_sentences.is_false(stated, constant)


@pytest.mark.parametrize("low, high, is_false", [(0.7, 0.9, False), (0.9, 1.1, True)])
def test_an_exponent_is_false_outside_of_its_interval(low, high, is_false):
    stated = answer("learning_rate", exponent=(1.0, low, high))
    assert false_sentences.is_false(stated, FALLS) == is_false


@pytest.mark.parametrize(
    "numbers, is_false",
    [
        ({"differences": {64: (0.005, 0.02)}}, False),
        ({"differences": {64: (0.005, 0.02), 128: (0.02, 0.03)}}, True),
        ({"differences": {64: (-0.02, 0.0)}}, True),
        ({"differences": {}, "at_most": 0.02}, False),
        ({"differences": {}, "at_most": 0.005}, True),
    ],
)
def test_a_difference_of_series_is_false_if_a_number_is(numbers, is_false):
    assert false_sentences.is_false(answer("series", "noise", **numbers), TWO) == is_false


def test_a_difference_of_equal_series_is_false():
    equal = Case(name="", peak="constant", effect=0.0)
    stated = answer("series", "noise", differences={64: (0.0, 0.1)})
    assert false_sentences.is_false(stated, equal)
