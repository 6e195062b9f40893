"""A race gives further seeds to the points that may change its result, and to no others."""

import math

import pytest

from noisegen.sweeps import race_rule
from noisegen.sweeps.protocol import Protocol
from noisegen.sweeps.race_rule import RacePoint


def point(value, *scores, best=4, of=5):
    counted = Protocol(search="race", best=best, of=of).num_counted(len(scores))
    return RacePoint(values=(value,), scores=scores, num_counted=counted, num_planned=of)


def test_the_same_share_of_any_number_of_seeds_counts():
    assert [point(1, *scores).num_counted for scores in ([0], [0] * 2, [0] * 4, [0] * 5)] == [
        1,
        2,
        4,
        4,
    ]
    assert point(1, 1.0, 2.0, 3.0, 4.0, 5.0).mean == 3.5
    twelve_of_fifteen = point(1, *range(15), best=12, of=15)
    assert twelve_of_fifteen.mean == sum(range(3, 15)) / 12


def test_the_best_is_stable_and_the_smallest_of_equal_ones():
    assert race_rule.best_point([point(1, 0.8), point(2, 0.9), point(4, 0.9)]).values == (2,)
    half = point(8, 0.99, None)
    assert not half.is_stable
    assert race_rule.best_point([half, point(2, 0.5)]).values == (2,)
    assert race_rule.best_point([half]).values == (8,)
    assert race_rule.best_point([point(8, None), point(16, None, None)]) is None


def test_one_diverged_run_of_five_is_no_harm_if_four_count():
    survivor = point(8, 0.9, 0.9, 0.9, 0.9, None)
    assert survivor.is_stable and survivor.mean == pytest.approx(0.9)


def test_the_noise_is_first_measured_at_the_two_best():
    points = [point(1, 0.5), point(2, 0.9), point(4, 0.8), point(8, None)]
    assert race_rule.more_seeds(points) == {(2,): 2, (4,): 2}


def test_a_value_that_is_worse_by_more_than_the_noise_is_dropped():
    near, far = point(4, 0.89, 0.88), point(8, 0.5)
    best = point(2, 0.9, 0.89)
    assert race_rule.more_seeds([best, near, far]) == {(2,): 3, (4,): 3}


def test_those_with_the_fewest_seeds_come_first():
    points = [point(2, 0.90, 0.88), point(4, 0.89)]
    assert race_rule.more_seeds(points) == {(4,): 2}


def test_the_last_contender_gets_all_of_its_seeds_at_once():
    points = [point(2, 0.90, 0.901), point(4, 0.5, 0.501)]
    assert race_rule.more_seeds(points) == {(2,): 5}


def test_an_end_of_the_error_bar_that_is_in_doubt_gets_a_seed():
    best = point(2, 0.90, 0.91, 0.92, 0.93, 0.94)
    least = best.mean - 0.0129
    beside = point(4, least, least + 0.0001)
    assert race_rule.more_seeds([best, beside]) == {(4,): 3}
    assert race_rule.more_seeds([best, point(4, 0.5, 0.51)]) == {}


def test_the_error_bar_is_one_standard_deviation_of_the_best():
    best = point(2, 0.90, 0.92, 0.94, 0.96, 0.1)
    inside, outside = point(1, best.mean - 0.0258), point(4, best.mean - 0.0259)
    assert race_rule.error_bar([inside, best, outside], best) == [inside, best]


def test_equal_scores_are_all_contenders():
    points = [point(1, 0.5, 0.5), point(2, 0.5, 0.5)]
    assert race_rule.more_seeds(points) == {(1,): 3, (2,): 3}


def test_numbers_of_seeds_grow_by_a_quarter_and_one():
    numbers, seeds = [], 1
    while seeds < 15:
        scores = [0.5 + 0.1 * math.sin(i) for i in range(seeds)]
        points = [point(v, *scores, best=12, of=15) for v in (1, 2)]
        [seeds, _] = race_rule.more_seeds(points).values()
        numbers.append(seeds)
    assert numbers == [2, 3, 4, 6, 8, 11, 14, 15]
