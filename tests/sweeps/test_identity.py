"""run_id: what enters it, what does not, and what is refused."""

import fractions
import hashlib
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noisegen import sweeps

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
def test_equal_numbers_have_equal_names(same):
    assert sweeps.run_id("t", same) == sweeps.run_id("t", RUN)


@pytest.mark.parametrize(
    "other", [RUN | {"seed": 1}, RUN | {"last_batch": "drop"}, RUN | {"learning_rate": 0.1 + 1e-16}]
)
def test_different_runs_have_different_names(other):
    assert sweeps.run_id("t", other) != sweeps.run_id("t", RUN)
    assert sweeps.run_id("u", RUN) != sweeps.run_id("t", RUN)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("learning_rate", math.nan, "learning_rate must be a finite number, got nan"),
        ("learning_rate", np.float32("inf"), "learning_rate .* got inf"),
        ("noise", True, "noise .* got True .*0 or 1"),
        ("noise", np.bool_(True), "noise"),
        ("sizes", [1, 2], "sizes .* flat"),
        ("nothing", None, "nothing .* got None"),
        ("optimizer", "sgd", "optimizer .* got 'sgd'"),
    ],
)
def test_bad_values_are_named(field, value, message):
    with pytest.raises(ValueError, match=message):
        sweeps.run_id("t", RUN | {field: value})


def test_plan_keeps_order_and_drops_duplicates():
    runs = [{"seed": 2}, {"seed": 1}, {"seed": 2.0}]
    planned = sweeps.by_run_id("t", runs)
    assert list(planned.values()) == [{"seed": 2}, {"seed": 1}]
    assert list(planned) == [sweeps.run_id("t", run) for run in runs[:2]]


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.dictionaries(st.text(max_size=5), st.integers() | st.floats(allow_nan=False, width=64)))
def test_normalised_runs_survive_json(run):
    run = {name: value for name, value in run.items() if math.isfinite(value)}
    normal = sweeps.normalise(run)
    back = json.loads(json.dumps(normal))
    assert back == normal == run
    assert list(back) == list(run)
    assert sweeps.run_id("t", back) == sweeps.run_id("t", run)
