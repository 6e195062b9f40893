"""Tests that planted boundaries between the regimes are found."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisegen import storage, sweeps
from noisegen.sweeps import regimes

SIZES = [2**k for k in range(4, 13)]
RATES = [2.0**k for k in range(-6, 6)]
PROTOCOL = sweeps.Protocol(best=4, of=5, tune=("effective_learning_rate",))


@given(
    boundary=st.floats(20, 4000),
    plateau=st.floats(0.01, 10),
    noise=st.sampled_from([0, 0.02]),
    seed=st.integers(0, 100),
)
def test_a_planted_boundary_is_found(boundary, plateau, noise, seed):
    rates = plateau * np.minimum(np.array(SIZES) / boundary, 1)
    rates *= np.exp(noise * np.random.RandomState(seed).randn(len(SIZES)))
    found = regimes.fit_broken_line(SIZES, rates)
    # With noise, a break near the first or last batch size may move by several times the noise.
    assert abs(math.log(found.batch_size / boundary)) < 1e-6 + 6 * noise
    assert abs(math.log(found.learning_rate / plateau)) < 1e-6 + 6 * noise
    assert found.temperature == pytest.approx(found.learning_rate / found.batch_size)
    assert not found.flags or noise


@given(st.lists(st.floats(-3, 3), min_size=3, max_size=9), st.integers(0, 100))
def test_no_other_break_fits_better(logs, seed):
    sizes = SIZES[: len(logs)]
    found = regimes.fit_broken_line(sizes, np.exp(logs))

    def error(at):
        rest = np.array(logs) - np.minimum(np.log(sizes) - math.log(at), 0)
        return np.sum((rest - rest.mean()) ** 2)

    tried = np.exp(np.random.RandomState(seed).uniform(*np.log([sizes[0], sizes[-1]]), 50))
    assert error(found.batch_size) <= min(map(error, tried)) + 1e-9


@pytest.mark.parametrize(
    "rates, batch_size, flag",
    [([1, 2, 4, 8], 128, "no_plateau"), ([3, 3, 3, 3], 16, "no_slope")],
)
@pytest.mark.parametrize("factor", [1, 3, 0.1, 7.7])
@pytest.mark.parametrize("number", [2, 3, 4])
def test_a_line_without_a_break_is_flagged(rates, batch_size, flag, factor, number):
    found = regimes.fit_broken_line(SIZES[:number], [factor * rate for rate in rates[:number]])
    assert found.flags == (flag,)
    assert found.batch_size == pytest.approx(min(batch_size, SIZES[number - 1]))


def make_records(boundary, momentum, spread, name="effective_learning_rate"):
    """Makes records whose accuracy is quadratic around the optimum, with noise by seed."""
    random = np.random.RandomState(0)
    factor = 1 if name == "effective_learning_rate" else 1 - momentum
    return [
        storage.Record(
            hparams={"batch_size": size, name: rate * factor, "momentum": momentum, "seed": seed},
            status="diverged" if rate > 16 else "finished",
            metrics={
                "test_accuracy": 0.9
                - 0.01 * math.log2(rate / min(size / boundary, 1)) ** 2
                + spread * random.randn()
            },
        )
        for size in SIZES
        for rate in RATES
        for seed in range(5)
    ]


def boundaries(records, protocol, **options):
    return sweeps.boundaries(sweeps.select(records, protocol), protocol, **options)


@pytest.mark.parametrize("name", ["learning_rate", "effective_learning_rate"])
def test_the_boundaries_of_a_sweep_lie_in_their_intervals(name):
    protocol = sweeps.Protocol(
        best=4,
        of=5,
        tune=(name,),
        series=lambda run: "momentum" if run["momentum"] else "plain",
    )
    records = make_records(256, 0.9, 0.004, name) + make_records(64, 0.0, 0.004, name)
    found = boundaries(records, protocol, num_resamples=30)
    for label, boundary in (("momentum", 256), ("plain", 64)):
        assert found[label].low <= boundary * 1.01 and boundary <= found[label].high * 1.01
        assert 1 / 1.5 < found[label].batch_size / boundary < 1.5
        assert 1 / 1.5 < found[label].temperature * boundary < 1.5
    exact = boundaries(make_records(256, 0.0, 0.0), PROTOCOL, num_resamples=5)[""]
    assert (exact.batch_size, exact.low, exact.high) == pytest.approx((256, 256, 256))
    wide = boundaries(make_records(256, 0.0, 0.03), PROTOCOL, num_resamples=30)[""]
    assert wide.high / wide.low > found["momentum"].high / found["momentum"].low


def test_points_with_one_run_give_no_interval():
    protocol = sweeps.Protocol(tune=("effective_learning_rate",))
    records = [r for r in make_records(256, 0.0, 0.0) if r.hparams["seed"] == 0]
    found = boundaries(records, protocol)[""]
    assert found.batch_size == pytest.approx(256) and math.isnan(found.low)


def test_a_series_with_one_batch_size_has_no_boundary():
    records = [r for r in make_records(256, 0.0, 0.0) if r.hparams["batch_size"] == 64]
    assert boundaries(records, PROTOCOL, num_resamples=2) == {}


def test_learning_rates_that_follow_a_rule_have_no_boundary():
    records = make_records(256, 0.0, 0.0)
    rate = "effective_learning_rate"
    given = [r for r in records if r.hparams[rate] == r.hparams["batch_size"] / 64]
    assert len({r.hparams["batch_size"] for r in given}) > 1
    assert boundaries(given, PROTOCOL, num_resamples=2) == {}


def test_largest_stable_finds_the_learning_rate_before_the_first_failure():
    def records(losses):
        return [
            storage.Record(
                hparams={"learning_rate": rate, "momentum": 0.5, "seed": seed},
                status="finished" if loss else "diverged",
                metrics={"train_loss": loss},
            )
            for rate, per_seed in losses.items()
            for seed, loss in enumerate(per_seed)
        ]

    short = {0.1: [1.0, 1.1], 0.2: [0.5, 0.6], 0.4: [0.5, None], 0.8: [0.1, 0.1]}
    assert sweeps.largest_stable(records(short)) == pytest.approx(0.4)
    assert math.isnan(sweeps.largest_stable(records(short), limit=1.05))
    assert math.isnan(sweeps.largest_stable(records({0.1: [None, 1.0]})))
    # Learning rates of zero and below are ignored.
    odd = {-0.1: [None, None], 0.0: [2.4, 2.4], **short}
    assert sweeps.largest_stable(records(odd), limit=2.3) == pytest.approx(0.4)


def test_rates_of_zero_and_below_are_ignored():
    random = np.random.RandomState(0)
    protocol = sweeps.Protocol(best=2, of=3)

    def records(rates, best):
        return [
            storage.Record(
                hparams={"batch_size": size, "learning_rate": rate, "seed": seed},
                status="finished",
                metrics={"test_accuracy": random.rand() + 9 * (rate == best(size))},
            )
            for size in (16, 32, 64)
            for rate in rates
            for seed in range(3)
        ]

    found = boundaries(records([-0.1, 0.0, 0.1, 0.2], lambda size: None), protocol)
    for boundary in found.values():  # By chance, all optima but one may have a rate of zero.
        assert boundary.learning_rate in (pytest.approx(0.1), pytest.approx(0.2))
    some = boundaries(records([0.0, 0.1, 0.2], lambda size: 0.0 if size == 32 else 0.2), protocol)
    assert some[""].learning_rate == pytest.approx(0.2) and some[""].flags == ("no_slope",)
    assert boundaries(records([0.0, 0.1], lambda size: 0.0), protocol) == {}


def test_a_momentum_of_1_gives_an_infinite_rate():
    runs = [{"learning_rate": 0.1, "momentum": 1}, {"learning_rate": 0.1, "momentum": 0}]
    assert list(map(sweeps.effective_learning_rate_of, runs)) == [math.inf, 0.1]
    with pytest.raises(ValueError, match="no learning_rate, only batch_size"):
        sweeps.effective_learning_rate_of({"batch_size": 8})


def test_the_memory_of_the_bootstrap_depends_on_the_runs_not_the_protocol():
    records = [r for r in make_records(256, 0.0, 0.01) if r.hparams["seed"] < 3]
    protocol = sweeps.Protocol(best=10**9, of=10**9, tune=("effective_learning_rate",))
    found = boundaries(records, protocol, num_resamples=20)[""]
    assert found.low <= found.high


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: regimes.fit_broken_line([64, 64], [1, 2]), "at least two batch sizes"),
        (lambda: regimes.fit_broken_line([64, 128], [1, 0]), "positive learning rate"),
        (
            lambda: sweeps.boundaries([], sweeps.Protocol(row="num_epochs")),
            "not from learning_rate over num_epochs",
        ),
    ],
)
def test_invalid_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
