"""The noisy quadratic model with its exact values, the transformers, and the programs of both."""

import collections
import pathlib

import numpy as np
import pytest

from experiments.zhang2019 import exact, noisy_quadratic, transformer
from experiments.zhang2019.plots import steps_to_target
from experiments.zhang2019.plots import transformer as transformers
from noisegen.sweeps.experiment import load_experiment

MODEL = exact.Quadratic(np.array([1.0, 0.4, 0.1]), np.array([0.5, 1.0, 0.2]), num_examples=100)


@pytest.mark.parametrize("learning_rate, batch_size", [(0.3, 4), (1.9, 64), (0.05, 100)])
def test_expected_squares_are_those_of_every_update(learning_rate, batch_size):
    squares = np.ones(3)
    for step in range(50):
        np.testing.assert_allclose(MODEL.squares(step, learning_rate, batch_size), squares)
        assert MODEL.loss(step, learning_rate, batch_size) == pytest.approx(
            MODEL.curvature @ squares / 2
        )
        drift = (1 - learning_rate * MODEL.curvature) ** 2
        noise = MODEL.variance * (1 / batch_size - 1 / MODEL.num_examples)
        squares = drift * squares + learning_rate**2 * noise


def test_expected_losses_are_those_of_sampled_runs():
    random = np.random.default_rng(0)
    noise = random.standard_normal((100, 3))
    noise = (noise - noise.mean(0)) / noise.std(0, ddof=1) * np.sqrt(MODEL.variance)
    losses = []
    for _ in range(500):
        theta = np.ones(3)
        for _ in range(20):
            batch = random.permutation(100)[:10]
            theta = theta - 0.3 * (MODEL.curvature * theta - noise[batch].mean(0))
        losses.append(MODEL.curvature @ theta**2 / 2)
    error = np.std(losses) / np.sqrt(500)
    assert abs(np.mean(losses) - MODEL.loss(20, 0.3, 10)) < 4 * error


@pytest.mark.parametrize("batch_size", [1, 8, 100])
def test_no_learning_rate_is_faster(batch_size):
    steps, rate = MODEL.steps_to_target(0.1, batch_size)
    losses = MODEL.loss(np.arange(1000), rate, batch_size)
    assert int(np.ceil(steps)) == np.flatnonzero(losses <= 0.1)[0]
    for other in np.linspace(0.01, 1.99, 300):
        losses = MODEL.loss(np.arange(1000), other, batch_size)
        assert (losses[: int(np.ceil(steps)) - 1] > 0.1).all()
    assert MODEL.steps_to_target(0.1, batch_size, [rate, 0.01])[1] == rate


def test_limits_are_those_of_small_and_full_batches():
    fresh = exact.harmonic(20)
    target = 0.05 * fresh.loss(0)
    small = fresh.steps_to_target(target, 1 / 8)[0] / 8
    assert small == pytest.approx(fresh.fewest_examples(target), rel=0.005)
    large = fresh.steps_to_target(target, 1e9)[0]
    assert large == pytest.approx(fresh.fewest_updates(target), rel=1e-6)
    finite = exact.harmonic(20, num_examples=500)
    assert finite.fewest_updates(target) == pytest.approx(large, rel=1e-6)


def test_a_target_below_the_noise_is_never_reached():
    assert MODEL.crossing(1e-4, 1.0, batch_size=1) == np.inf
    assert MODEL.crossing(0.1, 2.1, batch_size=100) == np.inf


def test_the_noise_scale_lies_between_those_of_the_first_and_the_last_update():
    norms = MODEL.squared_norms(12, 0.5, 10)
    assert norms[0] == pytest.approx((MODEL.curvature**2).sum())
    for scale in MODEL.noise_scale(12, 0.5, 10):
        assert 1.7 / norms.max() < scale < 1.7 / norms.min()


def test_examples_have_exactly_the_variance_of_the_model():
    task = noisy_quadratic.make_task(noisy_quadratic.get_config("test"))
    np.testing.assert_allclose(task.train.mean(0), 0, atol=1e-7)
    np.testing.assert_allclose(task.train.var(0, ddof=1), 1 / np.arange(1, 21), rtol=1e-5)


def test_one_command_compares_a_sweep_with_the_exact_values(tmp_path, capsys):
    path = pathlib.Path(noisy_quadratic.__file__)
    config = noisy_quadratic.get_config("test")
    config.task.num_examples = 512
    config.run.num_evals = 1000  # Every update is evaluated.
    config.grid.update(
        seed=(0, 1), learning_rate=(0.6, 1.2), batch_size=(8, 32, 128), num_updates=(60, 40, 30)
    )
    sweep = load_experiment(f"{path}:test").get_sweep(config, tmp_path / "sweep")
    sweep.run(progress=False, pool={"lanes": 12, "microbatch": 4, "lane_devices": 1})
    steps_to_target.main(str(tmp_path / "sweep"), str(tmp_path / "figure.png"))
    assert (tmp_path / "figure.png").stat().st_size > 1000
    steps, critical = capsys.readouterr().out.strip().split("\n\n")
    assert len(steps.splitlines()) == 1 + 2 * 3 and len(critical.splitlines()) == 1 + 2

    opened, found = steps_to_target.load(str(tmp_path / "sweep"))
    frame = steps_to_target.compare_steps(opened, found)
    larger = frame[frame["batch size"] > 8]  # The smallest batch is too noisy for two seeds.
    assert (abs(np.log(larger["mean curve"] / larger["exact"])) < 0.2).all()
    assert (frame["exact"] >= frame["exact, any rate"]).all()


def test_every_optimizer_has_its_learning_rates():
    config = transformer.get_config("cpu")
    rates = collections.defaultdict(set)
    for run in transformer.get_sweep(config).planned:
        rates[run["optimizer"]].add(run["learning_rate"])
    assert rates == {name: set(config.learning_rate[name]) for name in transformer.OPTIMIZERS}


@pytest.mark.slow
def test_one_command_reads_the_transformers(tmp_path, made_data, monkeypatch, capsys):
    path = pathlib.Path(transformer.__file__)
    config = transformer.get_config("test")
    config.run.num_evals = 10
    config.grid.update(batch_size=(4, 8), num_updates=(30, 20))
    sweep = load_experiment(f"{path}:test").get_sweep(config, tmp_path / "sweep")
    sweep.run(progress=False, pool={"lanes": 2, "microbatch": 4, "lane_devices": 1})
    monkeypatch.chdir(path.parents[2])  # Experiments above the current directory are not executed.
    transformers.main(str(tmp_path / "sweep"), str(tmp_path / "figure.png"))
    assert (tmp_path / "figure.png").stat().st_size > 1000
    steps, critical = capsys.readouterr().out.strip().split("\n\n")
    num_targets = len(critical.splitlines()) // 3  # of three optimizers
    assert num_targets and len(steps.splitlines()) == 1 + 2 * 3 * num_targets
