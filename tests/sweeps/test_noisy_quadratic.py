"""Steps to target, critical batch and noise scale on a model where all of them are known exactly.

The noisy quadratic model of Zhang et al. (2019): first on its exact curves, then on a sweep of it.
"""

import functools

import numpy as np
import pytest

from experiments.zhang2019 import exact, noisy_quadratic
from noisegen import storage, sweeps

RATES = [1.7 * 2 ** (-k / 2) for k in range(10)]
SIZES = [2**k for k in range(2, 10)]
PROTOCOL = sweeps.Protocol(metric="loss", mode="min")


def exact_record(model, size, rate, num_updates, every=1):
    """A run that follows the expected loss."""
    updates = np.arange(every, num_updates + 1, every)
    norms = model.squared_norms(num_updates, rate, size)
    losses = model.loss(updates, rate, size)
    return storage.Record(
        run_id=f"{size} {rate}",
        hparams={"batch_size": size, "learning_rate": rate, "seed": 0},
        status="finished",
        metrics={"loss": float(losses[-1])},
        num_examples=int(updates[-1]) * size,
        curve={
            "epoch": (updates * size / 64).tolist(),
            "update": updates.tolist(),
            "loss": losses.tolist(),
            "gradient_variance": np.full(len(updates), model.variance.sum()).tolist(),
            "gradient_squared_norm": norms[: len(updates) * every]
            .reshape(-1, every)
            .mean(1)
            .tolist(),
        },
    )


