"""The experiments of Signer & Barbier: learning rates, momenta, warm-up and published numbers."""

import csv
import importlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib import figure

from experiments.signer2021 import (
    adam,
    base_rate,
    constant_warmup,
    decay,
    devices,
    figure1,
    figure4,
    figure5,
    figure6,
    scaling_rules,
)
from experiments.signer2021.plots import curves
from noisegen import storage, sweeps, training

PACKAGE = "experiments.signer2021"
METRIC = "test_accuracy"
SIZES = [64, 128, 256, 512, 1024, 2048, 4096, 8192]
FIXED = [0.01] * 8
LINEAR = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28]
SQUARE_ROOT = [0.01, 0.014142, 0.02, 0.028284, 0.04, 0.056569, 0.08, 0.113137]
# Updates in an epoch of 60,000 images, the ragged last batch kept.
UPDATES = [938, 469, 235, 118, 59, 30, 15, 8]
# Final test accuracy in percent, batch size by batch size, of Figures 1 to 5.
PUBLISHED = [
    (99.08, 98.84, 98.94, 98.82, 99.24),
    (98.45, 98.81, 98.93, 98.91, 99.04),
    (98.21, 98.72, 98.88, 98.28, 99.14),
    (97.40, 98.58, 95.77, 98.04, 99.07),
    (96.38, 98.26, 98.81, 98.81, 98.85),
    (92.66, 97.46, 96.16, 94.22, 98.64),
    (87.00, 97.37, 93.64, 93.51, 97.89),
    (44.77, 95.71, 11.35, 11.35, 96.86),
]
RULES = {
    "figure1": (FIXED, 0.0),
    "figure2": (SQUARE_ROOT, 0.0),
    "figure3": (LINEAR, 0.0),
    "figure4": (LINEAR, 0.0),
    "figure5": (FIXED, 0.9),
    "constant_warmup": (LINEAR, 0.0),
}


def sweep_of(module):
    return module.get_sweep(module.get_config())


def runs_of(module):
    """The runs of one seed."""
    return [run for run in sweep_of(module).planned if run["seed"] == 0]


def rates(runs):
    return [run["learning_rate"] for run in runs]


def hparams(run):
    """A run's numbers as the pool gives them to the optimizer."""
    per_epoch = training.plan(run, 60_000).updates_per_epoch
    numbers = run | {"updates_per_epoch": per_epoch}
    del numbers["last_batch"]
    return {name: jnp.float32(value) for name, value in numbers.items()}


def rate_of_every_update(tx, num_updates):
    """What an optimizer without momentum multiplies a gradient of one with."""

    def step(state, _):
        update, state = tx.update(jnp.float32(1), state)
        return state, -update

    return np.asarray(jax.lax.scan(step, tx.init(jnp.float32(0)), length=num_updates)[1])


@pytest.mark.parametrize("name", RULES)
def test_every_batch_size_has_the_published_learning_rate_and_momentum(name):
    module = importlib.import_module(f"{PACKAGE}.{name}")
    runs, (expected, momentum) = runs_of(module), RULES[name]
    assert [run["batch_size"] for run in runs] == SIZES
    np.testing.assert_allclose(rates(runs), expected, rtol=1e-4)
    assert {run["momentum"] for run in runs} == {momentum}
    assert {(run["num_epochs"], run["eval_every"]) for run in runs} == {(30, 1)}


def test_an_epoch_has_as_many_updates_as_a_loader_that_keeps_the_last_batch():
    plans = [training.plan(run, 60_000) for run in runs_of(figure1)]
    assert [plan.updates_per_epoch for plan in plans] == UPDATES
    assert [plan.num_updates for plan in plans] == [30 * updates for updates in UPDATES]
    assert all(len(plan.eval_updates) == 30 for plan in plans)


def test_figure_6_has_the_four_published_points():
    found = [
        (run["batch_size"], round(run["learning_rate"], 7), run["momentum"])
        for run in runs_of(figure6)
    ]
    assert found == [
        (2048, 0.01, 0.9),
        (4096, 0.0141421, 0.9),
        (8192, 0.02, 0.9),
        (8192, 0.0141421, 0.929),
    ]
    [protocol] = sweep_of(figure6).protocols
    groups = [protocol.group(run) for run in runs_of(figure6)]
    first, then = figure6.LABELS
    assert groups == [(first, 2048), (first, 4096), (first, 8192), (then, 8192)]


def test_equal_runs_of_two_figures_are_one_run():
    ids = [
        set(sweeps.by_run_id("one task", runs_of(module)))
        for module in map(importlib.import_module, (f"{PACKAGE}.figure{n}" for n in (1, 2, 3)))
    ]
    assert len(set.intersection(*ids)) == 1  # batch size 64
    assert ids[0] & set(sweeps.by_run_id("one task", runs_of(base_rate)))


