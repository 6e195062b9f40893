"""The sweeps of the draft on additive gradient noise: grids and numbers as printed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.additive_noise import figure1, oscillation, table1
from noisegen import sweeps, training

# As printed, in percent.
PLAIN = {2048: 98.61, 4096: 96.45, 8192: 95.66, 16384: 94.37, 32768: 86.08, 45000: 86.48}
NOISY = {2048: 98.59, 8192: 96.53, 16384: 95.72, 32768: 92.51, 45000: 92.19}
# Updates in 15 epochs of 60,000 images, the ragged last batch kept.
UPDATES = {2048: 450, 4096: 225, 8192: 120, 16384: 60, 32768: 30, 45000: 30}


def values(runs, name):
    return sorted({run[name] for run in runs})


def test_table_1_sweeps_the_grid_of_its_docstring():
    runs = list(table1.get_runs(table1.get_config()))
    assert values(runs, "batch_size") == sorted(PLAIN)
    assert values(runs, "learning_rate") == [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.6]
    assert values(runs, "eta") == [0, 0.005, 0.01, 0.03, 0.1, 0.3]
    assert values(runs, "seed") == [0, 1, 2]
    assert len(runs) == 6 * 7 * 6 * 3
    assert [run["seed"] for run in runs] == sorted(run["seed"] for run in runs)
    assert {run["learning_rate"] for run in runs[:36]} == {0.1}  # the likely optima first
    constants = {"num_epochs": 15, "momentum": 0.5, "gamma": 0.55, "last_batch": "keep"}
    assert all(run[name] == value for run in runs for name, value in constants.items())


def test_an_epoch_has_as_many_updates_as_a_loader_that_keeps_the_last_batch():
    runs = table1.get_runs(table1.get_config())
    assert {r["batch_size"]: training.plan(r, 60_000).num_updates for r in runs} == UPDATES


def test_table_1_is_published_as_printed():
    published = table1.get_published(table1.get_config())
    plain, noisy = table1.LABELS
    assert published == {
        **{(plain, size): (value, None) for size, value in PLAIN.items()},
        **{(noisy, size): (value, None) for size, value in NOISY.items()},
    }
    assert len(published) == 11  # one cell is blank in the draft


def test_runs_are_read_by_noise_and_tuned_over_learning_rate_and_eta():
    protocol = table1.get_protocol(table1.get_config())
    assert [protocol.series({"eta": eta}) for eta in (0.0, 0.005)] == list(table1.LABELS)
    assert protocol.tune == ("learning_rate", "eta")
    assert (protocol.best, protocol.of, protocol.max_extensions) == (3, 3, 0)
    records = [
        {"run": run, "status": "finished", "metrics": {"test_accuracy": 0.9}}
        for run in table1.get_runs(table1.get_config())
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
    runs = list(figure1.get_runs(figure1.get_config()))
    assert values(runs, "eta") == [0, 0.3] and values(runs, "seed") == [0, 1, 2, 3, 4]
    assert {(run["batch_size"], run["learning_rate"], run["eval_every"]) for run in runs} == {
        (16384, 0.1, 1)
    }


def test_oscillation_of_finished_runs_in_points_and_the_others_counted():
    def record(eta, accuracies, status="finished"):
        return {"run": {"eta": eta}, "status": status, "curve": {"test_accuracy": accuracies}}

    records = [
        record(0.0, [0.5, 0.9, 0.4, 0.9, 0.9, 0.9, 0.9, 0.9]),
        record(0.0, [0.5, 0.9, 0.6, 0.9, 0.9, 0.9, 0.9, 0.9]),
        record(0.0, [0.5, None], "diverged"),
        record(0.3, [0.5, 0.9]),
    ]
    assert oscillation.lines(records) == [
        "no noise (2 of 3 runs): largest drop 40.0 ± 14.1, last five epochs 0.0 ± 0.0, "
        "final 90.0 ± 0.0",
        "noise: 1 of 1 runs finished; a spread needs two",
    ]
