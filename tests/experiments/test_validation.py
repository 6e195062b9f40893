"""Experiments that can hold out training images to tune on, and are unchanged if they do not."""

import importlib
import pathlib

import pytest

import experiments
from experiments import digits, validation
from experiments.smith2020 import figure1, resnet50, stability, table1, wide_resnet

HERE = pathlib.Path(experiments.__path__[0])
MODULES = {
    path.stem: importlib.import_module(f"experiments.smith2020.{path.stem}")
    for path in sorted((HERE / "smith2020").glob("*.py"))
    if "def get_config(" in path.read_text()
}
MODULES["digits"] = digits
NAMES = [name for name in MODULES if "lstm" not in name]


def held_out(module, number, scale="test", **task):
    """The config of an experiment with a validation split."""
    config = module.get_config(scale)
    config.task.update(task, validation=number)
    return config


def test_experiments_with_images_have_the_field():
    with_field = [
        name for name, module in MODULES.items() if "validation" in module.get_config("test").task
    ]
    assert with_field == NAMES and len(NAMES) > 10


@pytest.mark.parametrize("name", NAMES)
def test_no_protocol_tunes_on_the_test_set_if_there_is_a_validation_split(name):
    without = MODULES[name].get_sweep(MODULES[name].get_config("test"))
    with_split = MODULES[name].get_sweep(held_out(MODULES[name], 10))
    assert with_split.planned == without.planned
    for before, after in zip(without.protocols, with_split.protocols, strict=True):
        assert after.metric.split != "test" and after.mode == before.mode
        if before.metric.split == "test":
            assert after.metric.name == before.metric.name.replace("test_", "valid_")
            assert after.report == (before.metric, *before.report)
        else:
            assert (after.metric, after.report) == (before.metric, before.report)


@pytest.mark.parametrize("name", NAMES)
def test_a_field_of_zero_is_not_part_of_the_tasks_name(name):
    fields = MODULES[name].get_config("test").task
    assert "validation" not in validation.to_json(fields)
    named = fields.copy_and_resolve_references()
    del named["validation"]
    assert validation.to_json(fields) == named.to_json(sort_keys=True)
    fields.validation = 3
    assert validation.to_json(fields) == fields.to_json(sort_keys=True)


def test_digits_have_the_ids_that_they_had_before():
    sweep = digits.get_sweep(digits.get_config())
    named = 'digits {"dataset": "digits", "filters": 16, "hidden": 64} on digits '
    assert sweep.task_of(sweep.planned[0]).name.startswith(named)
    assert sweep.protocols[0].metric.name == "test_accuracy" and not sweep.protocols[0].report


@pytest.mark.slow
def test_digits_are_tuned_on_validation_images_and_reported_on_test_images(tmp_path):
    sweep = digits.get_sweep(held_out(digits, 137))
    sweep.workdir = tmp_path / "sweep"
    pool = {"lanes": 2, "lane_devices": 1, "microbatch": 32, "eval_batch": 60}
    sweep.run(progress=False, pool=pool)
    [optimum] = sweep.optima()
    best = sweep.to_frame().sort_values("valid_accuracy").iloc[-1]
    assert (optimum.mean, optimum.report["test_accuracy"][0]) == (
        best["valid_accuracy"],
        best["test_accuracy"],
    )
    assert sweep.table()["test_accuracy_mean"][0] == best["test_accuracy"]
    assert "Tuned on the validation split" in sweep.to_text()
    assert sweep.task_of(sweep.planned[0]).num_examples == 1300
    without = digits.get_sweep(digits.get_config("test"))
    assert not sweep.state.wanted.keys() & without.state.wanted.keys()


def test_published_numbers_are_not_beside_those_of_a_smaller_training_set():
    assert table1.get_sweep(table1.get_config("paper")).published
    assert not table1.get_sweep(held_out(table1, 5000, scale="paper")).published


@pytest.mark.parametrize("module", [table1, figure1, stability])
def test_networks_train_on_the_images_that_are_not_held_out(module):
    config = held_out(module, 100, scale="cpu", dataset="digits", num_train=500, num_test=32)
    task = wide_resnet.make_task(config)
    counts = task.num_examples, task.num_valid_examples, task.num_test_examples
    assert counts == (400, 100, 32)


def test_sweeps_that_are_compared_are_of_one_task():
    config = {"scale": "cpu", "dataset": "digits", "num_train": 500, "num_test": 32}
    names = [
        wide_resnet.make_task(held_out(module, 100, **config)).name
        for module in (figure1, stability)
    ]
    assert names[0] == names[1]


def test_validation_images_are_cropped_like_test_images():
    config = held_out(resnet50, 60, dataset="digits", pixels=8, crop=6, num_train=300, num_test=30)
    task = resnet50.make_task(config)
    assert task.valid["image"].shape == (60, 6, 6, 1) and task.test["image"].shape == (30, 6, 6, 1)
    assert task.train["image"].shape == (240, 8, 8, 1)
