"""The sweeps of the draft on additive gradient noise: grids and numbers as printed."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.additive_noise import (
    figure1,
    figure2,
    table1,
    table2,
    table2_ghost,
    table3,
    wikitext2,
)
from experiments.additive_noise.plots import oscillation
from noisegen import data, storage, sweeps, training
from noisegen.training import run_fields, task_plans

ROOT = pathlib.Path(__file__).parents[2]

# As printed, in percent.
PLAIN = {2048: 98.61, 4096: 96.45, 8192: 95.66, 16384: 94.37, 32768: 86.08, 45000: 86.48}
NOISY = {2048: 98.59, 8192: 96.53, 16384: 95.72, 32768: 92.51, 45000: 92.19}
# Updates in 15 epochs of 60,000 images, the ragged last batch kept.
UPDATES = {2048: 450, 4096: 225, 8192: 120, 16384: 60, 32768: 30, 45000: 30}


def values(runs, name):
    return sorted({run[name] for run in runs})


def sweep_of(module, scale="paper"):
    return module.get_sweep(module.get_config(scale))


def runs_of(module, scale="paper"):
    return sweep_of(module, scale).planned


def test_table_1_sweeps_the_grid_of_its_docstring():
    runs = runs_of(table1)
    assert values(runs, "batch_size") == sorted(PLAIN)
    assert values(runs, "learning_rate") == [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.6]
    assert values(runs, "eta") == [0, 0.005, 0.01, 0.3]  # As printed.
    assert values(runs, "seed") == [0, 1, 2]
    assert len(runs) == 6 * 7 * 4 * 3
    assert [run["seed"] for run in runs] == sorted(run["seed"] for run in runs)
    assert {run["learning_rate"] for run in runs[:24]} == {0.1}  # the likely optima first
    constants = {"num_epochs": 15, "momentum": 0.5, "gamma": 0.55, "last_batch": "keep"}
    assert all(run[name] == value for run in runs for name, value in constants.items())


def test_the_committed_sweep_of_table_1_keeps_the_etas_that_its_command_adds(monkeypatch):
    monkeypatch.chdir(ROOT)
    workdir = ROOT / "experiments" / "results" / "additive_noise" / "table1"
    sweep = sweeps.Sweep.open(workdir)
    etas = [0, 0.005, 0.01, 0.03, 0.1, 0.3]
    assert values(sweep.planned, "eta") == etas
    command = storage.read_sweep(workdir)["command"]
    [given] = [word for word in command.split() if word.startswith("--config.grid.eta=")]
    assert sorted(map(float, given.partition("=")[2].split(","))) == etas


def test_an_epoch_has_as_many_updates_as_a_loader_that_keeps_the_last_batch():
    runs = runs_of(table1)
    assert {r["batch_size"]: training.plan(r, 60_000).num_updates for r in runs} == UPDATES


def test_table_1_is_published_as_printed():
    published = sweep_of(table1).published
    plain, noisy = table1.LABELS
    assert published == {
        **{(plain, size): (value, None) for size, value in PLAIN.items()},
        **{(noisy, size): (value, None) for size, value in NOISY.items()},
    }
    assert len(published) == 11  # one cell is blank in the draft


def test_runs_are_read_by_noise_and_tuned_over_learning_rate_and_eta():
    [protocol] = sweep_of(table1).protocols
    assert [protocol.series({"eta": eta}) for eta in (0.0, 0.005)] == list(table1.LABELS)
    assert protocol.tune == ("learning_rate", "eta")
    assert (protocol.best, protocol.of, protocol.max_extensions) == (3, 3, 0)
    records = [
        storage.Record(hparams=run, status="finished", metrics={"test_accuracy": 0.9})
        for run in runs_of(table1)
    ]
    optima = sweeps.select(records, protocol)
    assert [(o.series, o.row) for o in optima] == [
        (label, size) for label in table1.LABELS for size in PLAIN
    ]


@pytest.mark.parametrize("eta", [0.0, 0.3])
def test_noise_is_a_standard_deviation_on_the_gradient_before_momentum(eta):
    hparams = {"eta": eta, "gamma": 0.55, "learning_rate": 0.1, "momentum": 0.5}
    size = 100_000
    tx = table1.make_optimizer(hparams, jax.random.key(0))
    params, state = jnp.zeros(size), tx.init(jnp.zeros(size))
    trace, steps = np.zeros(size), []
    for _ in range(3):
        updates, state = tx.update(jnp.zeros(size), state, params)
        steps.append(np.asarray(updates) / -0.1 - 0.5 * trace)  # the noise of this update alone
        trace = np.asarray(updates) / -0.1
    error = 5 / np.sqrt(2 * size)  # five standard errors of an estimated deviation
    for t, noise in enumerate(steps):
        np.testing.assert_allclose(np.std(noise), eta / (1 + t) ** 0.55, rtol=error)


def test_figure_1_is_one_point_of_table_1():
    runs = runs_of(figure1)
    assert values(runs, "eta") == [0, 0.3] and values(runs, "seed") == [0, 1, 2, 3, 4]
    assert {(run["batch_size"], run["learning_rate"], run["eval_every"]) for run in runs} == {
        (16384, 0.1, 1)
    }


def test_oscillation_of_finished_runs_in_points_and_the_others_counted():
    runs = {
        "a": (0.0, [0.5, 0.9, 0.4, 0.9, 0.9, 0.9, 0.9, 0.9]),
        "b": (0.0, [0.5, 0.9, 0.6, 0.9, 0.9, 0.9, 0.9, 0.8]),
        "diverged": (0.0, [0.5, None]),
        "c": (0.3, [0.5, 0.9]),
    }
    records = [
        storage.Record(
            run_id=name,
            hparams={"eta": eta},
            status="diverged" if name == "diverged" else "finished",
            metrics={},
        )
        for name, (eta, _) in runs.items()
    ]
    curves = {name: {"test_accuracy": accuracy} for name, (_, accuracy) in runs.items()}
    assert oscillation.lines(records, curves) == [
        "no noise (2 of 3 runs): largest drop 40.0 ± 14.1, in the last five epochs 5.0 ± 7.1, "
        "their deviation 2.2 ± 3.2, final 85.0 ± 7.1",
        "noise: 1 of 1 runs finished; a spread needs two",
    ]


def test_full_batch_descent_makes_one_update_an_epoch():
    for module, updates, seeds in ((figure2, 100, 3), (table3, 500, 1)):
        runs = runs_of(module)
        assert len(runs) == 2 * seeds and values(runs, "eta") == [0, 1]
        assert {training.plan(run, 60_000).num_updates for run in runs} == {updates}
        constants = {"learning_rate": 0.01, "momentum": 0.5, "gamma": 0.55, "batch_size": 60_000}
        assert all(run[name] == value for run in runs for name, value in constants.items())
    assert sweep_of(table3).published == {("noise", 60_000): (97.13, None)}


# As printed: batch size, no noise, noise; and updates in 20 epochs of 50,000 images.
TABLE_2 = {
    1024: (86.36, 84.88, 980),
    2048: (84.54, 84.16, 500),
    4096: (79.33, 82.28, 260),
    8192: (65.64, 71.08, 140),
}


def test_table_2_is_the_published_one():
    runs = runs_of(table2)
    assert values(runs, "batch_size") == sorted(TABLE_2)
    assert values(runs, "learning_rate") == [0.01, 0.02, 0.05, 0.1, 0.2]
    assert values(runs, "eta") == [0, 0.005, 0.01, 0.3] and values(runs, "momentum") == [0.5]
    updates = {run["batch_size"]: training.plan(run, 50_000).num_updates for run in runs}
    assert updates == {size: row[2] for size, row in TABLE_2.items()}
    published = sweep_of(table2).published
    assert published == sweep_of(table2, "gpu").published  # except for the dtype
    assert published == {
        (label, size): (row[i], None)
        for size, row in TABLE_2.items()
        for i, label in enumerate(table1.LABELS)
    }
    assert sweep_of(table2, "cpu").published == {}  # another network
    assert sweep_of(table2_ghost).published == {}  # another normalization


def shrunk(config):
    config.task.update({"dataset": "digits", "num_train": 22, "num_test": 8, "width": 2})
    return config


def test_the_batch_is_normalized_whole_or_in_ghost_batches():
    """An epoch of 22 examples in batches of 8 ends with one of 6, which is normalized alone."""
    sweep = table2.get_sweep(shrunk(table2.get_config()))
    tasks = {size: sweep.task_of({"batch_size": size}) for size in (4, 8)}
    assert {size: task.ghost_size for size, task in tasks.items()} == {4: 4, 8: 8}
    assert tasks[4].name == tasks[8].name
    run = sweep.planned[0]
    fields = run_fields.canonical_fields(run | {"batch_size": 8, "num_epochs": 1.0})
    [plan] = task_plans.plan_runs(tasks[8], [fields])
    assert plan.batch_sizes.tolist() == [8, 8, 6]
    sweep = table2_ghost.get_sweep(shrunk(table2_ghost.get_config()))
    ghosts = sweep.task_of(sweep.planned[0])
    assert ghosts.ghost_size == 16 and ghosts.name != tasks[8].name
    assert table2_ghost.get_config("paper").task.ghost_size == 64


@pytest.fixture
def sgd_of_wikitext2(monkeypatch):
    """make_optimizer of the language model, whose text is not read."""
    text = data.Text("text", np.zeros(400, np.int32), np.zeros(400, np.int32), ("a",), "0", "made")
    monkeypatch.setattr(wikitext2.data, "load_text", lambda *_: text)
    return wikitext2.task_maker(wikitext2.get_config("paper"))(4).make_optimizer


def test_the_language_models_gradient_is_a_mean_over_tokens_clipped_before_the_noise(
    sgd_of_wikitext2,
):
    hparams = {"eta": 0.0, "gamma": 0.55, "learning_rate": 20.0, "momentum": 0.0}
    key, params = jax.random.key(0), jnp.zeros(10_000)

    def step(gradient, **changed):
        tx = sgd_of_wikitext2(hparams | changed, jax.random.clone(key))
        return np.asarray(tx.update(gradient, tx.init(params))[0])

    small, large = jnp.full(10_000, 0.001), jnp.full(10_000, 1.0)
    np.testing.assert_allclose(step(small), -20 * 0.001 / 35, rtol=1e-5)  # of norm .1 / 35
    np.testing.assert_allclose(step(large), -20 * 0.25 / 100, rtol=1e-5)  # of norm 100 / 35
    noise = step(large, eta=0.01) - step(large)
    np.testing.assert_allclose(noise.std(), 20 * 0.01, rtol=5 / np.sqrt(2e4))  # five errors


def test_batches_of_text_are_doublings_of_twenty():
    runs = runs_of(wikitext2)
    assert values(runs, "batch_size") == [20, 40, 80, 160, 320, 640, 1280]
    assert {20.0} < set(values(runs, "learning_rate")) and values(runs, "momentum") == [0]
    [protocol] = sweep_of(wikitext2, "cpu").protocols
    assert (protocol.metric.name, protocol.mode, protocol.of) == ("test_loss", "min", 3)
