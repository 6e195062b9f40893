"""What the records of a sweep carry: means with intervals, held-out scores, comparisons, laws."""

import math

import numpy as np
import pytest
import scipy.stats

from noisegen import statistics, storage, sweeps
from noisegen.sweeps import evidence


def records_of(scores, metric="test_accuracy", **fields):
    """Records of a row: from learning rate to the score of each seed, None where one diverged."""
    made = []
    for rate, values in scores.items():
        for seed, value in enumerate(values):
            run = {"batch_size": 64, "learning_rate": rate, "seed": seed} | fields
            status = "diverged" if value is None else "finished"
            made.append(storage.Record(hparams=run, status=status, metrics={metric: value}))
    return made


def protocol_of(seeds, **fields):
    return sweeps.Protocol(**{"best": seeds, "of": seeds, "max_extensions": 0} | fields)


def row_of(scores, protocol):
    [optimum] = sweeps.select(records_of(scores, protocol.metric.name), protocol)
    [row] = sweeps.row_evidence([optimum], protocol)
    return row, optimum


def student(scores, level=0.95):
    """The t interval of a mean, by SciPy."""
    scores = np.array(scores)
    error = scores.std(ddof=1) / math.sqrt(len(scores))
    return scipy.stats.t.interval(level, len(scores) - 1, scores.mean(), error)


CLEAR = {0.1: [0.80, 0.82, 0.81], 0.2: [0.90, 0.93, 0.93], 0.4: [0.84, 0.85, 0.83]}


def test_the_mean_over_all_seeds_has_students_interval_at_any_level():
    protocol = protocol_of(3, best=2)  # the table shows the best two
    row, optimum = row_of(CLEAR, protocol)
    assert (row.num_seeds, row.num_diverged) == (3, 0)
    assert row.all_seeds.value == pytest.approx(0.92) and optimum.mean == pytest.approx(0.93)
    assert (row.all_seeds.low, row.all_seeds.high) == pytest.approx(student(CLEAR[0.2]))
    [at_half] = sweeps.row_evidence([optimum], protocol, level=0.5)
    assert (at_half.all_seeds.low, at_half.all_seeds.high) == pytest.approx(
        student(CLEAR[0.2], 0.5)
    )


def test_where_one_value_is_clearly_the_best_other_seeds_choose_it_too():
    row, _ = row_of(CLEAR, protocol_of(3))
    assert row.held_out.scores == tuple(CLEAR[0.2]) and row.held_out.optimism == 0
    assert row.shares == {0.2: 1.0}


def test_each_seed_is_scored_at_the_value_that_the_others_choose():
    # Without seed 0 the value 0.2 is the best, without 1 or 2 the value 0.1.
    scores = {0.1: [0.97, 0.90, 0.90], 0.2: [0.90, 0.92, 0.92]}
    row, optimum = row_of(scores, protocol_of(3))
    assert optimum.values == {"learning_rate": 0.1}
    assert row.held_out.scores == (0.90, 0.90, 0.90)
    assert row.held_out.optimism == pytest.approx(row.all_seeds.value - 0.90)
    assert set(row.shares) == {0.1, 0.2} and sum(row.shares.values()) == pytest.approx(1)


def test_a_loss_is_held_out_in_its_own_sign():
    protocol = protocol_of(3, metric="test_loss", mode="min")
    losses = {rate: [1 - score for score in scores] for rate, scores in CLEAR.items()}
    row, _ = row_of(losses, protocol)
    assert row.held_out.interval.value == pytest.approx(0.08)
    assert row.held_out.scores == pytest.approx([0.10, 0.07, 0.07])
    ends = row.held_out.interval.low, row.held_out.interval.high
    assert ends == pytest.approx(student([0.10, 0.07, 0.07]))


def test_a_single_seed_has_no_interval_and_nothing_held_out():
    row, _ = row_of({rate: scores[:1] for rate, scores in CLEAR.items()}, protocol_of(1))
    assert math.isnan(row.all_seeds.low) and row.held_out is None and row.shares == {}


