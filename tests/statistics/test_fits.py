"""Tests optima between grid points and power laws, against known curves and by coverage."""

import math

import numpy as np
import pytest
import scipy.stats

from noisegen import statistics

NAN = math.nan


def parabola(x, top=0.3, curvature=1.0):
    return 5 - curvature * (np.asarray(x) - top) ** 2


@pytest.mark.parametrize("x", [[-2, -1, 0, 1, 2], [-1, 0.5, 1], [-5, 0, 4]])
def test_the_top_of_a_parabola_is_found(x):
    found = statistics.parabola_optimum(x, parabola(x), np.full(len(x), 0.01))
    assert found.value == pytest.approx(0.3)
    assert found.low < 0.3 < found.high
    assert found.reason == ""


def test_only_the_neighbors_of_the_best_point_count():
    x = [-3, -2, -1, 0, 1, 2]
    means = parabola(x)
    means[[0, 1, 5]] = -100, NAN, 2
    found = statistics.parabola_optimum(x, means, [9, NAN, 0.1, 0.1, 0.1, 9])
    assert found.value == pytest.approx(0.3)
    assert math.isfinite(found.standard_error)


def test_standard_error_is_that_of_simulated_optima():
    x, errors = [-1, 0, 1], np.array([0.02, 0.01, 0.03])
    means = parabola(x) + np.random.default_rng(0).normal(0, errors, (2000, 3))
    found = [statistics.parabola_optimum(x, row, errors) for row in means]
    expected = statistics.parabola_optimum(x, parabola(x), errors).standard_error
    assert np.std([each.value for each in found]) == pytest.approx(expected, rel=0.06)
    z = (found[0].high - found[0].low) / 2 / found[0].standard_error
    assert z == pytest.approx(1.96, rel=0.01)  # Small errors: Fieller's interval is the usual one.


@pytest.mark.parametrize("num_seeds, std", [(3, 0.5), (5, 1.0), (15, 1.0)])
def test_interval_covers_the_optimum(num_seeds, std):
    x = np.arange(-3, 4)
    noise = np.random.default_rng(0).normal(0, std, (1500, len(x), num_seeds))
    scores = parabola(x)[:, None] + noise
    errors = scores.std(2, ddof=1) / math.sqrt(num_seeds)
    contained = []
    for means, row in zip(scores.mean(2), errors, strict=True):
        found = statistics.parabola_optimum(x, means, row, degrees_of_freedom=3 * (num_seeds - 1))
        contained.append(found.low <= 0.3 <= found.high)
    assert 0.93 < np.mean(contained) < 0.99


def test_a_curve_that_is_not_measurably_concave_has_no_bounds():
    found = statistics.parabola_optimum([0, 1, 2], [0.90, 0.91, 0.90], [0.05, 0.05, 0.05])
    assert found.value == pytest.approx(1)
    assert (found.low, found.high) == (-math.inf, math.inf)


@pytest.mark.parametrize(
    "means, reason",
    [
        ([0.9, 0.8, 0.7], "edge"),
        ([0.7, 0.8, 0.9], "edge"),
        ([0.9, 0.9, 0.9], "edge"),
        ([NAN, 0.9, 0.8], "no_neighbor"),
        ([0.8, 0.9, None], "no_neighbor"),
        ([NAN, NAN, NAN], "no_neighbor"),
    ],
)
def test_a_missing_optimum_has_a_reason(means, reason):
    found = statistics.parabola_optimum([0, 1, 2], means, [0.1, 0.1, 0.1])
    assert found.reason == reason
    assert all(map(math.isnan, (found.value, found.low, found.high, found.standard_error)))


def test_missing_errors_leave_the_optimum_without_bounds():
    found = statistics.parabola_optimum([0, 1, 2], [0.8, 0.9, 0.8], [0.1, NAN, 0.1])
    assert found.value == pytest.approx(1)
    assert math.isnan(found.low) and math.isnan(found.standard_error)


