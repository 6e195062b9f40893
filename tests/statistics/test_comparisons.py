"""Tests comparisons with the best row: by hand, and by the rate of false statements."""

import math

import numpy as np
import pytest
import scipy.stats

from noisegen import statistics

NAN = math.nan
NUM_SAMPLES = 700
# A rate of 5 % is exceeded by more than four of its standard errors.
TOO_OFTEN = 0.05 + 4 * math.sqrt(0.05 * 0.95 / NUM_SAMPLES)
SPREADS = [[1, 1, 1, 1], [1, 2, 3, 4], [10, 1, 1, 1]]


def draw(means, stds, num_seeds):
    """Draws normal scores, of shape (R, K, N)."""
    noise = np.random.default_rng(0).standard_normal((NUM_SAMPLES, len(means), num_seeds))
    return np.array(means)[:, None] + np.array(stds)[:, None] * noise


def bounds(interval):
    return interval.low, interval.high


def test_two_rows_are_compared_by_welch():
    a, b = [0.93, 0.90, 0.95, 0.91], [0.71, 0.79, 0.74]
    best, other = statistics.compare_with_best([a, b])
    p_value = scipy.stats.ttest_ind(b, a, equal_var=False, alternative="less").pvalue
    assert other.p_value == pytest.approx(2 * p_value)  # Either row might be the best.
    assert other.value == pytest.approx(np.mean(b) - np.mean(a))
    interval = scipy.stats.ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    assert bounds(other) == pytest.approx((interval.low, interval.high))
    assert other.is_lower
    assert (best.value, best.low, best.high, best.is_lower) == (0, 0, 0, False)


def test_rows_that_overlap_are_not_lower_and_have_a_limit_of_loss():
    rows = statistics.compare_with_best([[1.0, 1.2, 1.1], [1.1, 1.0, 1.3], [1.0, 1.1, 1.2]])
    assert not any(row.is_lower for row in rows)
    assert all(row.low < row.value <= row.high == 0 for row in rows)


@pytest.mark.parametrize("level", [0.8, 0.95, 0.999])
def test_statement_and_interval_agree(level):
    tables = draw([0, -1, -2, -4], [1, 1, 2, 1], 5)[:100]
    rows = [row for table in tables for row in statistics.compare_with_best(table, level)]
    assert {row.is_lower for row in rows} == {True, False}
    assert all(row.is_lower == (row.high < 0) for row in rows)


def test_more_rows_demand_more_evidence():
    a, b = [1.0, 1.1, 1.2, 1.1], [0.8, 0.9, 0.7, 0.9]
    two = statistics.compare_with_best([a, b])[1]
    five = statistics.compare_with_best([a, b, b, a, b])[1]
    assert five.p_value == pytest.approx(10 * two.p_value)
    assert five.low < two.low


@pytest.mark.parametrize("stds", SPREADS)
@pytest.mark.parametrize("num_seeds", [3, 5, 15])
def test_equal_rows_are_seldom_called_lower(stds, num_seeds):
    tables = draw([0, 0, 0, 0], stds, num_seeds)
    called = [any(r.is_lower for r in statistics.compare_with_best(table)) for table in tables]
    assert np.mean(called) < TOO_OFTEN


def test_plain_tests_against_the_best_row_are_wrong_too_often():
    tables = draw([0, 0, 0, 0], [1, 1, 1, 1], 5)
    tables = np.take_along_axis(tables, tables.mean(2).argsort(1)[:, :, None], 1)
    p_values = scipy.stats.ttest_ind(tables[:, 0], tables[:, 3], axis=1, equal_var=False).pvalue
    assert np.mean(p_values < 0.05) > TOO_OFTEN + 0.05


@pytest.mark.parametrize("stds", SPREADS)
def test_intervals_hold_together(stds):
    means = np.array([0, -0.5, 0, -3])
    for table_means in (means, means[::-1]):
        held = []
        for table in draw(table_means, stds, 5):
            rows = statistics.compare_with_best(table)
            pairs = zip(rows, table_means, strict=True)
            held.append(all(row.low <= truth <= row.high for row, truth in pairs))
        assert np.mean(held) > 1 - TOO_OFTEN


