"""The comparison of matched noise: what each kind of run has, and what it lacks."""

import collections
import pathlib

import jax
import numpy as np
import pytest
from matplotlib import figure

from experiments.matched_noise import (
    cifar10_epochs,
    cifar10_steps,
    kinds,
    mnist_epochs,
    mnist_steps,
)
from experiments.matched_noise.plots import compare
from noisegen import diagnostics, sweeps

EVERY = (mnist_epochs, mnist_steps, cifar10_epochs, cifar10_steps)


def runs_of(module, scale="cpu"):
    config = module.get_config(scale)
    runs = [run for run in module.get_sweep(config).planned if run["seed"] == 0]
    return config, runs


@pytest.mark.parametrize("scale", ["cpu", "gpu"])
@pytest.mark.parametrize("module", EVERY)
def test_every_kind_is_there_at_every_batch_size(module, scale):
    config, runs = runs_of(module, scale)
    [protocol] = module.get_sweep(config).protocols
    found = collections.defaultdict(set)
    for run in runs:
        found[protocol.series(run)].add(run["batch_size"])
    assert set(found) == set(kinds.LABELS)
    assert found.pop("small batch") == {config.base.batch_size}
    assert all(sizes == set(config.grid.batch_size) for sizes in found.values())
    largest, examples = max(config.grid.batch_size), config.task.num_train
    assert largest / examples == pytest.approx(0.75, abs=0.001)


@pytest.mark.parametrize("module", EVERY)
def test_matched_runs_have_the_temperature_of_the_small_batch(module):
    config, runs = runs_of(module)
    n, base = config.task.num_train, config.base
    wanted = base.learning_rate * (1 / base.batch_size - 1 / n)  # of the covariance, in unit time
    matched = [run for run in runs if any(run[kind] for kind in kinds.MATCHED)]
    assert len(matched) >= len(kinds.MATCHED) * len(config.grid.batch_size)
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
        if kinds.kind(run, 16) == "no noise"
        and (run["batch_size"], run["learning_rate"]) == (128, 1)
    ]
    hparams = {name: value for name, value in plain.items() if isinstance(value, int | float)}
    tx = kinds.make_optimizer(hparams, key, config.base.batch_size)
    updates, _ = tx.update(
        gradient, tx.init(gradient), gradient, batch_size=128, gradient_noise=_noise(gradient)
    )
    np.testing.assert_array_equal(updates, -gradient)
    weights = kinds.example_weights(hparams)(jax.random.key(1), np.arange(128), 128)
    np.testing.assert_array_equal(weights, np.ones(128))


def test_rules_scale_the_learning_rate():
    gradient = np.ones(3, np.float32)
    config, runs = runs_of(mnist_steps)
    for run in runs:
        label = kinds.kind(run, config.base.batch_size)
        if label in kinds.RULES:
            tx = kinds.make_optimizer(run, jax.random.key(0), config.base.batch_size)
            updates, _ = tx.update(
                gradient,
                tx.init(gradient),
                gradient,
                batch_size=run["batch_size"],
                gradient_noise=_noise(gradient),
            )
            ratio = (run["batch_size"] / 16) ** kinds.RULES[label]
            np.testing.assert_allclose(updates, -config.base.learning_rate * ratio, rtol=1e-5)


def test_all_kinds_have_the_same_numbers():
    _, runs = runs_of(mnist_epochs)
    assert len({frozenset(run) for run in runs}) == 1
    assert len(sweeps.by_run_id("any", runs)) == len(runs)


def test_an_unknown_scale_is_refused():
    with pytest.raises(ValueError, match="write one of gpu, cpu, test"):
        mnist_epochs.get_config("paper")


def test_the_figure_shows_every_kind_or_says_how_low_it_is():
    points = {kind: {128: (93.0, 0.2), 768: (92.0, 0.3)} for kind in compare.KINDS}
    points |= {"small batch": {16: (95.0, 0.1)}, "linear rule": {128: (10.0, 0.0)}}
    canvas = figure.Figure()
    ax = compare.plot(points, canvas.subplots(), "title")
    low, _ = ax.get_ylim()
    assert low == 92.0 - 3.0 and [text.get_text() for text in ax.texts] == ["10 ↓"]
    assert [t.get_text() for t in ax.get_xticklabels()] == list(compare.KINDS)
    labels = ax.get_legend_handles_labels()[1]
    assert labels == ["batch size 16", "batch size 128", "batch size 768"]


def test_the_committed_records_are_read_as_a_figure_reads_them(monkeypatch):
    root = pathlib.Path(compare.__file__).parents[3]
    monkeypatch.chdir(root)
    title, points = compare.load("experiments/results/matched_noise/cpu/mnist_steps")
    assert title == "Matched noise on MNIST at equal steps" and set(points) == set(kinds.LABELS)
    assert points["full"][768][0] > points["no noise"][768][0] + 0.5


def _noise(gradient):
    return diagnostics.GradientNoise(np.float32(3), np.float32(1), np.ones_like(gradient))
