"""Tests that the next value beyond a grid fits the scale and lies in the domain."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisegen import sweeps
from noisegen.sweeps import domains

UP, DOWN = True, False


def steps(domain, values, up, number, run=None):
    """Returns up to `number` next values, with None at the end if there are fewer."""
    found = []
    for _ in range(number):
        value = domain.step([*values, *found], up, run)
        found.append(value)
        if value is None:
            break
    return found


@pytest.mark.parametrize(
    ("scale", "values", "up", "expected"),
    [
        ("log", [0.1, 0.2, 0.5], UP, [1.25, 3.125]),
        ("log", [0.1, 0.3], DOWN, [0.0333333333333, 0.0111111111111]),
        ("log", [2**-20, 2**-19], DOWN, [2**-21, 2**-22]),
        ("log", [0, 0.1, 0.2], UP, [0.4]),
        ("log", [0, 0.1], UP, [None]),  # Zero has no ratio.
        ("log", [0, 0.1, 0.2], DOWN, [None]),
        ("log", [-0.1, 0.1, 0.2], DOWN, [None]),
        ("log", [-0.2, -0.1], UP, [None]),
        ("log", [1e-37, 1e-36], DOWN, [None]),  # The device flushes it to zero.
        ("log", [1e37, 1e38], UP, [None]),
        ("log", [0.3], UP, [None]),
        ("fraction", [0.9, 0.99], UP, [0.999, 0.9999]),
        ("fraction", [0.9, 0.99], DOWN, [0, None]),
        ("fraction", [0.5, 0.9], UP, [0.98, 0.996]),
        ("fraction", [0.5, 0.9], DOWN, [0, None]),
        ("fraction", [0, 0.9], UP, [0.99]),
        ("fraction", [0.5, 0.75], UP, [0.875, 0.9375]),
        ("fraction", [0.5, 1], UP, [None]),
        ("fraction", [0.5, 1], DOWN, [None]),
        ("fraction", [0.9999999, 0.99999994], UP, [None]),  # The next value is 1 on the device.
        ("linear", [0.1, 0.2, 0.3], UP, [0.4, 0.5]),
        ("linear", [0.1, 0.2, 0.3], DOWN, [0, -0.1]),
        ("linear", [-2, -1], UP, [0, 1]),
        ("integer", [1, 2, 3], UP, [4, 5]),
        ("integer", [1, 2, 4], UP, [8, 16]),
        ("integer", [2, 4, 8], DOWN, [1, 0, None]),
        ("integer", [0, 5, 10], UP, [15, 20]),
        ("integer", [2, 4, 7], DOWN, [0, None]),
        ("integer", [7, 17], UP, [41]),
        ("integer", [2**29, 2**30], UP, [2**31 - 1, None]),
        ("fixed", [64, 128], UP, [None]),
    ],
)
def test_the_next_values_follow_the_scale(scale, values, up, expected):
    found = steps(sweeps.Domain(scale), values, up, len(expected))
    if None in found:
        assert found == expected
    else:
        assert found == pytest.approx(expected, rel=1e-15)
    if scale == "integer":
        assert all(type(value) is int for value in found if value is not None)


@pytest.mark.parametrize(
    ("domain", "values", "up", "run", "expected"),
    [
        (sweeps.Domain("log", 0, "batch_size"), [16, 32], UP, {"batch_size": 48}, [48, None]),
        (sweeps.Domain("log", 0, "batch_size"), [16, 32], UP, {"batch_size": 32}, [None]),
        (sweeps.Domain("log", 1e-3), [4e-3, 8e-3], DOWN, {}, [2e-3, 1e-3, None]),
        (sweeps.Domain("log", lambda run: run["eta"] / 2), [2, 4], DOWN, {"eta": 3}, [1.5, None]),
        (sweeps.Domain("linear", 0), [0.2, 0.5], DOWN, {}, [0, None]),
        (sweeps.Domain("fraction", 0.5, 0.9), [0.6, 0.8], UP, {}, [0.9, None]),
        (sweeps.Domain("integer", 1), [2, 3], DOWN, {}, [1, None]),
        (domains.standard("warmup_epochs"), [2, 4], UP, {"num_epochs": 5}, [5, None]),
    ],
)
def test_the_end_of_the_domain_is_the_last_step(domain, values, up, run, expected):
    assert steps(domain, values, up, len(expected), run) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.05, 0.1, 0.1000000001], 0.2),  # Equal on the device.
        ([0.05, 0.09999998, 0.1, 0.10000005], 0.2),  # Relative differences below 1e-6.
        ([0.05, *np.logspace(-2, -1, 2)[1:], 0.1], 0.2),
        ([0.1, 0.1000000001], None),
    ],
)
def test_values_that_are_equal_up_to_rounding_are_not_a_step(values, expected):
    found = sweeps.Domain("log").step(values, UP)
    if expected is None:
        assert found is None
    else:
        assert found == pytest.approx(expected, rel=1e-5)


@given(
    st.sampled_from(["log", "linear", "integer", "fraction"]),
    st.sets(st.floats(0, 0.875, width=32) | st.integers(0, 9), min_size=1, max_size=6),
    st.booleans(),
)
def test_every_step_leads_to_a_new_value_in_the_domain(scale, values, up):
    domain, tried = sweeps.Domain(scale), list(values)
    for _ in range(50):
        value = domain.step(tried, up)
        if value is None:
            break
        assert domain.holds(value, {}) and math.isfinite(np.float32(value))
        assert all(np.float32(value) != np.float32(other) for other in tried)
        if up:
            assert value > max(tried)
        else:
            assert value < min(tried)
        tried.append(value)


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("learning_rate", "log"),
        ("effective_learning_rate", "log"),
        ("weight_decay", "log"),
        ("temperature", "log"),
        ("eta", "log"),
        ("momentum", "fraction"),
        ("b2", "fraction"),
        ("dropout", "fraction"),
        ("dropout_rate", "fraction"),
        ("label_smoothing", "fraction"),
        ("batch_size", "fixed"),
        ("num_epochs", "fixed"),
        ("seed", "fixed"),
        ("warmup_epochs", "integer"),
        ("num_layers", "integer"),
        ("reference_batch_size", "log"),
    ],
)
def test_usual_names_have_standard_domains(name, scale):
    assert domains.standard(name).scale == scale


def test_other_names_have_no_domain_and_fractional_counts_are_linear():
    assert domains.standard("strength_of_it") is None
    warmup = domains.standard("warmup_epochs", [0.5, 1, 1.5])
    assert warmup.step([0.5, 1, 1.5], UP, {}) == 2 and warmup.step([0.5, 1], DOWN, {}) == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sweeps.Domain("geometric"), "scale must be one of log, .* got 'geometric'"),
        (lambda: sweeps.Domain(["log"]), "scale must be one of"),
        (lambda: sweeps.Domain("log", 2, 1), "low <= high, got 2 and 1"),
        (lambda: sweeps.Domain("log", math.nan), "low must be a number.*got nan"),
        (lambda: sweeps.Domain("log", 0, [1]), r"high must be a number.*got \[1\]"),
        (lambda: sweeps.Domain("log", 0, "b").ends({"a": 1}), "ends at the field 'b', .* only a"),
        (lambda: sweeps.Domain("log", 0, "b").ends({"b": "x"}), "end at a number, got 'x'"),
    ],
)
def test_invalid_domains_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