def test_diverged_runs_are_counted_and_left_out():
    scores = CLEAR | {0.2: [0.90, 0.93, 0.93, None]}
    scores |= {rate: [*CLEAR[rate], 0.8] for rate in (0.1, 0.4)}
    row, _ = row_of(scores, protocol_of(4, best=3))
    assert (row.num_seeds, row.num_diverged) == (4, 1)
    assert row.all_seeds.value == pytest.approx(0.92)
    assert math.isnan(row.held_out.scores[3]) and row.held_out.num_diverged == 1
    assert row.between.reason  # the mean of four runs is unknown, so there is no parabola


def test_rows_in_which_every_run_diverged_are_left_out():
    [optimum] = sweeps.select(records_of({0.1: [None, None]}), protocol_of(2))
    assert sweeps.row_evidence([optimum], protocol_of(2)) == []


def test_a_table_of_scores_has_a_row_for_each_value_and_a_column_for_each_seed():
    _, optimum = row_of({0.1: [0.5, None, 0.7], 0.2: [0.8, 0.9, 0.7]}, protocol_of(3, best=2))
    table = evidence.score_table(optimum, protocol_of(3))
    np.testing.assert_array_equal(table, [[0.5, math.nan, 0.7], [0.8, 0.9, 0.7]])
    losses = protocol_of(3, mode="min", best=2)
    [optimum] = sweeps.select(records_of({0.1: [0.5, 0.6, 0.7]}), losses)
    np.testing.assert_array_equal(evidence.score_table(optimum, losses), [[-0.5, -0.6, -0.7]])


def test_values_that_a_race_has_dropped_have_no_scores_in_the_table():
    race = protocol_of(3, search="race")
    lucky = {0.1: [0.99], 0.2: [0.8, 0.9, 0.7], 0.4: [0.5, 0.4]}
    optima = sweeps.select(records_of({**lucky, 0.1: [0.3]}), race)
    table = evidence.score_table(optima[0], race)
    assert np.isnan(table[0]).all() and np.isnan(table[2]).all()
    assert table[1].tolist() == [0.8, 0.9, 0.7]
    [row] = sweeps.row_evidence(optima, race)
    assert row.shares == {0.2: 1.0} and row.held_out.scores == (0.8, 0.9, 0.7)


def test_the_optimum_between_the_values_is_the_top_of_a_parabola():
    # 0.9 - 0.02 (log2 rate + 2.25)^2 at the rates 1/8, 1/4 and 1/2.
    scores = {
        rate: [0.9 - 0.02 * (math.log2(rate) + 2.25) ** 2 + noise for noise in (-0.001, 0, 0.001)]
        for rate in (1 / 8, 1 / 4, 1 / 2)
    }
    row, _ = row_of(scores, protocol_of(3))
    assert row.between.value == pytest.approx(-2.25) and row.between.reason == ""
    assert row.between.low < -2.25 < row.between.high


def test_beside_a_cliff_there_is_no_parabola():
    def reason(*means):
        rates = (1 / 8, 1 / 4, 1 / 2)
        scores = {r: [m - 1e-3, m + 1e-3] for r, m in zip(rates, means, strict=True)}
        row, _ = row_of(scores, protocol_of(2))
        assert math.isnan(row.between.value) == bool(row.between.reason)
        return row.between.reason

    assert reason(0.80, 0.90, 0.11) == ""  # falls 7.9 times as far on one side
    assert reason(0.80, 0.90, 0.09) == "cliff"  # 8.1 times
    assert reason(0.09, 0.90, 0.80) == "cliff"
    assert reason(0.90, 0.80, 0.70) == "edge"


@pytest.mark.parametrize("chosen", [1 / 8, 1 / 2])
def test_the_parabola_is_around_the_best_mean_of_all_seeds(chosen):
    """The two best seeds choose a value at the edge, whose third seed is bad."""
    scores = {rate: [0.80, 0.81, 0.82] for rate in (1 / 8, 1 / 2)} | {1 / 4: [0.89, 0.90, 0.91]}
    row, optimum = row_of(scores | {chosen: [0.99, 0.98, 0.60]}, protocol_of(3, best=2))
    assert optimum.values["learning_rate"] == chosen
    assert row.between.reason == "" and 1 / 8 < 2**row.between.value < 1 / 2


