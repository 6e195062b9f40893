"""Tests that selection is judged by seeds that did not take part in it."""

import math

import numpy as np
import pytest

from noisegen import statistics

NAN = math.nan


def draw(means, num_seeds, num_tables, seed=0):
    """Draws tables of scores, of shape (R, P, N), with the standard deviation 1."""
    noise = np.random.default_rng(seed).standard_normal((num_tables, len(means), num_seeds))
    return np.array(means)[:, None] + noise


def test_each_seed_is_scored_where_the_others_chose():
    scores = [[5, 5, 0], [4, 4, 4], [9, 0, 0]]
    found = statistics.selected_without_seed(scores)
    # Means without seed 0: 2.5, 4, 0; without seed 1: 2.5, 4, 4.5; without seed 2: 5, 4, 4.5.
    assert found.points == (1, 2, 0)
    assert found.scores == (4, 0, 0)
    assert found.interval.value == pytest.approx(4 / 3)
    assert found.optimism == pytest.approx(4 - 4 / 3)  # All seeds choose point 1, of mean 4.
    assert found.num_diverged == 0


def test_a_single_point_has_the_t_interval():
    found = statistics.selected_without_seed([[0.9, 0.8, 0.85, 0.9]])
    assert found.optimism == 0
    assert found.interval == statistics.mean_interval([0.9, 0.8, 0.85, 0.9])


def test_best_runs_choose_if_asked():
    scores = [[5, 5, 0, 5], [4, 4, 4, 4]]
    assert statistics.selected_without_seed(scores, best_k=2).points == (0, 0, 0, 0)
    assert statistics.selected_without_seed(scores).points == (1, 1, 0, 1)


def test_diverged_runs_cost_a_point_its_choice_and_are_counted():
    found = statistics.selected_without_seed([[9, 9, 9, NAN], [1, 2, 3, 4]])
    assert found.points == (1, 1, 1, 0)  # Only without the last seed has point 0 all its runs.
    np.testing.assert_equal(found.scores, (1, 2, 3, NAN))
    assert (found.num_diverged, found.interval.value) == (1, 2)


@pytest.mark.parametrize("scores", [[[NAN, NAN]], [[0.5], [0.6]], [[None, NAN], [math.inf, NAN]]])
def test_without_survivors_or_other_seeds_there_is_no_estimate(scores):
    found = statistics.selected_without_seed(scores)
    assert set(found.points) == {-1}
    assert math.isnan(found.interval.value) and math.isnan(found.interval.low)
    assert math.isnan(found.optimism)


def test_two_seeds_give_an_estimate_without_an_interval():
    found = statistics.selected_without_seed([[0.5, 0.7], [0.6, 0.4]])
    assert found.interval.value == pytest.approx(0.45)
    assert math.isnan(found.interval.low) and math.isnan(found.interval.high)


def test_estimate_has_no_bias_and_the_printed_mean_has():
    means = [0, 0, 0, 0, 0]
    tables = draw(means, num_seeds=5, num_tables=2000)
    found = [statistics.selected_without_seed(table) for table in tables]
    held_out = np.array([each.interval.value for each in found])
    printed = held_out + [each.optimism for each in found]
    assert abs(held_out.mean()) < 4 * held_out.std() / math.sqrt(len(found))
    # The mean of the greatest of five normal numbers is 1.163.
    assert printed.mean() == pytest.approx(1.163 / math.sqrt(5), abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(
    "means, num_seeds, low, high",
    [
        ([-4, -1, 0, -1, -4], 3, 0.94, 0.98),
        ([-1.2, -0.3, 0, -0.3, -1.2], 5, 0.93, 0.97),
        ([-1.2, -0.3, 0, -0.3, -1.2], 15, 0.925, 0.965),
        ([0, 0, 0, 0, 0], 15, 0.88, 0.93),  # The documented shortfall.
    ],
)
def test_interval_covers_the_mean_of_the_chosen_point(means, num_seeds, low, high):
    tables = draw(means, num_seeds, num_tables=2000)
    contained = []
    for table in tables:
        interval = statistics.selected_without_seed(table).interval
        truth = means[table.mean(1).argmax()]
        contained.append(interval.low <= truth <= interval.high)
    assert low < np.mean(contained) < high


def test_first_seeds_choose_and_the_others_score():
    scores = [[9, 9, 1, 2, NAN, -math.inf], [5, 5, 5, 5, 5, 5]]
    found = statistics.selected_by_first_seeds(scores, 2)
    assert found.points == (0, 0, 0, 0)
    np.testing.assert_equal(found.scores, (1, 2, NAN, NAN))
    assert (found.interval.value, found.num_diverged, found.optimism) == (1.5, 2, 7.5)
    assert statistics.selected_by_first_seeds(scores, 5).points == (1,)  # No survivor is missing.
    assert statistics.selected_by_first_seeds(scores, 5, best_k=2).points == (0,)


def test_first_seeds_that_all_diverge_choose_nothing():
    found = statistics.selected_by_first_seeds([[NAN, 1.0, 2.0]], 1)
    assert found.points == (-1, -1)
    assert math.isnan(found.interval.value) and math.isnan(found.optimism)


def test_other_seeds_cover_the_mean_of_the_chosen_point_however_close_the_points_are():
    tables = draw([0, 0, 0, 0, 0], num_seeds=6, num_tables=2000)
    found = [statistics.selected_by_first_seeds(table, 2).interval for table in tables]
    contained = np.mean([each.low <= 0 <= each.high for each in found])
    assert contained == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 2000))


