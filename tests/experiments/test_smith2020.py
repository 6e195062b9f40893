"""The experiments of Smith, Elsen & De: grids, budgets and numbers as published."""

import importlib

import numpy as np
import pytest
from PIL import Image

from experiments.smith2020 import (
    autoencoder,
    autoencoder_fitted,
    figure1,
    figure2_lstm,
    figure3,
    lstm,
    lstm_fitted,
    optimizers,
    resnet50,
    stability,
    table1,
    temperature,
    wide_resnet,
)
from experiments.smith2020.plots import regimes
from noisegen import data, storage, sweeps, training

# The best 12 of 15 runs count, as the paper says.
NAMES = (
    *("table1", "table1_short", "table1_skipinit", "table1_cifar100"),
    *("figure1", "figure1_skipinit", "figure2", "figure2_skipinit"),
    *("figure1_autoencoder", "figure1_lstm", "autoencoder", "lstm", "resnet50", "temperature"),
)


def values(runs, name):
    return sorted({run[name] for run in runs})


def sweep_of(module, scale):
    return module.get_sweep(module.get_config(scale))


def runs_of(module, scale):
    return sweep_of(module, scale).planned


@pytest.mark.parametrize("name", NAMES)
def test_the_best_twelve_of_fifteen_runs_count(name):
    for protocol in sweep_of(
        importlib.import_module(f"experiments.smith2020.{name}"), "paper"
    ).protocols:
        assert (protocol.best, protocol.of) == (12, 15)


def test_of_figure_3_the_best_five_of_seven_runs_count():
    for protocol in sweep_of(figure3, "paper").protocols:
        assert (protocol.best, protocol.of) == (5, 7)


def test_an_unknown_scale_is_refused():
    with pytest.raises(ValueError, match="write one of paper, gpu, cpu, test after the colon"):
        table1.get_config("huge")


def test_table_1_is_the_published_one():
    runs = runs_of(table1, "paper")
    assert values(runs, "batch_size") == [256, 512, 1024, 2048, 4096, 8192, 16384, 32768]
    assert values(runs, "num_updates") == [9765] and values(runs, "momentum") == [0.9]
    assert values(runs, "l2") == [5e-4] and values(runs, "gamma") == [2.0]
    task = table1.get_config("paper").task
    assert (task.depth, task.width, task.ghost_size, task.num_train) == (16, 4, 64, 50_000)
    published = sweep_of(table1, "paper").published
    assert published["", 8192] == {
        "test_accuracy": (94.6, 0.1),
        "train_loss": (0.017, 0.0),
        "effective_learning_rate": (4, 4, 4),
    }
    assert published["", 32768]["effective_learning_rate"] == (32, 1, 32)
    assert sorted(size for _, size in published) == values(runs, "batch_size")
    assert sweep_of(table1, "cpu").published == {}  # another network
    assert sweep_of(table1, "gpu").published == {}  # fewer seeds


def test_the_decisive_rows_of_table_1_fit_a_quarter_of_an_hour_of_an_h100():
    runs = runs_of(table1, "gpu")
    assert [run["batch_size"] for run in runs] == 3 * [2048, 16384]  # seed by seed
    images = sum(run["batch_size"] * run["num_updates"] for run in runs)
    assert images < 15 * 60 * 80_000  # images/s, less than half of the bound of an H100


def test_published_optima_lie_inside_the_grid_of_table_1():
    rates = values(runs_of(table1, "paper"), "effective_learning_rate")
    for row in sweep_of(table1, "paper").published.values():
        _, low, high = row["effective_learning_rate"]
        assert rates[0] < low and high < rates[-1]


@pytest.mark.parametrize(
    ("field", "value", "comparable"),
    [
        ("task.dtype", "bfloat16", True),
        ("grid.effective_learning_rate", sweeps.powers_of_two(2**-2, 128), True),
        ("grid.effective_learning_rate", sweeps.powers_of_two(1, 64), False),
        ("grid.seed", tuple(range(14)), False),
        ("grid.batch_size", (256,), True),
        ("best", 15, False),
        ("run.num_updates", 9766, False),
        ("task.num_train", 49_999, False),
    ],
)
def test_published_numbers_stand_beside_comparable_runs_only(field, value, comparable):
    config = table1.get_config("paper")
    config.update_from_flattened_dict({field: value})
    assert bool(table1.get_sweep(config).published) == comparable


def test_epoch_budgets_are_the_published_ones():
    assert values(runs_of(figure1, "paper"), "num_epochs") == [200.0]
    assert values(runs_of(figure1, "paper"), "momentum") == [0.0, 0.9]
    runs = runs_of(figure3, "paper")
    assert values(runs, "num_epochs") == [50, 100, 200, 400, 800, 1600, 3200, 6400]
    assert values(runs, "batch_size") == [64]