def test_a_row_in_which_every_value_has_a_diverged_run_has_no_parabola():
    row, _ = row_of({0.1: [0.5, 0.6, None], 0.2: [0.7, 0.8, None]}, protocol_of(3, best=2))
    assert row.between.reason == "no_neighbor" and math.isnan(row.between.value)


def test_several_tuned_fields_or_values_that_are_not_positive_have_no_parabola():
    row, _ = row_of({0.0: [0.5, 0.6], 0.1: [0.7, 0.8]}, protocol_of(2))
    assert row.between is None
    records = records_of({0.1: [0.7, 0.8], 0.2: [0.8, 0.9]}, kind="a")
    protocol = protocol_of(2, tune=("learning_rate", "kind"))
    [row] = sweeps.row_evidence(sweeps.select(records, protocol), protocol)
    assert row.between is None


def test_the_error_of_an_estimate_is_pooled_over_the_error_bar():
    scores = {
        0.1: [0.50, 0.60, 0.70],  # outside of the error bar
        0.2: [0.90, 0.92, 0.94],
        0.4: [0.905, 0.915, 0.925],  # inside
        0.8: [0.99, None, None],
    }
    protocol = protocol_of(3)
    _, optimum = row_of(scores, protocol)
    found = evidence.estimate(optimum, protocol)
    variance = (0.02**2 + 0.01**2) / 2
    optimism = evidence.held_out(optimum, protocol).optimism
    assert (found.n, found.freedom) == (3, 4)
    assert found.error == pytest.approx(math.sqrt(variance / 3 + optimism**2))
    assert evidence.noise(optimum) == pytest.approx(math.sqrt(variance))
    loss = protocol_of(3, mode="min", metric="test_loss")
    losses = {rate: [s and 1 - s for s in values] for rate, values in scores.items()}
    [optimum] = sweeps.select(records_of(losses, "test_loss"), loss)
    negated = evidence.estimate(optimum, loss)  # larger is better
    assert negated.value == pytest.approx(found.value - 1)
    assert negated.error == pytest.approx(found.error)


def test_poor_values_of_another_field_are_not_pooled():
    good = records_of({0.1: [0.90, 0.92, 0.94]}, eta=0.0)
    poor = records_of({0.1: [0.1, 0.5, 0.9]}, eta=1.0)
    protocol = protocol_of(3, tune=("learning_rate", "eta"))
    [optimum] = sweeps.select(good + poor, protocol)
    assert optimum.values == {"learning_rate": 0.1, "eta": 0.0}
    assert evidence.noise(optimum) == pytest.approx(0.02)


def compared(scores_by_label, seeds, baseline=None, level=0.95, **fields):
    """Comparisons of series with a value each: from label to a row's scores, or to rows of them."""
    protocol = protocol_of(
        seeds, series=lambda run: run["kind"], labels=tuple(scores_by_label), **fields
    )
    records = []
    for label, rows in scores_by_label.items():
        for batch_size, scores in rows.items():
            records += records_of(
                {0.1: scores}, protocol.metric.name, batch_size=batch_size, kind=label
            )
    optima = sweeps.select(records, protocol)
    return sweeps.compare_series(optima, protocol, baseline=baseline, level=level)


A = [0.90, 0.95, 0.85, 0.91, 0.80]
B = [0.91, 0.97, 0.85, 0.93, 0.82]


def test_five_common_seeds_are_compared_in_pairs():
    [found] = compared({"a": {64: A}, "b": {64: B}}, 5)
    assert (found.series, found.baseline, found.row) == ("b", "a", 64)
    differences = np.subtract(B, A)
    assert found.difference.value == pytest.approx(differences.mean())
    assert (found.difference.low, found.difference.high) == pytest.approx(student(differences))
    assert found.adjusted_p == pytest.approx(scipy.stats.ttest_rel(B, A).pvalue)


def test_pairs_that_differ_equally_up_to_rounding_show_no_noise():
    """In each pair the second run classifies one example of 100 more."""
    a, b = ([float(np.float32(k / 100)) for k in range(n, n + 5)] for n in (90, 91))
    [found] = compared({"a": {64: a}, "b": {64: b}}, 5)
    assert found.difference.value == pytest.approx(0.01)
    assert math.isnan(found.adjusted_p) and math.isnan(found.difference.low)
    assert math.isnan(statistics.paired_difference(b, a).p_value)