def test_shares_of_two_points_match_the_normal_distribution():
    scores = np.array([[0.0, 0.1, 0.3, 0.2, 0.9, 0.4], [0.2, 0.2, 0.2, 0.4, 0.1, 0.3]])
    shares = statistics.bootstrap_shares(scores, num_resamples=20_000)
    difference = scores[0] - scores[1]
    z = difference.mean() / (difference.std() / math.sqrt(6))
    assert shares.sum() == pytest.approx(1)
    assert shares[0] == pytest.approx(0.5 + math.erf(z / math.sqrt(2)) / 2, abs=0.03)


def test_joint_resamples_keep_what_seeds_share():
    shared = np.random.default_rng(0).normal(0, 1, 8)
    scores = np.array([shared, shared + 0.1])  # Better by the same amount for every seed.
    assert statistics.bootstrap_shares(scores).tolist() == [0, 1]
    independent = statistics.bootstrap_shares(scores, joint=False)
    assert 0.2 < independent[0] < 0.5


@pytest.mark.parametrize("joint", [True, False])
def test_shares_of_points_that_diverge(joint):
    shares = statistics.bootstrap_shares([[NAN, NAN], [0.1, 0.3]], joint=joint)
    assert shares.tolist() == [0, 1]
    assert statistics.bootstrap_shares([[NAN, NAN]], joint=joint).tolist() == [0]


def test_shares_are_reproducible():
    scores = draw([0, 0.1, 0], 5, 1)[0]
    first, again, other = (statistics.bootstrap_shares(scores, seed=seed) for seed in (0, 0, 1))
    assert first.tolist() == again.tolist() != other.tolist()


def test_best_points_follow_the_protocol():
    tables = np.array(
        [
            [[9, 9, NAN], [1, 1, 1]],  # Fewer survivors.
            [[1, 2, 3], [3, 2, 1]],  # Equal means: the first.
            [[-np.inf, NAN, NAN], [NAN, NAN, NAN]],
        ]
    )
    assert statistics.best_points(tables).tolist() == [1, 0, -1]
    assert statistics.best_points(tables, best_k=2).tolist() == [0, 0, -1]


def test_resamples_keep_to_the_runs_of_their_point():
    scores = np.array([[1.0, 2.0, -np.inf], [3.0, 4.0, 5.0]])
    random = np.random.default_rng(0)
    sampled = statistics.resample_runs(scores, np.array([2, 3]), random, 50)
    assert sampled.shape == (50, 2, 3)
    assert set(sampled[:, 0, :2].ravel()) == {1, 2} and set(sampled[:, 1].ravel()) == {3, 4, 5}
    assert (sampled[:, 0, 2] == -np.inf).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda: statistics.selected_without_seed([0.1, 0.2]),
        lambda: statistics.selected_without_seed([[]]),
        lambda: statistics.selected_without_seed([[0.1, 0.2], [0.3]]),
        lambda: statistics.selected_without_seed([[0.1, 0.2]], best_k=0),
        lambda: statistics.selected_by_first_seeds([[0.1, 0.2]], 2),
        lambda: statistics.selected_by_first_seeds([[0.1, 0.2]], 0),
        lambda: statistics.bootstrap_shares([[0.1, 0.2]], num_resamples=0),
    ],
)
def test_bad_input_is_refused(call):
    with pytest.raises(ValueError):
        call()