def test_power_law_is_that_of_scipy():
    x, y = np.array([16, 32, 64, 128, 512]), np.array([0.1, 0.22, 0.37, 0.8, 2.1])
    found = statistics.power_law(x, y)
    expected = scipy.stats.linregress(np.log(x), np.log(y))
    half = scipy.stats.t.ppf(0.975, 3) * expected.stderr
    assert found.exponent.value == pytest.approx(expected.slope)
    assert found.exponent.high - found.exponent.value == pytest.approx(half)
    assert found.coefficient == pytest.approx(math.exp(expected.intercept))
    assert (found.low_x, found.high_x, found.n) == (16, 512, 5)


def test_power_law_with_errors_is_weighted_least_squares():
    x, y = np.array([1.0, 2, 4, 8, 16]), np.array([1.0, 2.2, 3.5, 9.0, 15.0])
    errors = np.array([0.1, 0.1, 0.5, 2.0, 1.0])
    found = statistics.power_law(x, y, errors)
    _, covariance = np.polyfit(np.log(x), np.log(y), 1, w=y / errors, cov=True)
    slope, intercept = np.polyfit(np.log(x), np.log(y), 1, w=y / errors)
    half = scipy.stats.t.ppf(0.975, 3) * math.sqrt(covariance[0, 0])
    assert found.exponent.value == pytest.approx(slope)
    assert found.coefficient == pytest.approx(math.exp(intercept))
    assert found.exponent.high - found.exponent.value == pytest.approx(half)
    scaled = statistics.power_law(x, y, 7 * errors)  # Only ratios of errors count.
    assert scaled.exponent.high == pytest.approx(found.exponent.high)


def test_exponent_covers_at_its_level():
    x = 2.0 ** np.arange(5, 12)
    noise = np.random.default_rng(0).normal(0, 0.3, (2000, len(x)))
    found = [statistics.power_law(x, 0.1 * x**0.7 * np.exp(row)) for row in noise]
    covered = np.mean([each.exponent.low <= 0.7 <= each.exponent.high for each in found])
    assert covered == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 2000))


def test_exponent_of_grid_values_covers_only_if_told_of_the_grid():
    x = 2.0 ** np.arange(5, 12)
    random = np.random.default_rng(0)
    covered = {0: [], 1: []}
    for slope, offset in random.uniform((0, 0), (1.2, 1), (1000, 2)):
        y = 2 ** np.round(slope * np.log2(x) + offset)
        for step in covered:
            exponent = statistics.power_law(x, y, grid_octaves=step).exponent
            covered[step].append(exponent.low <= slope <= exponent.high)
    assert np.mean(covered[1]) > 0.95
    assert np.mean(covered[0]) < 0.9


def test_points_on_a_law_have_an_interval_only_by_their_grid():
    x = [16, 32, 64, 128]
    exact = statistics.power_law(x, x).exponent
    assert exact.value == pytest.approx(1)
    assert math.isnan(exact.low)
    by_grid = statistics.power_law(x, x, grid_octaves=1).exponent
    # t = 4.303, rounding error 1 / sqrt(12), spread of log2 x: 5.
    assert by_grid.high - 1 == pytest.approx(4.303 / math.sqrt(12 * 5), rel=1e-3)


def test_two_points_have_a_slope_without_an_interval():
    found = statistics.power_law([1, 2], [1, 4], grid_octaves=1)
    assert found.exponent.value == pytest.approx(2)
    assert math.isnan(found.exponent.low) and math.isnan(found.residual_std)


@pytest.mark.parametrize(
    "call",
    [
        lambda: statistics.parabola_optimum([1, 0, 2], [1, 2, 1], [1, 1, 1]),
        lambda: statistics.parabola_optimum([0, 1, 2], [1, 2], [1, 1, 1]),
        lambda: statistics.power_law([1, 2, 0], [1, 2, 3]),
        lambda: statistics.power_law([1, 2, 3], [1, NAN, 3]),
        lambda: statistics.power_law([1, 2, 3], [1, 2, 3], [0, 1, 1]),
        lambda: statistics.power_law([2, 2], [1, 2]),
        lambda: statistics.power_law([1, 2], [1, 2], grid_octaves=-1),
    ],
)
def test_bad_input_is_refused(call):
    with pytest.raises(ValueError):
        call()