def make_sgd(monkeypatch, module, hparams):
    """The learning rates of all updates of a run."""
    seen = []
    monkeypatch.setattr(optimizers.optax, "sgd", lambda schedule, momentum: seen.append(schedule))
    monkeypatch.setattr(optimizers.optax, "chain", lambda *parts: parts)
    module(hparams, None)
    return np.array([seen[0](step) for step in range(hparams["num_updates"])])


def test_learning_rate_is_held_then_halved_every_twentieth(monkeypatch):
    hparams = {
        "effective_learning_rate": 8.0,
        "momentum": 0.9,
        "num_updates": 200,
        "gamma": 2.0,
        "l2": 5e-4,
    }
    rates = make_sgd(monkeypatch, optimizers.hold_then_decay, hparams)
    expected = 0.8 * 0.5 ** np.maximum(0, np.arange(200) // 10 - 9)
    np.testing.assert_allclose(rates, expected, rtol=1e-5)


def test_final_learning_rate_is_tuned_by_itself(monkeypatch):
    hparams = {
        "effective_learning_rate": 1.0,
        "final_effective_learning_rate": 0.01,
        "momentum": 0.5,
        "num_updates": 200,
        "l2": 5e-4,
    }
    rates = make_sgd(monkeypatch, figure3.make_optimizer, hparams)
    np.testing.assert_allclose(rates[[0, 99, 199]], [0.5, 0.5, 0.005], rtol=1e-5)
    np.testing.assert_allclose(rates[110] / rates[100], 0.01**0.1, rtol=1e-4)


def test_one_temperature_schedule_two_ways(monkeypatch):
    """After equal numbers of examples the temperatures are equal, and only one way changes each."""
    config = temperature.get_config("paper")
    examples, found = np.linspace(0, 0.999, 300) * 200 * 50_000, {}
    monkeypatch.setattr(
        temperature.noisegen, "scale_by_temperature", lambda value, size, momentum: value
    )
    monkeypatch.setattr(temperature.optax, "chain", lambda *parts: parts[-1])
    for run in temperature.get_sweep(config).planned:
        if run["seed"] == 0 and run["effective_learning_rate"] == 1:
            plan = training.plan(
                run, 50_000, temperature.batch_size(run | {"num_examples": 50_000})
            )
            counts = np.searchsorted(plan.examples_seen, examples, side="right")
            hparams = run | {"num_examples": 50_000}
            temperatures = temperature.make_optimizer(hparams, None)(counts)
            sizes = plan.batch_sizes[counts]
            found[run["growth"]] = temperatures, sizes, temperatures * sizes, plan.num_updates
    np.testing.assert_allclose(found[1][0], found[4][0], rtol=1e-12)
    assert set(found[1][1]) == {64} and set(found[4][1]) == {64, 256, 1024, 4096}
    assert len(set(found[1][2])) == 4 and len(set(found[4][2].round(9))) == 1
    assert found[4][3] < 0.6 * found[1][3]


def test_the_task_trains_augmented_images_and_counts_the_whole_test_set():
    config = table1.get_config("cpu")
    config.task.update({"dataset": "digits", "num_train": 64, "num_test": 32})
    task = wide_resnet.make_task(config)
    assert (task.num_examples, len(task.test["label"]), task.ghost_size) == (64, 32, 16)
    assert task.train["image"].shape[1:] == data.load("digits").train["image"].shape[1:]
    run = table1.get_sweep(config).planned[0]
    assert training.plan(run, 64).num_updates == 500
    assert len(training.plan(run, 64).eval_updates) == 20


def test_the_boundary_two_ways(tmp_path, capsys):
    """Optima planted at a temperature of 1/64 up to batch size 256; stable up to a rate of 8."""
    for name, module in (("figure1", figure1), ("stability", stability)):
        path, config = f"experiments/smith2020/{name}.py", module.get_config()
        meta = {"experiment": path, "config": config.to_json(), "command": "python"}
        storage.open_workdir(tmp_path / name, name, "task", meta)
        with storage.RecordWriter(tmp_path / name) as writer:
            for run in module.get_sweep(config).planned:
                rate = run["effective_learning_rate"]
                distance = np.log2(rate * 64 / min(run["batch_size"], 256))
                metrics = {"test_accuracy": 0.9 - distance**2 / 100 + run["seed"] / 1e4}
                metrics["train_loss"] = 1.0 if rate <= 8 else 3.0
                name_of_run = sweeps.run_id("task", run)
                writer.append(
                    storage.Record(
                        run_id=name_of_run, hparams=run, status="finished", metrics=metrics
                    )
                )
    regimes.main(str(tmp_path / "figure1"), str(tmp_path / "stability"))
    rows = capsys.readouterr().out.splitlines()[2:]
    assert rows == [f"| {label} | 256 (256 to 256) | 8 | 0.016 | 512 |" for label in figure1.LABELS]


def test_batches_can_be_drawn_anew_and_old_runs_keep_their_ids():
    config = table1.get_config("test")
    assert all("last_batch" not in run for run in table1.get_sweep(config).planned)
    config.run.last_batch = "resample"
    assert {run["last_batch"] for run in table1.get_sweep(config).planned} == {"resample"}


def test_the_final_learning_rate_is_never_extended_beyond_the_initial_one():
    for protocol in sweep_of(figure3, "cpu").protocols:
        run = {figure3.INITIAL: 0.5, figure3.FINAL: 0.25, "num_epochs": 20}
        domain = protocol.domains[figure3.FINAL]
        assert domain.step([0.125, 0.25], True, run) in (None, 0.5)
        assert domain.step([0.25, 0.5], True, run | {figure3.FINAL: 0.5}) is None


@pytest.mark.parametrize("module", [lstm, figure2_lstm])
def test_language_models_are_trained_with_the_momentum_of_the_paper(module):
    assert values(runs_of(module, "paper"), "momentum") == [0.9]


def test_the_largest_batch_is_all_that_is_fitted():
    config = autoencoder_fitted.get_config()
    assert max(config.grid.batch_size) == config.task.num_train
    config = lstm_fitted.get_config()
    words_of_stream = config.task.window + 1  # the last word is only predicted
    assert max(config.grid.batch_size) * words_of_stream == config.task.train_words


def test_the_fitted_text_is_the_beginning_of_the_whole_one(made_data):
    tasks = []
    for module in (lstm, lstm_fitted):
        sweep = sweep_of(module, "test")
        tasks.append(sweep.task_of(sweep.planned[0]))
    whole, fitted = (task.train["tokens"] for task in tasks)
    assert fitted.shape == (4, 6) and len(whole) > len(fitted)  # 40 words in 4 streams
    assert fitted[0].tolist() == whole[0].tolist()
    # The ids of the runs with the whole text are as before there was such a field.
    assert ["train_words" in task.name for task in tasks] == [False, True]


def test_images_are_as_large_as_the_input_of_the_autoencoder(made_data):
    for module, pixels in ((autoencoder, 28), (autoencoder_fitted, 14)):
        sweep = sweep_of(module, "test")
        assert sweep.task_of(sweep.planned[0]).train["image"].shape[1:] == (pixels, pixels, 1)


@pytest.mark.slow
def test_resnet50_streams_jpeg_files_at_224_pixels(tmp_path):
    random = np.random.RandomState(0)
    for split, count in (("train", 6), ("val", 3)):
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                small = random.randint(0, 256, (6, 8, 3), np.uint8)
                image = Image.fromarray(small).resize((400, 300), Image.Resampling.BICUBIC)
                image.save(tmp_path / split / name / f"{i}.JPEG")
    config = resnet50.get_config("streamed")
    config.directory = str(tmp_path)
    config.task.update(num_train=8, num_test=5, stages=(1,), ghost_size=4)
    config.run.num_epochs = 1.0
    config.run.num_evals = 1
    config.grid.update(seed=(0,), batch_size=(4,), effective_learning_rate=(0.125,))
    config.best = 1
    sweep = resnet50.get_sweep(config)
    task = sweep.task_of(sweep.planned[0])
    assert task.train.example["image"].shape == (256, 256, 3)  # of which 224 are cut out
    assert task.test.example["image"].shape == (224, 224, 3)
    pool = training.Pool(task, training.PoolConfig(microbatch=4, eval_batch=5, data="host"))
    # The check for mixed examples would take most of the time.
    [result] = pool.train(training.make_runs(task, sweep.planned[:1], mixing=False))
    assert result.status == "finished" and np.isfinite(result.metrics["test_loss"])
    num_right = 5 * result.metrics["test_accuracy"]
    assert num_right == pytest.approx(round(num_right), abs=1e-5)


def test_resnet50_holds_out_no_images_that_it_streams():
    config = resnet50.get_config("streamed")
    config.task.validation = 100
    with pytest.raises(ValueError, match="task.validation=100 .* give stream=False"):
        resnet50.make_task(config)
