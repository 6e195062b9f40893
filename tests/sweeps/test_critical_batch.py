"""The critical batch size: planted ones are found, and noise scales are averages as defined."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisegen import storage, sweeps

SIZES = np.array([8.0, 16, 32, 64, 128, 256, 512])


def hyperbola(critical, min_updates=50.0, sizes=SIZES):
    """Updates and examples on (S / S_min - 1) (E / E_min - 1) = 1."""
    updates = min_updates * (1 + critical / sizes)
    return updates, updates * sizes


@given(st.floats(8, 512), st.floats(1, 1e5), st.integers(2, 7))
def test_a_planted_critical_batch_size_is_found(critical, min_updates, count):
    updates, examples = hyperbola(critical, min_updates, SIZES[-count:])
    found = sweeps.fit_critical_batch(updates, examples)
    assert found.batch_size.value == pytest.approx(critical, rel=1e-4)
    assert found.min_updates == pytest.approx(min_updates, rel=1e-4)
    assert found.min_examples == pytest.approx(critical * min_updates, rel=1e-4)
    assert found.residual < 1e-6 and math.isnan(found.batch_size.low)
    products = (updates / found.min_updates - 1) * (examples / found.min_examples - 1)
    np.testing.assert_allclose(products, 1, rtol=1e-2)
    inside = SIZES[-count] * 1.001 < critical < 512 / 1.001
    assert found.flags == () or not inside


def test_the_interval_covers_the_critical_batch_size_as_often_as_it_says():
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        updates, _ = hyperbola(60)
        updates = updates * np.exp(0.1 * random.standard_normal(len(SIZES)))
        found = sweeps.fit_critical_batch(updates, updates * SIZES, level=0.8).batch_size
        covered += found.low < 60 < found.high
    assert 0.75 < covered / 400 < 0.85


def test_no_other_critical_batch_size_fits_better():
    random = np.random.default_rng(1)
    updates = np.exp(random.uniform(3, 5, len(SIZES)))
    found = sweeps.fit_critical_batch(updates, updates * SIZES)

    def residual(critical):
        rest = np.log(updates) - np.log(1 + critical / SIZES)
        return rest.std()

    assert found.residual <= min(map(residual, np.geomspace(0.1, 5e4, 1000))) + 1e-9


def test_beyond_the_grid_it_is_flagged():
    found = sweeps.fit_critical_batch(*hyperbola(2000))
    assert found.flags == ("extrapolated",)
    assert found.batch_size.value == pytest.approx(2000, rel=1e-3)


def test_perfect_scaling_has_no_critical_batch_size():
    found = sweeps.fit_critical_batch(1e5 / SIZES, np.full(len(SIZES), 1e5))
    assert found.flags == ("no_plateau",) and found.batch_size.value == math.inf
    assert (found.min_updates, found.min_examples) == (0, pytest.approx(1e5))


def test_updates_that_do_not_fall_have_no_critical_batch_size():
    found = sweeps.fit_critical_batch(np.full(len(SIZES), 70.0), 70 * SIZES)
    assert found.flags == ("no_slope",) and found.batch_size.value == 0
    assert (found.min_updates, found.min_examples) == (pytest.approx(70), 0)


@pytest.mark.parametrize("updates, examples", [([], []), ([10], [80]), ([10, 11], [80, 88])])
def test_one_batch_size_is_too_few(updates, examples):
    found = sweeps.fit_critical_batch(updates, examples)
    assert found.flags == ("few_rows",) and math.isnan(found.batch_size.value)


@pytest.mark.parametrize(
    "updates, examples",
    [
        ([10, 0], [80, 90]),
        ([10, 5], [80, -1]),
        ([10, math.inf], [80, math.inf]),
        ([10, math.nan], [80, 90]),
        ([10, 5], [80]),
        (10, 80),
    ],
)
def test_numbers_that_are_not_positive_are_refused(updates, examples):
    with pytest.raises(ValueError, match="positive and finite"):
        sweeps.fit_critical_batch(updates, examples)


PROTOCOL = sweeps.Protocol(metric="loss", mode="min", best=1, of=2)


def make_record(size, updates_to_half, seed=0, noise=None):
    """A run whose loss falls by half in so many updates, evaluated 40 times."""
    updates = list(range(2, 82, 2))
    curve = {
        "epoch": [update * size / 64 for update in updates],
        "update": updates,
        "loss": [0.5 ** (update / updates_to_half) for update in updates],
    }
    if noise is not None:
        curve["gradient_variance"], curve["gradient_squared_norm"] = noise
    return storage.Record(
        run_id=f"{size} {seed}",
        hparams={"batch_size": size, "learning_rate": 0.1, "seed": seed},
        status="finished",
        metrics={"loss": 0.0},
        num_examples=80 * size,
        curve=curve,
    )


def steps(records, target=0.5):
    return sweeps.steps_to_target(records, PROTOCOL, target)


def test_each_series_and_target_is_fitted_by_itself():
    records = [
        make_record(size, 6 * (1 + 20 / size), seed) for size in (8, 32, 128) for seed in (0, 1)
    ]
    fits = sweeps.critical_batch_sizes(steps(records, [0.5, 0.25]))
    assert [fit.target for fit in fits] == [0.5, 0.25]
    for fit, min_updates in zip(fits, (6, 12), strict=True):
        assert fit.batch_size.value == pytest.approx(20, rel=0.05)
        assert fit.min_updates == pytest.approx(min_updates, rel=0.05)
        assert fit.num_rows == 3


def test_rows_that_missed_the_target_are_left_out_of_the_fit():
    records = [make_record(size, 6 * (1 + 20 / size)) for size in (8, 32, 128)]
    [fit] = sweeps.critical_batch_sizes(steps(records))
    censored, never = make_record(256, 0.1), make_record(4, 1e4)
    assert sweeps.critical_batch_sizes(steps([*records, censored, never])) == [fit]
    [fit] = sweeps.critical_batch_sizes(steps([never, make_record(8, 1e4)]))
    assert fit.flags == ("few_rows",) and fit.num_rows == 0


def test_constant_noise_has_its_own_scale():
    record = make_record(8, 20, noise=([30.0] * 40, [2.0] * 40))
    [found] = sweeps.noise_scales(steps([record]))
    assert found.scale.value == pytest.approx(15) and found.ratio_of_means.value == pytest.approx(
        15
    )
    assert (found.trace, found.squared_norm, found.row, found.n) == (30, 2, 8, 1)
    assert math.isnan(found.scale.low)


def test_only_updates_before_the_target_count():
    # The interpolated loss is at the target after 5 updates: two evaluations and half of the third.
    target = (0.5 ** (4 / 5) + 0.5 ** (6 / 5)) / 2
    traces, norms = [4.0, 6, 8] + [1e9] * 37, [4.0, 2, 1] + [1e9] * 37
    [found] = sweeps.noise_scales(steps([make_record(8, 5, noise=(traces, norms))], target))
    counts = np.array([2, 2, 1])
    trace, norm = np.array(traces[:3]), np.array(norms[:3])
    assert found.trace == pytest.approx((counts @ trace) / 5)
    assert found.ratio_of_means.value == pytest.approx((counts @ trace) / (counts @ norm))
    # Progress of each update in full updates, and the noise scale at each of these.
    progress = counts / (1 + trace / norm / 8)
    assert found.scale.value == pytest.approx(progress @ (trace / norm) / progress.sum())


def test_the_scale_of_a_large_batch_is_the_mean_over_updates_and_of_a_small_one_a_ratio():
    norms = np.repeat([0.1, 0.5, 3, 0.2, 10], 8)  # Steady in each fifth.
    records = [make_record(size, 80, noise=(np.ones(40), norms)) for size in (1e-6, 1e6)]
    small, large = sweeps.noise_scales(steps(records, 0.5001))
    assert small.scale.value == pytest.approx(1 / norms.mean(), rel=0.01)
    assert large.scale.value == pytest.approx((1 / norms).mean(), rel=0.01)


def test_the_interval_of_a_noise_scale_is_over_seeds():
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        records = [
            make_record(8, 20, seed, (random.normal(30, 3, 40), random.normal(2, 1, 40)))
            for seed in (0, 1)
        ]
        [found] = sweeps.noise_scales(steps(records), level=0.8)
        covered += found.ratio_of_means.low < 15 < found.ratio_of_means.high
    assert 0.7 < covered / 200 < 0.9


def test_a_gradient_lost_in_noise_has_no_scale():
    record = make_record(8, 20, noise=([30.0] * 40, [-0.1] * 40))
    [found] = sweeps.noise_scales(steps([record]))
    assert found.flags == ("lost_in_noise",) and math.isnan(found.scale.value)
    unmeasured = make_record(8, 20, noise=([None] * 40, [None] * 40))
    [found] = sweeps.noise_scales(steps([unmeasured]))
    assert found.flags == ("lost_in_noise",)


def test_curves_without_noise_are_refused():
    with pytest.raises(ValueError, match="gradient_variance"):
        sweeps.noise_scales(steps([make_record(8, 20)]))


def test_rows_that_missed_the_target_have_no_noise_scale():
    assert sweeps.noise_scales(steps([make_record(8, 1e4)])) == []


def test_the_frame_has_fit_and_noise_scale_side_by_side():
    records = [
        make_record(size, 6 * (1 + 20 / size), noise=([30.0 + size] * 40, [2.0] * 40))
        for size in (8, 32, 128)
    ]
    rows = steps(records)
    fits = sweeps.critical_batch_sizes(rows)
    frame = sweeps.critical_batch_frame(fits, sweeps.noise_scales(rows))
    [line] = frame.to_dict("records")
    assert line["critical_batch_size"] == fits[0].batch_size.value
    assert (line["low"], line["high"]) == (fits[0].batch_size.low, fits[0].batch_size.high)
    assert (line["noise_row"], line["noise_scale"]) == (32, pytest.approx(31))  # nearest to 20
    assert "noise_scale" not in sweeps.critical_batch_frame(fits)