def test_rows_at_points_that_their_scores_chose_are_seldom_called_lower():
    rows = draw(np.zeros(4 * 5), np.ones(4 * 5), 5).reshape(-1, 4, 5, 5)[:500]  # (R, K, P, N)
    best = [statistics.best_points(tables) for tables in rows]
    chosen = [tables[np.arange(4), points] for tables, points in zip(rows, best, strict=True)]
    called = [any(r.is_lower for r in statistics.compare_with_best(table)) for table in chosen]
    assert np.mean(called) < 0.05
    # Held-out scores look independent and are not.
    held_out = [[statistics.selected_without_seed(t).scores for t in tables] for tables in rows]
    called = [any(r.is_lower for r in statistics.compare_with_best(table)) for table in held_out]
    assert np.mean(called) > 0.1


def test_large_drops_are_seen():
    tables = draw([0, 0, 0, -4], [1, 1, 1, 1], 5)[:200]
    seen = [statistics.compare_with_best(table)[3].is_lower for table in tables]
    assert np.mean(seen) > 0.9


@pytest.mark.parametrize("missing", [[], [0.9, NAN], [None, 0.2]])
def test_a_row_without_a_mean_is_left_out(missing):
    a, b = [0.9, 0.8, 0.85], [0.4, 0.5, 0.45]
    first, empty, second = statistics.compare_with_best([a, missing, b])
    assert [first, second] == list(statistics.compare_with_best([a, b]))
    assert all(map(math.isnan, (empty.value, *bounds(empty), empty.p_value)))
    assert not empty.is_lower


def test_a_row_of_one_score_may_be_the_best():
    rows = statistics.compare_with_best([[0.9, 0.8, 0.85], [0.99], [0.4, 0.5, 0.45]])
    assert [row.is_lower for row in rows] == [False, False, True]
    assert rows[0].value == pytest.approx(-0.14)
    assert all(math.isnan(row.low) for row in rows)  # How good the single score is, is not known.


def test_rows_without_any_scores():
    [row] = statistics.compare_with_best([[]])
    assert math.isnan(row.value) and not row.is_lower
    found = statistics.last_not_lower([[], [NAN, 0.1]])
    assert (found.row, found.p_values) == (-1, {})


def test_rows_are_tested_from_the_last_backwards():
    high, middle, low = [9.0, 9.2, 9.1, 9.1], [9.1, 8.9, 9.2, 9.0], [5.0, 5.2, 5.1, 5.1]
    found = statistics.last_not_lower([high, middle, low, low])
    assert found.row == 1
    assert list(found.p_values) == [3, 2, 1]
    p_value = scipy.stats.ttest_ind(low, high, equal_var=False, alternative="less").pvalue
    assert found.p_values[3] == pytest.approx(3 * p_value)
    assert found.p_values[2] == pytest.approx(2 * p_value)
    assert found.p_values[1] > 0.05


def test_a_row_lower_than_earlier_ones_only_does_not_hide_behind_later_ones():
    assert statistics.last_not_lower([[5.0, 5.1, 5.2], [9.0, 9.1, 9.2], [5.0, 5.1, 5.2]]).row == 1
    assert statistics.last_not_lower([[5.0, 5.1, 5.2], [9.0, 9.1, 9.2]]).row == 1


def test_rows_without_a_mean_are_passed_over():
    found = statistics.last_not_lower([[5.0, 5.1, 5.2], [5.1, 5.0, 5.3], [NAN, NAN, 5.0], []])
    assert found.row == 1
    assert list(found.p_values) == [1]


def test_the_first_row_and_a_row_of_one_score_have_no_test():
    found = statistics.last_not_lower([[9.0, 9.1, 9.2], [5.0, 5.1, 5.2]])
    assert found.row == 0 and math.isnan(found.p_values[0])
    assert statistics.last_not_lower([[9.0, 9.1, 9.2], [5.0]]).row == 1


@pytest.mark.slow
@pytest.mark.parametrize("stds", SPREADS)
@pytest.mark.parametrize("num_seeds", [3, 5, 15])
def test_the_last_row_is_seldom_too_early(stds, num_seeds):
    tables = draw([0, 0, 0, -50], stds, num_seeds)
    rows = np.array([statistics.last_not_lower(table).row for table in tables])
    assert np.mean(rows < 2) < TOO_OFTEN
    equal = np.array([statistics.last_not_lower(table[:3]).row for table in tables])
    assert np.mean(equal < 2) < TOO_OFTEN


@pytest.mark.parametrize("call", [statistics.compare_with_best, statistics.last_not_lower])
@pytest.mark.parametrize("rows, level", [([], 0.95), ([0.1, 0.2], 0.95), ([[0.1, 0.2]], 1)])
def test_bad_input_is_refused(call, rows, level):
    with pytest.raises(ValueError):
        call(rows, level)
