"""A race gives further seeds to the values that may change its result, and to no others."""

import math

import pytest

from noisegen.sweeps import race_rule
from noisegen.sweeps.race_rule import Entry


def entry(value, *scores, most=5, best=4, of=5):
    return Entry(values=(value,), scores=scores, most=most, best=best, of=of)


def test_the_same_share_of_any_number_of_seeds_counts():
    assert [entry(1, *scores).num_counted for scores in ([0], [0] * 2, [0] * 4, [0] * 5)] == [
        1,
        2,
        4,
        4,
    ]
    assert entry(1, 1.0, 2.0, 3.0, 4.0, 5.0).mean == 3.5
    twelve_of_fifteen = entry(1, *range(15), most=15, best=12, of=15)
    assert twelve_of_fifteen.mean == sum(range(3, 15)) / 12


def test_the_best_is_stable_and_the_smallest_of_equal_ones():
    assert race_rule.best_entry([entry(1, 0.8), entry(2, 0.9), entry(4, 0.9)]).values == (2,)
    half = entry(8, 0.99, None)
    assert not half.is_stable
    assert race_rule.best_entry([half, entry(2, 0.5)]).values == (2,)
    assert race_rule.best_entry([half]).values == (8,)
    assert race_rule.best_entry([entry(8, None), entry(16, None, None)]) is None


def test_one_diverged_run_of_five_is_no_harm_if_four_count():
    survivor = entry(8, 0.9, 0.9, 0.9, 0.9, None)
    assert survivor.is_stable and survivor.mean == pytest.approx(0.9)


def test_the_noise_is_first_measured_at_the_two_best():
    entries = [entry(1, 0.5), entry(2, 0.9), entry(4, 0.8), entry(8, None)]
    assert race_rule.more_seeds(entries) == {(2,): 2, (4,): 2}


def test_a_value_that_is_worse_by_more_than_the_noise_is_dropped():
    near, far = entry(4, 0.89, 0.88), entry(8, 0.5)
    best = entry(2, 0.9, 0.89)
    assert race_rule.more_seeds([best, near, far]) == {(2,): 3, (4,): 3}


def test_those_with_the_fewest_seeds_come_first():
    entries = [entry(2, 0.90, 0.88), entry(4, 0.89)]
    assert race_rule.more_seeds(entries) == {(4,): 2}


def test_the_last_contender_gets_all_of_its_seeds_at_once():
    entries = [entry(2, 0.90, 0.901), entry(4, 0.5, 0.501)]
    assert race_rule.more_seeds(entries) == {(2,): 5}


def test_an_end_of_the_error_bar_that_is_in_doubt_gets_a_seed():
    best = entry(2, 0.90, 0.91, 0.92, 0.93, 0.94)
    least = best.mean - 0.0129
    beside = entry(4, least, least + 0.0001)
    assert race_rule.more_seeds([best, beside]) == {(4,): 3}
    assert race_rule.more_seeds([best, entry(4, 0.5, 0.51)]) == {}


def test_the_error_bar_is_one_standard_deviation_of_the_best():
    best = entry(2, 0.90, 0.92, 0.94, 0.96, 0.1)
    inside, outside = entry(1, best.mean - 0.0258), entry(4, best.mean - 0.0259)
    assert race_rule.error_bar([inside, best, outside], best) == [inside, best]


def test_equal_scores_are_all_contenders():
    entries = [entry(1, 0.5, 0.5), entry(2, 0.5, 0.5)]
    assert race_rule.more_seeds(entries) == {(1,): 3, (2,): 3}


def test_numbers_of_seeds_grow_by_a_quarter_and_one():
    numbers, seeds = [], 1
    while seeds < 15:
        scores = [0.5 + 0.1 * math.sin(i) for i in range(seeds)]
        entries = [entry(v, *scores, most=15, best=12, of=15) for v in (1, 2)]
        [seeds, _] = race_rule.more_seeds(entries).values()
        numbers.append(seeds)
    assert numbers == [2, 3, 4, 6, 8, 11, 14, 15]