def exact_records(model, every=1):
    return [
        exact_record(model, size, rate, 40 + 40 * len(model.curvature) // size, every)
        for size in SIZES
        for rate in RATES
    ]


@pytest.mark.parametrize("dimensions, fraction", [(20, 0.05), (20, 0.1), (100, 0.05)])
def test_exact_curves_give_the_exact_steps(dimensions, fraction):
    model = exact.harmonic(dimensions)
    target = fraction * model.loss(0)
    rows = sweeps.steps_to_target(exact_records(model), PROTOCOL, target)
    every_fourth = sweeps.steps_to_target(exact_records(model, every=4), PROTOCOL, target)
    for row, coarser in zip(rows, every_fourth, strict=True):
        steps, rate = model.steps_to_target(target, row.row, RATES)
        assert row.updates.value == pytest.approx(steps, rel=1e-6)
        assert row.examples.value == pytest.approx(steps * row.row, rel=1e-6)
        assert row.values["learning_rate"] == rate
        # The grid costs little, and so does evaluating every fourth time.
        assert 1 <= steps / model.steps_to_target(target, row.row)[0] < 1.12
        assert abs(coarser.updates.value - steps) < 2


@pytest.mark.parametrize("dimensions", [20, 50, 100])
@pytest.mark.parametrize("fraction", [0.1, 0.05, 0.02])
def test_the_fit_gives_the_critical_batch_size_of_the_limits(dimensions, fraction):
    model = exact.harmonic(dimensions)
    target = fraction * model.loss(0)
    sizes = np.array([2.0**k for k in range(0, 11)])
    updates = np.array([model.steps_to_target(target, size)[0] for size in sizes])
    found = sweeps.fit_critical_batch(updates, updates * sizes)
    limit = model.fewest_examples(target) / model.fewest_updates(target)
    assert found.batch_size.value == pytest.approx(limit, rel=0.1)
    assert found.min_updates == pytest.approx(model.fewest_updates(target), rel=0.12)
    assert found.min_examples == pytest.approx(model.fewest_examples(target), rel=0.1)
    assert found.residual < 0.04  # A hyperbola describes the model to 4 %.


@pytest.mark.parametrize("dimensions, fraction", [(20, 0.05), (20, 0.1), (50, 0.05), (100, 0.1)])
def test_the_noise_scale_predicts_the_critical_batch_size(dimensions, fraction):
    model = exact.harmonic(dimensions)
    target = fraction * model.loss(0)
    rows = sweeps.steps_to_target(exact_records(model), PROTOCOL, target)
    scales = sweeps.noise_scales(rows)
    for row, found in zip(rows, scales, strict=True):
        average, ratio = model.noise_scale(row.updates.value, row.values["learning_rate"], row.row)
        assert found.ratio_of_means.value == pytest.approx(ratio, rel=1e-6)
        # Averages over fifths of the training make it a little smaller.
        assert 0.85 < found.scale.value / average < 1 + 1e-6
    fits = sweeps.critical_batch_sizes(rows)
    [line] = sweeps.critical_batch_frame(fits, scales).to_dict("records")
    assert 0.5 < line["noise_scale"] / line["critical_batch_size"] < 2
    assert line["ratio_of_means"] < line["noise_scale"]


@pytest.fixture(scope="module")
def small():
    config = noisy_quadratic.get_config("test")
    config.task.num_examples = 1024
    config.run.num_evals = 1000  # Every update is evaluated.
    config.grid.update(
        seed=tuple(range(8)),
        learning_rate=tuple(RATES[:5]),
        batch_size=(8, 32, 128),
        num_updates=(90, 45, 35),
    )
    return config


@pytest.fixture(scope="module")
def model(small):
    return noisy_quadratic.make_model(small)


@pytest.fixture(scope="module")
def trained(small, tmp_path_factory):
    """The records of a sweep of 120 runs, with their curves."""
    sweep = noisy_quadratic.get_sweep(small)
    sweep.workdir = tmp_path_factory.mktemp("sweep")
    sweep.run(progress=False, pool={"lanes": 40, "microbatch": 4, "lane_devices": 1})
    return storage.read_records(sweep.workdir)


@pytest.fixture(scope="module")
def read(small, trained, model):
    """Returns read(**options) -> steps to 5 % of the first loss."""
    [protocol] = noisy_quadratic.get_sweep(small).protocols
    target = 0.05 * float(model.loss(0))
    return functools.partial(sweeps.steps_to_target, trained, protocol, target)


@pytest.mark.slow
def test_mean_curves_of_trained_runs_take_the_exact_steps(read, model):
    num_quiet = 0
    for row in read(mean_curve=True):
        for point in row.points:
            rate = point.values["learning_rate"]
            # Where the noise is far below the target, it does not carry runs across early.
            if model.loss(np.inf, rate, row.row) < 0.3 * row.target:
                exact_steps = model.crossing(row.target, rate, row.row)
                assert point.crossings[0].updates == pytest.approx(exact_steps, rel=0.04)
                num_quiet += 1
        fewest, _ = model.steps_to_target(row.target, row.row, RATES[:5])
        assert 0.75 < row.updates.value / fewest < 1.05
    assert num_quiet > 4


def test_noise_carries_single_runs_across_the_target_early(read, model):
    small, *_, large = read()
    fewest, _ = model.steps_to_target(small.target, small.row, RATES[:5])
    assert small.updates.high < 0.8 * fewest
    fewest, _ = model.steps_to_target(large.target, large.row, RATES[:5])
    assert large.updates.value > 0.85 * fewest


def test_the_critical_batch_size_of_trained_runs_is_the_exact_one(read, model):
    rows = read(mean_curve=True)
    [found] = sweeps.critical_batch_sizes(rows)
    target = rows[0].target
    expected = model.fewest_examples(target) / model.fewest_updates(target)
    assert found.batch_size.value == pytest.approx(expected, rel=0.3)
    assert found.batch_size.low < expected < found.batch_size.high


def test_the_recorded_noise_is_the_exact_one(trained, model):
    columns = ("gradient_variance", "gradient_squared_norm")
    measured, expected = [], []
    for record in trained:
        size, rate = record.hparams["batch_size"], record.hparams["learning_rate"]
        measured.append([np.mean(record.curve[name][:35]) for name in columns])
        expected.append([model.variance.sum(), model.squared_norms(35, rate, size).mean()])
    # Runs of one seed see the same examples, so that eight are independent.
    (trace, norm), (exact_trace, exact_norm) = np.mean(measured, 0), np.mean(expected, 0)
    assert trace == pytest.approx(exact_trace, rel=0.05)
    assert norm == pytest.approx(exact_norm, rel=0.15)


def test_the_measured_noise_scale_predicts_the_critical_batch_size(read, model):
    rows = read(mean_curve=True)
    scales = sweeps.noise_scales(rows)
    for row, found in zip(rows[1:], scales[1:], strict=True):  # The smallest batch is too noisy.
        average, ratio = model.noise_scale(row.updates.value, row.values["learning_rate"], row.row)
        assert found.ratio_of_means.value == pytest.approx(ratio, rel=0.2)
        assert 0.5 < found.scale.value / average < 2
    [line] = sweeps.critical_batch_frame(sweeps.critical_batch_sizes(rows), scales).to_dict(
        "records"
    )
    assert 0.4 < line["noise_scale"] / line["critical_batch_size"] < 2.5
