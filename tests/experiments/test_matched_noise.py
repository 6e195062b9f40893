"""The comparison of matched noise: what each kind of run has, and what it lacks."""

import collections

import jax
import numpy as np
import pytest

from experiments.matched_noise import (
    cifar10_epochs,
    cifar10_steps,
    common,
    mnist_epochs,
    mnist_steps,
)
from noisegen import diagnostics, sweeps

EVERY = (mnist_epochs, mnist_steps, cifar10_epochs, cifar10_steps)


def runs_of(module, scale="cpu"):
    config = module.get_config(scale)
    runs = [run for run in module.get_runs(config) if run["seed"] == 0]
    return config, runs


@pytest.mark.parametrize("scale", ["cpu", "gpu"])
@pytest.mark.parametrize("module", EVERY)
def test_every_kind_is_there_at_every_batch_size(module, scale):
    config, runs = runs_of(module, scale)
    found = collections.defaultdict(set)
    for run in runs:
        found[module.get_protocol(config).series(run)].add(run["batch_size"])
    assert set(found) == set(common.LABELS)
    assert found.pop("small batch") == {config.base.batch_size}
    assert all(sizes == set(config.grid.batch_size) for sizes in found.values())
    largest, examples = max(config.grid.batch_size), config.task.num_train
    assert largest / examples == pytest.approx(0.75, abs=0.001)


@pytest.mark.parametrize("module", EVERY)
def test_matched_runs_have_the_temperature_of_the_small_batch(module):
    config, runs = runs_of(module)
    n, base = config.task.num_train, config.base
    wanted = base.learning_rate * (1 / base.batch_size - 1 / n)  # of the covariance, in unit time
    matched = [run for run in runs if any(run[kind] for kind in common.MATCHED)]
    assert len(matched) >= len(common.MATCHED) * len(config.grid.batch_size)
    for run in matched:
        own = 1 / run["batch_size"] - 1 / n
        added = 1 / run["reference_batch_size"] - 1 / run["batch_size"]
        assert added >= 0
        assert run["learning_rate"] * (own + added) == pytest.approx(wanted)
        assert run["eta"] == run["scaling"] == 0


def test_at_equal_steps_all_have_one_learning_rate():
    for module in (mnist_steps, cifar10_steps):
        config, runs = runs_of(module)
        assert {run["learning_rate"] for run in runs} == {config.base.learning_rate}
        assert len({run["num_updates"] for run in runs}) == 1


def test_noise_of_size_zero_changes_nothing():
    gradient, key = np.ones(3, np.float32), jax.random.key(0)
    config, runs = runs_of(mnist_epochs)
    [plain] = [
        run
        for run in runs
        if common.kind(run, 16) == "no noise"
        and (run["batch_size"], run["learning_rate"]) == (128, 1)
    ]
    hparams = {name: value for name, value in plain.items() if isinstance(value, int | float)}
    tx = common.make_optimizer(hparams, key, config.base.batch_size)
    updates, _ = tx.update(
        gradient, tx.init(gradient), gradient, batch_size=128, gradient_noise=_noise(gradient)
    )
    np.testing.assert_array_equal(updates, -gradient)
    weights = common.example_weights(hparams)(jax.random.key(1), np.arange(128), 128)
    np.testing.assert_array_equal(weights, np.ones(128))


def test_rules_scale_the_learning_rate():
    gradient = np.ones(3, np.float32)
    config, runs = runs_of(mnist_steps)
    for run in runs:
        label = common.kind(run, config.base.batch_size)
        if label in common.RULES:
            tx = common.make_optimizer(run, jax.random.key(0), config.base.batch_size)
            updates, _ = tx.update(
                gradient,
                tx.init(gradient),
                gradient,
                batch_size=run["batch_size"],
                gradient_noise=_noise(gradient),
            )
            ratio = (run["batch_size"] / 16) ** common.RULES[label]
            np.testing.assert_allclose(updates, -config.base.learning_rate * ratio, rtol=1e-5)


def test_all_kinds_have_the_same_numbers():
    _, runs = runs_of(mnist_epochs)
    assert len({frozenset(run) for run in runs}) == 1
    assert len(sweeps.by_run_id("any", runs)) == len(runs)


def test_an_unknown_scale_is_refused():
    with pytest.raises(ValueError, match="write one of gpu, cpu"):
        mnist_epochs.get_config("paper")


def _noise(gradient):
    return diagnostics.GradientNoise(np.float32(3), np.float32(1), np.ones_like(gradient))
