"""The largest batch size without loss is found in made scores, and extrapolated."""

import math

import numpy as np
import pytest

from noisegen import storage, sweeps
from noisegen.sweeps import largest_batch
from noisegen.sweeps.largest_batch import LargestBatch

SIZES = np.array(sweeps.powers_of_two(16, 2048))
DEVIATION = 0.01


def means(largest, power=1.0, noise=0.0, seed=0):
    """Scores that lose two standard deviations at a batch size."""
    loss = largest_batch.DEVIATIONS * DEVIATION * (SIZES / largest) ** power
    return 0.9 - loss + noise * np.random.default_rng(seed).normal(size=len(SIZES))


def find(scores, count=3):
    return largest_batch.fit(SIZES, scores, [count] * len(SIZES), DEVIATION)


@pytest.mark.parametrize("largest", [150, 300, 900])
@pytest.mark.parametrize("power", [0.6, 1.0, 1.5])
def test_a_planted_batch_size_is_found(largest, power):
    found = find(means(largest, power))
    assert found.log2 == pytest.approx(math.log2(largest), abs=0.4)
    assert not found.flags and found.rows == (16, 2048)


def test_the_error_is_that_of_repeated_experiments():
    found = [find(means(200, noise=DEVIATION / math.sqrt(3), seed=seed)) for seed in range(40)]
    misses = [(each.log2 - math.log2(200)) / each.error for each in found]
    assert 0.4 < np.std(misses) < 1.3 and abs(np.mean(misses)) < 0.5


def test_the_metric_may_be_a_loss_and_its_best_rate_differ_between_rows():
    sizes, protocol = SIZES, sweeps.Protocol(metric="test_loss", mode="min", best=3, of=3)
    records = []
    for run in sweeps.grid(batch_size=sizes.tolist(), learning_rate=[0.1, 0.2], seed=[0, 1, 2]):
        better = 0.1 if run["batch_size"] < 100 else 0.2
        score = 1.0 + 0.02 * run["batch_size"] / 250 + 0.3 * (run["learning_rate"] != better)
        metrics = {"test_loss": score + 0.01 * (run["seed"] - 1)}
        records.append(storage.Record(hparams=run, status="finished", metrics=metrics))
    found = largest_batch.find(sweeps.select(records, protocol), protocol)
    assert found.log2 == pytest.approx(math.log2(250), abs=0.3)
    assert found.tolerance == pytest.approx(0.02)


def test_without_a_loss_the_largest_batch_size_is_a_lower_bound():
    found = find(means(1e6))
    assert found.flags == ("no_loss",) and found.log2 == 11


def test_a_loss_from_the_smallest_batch_size_on_is_an_upper_bound():
    found = find(means(3))
    assert found.flags == ("all_lost",) and found.log2 == 4


def test_small_batches_that_do_worse_say_nothing_about_large_ones():
    scores = means(300)
    scores[:2] -= 0.2
    assert find(scores).log2 == pytest.approx(math.log2(300), abs=0.4)


def test_two_rows_or_a_single_seed_say_nothing():
    protocol = sweeps.Protocol()
    for sizes in ([16, 32], [16, 32, 64, 128]):
        records = [
            storage.Record(hparams=run, status="finished", metrics={"test_accuracy": 0.9})
            for run in sweeps.grid(batch_size=sizes, learning_rate=[0.1], seed=[0])
        ]
        found = largest_batch.find(sweeps.select(records, protocol), protocol)
        assert found.flags == ("few_rows",) and math.isnan(found.log2)


def at(largest, fraction, error=0.1, growth=largest_batch.GROWTH):
    log2 = math.log2(largest) + growth * math.log2(fraction)
    return LargestBatch(log2=log2, error=error, rows=(16, 2048))


def test_a_planted_growth_is_continued_to_the_full_horizon():
    found = largest_batch.extrapolate({1 / 4: at(800, 1 / 4), 1 / 2: at(800, 1 / 2)})
    assert found.batch_size.value == pytest.approx(800)
    assert found.growth == pytest.approx(largest_batch.GROWTH)
    assert found.batch_size.low < 800 < found.batch_size.high


def test_measurements_move_the_growth_less_than_they_say():
    fractions = [1 / 8, 1 / 4]
    found = largest_batch.extrapolate({f: at(800, f, growth=0.0) for f in fractions})
    assert 0 < found.growth < largest_batch.GROWTH
    assert found.batch_size.value > 800


def test_the_interval_widens_with_the_way_to_go_and_with_the_errors():
    def width(fractions, error):
        interval = largest_batch.extrapolate({f: at(800, f, error) for f in fractions}).batch_size
        return math.log2(interval.high / interval.low)

    assert width([1 / 4, 1 / 2], 0.1) < width([1 / 16, 1 / 8], 0.1)
    assert width([1 / 4, 1 / 2], 0.1) < width([1 / 4, 1 / 2], 1.0)
    assert width([1 / 4, 1 / 2], 0.1) < width([1 / 4], 0.1)


def test_bounds_are_not_extrapolated():
    no_loss = LargestBatch(log2=11.0, rows=(16, 2048), flags=("no_loss",))
    all_lost = LargestBatch(log2=4.0, rows=(16, 2048), flags=("all_lost",))
    found = largest_batch.extrapolate({1 / 8: at(800, 1 / 8), 1 / 4: no_loss})
    assert found.flags == ("no_loss",) and found.batch_size.low == 2048
    assert largest_batch.extrapolate({1 / 8: all_lost}).flags == ("all_lost",)
    # A longer horizon at which the loss begins later is enough.
    found = largest_batch.extrapolate({1 / 8: all_lost, 1 / 4: at(100, 1 / 4)})
    assert found.batch_size.value == pytest.approx(100)


def test_no_loss_among_fewer_batch_sizes_than_before_is_no_bound():
    fewer = LargestBatch(log2=8.0, rows=(16, 256), flags=("no_loss",))
    found = largest_batch.extrapolate({1 / 8: at(1000, 1 / 8), 1 / 4: fewer})
    assert not found.flags and 500 < found.batch_size.value < 1500


def test_an_interval_that_holds_everything_predicts_nothing():
    assert largest_batch.extrapolate({1 / 16: at(800, 1 / 16, error=1.5)}).flags == ("uncertain",)
    assert not largest_batch.extrapolate({1 / 4: at(800, 1 / 4, error=0.5)}).flags