def test_fewer_seeds_are_compared_as_independent_samples():
    [found] = compared({"a": {64: A[:4]}, "b": {64: B[:4]}}, 4)
    expected = scipy.stats.ttest_ind(B[:4], A[:4], equal_var=False)
    assert found.adjusted_p == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert (found.difference.low, found.difference.high) == pytest.approx(interval)


@pytest.mark.parametrize("seeds", [4, 5])
def test_a_difference_of_losses_is_that_of_the_metric(seeds):
    [found] = compared(
        {"a": {64: A[:seeds]}, "b": {64: B[:seeds]}}, seeds, metric="test_loss", mode="min"
    )
    assert found.difference.value == pytest.approx(np.mean(B[:seeds]) - np.mean(A[:seeds]))
    assert found.difference.low < found.difference.value < found.difference.high


def test_several_comparisons_share_the_level():
    rows = {16: B, 64: [0.99, 0.98, 0.99, 0.97, 0.99]}
    found = compared({"a": {16: A, 64: A}, "b": rows}, 5)
    p_values = [scipy.stats.ttest_rel(rows[row], A).pvalue for row in (16, 64)]
    assert [each.adjusted_p for each in found] == pytest.approx(statistics.holm(p_values))
    for each in found:
        expected = student(np.subtract(rows[each.row], A), level=0.975)
        assert (each.difference.low, each.difference.high) == pytest.approx(expected)


def test_pairs_are_of_the_seeds_that_survived_in_both():
    protocol = protocol_of(6, best=5, series=lambda run: run["kind"])
    records = records_of({0.1: [*A, 0.9]}, kind="a") + records_of(
        {0.1: [*B[:4], 0.8, None]}, kind="b"
    )
    [found] = sweeps.compare_series(sweeps.select(records, protocol), protocol)
    assert found.difference.n == 5
    assert found.difference.value == pytest.approx(np.mean([*B[:4], 0.8]) - np.mean(A))


def test_more_values_to_choose_from_are_no_advantage():
    # Equal means: the best of seven values looks better to the seeds that choose it.
    random = np.random.default_rng(0)
    protocol = protocol_of(5, series=lambda run: run["kind"], labels=("one", "seven"))
    differences = []
    for _ in range(60):
        one = random.normal(0.9, 0.01, (1, 5)).tolist()
        seven = random.normal(0.9, 0.01, (7, 5)).tolist()
        records = records_of(dict(enumerate(one, 1)), kind="one")
        records += records_of(dict(enumerate(seven, 1)), kind="seven")
        optima = sweeps.select(records, protocol)
        [found] = sweeps.compare_series(optima, protocol)
        differences.append((found.difference.value, optima[1].mean - optima[0].mean))
        assert found.num_cells == (7, 1)
    held_out, chosen = np.mean(differences, 0)
    assert abs(held_out) < 0.0025 < 0.004 < chosen


def test_series_can_be_compared_as_if_they_had_equally_many_values():
    protocol = protocol_of(5, series=lambda run: run["kind"], labels=("one", "seven"))
    better = [score + 0.07 for score in A]
    one = records_of({0.1: A}, kind="one")
    seven = {2.0**k: A for k in range(-3, 3)} | {8.0: better}
    optima = sweeps.select(one + records_of(seven, kind="seven"), protocol)
    [found] = sweeps.compare_series(optima, protocol)
    assert found.difference.value == pytest.approx(0.07)
    # One of seven random values is the better one with a chance of 1 / 7.
    [equal] = sweeps.compare_series(optima, protocol, equalize=True)
    assert equal.difference.value == pytest.approx(0.01, abs=0.006)
    assert equal.num_cells == (7, 1)
    # The series with fewer values is scored as it is.
    [other] = sweeps.compare_series(optima, protocol, equalize=True, baseline="seven")
    assert other.difference.value == pytest.approx(-equal.difference.value)


