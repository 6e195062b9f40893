"""Tests the planning of seeds and of test examples, against known values and by simulation."""

import math

import numpy as np
import pytest
import scipy.stats

from noisegen import statistics


# Cohen, 1988, tables 2.3 and 2.4, and G*Power: seeds of each sample for 80 % power at 5 %.
@pytest.mark.parametrize("difference, seeds", [(0.2, 394), (0.5, 64), (0.8, 26)])
def test_seeds_of_two_samples_are_those_of_the_tables(difference, seeds):
    assert statistics.seeds_needed(1.0, difference) == seeds


@pytest.mark.parametrize("difference, pairs", [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_pairs_are_those_of_the_tables(difference, pairs):
    assert statistics.seeds_needed(1.0, difference, paired=True) == pairs


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
def test_least_difference_is_found_with_the_power_asked_for(paired, power):
    num_samples, n, std = 4000, 4, 2.5
    shift = statistics.least_difference(std, n, power=power, paired=paired)
    a, b = np.random.default_rng(0).normal(0, std, (2, num_samples, n))
    if paired:
        found = scipy.stats.ttest_1samp(a + shift, 0, axis=1)
    else:
        found = scipy.stats.ttest_ind(a + shift, b, axis=1)
    assert np.mean(found.pvalue < 0.05) == pytest.approx(power, abs=4 * 0.5 / num_samples**0.5)


def test_seeds_needed_is_the_inverse_of_least_difference():
    for n in (2, 3, 4, 5, 15, 100):
        difference = statistics.least_difference(0.7, n)
        assert statistics.seeds_needed(0.7, difference * 1.0001) == n
        assert statistics.seeds_needed(0.7, difference * 0.9999) == n + 1


def test_least_difference_falls_with_seeds_and_rises_with_power():
    by_seeds = [statistics.least_difference(1, n) for n in range(2, 30)]
    assert (np.diff(by_seeds) < 0).all()
    by_power = [statistics.least_difference(1, 5, power=power) for power in (0.3, 0.8, 0.99)]
    assert (np.diff(by_power) > 0).all()


@pytest.mark.parametrize("n", [0, 1])
def test_one_seed_sees_nothing(n):
    assert statistics.least_difference(1.0, n) == math.inf


def test_error_of_an_accuracy_is_binomial():
    drawn = np.random.default_rng(0).binomial(360, 0.9, 20_000) / 360
    assert statistics.proportion_error(0.9, 360) == pytest.approx(drawn.std(), rel=0.02)
    assert statistics.proportion_error(1, 10) == 0


def test_error_of_a_difference_is_that_of_paired_examples():
    shares = [0.25, 0.15, 0.6]  # Only the first network is right, only the second, both or none.
    drawn = np.random.default_rng(0).multinomial(500, shares, 20_000) / 500
    found = statistics.paired_proportion_error(0.4, 500, difference=0.1)
    assert found == pytest.approx((drawn[:, 0] - drawn[:, 1]).std(), rel=0.02)
    assert statistics.paired_proportion_error(0, 500) == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda: statistics.least_difference(0, 3),
        lambda: statistics.least_difference(1, 2.5),
        lambda: statistics.least_difference(1, 3, power=1),
        lambda: statistics.least_difference(1, 3, power=0.04),
        lambda: statistics.seeds_needed(1, 0),
        lambda: statistics.seeds_needed(1, -1),
        lambda: statistics.proportion_error(95, 100),
        lambda: statistics.proportion_error(0.95, 0),
        lambda: statistics.paired_proportion_error(0.1, 100, difference=0.2),
        lambda: statistics.paired_proportion_error(1.1, 100),
    ],
)
def test_bad_input_is_refused(call):
    with pytest.raises(ValueError):
        call()
