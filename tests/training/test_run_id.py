"""Tests that a run_id depends on the values of a run alone, and that bad runs are refused."""

import decimal
import enum
import fractions
import hashlib
import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import experiments
from noisegen import storage, sweeps

RUN = {"batch_size": 64, "learning_rate": 0.1, "seed": 0, "last_batch": "keep"}


def test_run_id_is_the_hash_of_canonical_json():
    text = '{"run":{"batch_size":64,"last_batch":"keep","learning_rate":0.1,"seed":0},"task":"t"}'
    assert sweeps.run_id("t", RUN) == hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    "same",
    [
        dict(reversed(RUN.items())),
        RUN | {"batch_size": 64.0, "seed": -0.0},
        RUN | {"batch_size": np.int32(64), "learning_rate": np.float64(0.1)},
        RUN | {"batch_size": np.float32(64), "seed": fractions.Fraction(0)},
    ],
)
def test_equal_runs_have_equal_ids(same):
    assert sweeps.run_id("t", same) == sweeps.run_id("t", RUN)


@pytest.mark.parametrize(
    "other", [RUN | {"seed": 1}, RUN | {"last_batch": "drop"}, RUN | {"learning_rate": 0.1 + 1e-16}]
)
def test_different_runs_have_different_ids(other):
    assert sweeps.run_id("t", other) != sweeps.run_id("t", RUN)
    assert sweeps.run_id("u", RUN) != sweeps.run_id("t", RUN)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("learning_rate", math.nan, "learning_rate must be a finite number, got nan"),
        ("learning_rate", np.float32("inf"), "learning_rate .* got inf"),
        ("sizes", [1, 2], "sizes .* flat"),
        ("sizes", np.array([1, 2]), "sizes .* got array"),
        ("nested", {"rate": 1}, "nested .* got {'rate': 1}"),
        ("nothing", None, "nothing .* got None"),
        ("rate", 1 + 0j, r"rate .* got \(1\+0j\)"),
        ("rate", np.complex64(1), "rate .* got np.complex64"),
        ("rate", decimal.Decimal("0.1"), r"rate .* got Decimal\('0.1'\) .* write float"),
        ("rate", 10**400, "rate .* beyond every float"),
        ("rate", np.array("x", object), "rate .* got array"),
        ("start", np.datetime64("2020"), "start .* got np.datetime64"),
        ("word", b"keep", "word .* got b'keep'"),
        ("key", jax.random.key(0), "key .* got Array"),
    ],
)
def test_bad_values_are_refused_by_name(field, value, message):
    with pytest.raises(ValueError, match=message) as error:
        sweeps.run_id("t", RUN | {field: value})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("run", [{1: 2}, {None: 1}, {("a",): 1}])
def test_field_names_must_be_words(run):
    with pytest.raises(ValueError, match="a word for its name"):
        sweeps.run_id("t", run)


@pytest.mark.parametrize("run", [[1], "ab", None])
def test_a_run_that_is_not_a_mapping_is_refused(run):
    with pytest.raises(ValueError, match="a run is a mapping"):
        sweeps.by_run_id("t", [run])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (jnp.float32(0.1), 0.1),
        (jnp.logspace(-2, -1, 2)[0], 0.01),
        (jnp.bfloat16(0.1), 0.1),
        (np.float16(0.9), 0.9),
        (np.float32(2**-20), 2**-20),  # Its shortest decimal would be another double.
        (np.float32(3 * 2**-20), 3 * 2**-20),
        (np.float32(123_456_789), 123_456_792),
        (np.float32(1e20), 1e20),
        (np.finfo(np.float32).max, 3.4028235e38),
        (np.array(0.25), 0.25),
        (np.uint8(200), 200),
        (np.uint64(2**63), 2.0**63),
        (jnp.int32(-3), -3),
        (10**20, 1e20),
        (2**53, 2.0**53),
        (np.float32(-0.0), 0),
        (fractions.Fraction(1, 2), 0.5),
    ],
)
def test_numbers_of_every_type_become_the_intended_double(value, expected):
    [found] = sweeps.canonicalize({"x": value}).values()
    assert found == expected and type(found) in (int, float)
    assert sweeps.run_id("t", {"x": value}) == sweeps.run_id("t", {"x": expected})


def test_an_integer_that_no_float_represents_is_kept():
    assert sweeps.run_id("t", {"x": 2**53 + 1}) != sweeps.run_id("t", {"x": 2**53})


@pytest.mark.parametrize("value", [True, np.bool_(True), jnp.bool_(True)])
def test_booleans_are_kept_and_differ_from_1(value):
    assert sweeps.canonicalize({"nesterov": value})["nesterov"] is True
    assert sweeps.run_id("t", {"nesterov": value}) != sweeps.run_id("t", {"nesterov": 1})


class Word(enum.StrEnum):
    ADAM = "adam"


@pytest.mark.parametrize("value", ["adam", np.str_("adam"), np.array("adam"), Word.ADAM])
def test_words_are_kept(value):
    found = sweeps.canonicalize({"optimizer": value})["optimizer"]
    assert found == "adam" and type(found) is str


@pytest.mark.parametrize(
    "pair",
    [(0.1, 0.1 + 1e-12), (1 / 3, float(np.float32(1 / 3))), (1, 1 + 1e-9), (2**24 + 1, 2**24)],
)
def test_the_first_of_runs_equal_on_the_device_is_kept(pair):
    for values in (pair, pair[::-1]):
        runs = [{"rate": value, "seed": seed} for value in values for seed in (0, 1)]
        assert list(sweeps.by_run_id("t", runs).values()) == runs[:2]


def test_large_seeds_are_integers_on_the_device_and_stay_distinct():
    runs = [{"seed": 2**24}, {"seed": 2**24 + 1}]
    assert list(sweeps.by_run_id("t", runs).values()) == runs


def test_runs_that_differ_in_a_boolean_are_both_kept():
    runs = [{"nesterov": True, "rate": 0.1}, {"nesterov": False, "rate": 0.1 + 1e-12}]
    assert len(sweeps.by_run_id("t", runs)) == 2


def test_the_ids_of_all_committed_records_are_unchanged():
    count = 0
    for path in pathlib.Path(experiments.__path__[0], "results").rglob("sweep.json"):
        task = storage.read_sweep(path.parent)["task"]
        for record in storage.read_records(path.parent, curves=False):
            assert sweeps.run_id(task, record.hparams) == record.run_id
            assert sweeps.canonicalize(record.hparams) == record.hparams
            count += 1
    assert count > 2000


def test_by_run_id_keeps_the_order_and_drops_duplicates():
    runs = [{"seed": 2}, {"seed": 1}, {"seed": 2.0}]
    planned = sweeps.by_run_id("t", runs)
    assert list(planned.values()) == [{"seed": 2}, {"seed": 1}]
    assert list(planned) == [sweeps.run_id("t", run) for run in runs[:2]]


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.dictionaries(st.text(max_size=5), st.integers() | st.floats(allow_nan=False, width=64)))
def test_canonical_runs_survive_json(run):
    run = {name: value for name, value in run.items() if math.isfinite(value)}
    canonical = sweeps.canonicalize(run)
    back = json.loads(json.dumps(canonical))
    assert back == canonical == run
    assert list(back) == list(run)
    assert sweeps.run_id("t", back) == sweeps.run_id("t", run)