def test_the_baseline_is_the_first_series_that_shares_rows_with_the_most_others():
    alone = {"alone": {8: A}, "a": {16: A, 64: A}, "b": {16: B}, "c": {64: B}}
    found = compared(alone, 5)
    assert [(each.series, each.row, each.baseline) for each in found] == [
        ("b", 16, "a"),
        ("c", 64, "a"),
    ]
    named = compared(alone, 5, baseline="c")
    assert [(each.series, each.row) for each in named] == [("a", 64)]
    with pytest.raises(ValueError, match="'d'.*'alone', 'a', 'b', 'c'"):
        compared(alone, 5, baseline="d")


def test_one_series_or_none_that_survived_have_no_comparison():
    assert compared({"a": {64: A}}, 5) == []
    assert compared({"a": {64: [None] * 5}, "b": {64: [None] * 5}}, 5) == []
    assert compared({"a": {64: A}, "b": {64: [None] * 5}}, 5) == []


RATES = [2.0**k for k in range(-10, 4)]


def swept(best, rates=RATES, batch_sizes=(16, 32, 64, 128), spread=1e-3, **fields):
    """Records on parabolas over log2 of the rate, with the top at `best` of the batch size."""
    records = []
    for batch_size in batch_sizes:
        scores = {}
        for rate in rates:
            mean = 0.9 - 0.01 * math.log2(rate / best(batch_size)) ** 2
            scores[rate] = [mean - spread, mean + spread]
        records += records_of(scores, batch_size=batch_size, **fields)
    return records


def law_of(records, **fields):
    protocol = protocol_of(2, **fields)
    return sweeps.learning_rate_laws(sweeps.select(records, protocol), protocol)


@pytest.mark.parametrize("exponent", [0, 0.5, 1])
def test_a_law_of_learning_rates_has_the_exponent_of_its_rule(exponent):
    law = law_of(swept(lambda size: 0.01 * size**exponent))[""]
    assert law.exponent.value == pytest.approx(exponent, abs=1e-6)
    assert law.coefficient == pytest.approx(0.01, rel=1e-6)
    assert (law.low_x, law.high_x, law.n) == (16, 128, 4)


def test_the_law_is_of_effective_learning_rates():
    law = law_of(swept(lambda size: 0.001 * size, momentum=0.9))[""]
    assert law.coefficient == pytest.approx(0.01, rel=1e-6)


def test_values_of_the_grid_widen_the_interval_by_its_step():
    def cliff(size):
        return [rate for rate in RATES if rate <= 0.01 * size]

    smooth = law_of(swept(lambda size: 0.01 * size + (size == 32) * 1e-3))[""].exponent
    records = []
    for size in (16, 32, 64, 128):
        scores = {rate: [0.5 + rate / 100, 0.5 + rate / 99] for rate in cliff(size)}
        records += records_of(scores | {max(cliff(size)) * 2: [0.1, 0.1]}, batch_size=size)
    coarse = law_of(records)[""].exponent
    assert coarse.value == pytest.approx(1)  # steps of one octave, as the batch sizes
    assert 10 * (smooth.high - smooth.low) < coarse.high - coarse.low


def test_rows_at_the_boundary_or_with_one_value_do_not_enter_the_law():
    inside = swept(lambda size: 0.01 * size)
    at_edge = swept(lambda size: 1e3, batch_sizes=(256,))
    one_value = swept(lambda size: 1, rates=[1.0], batch_sizes=(512,))
    dead = records_of({0.1: [None, None], 0.2: [None, None]}, batch_size=1024)
    law = law_of([*inside, *at_edge, *one_value, *dead])[""]
    assert (law.high_x, law.n) == (128, 4)
    assert law_of(swept(lambda size: 0.01 * size, batch_sizes=(16, 32))) == {}


def test_each_series_has_its_law():
    records = swept(lambda size: 0.01 * size, kind="linear")
    records += swept(lambda size: 0.1, kind="constant")
    laws = law_of(records, series=lambda run: run["kind"])
    assert {label: round(law.exponent.value, 3) for label, law in laws.items()} == {
        "constant": 0.0,
        "linear": 1.0,
    }


def test_a_law_needs_learning_rates_over_batch_sizes():
    protocol = protocol_of(2, row="learning_rate", tune=("batch_size",))
    with pytest.raises(ValueError, match="learning rates over batch sizes"):
        sweeps.learning_rate_laws([], protocol)