@pytest.mark.parametrize("index", [0, 1, 5, 7])
def test_gradual_warmup_is_the_coded_one(index):
    run, updates = runs_of(figure4)[index], UPDATES[index]
    found = rate_of_every_update(scaling_rules.sgd(hparams(run), None), 12 * updates)
    target = 0.01 * SIZES[index] / 64
    epochs = np.arange(1, 13)
    coded = (11 - epochs) / 10 * 0.01 + (epochs - 1) / 10 * target
    expected = np.where(epochs < 10, coded, target)
    # A few roundings of single precision.
    np.testing.assert_allclose(found, np.repeat(expected, updates), rtol=1e-6)


def test_gradual_warmup_can_be_the_printed_one():
    run = runs_of(figure4)[-1] | {"warmup_epochs": 10, "warmup_rise": 1}
    found = rate_of_every_update(scaling_rules.sgd(hparams(run), None), 12 * 8)[::8]
    i = np.arange(1, 13)
    expected = np.where(i <= 10, (11 - i) / 10 * 0.01 + (i - 1) / 10 * 1.28, 1.28)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_constant_warmup_stays_at_the_base_rate_for_nine_epochs():
    run = runs_of(constant_warmup)[5]
    found = rate_of_every_update(scaling_rules.sgd(hparams(run), None), 12 * 30)
    np.testing.assert_allclose(found, np.repeat([0.01, 0.32], [270, 90]), rtol=1e-6)


def test_the_other_figures_have_no_warmup():
    run = runs_of(importlib.import_module(f"{PACKAGE}.figure3"))[-1]
    found = rate_of_every_update(scaling_rules.sgd(hparams(run), None), 16)
    np.testing.assert_allclose(found, 1.28, rtol=1e-6)


def test_momentum_adds_gradients_and_not_steps():
    """Through a jump of the learning rate, the step is the new rate times the sum of gradients."""
    run = runs_of(constant_warmup)[7] | {"momentum": 0.9}
    tx, total = scaling_rules.sgd(hparams(run), None), 0
    found = rate_of_every_update(tx, 80)
    for update in range(80):
        total = 0.9 * total + 1
        expected = (0.01 if update < 72 else 1.28) * total
        np.testing.assert_allclose(found[update], expected, rtol=1e-5)


def test_decay_takes_a_tenth_after_every_epoch():
    run = runs_of(decay)[-1]
    assert (run["batch_size"], run["learning_rate"]) == (8192, 1.28)
    found = rate_of_every_update(decay.make_optimizer(hparams(run), None), 30 * 8)
    np.testing.assert_allclose(found, np.repeat(1.28 * 0.9 ** np.arange(30), 8), rtol=1e-5)


def test_adam_takes_its_numbers_from_the_run():
    """A gradient of one moves by the learning rate, whatever the moments' decay rates."""
    run = hparams(runs_of(adam)[0])
    found = rate_of_every_update(adam.make_optimizer(run, None), 3)
    np.testing.assert_allclose(found, 0.001, rtol=1e-5)
    halved = rate_of_every_update(adam.make_optimizer(run | {"eps": jnp.float32(1)}, None), 3)
    np.testing.assert_allclose(halved, 0.0005, rtol=1e-5)  # 1 / (1 + eps)


@pytest.mark.parametrize("module, base", [(adam, 0.001), (decay, 0.01)])
def test_each_rule_is_a_series_and_the_base_batch_size_stands_in_the_first(module, base):
    [protocol], runs = sweep_of(module).protocols, runs_of(module)
    found = {}
    for run in runs:
        label, size = protocol.group(run)
        found.setdefault(label, {})[size] = run["learning_rate"] / base
    assert list(found) == ["fixed", "square root", "linear"]
    assert list(found["fixed"]) == SIZES and 64 not in found["linear"] | found["square root"]
    np.testing.assert_allclose(list(found["linear"].values()), [2**k for k in range(1, 8)])
    np.testing.assert_allclose(found["square root"][8192], 128**0.5)
    assert protocol.series(runs[0] | {"learning_rate": 0.77}) == "other"


def test_only_the_base_rate_is_tuned():
    assert rates(runs_of(base_rate)) == [0.01 * 2.0**k for k in range(-3, 5)]
    [tuned], [rule] = (sweep_of(module).protocols for module in (base_rate, figure1))
    assert (tuned.max_extensions, rule.max_extensions) == (3, 0)
    assert (rule.best, rule.of, rule.tune) == (3, 3, ("learning_rate",))


@pytest.mark.parametrize("name", [f"figure{number}" for number in range(1, 7)])
def test_there_is_a_published_number_beside_every_run(name):
    sweep = sweep_of(importlib.import_module(f"{PACKAGE}.{name}"))
    [protocol], published = sweep.protocols, sweep.published
    assert set(published) == {protocol.group(run) for run in sweep.planned}
    if name != "figure6":
        column = [row[int(name[-1]) - 1] for row in PUBLISHED]
        assert [published["", size][0] for size in SIZES] == column


