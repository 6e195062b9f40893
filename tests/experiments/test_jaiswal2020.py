"""The experiments of Jaiswal & Taura: learning rates, decays, noise and numbers as published."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib import figure

from experiments.jaiswal2020 import constant_ratio, figure4, figure5, future, table2
from experiments.jaiswal2020.plots import figure6
from noisegen import storage, training
from noisegen.sweeps.experiment import load_experiment

N = 6903  # training images, as the paper counts them


def sweep_of(module, scale="paper"):
    return module.get_sweep(module.get_config(scale))


def runs_of(module, scale="paper"):
    return sweep_of(module, scale).planned


def values(runs, name):
    return sorted({run[name] for run in runs})


@pytest.mark.parametrize("module", [figure4, figure5, table2, future])
@pytest.mark.parametrize("scale", ["paper", "gpu", "cpu"])
def test_learning_rate_over_batch_size_is_the_published_one(module, scale):
    rates = {run["batch_size"]: run["learning_rate"] for run in runs_of(module, scale)}
    for size, rate in rates.items():
        np.testing.assert_allclose(rate / size, 0.01 / 32, rtol=1e-12)


def test_the_three_points_and_the_two_readings_of_the_decay():
    runs = runs_of(figure4)
    points = {(run["batch_size"], round(run["learning_rate"], 9)) for run in runs}
    assert points == {(32, 0.01), (64, 0.02), (128, 0.04)}
    assert values(runs, "decay_rate") == [0.1, 0.9] and values(runs, "variance") == [0]
    assert {constant_ratio.label(run) for run in runs} == {"no noise", "no noise, decay to 0.9"}


def test_longer_training_makes_as_many_updates_at_every_batch_size():
    epochs = {run["batch_size"]: run["num_epochs"] for run in runs_of(figure5)}
    assert epochs == {32: 80, 64: 160, 128: 320}
    updates = {training.plan(run, N).num_updates for run in runs_of(figure5)}
    assert max(updates) - min(updates) <= 1  # 80 epochs are no whole number of batches
    assert len({training.plan(run, N).num_updates for run in runs_of(figure4)}) == 3


def learning_rates(run):
    """Of every update of a run, by the step that the optimizer takes."""
    plan = training.plan(run, N)
    hparams = run | {"updates_per_epoch": plan.updates_per_epoch, "momentum": 0.0}
    config = figure4.get_config("paper")
    tx = constant_ratio.make_optimizer(hparams, jax.random.key(0), config.task.decay_epochs)

    def step(state, _):
        updates, state = tx.update(jnp.ones(()), state)
        return state, -updates

    return np.asarray(jax.lax.scan(step, tx.init(jnp.zeros(())), length=plan.num_updates)[1])


def test_the_learning_rate_decays_at_the_published_epochs():
    for run in runs_of(figure4)[:3]:
        rates, epoch = learning_rates(run), N / run["batch_size"]
        drops = np.flatnonzero(np.diff(rates)) + 1
        np.testing.assert_array_equal(drops, np.ceil(epoch * np.array([25, 40, 50, 60, 70])))
        np.testing.assert_allclose(rates[0] * 0.1 ** np.arange(1, 6), rates[drops], rtol=1e-5)
    control = [run for run in runs_of(figure4) if run["decay_rate"] == 0.9][0]
    np.testing.assert_allclose(learning_rates(control)[-1], 0.01 * 0.9**5, rtol=1e-5)


def test_longer_training_decays_after_as_many_updates_at_every_batch_size():
    small, large = (
        np.flatnonzero(np.diff(learning_rates(run)))
        for run in (runs_of(figure5)[0], runs_of(figure5)[2])
    )
    np.testing.assert_allclose(small, large, atol=1)


def test_the_noise_is_a_variance_on_the_gradient_before_momentum():
    hparams = runs_of(table2)[-1] | {"updates_per_epoch": 54.0}
    assert hparams["variance"] == 1e-5 and hparams["learning_rate"] == 0.04
    size = 100_000
    tx = constant_ratio.make_optimizer(hparams, jax.random.key(0), (25.0, 40.0))
    state, trace = tx.init(jnp.zeros(size)), np.zeros(size)
    for t in range(3):
        updates, state = tx.update(jnp.zeros(size), state)
        noise = np.asarray(updates) / -0.04 - 0.9 * trace  # of this update alone
        trace = np.asarray(updates) / -0.04
        error = 5 / np.sqrt(2 * size)  # five standard errors of an estimated deviation
        np.testing.assert_allclose(noise.std(), (1e-5 / (1 + t) ** 0.55) ** 0.5, rtol=error)


def test_numbers_are_published_as_printed():
    published = sweep_of(figure4).published
    for label in ("no noise", "no noise, decay to 0.9"):
        found = {size: published[label, size] for size in (32, 64, 128)}
        assert found == {32: (74.45, None), 64: (70.29, None), 128: (67.86, None)}
    assert len(published) == 6
    assert sweep_of(table2, "gpu").published == {  # except for the dtype
        ("no noise", 64): (70.29, None),
        ("no noise", 128): (67.86, None),
        ("noise", 64): (72.07, None),
        ("noise", 128): (71.01, 0.42),
    }
    other = table2.get_config("paper")
    other.base_learning_rate = 0.1
    for config in (table2.get_config("cpu"), other):
        assert table2.get_sweep(config).published == {}


def test_a_window_of_an_image_anywhere_and_mirrored_half_of_the_time():
    image = jnp.arange(25).reshape(5, 5, 1)
    keys = jax.random.split(jax.random.key(0), 400)
    crop = jax.vmap(constant_ratio.crop_and_mirror, (0, None, None, None))
    found = np.asarray(crop(keys, image, 3, True))[..., 0]
    mirrored = found[:, 0, 1] < found[:, 0, 0]
    assert abs(mirrored.mean() - 0.5) < 5 * 0.5 / 20  # five standard errors
    upright = np.where(mirrored[:, None, None], found[:, :, ::-1], found)
    assert set(upright[:, 0, 0].tolist()) == {0, 1, 2, 5, 6, 7, 10, 11, 12}
    inside = np.array([[0, 1, 2], [5, 6, 7], [10, 11, 12]])
    np.testing.assert_array_equal(upright, upright[:, :1, :1] + inside)
    whole = np.asarray(crop(jax.random.split(jax.random.key(1), 9), image, 5, False))
    np.testing.assert_array_equal(whole, np.broadcast_to(image, whole.shape))


def shrunk(module, **task):
    config = module.get_config("cpu")
    config.task.update({"dataset": "digits", "num_train": 32, "num_test": 8} | task)
    return config


def test_whole_batches_are_normalized_and_the_middle_of_test_images_is_kept():
    make_task = constant_ratio.task_maker(shrunk(table2, crop=6))
    assert [make_task(size).ghost_size for size in (8, 16)] == [8, 16]
    assert make_task(8).name == make_task(16).name
    whole = constant_ratio.task_maker(shrunk(table2))(8)
    assert make_task(8).test["image"].shape == (8, 6, 6, 1)
    np.testing.assert_array_equal(make_task(8).test["image"], whole.test["image"][:, 1:7, 1:7])


def test_without_normalisation_one_task_serves_all_batch_sizes():
    config = shrunk(future, network="mlp", pixels=8, crop=8)
    tasks = [future.get_sweep(config).task_of({"batch_size": size}) for size in (16, 32)]
    assert tasks[0].ghost_size == tasks[1].ghost_size == 1
    config.task.network = "resnet18"
    assert future.get_sweep(config).task_of({"batch_size": 16}).ghost_size == 16
    config.task.network = "alexnet"
    with pytest.raises(ValueError, match="must be one of resnet50, resnet18, lenet5, mlp"):
        future.get_sweep(config).task_of({"batch_size": 16})


def small_figure4(workdir):
    """A sweep of Figure 4 in small."""
    config = figure4.get_config("cpu")
    config.task.update({"dataset": "digits", "num_train": 64, "num_test": 32, "network": "mlp"})
    config.grid.update({"seed": (0, 1), "decay_rate": (0.1,), "batch_size": (8, 16)})
    config.run.num_epochs = 2.0
    path = pathlib.Path(figure4.__file__).relative_to(pathlib.Path.cwd())
    return load_experiment(f"{path}:cpu").get_sweep(config, workdir)


@pytest.mark.slow
def test_the_ends_of_the_line_are_the_runs_themselves(tmp_path):
    sweep = small_figure4(tmp_path)
    pool = {"microbatch": 8, "eval_batch": 32, "lanes": 1, "lane_devices": 1}
    sweep.run(progress=False, keep_params=True, pool=pool | {"lanes_per_rare_step": 1})
    curves = figure6.load(str(tmp_path), 0.1)
    assert list(curves) == [16] and curves[16]["test"].shape == (2, 25)
    final = {
        (record.hparams["batch_size"], record.hparams["seed"]): record.metrics["test_accuracy"]
        for record in storage.read_records(tmp_path)
    }
    for seed, accuracy in enumerate(curves[16]["test"]):
        ends = accuracy[[8, 16]] / 100  # alpha 0 and 1
        np.testing.assert_allclose(ends, [final[8, seed], final[16, seed]], atol=1e-6)
    assert np.all(curves[16]["train"][:, [8, 16]] > 100 / 10)  # better than guessing
    lines = figure6.table(curves)
    assert len(lines) == 4 and lines[2].startswith("| 16 | train |")
    canvas = figure.Figure()
    assert len(figure6.plot(curves, canvas.subplots()).lines) == 2


@pytest.mark.slow
def test_a_point_recomputes_batch_statistics_once():
    task, calls = constant_ratio.task_maker(shrunk(table2, crop=6))(8), []
    counted = dataclasses.replace(task, loss=lambda *given: calls.append(1) or task.loss(*given))
    params, _ = jax.eval_shape(task.init, training.make_key(0))
    jax.eval_shape(lambda p: training.evaluate_params(counted, p, microbatch=8), params)
    once = len(calls)
    accuracies = jax.eval_shape(figure6._accuracies_of(counted), params)
    assert accuracies.keys() == {"train", "test"} and len(calls) == 2 * once > 0


def test_one_batch_size_has_no_line(tmp_path):
    sweep = small_figure4(tmp_path)
    with sweep.begun(), storage.RecordWriter(tmp_path) as writer:
        run_id, run = next(iter(sweep.state.wanted.items()))
        metrics = {"test_accuracy": 0.5}
        writer.append(
            storage.Record(run_id=run_id, hparams=run, status="finished", metrics=metrics)
        )
    with pytest.raises(ValueError, match=r"batch sizes \[8\]; two are needed"):
        figure6.load(str(tmp_path), 0.1)


def test_widths_end_where_accuracy_has_fallen():
    accuracy = np.where(figure6.ALPHAS < -0.4, 50.0, np.where(figure6.ALPHAS > 1.2, 70.0, 90.0))
    assert figure6.width(accuracy, 0, -1) == pytest.approx(0.375)
    assert figure6.width(accuracy, 1, 1) == pytest.approx(0.125)
    assert figure6.width(np.full(25, 90.0), 1, 1) == 1  # as far as it was looked
