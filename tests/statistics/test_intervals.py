"""Tests intervals against scipy, by hand, and by their coverage."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from noisegen import statistics

NAN = math.nan
NUM_SAMPLES = 3000
FOUR_ERRORS = 4 * math.sqrt(0.95 * 0.05 / NUM_SAMPLES)  # Of a coverage of 95 %.


def coverage(found, truth):
    """Returns the share of intervals that contain the truth."""
    return np.mean([each.low <= truth <= each.high for each in found])


def bounds(interval):
    return interval.low, interval.high


@pytest.mark.parametrize("level", [0.68, 0.95])
def test_mean_interval_is_that_of_scipy(level):
    values = [0.9, 0.92, 0.89, 0.95]
    found = statistics.mean_interval(values, level)
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(level)
    assert bounds(found) == pytest.approx((expected.low, expected.high))
    assert (found.value, found.level) == (pytest.approx(0.915), level)


@pytest.mark.parametrize("num_seeds", [2, 3, 15])
def test_mean_interval_covers_at_its_level(num_seeds):
    samples = np.random.default_rng(0).normal(3, 2, (NUM_SAMPLES, num_seeds))
    found = [statistics.mean_interval(sample) for sample in samples]
    assert coverage(found, 3) == pytest.approx(0.95, abs=FOUR_ERRORS)


def test_coverage_shows_that_standard_errors_alone_are_too_short():
    samples = np.random.default_rng(0).normal(3, 2, (NUM_SAMPLES, 3))
    errors = scipy.stats.sem(samples, axis=1)
    shares = np.abs(samples.mean(1) - 3) < 1.96 * errors
    assert shares.mean() < 0.95 - 2 * FOUR_ERRORS


@pytest.mark.parametrize(
    "values, mean",
    [
        ([], NAN),
        ([0.5], 0.5),
        ([0.5, 0.5, 0.5], 0.5),  # Does not show how much seeds matter.
        ([0.3, 0.1 + 0.2], 0.3),  # Differ by rounding only.
        ([0.5, NAN, 0.7], NAN),
        ([0.5, None, 0.7], NAN),
        ([0.5, math.inf], NAN),
    ],
)
def test_mean_without_an_interval(values, mean):
    found = statistics.mean_interval(values)
    assert found.value == pytest.approx(mean, nan_ok=True)
    assert all(map(math.isnan, bounds(found)))


def test_paired_difference_is_that_of_scipy():
    a, b = [0.93, 0.90, 0.95, 0.91], [0.91, 0.89, 0.90, 0.92]
    found = statistics.paired_difference(a, b, 0.9)
    expected = scipy.stats.ttest_rel(a, b)
    assert found.p_value == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.9)
    assert bounds(found) == pytest.approx((interval.low, interval.high))
    assert (found.value, found.n) == (pytest.approx(0.0175), 4)


def test_welch_difference_is_that_of_scipy():
    a, b = [0.93, 0.90, 0.95, 0.91], [0.91, 0.79, 0.99]
    found = statistics.welch_difference(a, b, 0.9)
    expected = scipy.stats.ttest_ind(a, b, equal_var=False)
    assert found.p_value == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.9)
    assert bounds(found) == pytest.approx((interval.low, interval.high))
    assert (found.value, found.n) == (pytest.approx(np.mean(a) - np.mean(b)), 3)


def test_paired_difference_covers_and_tests_at_its_level():
    random = np.random.default_rng(0)
    shared = random.normal(0, 5, (NUM_SAMPLES, 5))
    a, b = shared + random.normal(1, 1, (2, NUM_SAMPLES, 5))
    found = [statistics.paired_difference(*pair) for pair in zip(a, b, strict=True)]
    assert coverage(found, 0) == pytest.approx(0.95, abs=FOUR_ERRORS)
    false = np.mean([each.p_value < 0.05 for each in found])
    assert false == pytest.approx(1 - coverage(found, 0))


@pytest.mark.parametrize("spread", [1, 4])
def test_welch_difference_covers_at_its_level(spread):
    random = np.random.default_rng(0)
    a, b = random.normal(2, 1, (NUM_SAMPLES, 5)), random.normal(0, spread, (NUM_SAMPLES, 7))
    found = [statistics.welch_difference(*pair) for pair in zip(a, b, strict=True)]
    assert coverage(found, 2) == pytest.approx(0.95, abs=FOUR_ERRORS)


@pytest.mark.parametrize("difference", [statistics.paired_difference, statistics.welch_difference])
@pytest.mark.parametrize(
    "a, b, value",
    [
        ([0.5], [0.4], 0.1),
        ([], [], NAN),
        ([0.5, NAN], [0.4, 0.3], NAN),
        ([0.5, 0.5], [0.4, 0.4], 0.1),
        ([0.5, 0.5], [0.5, 0.5], 0),
    ],
)
def test_difference_without_an_interval(difference, a, b, value):
    found = difference(a, b)
    assert found.value == pytest.approx(value, nan_ok=True)
    assert all(map(math.isnan, (*bounds(found), found.p_value)))
    assert found.n == len(a)


def test_differences_that_differ_by_the_rounding_of_their_scores_are_equal():
    a = np.array([1.7, 30.3, 1000.7], np.float32)
    b = a + np.float32(0.1)
    found = statistics.paired_difference(a, b)
    assert found.value == pytest.approx(-0.1, rel=1e-3)
    assert len(set(a.astype(float) - b)) > 1 and math.isnan(found.p_value)


def test_a_sample_of_equal_scores_adds_no_variance():
    spread, equal = [0.001, 0.002, 0.004], [5000, 5000, 5000.001]
    for a, b in [(spread, equal), (equal, spread)]:
        found = statistics.welch_difference(a, b)
        half = (found.high - found.low) / 2
        expected = statistics.mean_interval(spread)
        assert half == pytest.approx((expected.high - expected.low) / 2)


def test_a_pooled_deviation_is_about_the_mean_of_each_sample():
    samples = [[0.90, 0.92, 0.88], [0.5], [0.7, 0.6], []]
    squares = 2 * np.var(samples[0], ddof=1) + np.var(samples[2], ddof=1)
    deviation, freedom = statistics.pooled_deviation(samples)
    assert freedom == 3 and deviation == pytest.approx(math.sqrt(squares / 3))
    alone = statistics.pooled_deviation([[0.5], [0.7]])
    assert math.isnan(alone.deviation) and alone.freedom == 0


def test_seeds_of_both_samples_are_paired():
    a = {3: 0.3, 0: 0.9, 1: None, 2: NAN, 5: 0.5}
    b = {0: 0.8, 1: 0.7, 2: 0.6, 3: 0.1, 4: 0.4}
    left, right = statistics.pair_by_seed(a, b)
    assert (left.tolist(), right.tolist()) == ([0.9, 0.3], [0.8, 0.1])
    assert statistics.paired_difference(*statistics.pair_by_seed(a, {9: 1.0})).n == 0


def test_holm_by_hand():
    # 3 * .01; 2 * .02 = .04, and .03 may not fall below it.
    assert statistics.holm([0.03, 0.01, 0.02]).tolist() == pytest.approx([0.04, 0.03, 0.04])
    assert statistics.holm([0.6, 0.9]).tolist() == [1, 1]
    assert statistics.holm([]).shape == (0,)


def test_holm_ignores_tests_that_were_not_made():
    found = statistics.holm([[0.01, NAN], [0.04, NAN]])
    np.testing.assert_allclose(found, [[0.02, NAN], [0.04, NAN]])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_p_and_bonferroni(p_values):
    p_values = np.array(p_values)
    found = statistics.holm(p_values)
    assert (found >= p_values).all()
    assert (found <= np.minimum(p_values * len(p_values), 1)).all()
    order = p_values.argsort(kind="stable")
    assert (np.diff(found[order]) >= 0).all()


def test_holm_bounds_the_rate_of_any_false_rejection():
    p_values = np.random.default_rng(0).uniform(size=(NUM_SAMPLES, 6))
    any_rejected = [(statistics.holm(row) < 0.05).any() for row in p_values]
    assert np.mean(any_rejected) == pytest.approx(1 - (1 - 0.05 / 6) ** 6, abs=FOUR_ERRORS)


@pytest.mark.parametrize(
    "call",
    [
        lambda: statistics.mean_interval([0.1, 0.2], level=95),
        lambda: statistics.mean_interval([[0.1, 0.2]]),
        lambda: statistics.mean_interval(["high", "low"]),
        lambda: statistics.paired_difference([0.1, 0.2], [0.1]),
        lambda: statistics.welch_difference([0.1, 0.2], [0.1, 0.3], level=0),
        lambda: statistics.holm([0.1, 1.2]),
    ],
)
def test_bad_input_is_refused(call):
    with pytest.raises(ValueError):
        call()