FINALS = {64: [0.98, 0.99], 8192: [0.113, None]}


@pytest.fixture
def workdir(tmp_path):
    """A sweep of Figure 5 at two batch sizes and seeds; one run diverged."""
    config = figure5.get_config()
    config.grid.update({"batch_size": (64, 8192), "seed": (0, 1)})
    meta = {"experiment": "experiments/signer2021/figure5.py", "command": "python"}
    directory = tmp_path / "sweep"
    storage.open_workdir(directory, "figure5", "task", meta | {"config": config.to_json()})
    with storage.RecordWriter(directory) as writer:
        for run in figure5.get_sweep(config).planned:
            final = FINALS[run["batch_size"]][run["seed"]]
            record = storage.Record(
                run_id=sweeps.run_id("task", run),
                hparams=run,
                status="diverged" if final is None else "finished",
                metrics={METRIC: final},
                curve={"epoch": [1, 2], METRIC: [0.5, final]},
            )
            writer.append(record)
    return str(directory)


@pytest.fixture
def published(tmp_path):
    """A made-up table of published curves, with one that is of no figure."""
    path = tmp_path / "published.csv"
    rows = [("Fig5", 64, 0.9, 1, 0.7), ("Fig5", 64, 0.9, 2, 0.9), ("Fig1", 64, 0, 1, 0.2)]
    rows += [("other", 64, "?", 1, 0.3)]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("figure", "batch_size", "momentum", "epoch", METRIC), *rows])
    return str(path)


def test_curves_are_drawn_over_the_published_ones(workdir, published):
    drawn = curves.plot(curves.load(workdir), figure.Figure(), curves.read_published(published))
    first, second = drawn.axes
    assert [panel.get_title() for panel in drawn.axes] == ["batch size 64", "batch size 8192"]
    ours, theirs = first.lines
    np.testing.assert_allclose(ours.get_xydata(), [[1, 50], [2, 98.5]])
    np.testing.assert_allclose(theirs.get_xydata(), [[1, 70], [2, 90]])
    assert theirs.get_linestyle() == "--" and theirs.get_color() == ours.get_color()
    band = first.collections[0].get_datalim(first.transData)
    np.testing.assert_allclose((band.y0, band.y1), (50, 99))
    assert len(second.lines) == 1  # nothing published of 8192 in this table
    [legend] = drawn.legends
    assert [text.get_text() for text in legend.texts] == ["figure5", "figure5, published"]


def test_the_table_has_published_and_measured_numbers(workdir, published, tmp_path, capsys):
    out = tmp_path / "curves.png"
    curves.main([workdir], published, str(out))
    with_file = capsys.readouterr().out
    assert with_file.splitlines()[2:] == [
        "| figure5 | 64 | 99.24 | 98.50 ± 0.71 (2) | -0.74 |",
        "| figure5 | 8192 | 96.86 | 11.30 (1 of 2) | -85.56 |",
    ]
    assert out.read_bytes().startswith(b"\x89PNG")
    curves.main([workdir], None, str(out))
    assert capsys.readouterr().out == with_file


def test_a_batch_size_at_which_all_diverged_has_an_empty_panel():
    none = {"epochs": np.zeros(0), "accuracy": np.zeros((0, 0)), "published": None}
    lost = curves.Curves(
        sweep="adam", series="linear", batch_size=8192, momentum=0.0, tried=3, **none
    )
    [panel] = curves.plot([lost], figure.Figure()).axes
    assert [line.get_xydata().size for line in panel.lines] == [0]
    assert curves.table([lost])[-1] == "| adam, linear | 8192 | - | diverged | - |"


def test_a_table_of_published_curves_without_a_column_says_which(tmp_path):
    path = tmp_path / "published.csv"
    path.write_text("figure,epoch\nFig1,1\n")
    with pytest.raises(ValueError, match="lacks batch_size, momentum, test_accuracy; give a table"):
        curves.read_published(path)


def test_time_on_more_devices_is_beside_that_on_one(monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "seconds_per_epoch", lambda task, size, count: size / count)
    monkeypatch.setattr(devices.scaling_rules, "make_task", lambda config: Task())
    devices.main(str(tmp_path))
    record = json.loads((tmp_path / "devices.json").read_text())
    assert record["seconds_per_epoch"]["64"]["1"] == 64 and record["date"]


class Task:
    data_description = "nothing"


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_an_epoch_is_measured_on_several_devices(made_data, count):
    if len(jax.devices()) < count:
        pytest.skip(f"needs {count} devices")
    task = scaling_rules.make_task(figure1.get_config())
    assert devices.seconds_per_epoch(task, 5, count) > 0
