"""Every module under experiments/ is what it claims to be, and a tiny form of it trains."""

import importlib
import pathlib

import pytest

import experiments
from launch import experiment
from noisegen import sweeps, training

HERE = pathlib.Path(experiments.__path__[0])
SWEEPS = sorted(
    ".".join(("experiments", *path.relative_to(HERE).with_suffix("").parts))
    for path in HERE.rglob("*.py")
    if "def get_config(" in path.read_text()
)

IMAGES = {
    "task.sizes": (2, 3, 4),
    "grid.batch_size": (5,),
    "grid.learning_rate": (0.1,),
    "grid.seed": (0,),
    "run.num_epochs": 2.0,
}
# What makes a sweep small; an experiment without an entry fails its test.
TINY = {
    "experiments.digits": {
        "grid.batch_size": (64,),
        "grid.learning_rate": (0.25, 0.5),
        "grid.seed": (0,),
        "run.num_epochs": 1.0,
        "best": 1,
    },
    "experiments.additive_noise.figure1": IMAGES,
    "experiments.additive_noise.table1": IMAGES,
}
NUM_RUNS = {
    "experiments.digits": 315,
    "experiments.additive_noise.figure1": 10,
    "experiments.additive_noise.table1": 756,
}


def load(name, overrides=None):
    """The experiment in a module, as the command line reads it."""
    config = importlib.import_module(name).get_config()
    config.lock()
    config.update_from_flattened_dict(overrides or {})
    return experiment.load(HERE.parent / f"{name.replace('.', '/')}.py", config)


def test_there_are_experiments():
    assert set(TINY) <= set(SWEEPS)


@pytest.mark.parametrize("name", SWEEPS)
def test_it_loads_and_says_what_it_is(name):
    plan = load(name)
    assert plan.title and plan.description
    assert not plan.title.endswith(".")  # a title, not a sentence
    assert isinstance(plan.protocol, sweeps.Protocol)


@pytest.mark.parametrize("name", SWEEPS)
def test_its_grid_is_the_documented_one_and_no_run_stands_twice(name):
    runs = load(name).runs
    assert len(runs) == len(sweeps.by_run_id("any", runs)) == NUM_RUNS[name]


@pytest.mark.parametrize("name", SWEEPS)
def test_no_field_can_be_misspelt(name):
    with pytest.raises((KeyError, AttributeError)):
        load(name, {"run.num_epoch": 1.0})


@pytest.mark.parametrize("name", SWEEPS)
def test_its_tiny_form_trains_and_makes_a_table(name, made_mnist):
    plan = load(name, TINY[name])
    task = plan.make_task()
    pool = training.Pool(task, training.Settings(lanes=2, microbatch=4, eval_batch=60))
    results = list(pool.train(plan.runs))
    assert len(results) == len(plan.runs) and {r.status for r in results} == {"finished"}
    records = [vars(result) | {"run_id": str(i)} for i, result in enumerate(results)]
    optima = sweeps.select(records, plan.protocol)
    assert {optimum.row for optimum in optima} == {run["batch_size"] for run in plan.runs}
    assert sweeps.to_text(sweeps.make_table(optima, plan.protocol, plan.published))


def test_what_is_trained_enters_the_name_of_the_task_and_how_fast_does_not(made_mnist):
    name = "experiments.additive_noise.table1"
    first = load(name, IMAGES).make_task().name
    assert load(name, IMAGES | {"convolution": "lax"}).make_task().name == first
    assert load(name, IMAGES | {"task.dropout": 0.5}).make_task().name != first
    assert load(name, IMAGES | {"task.sizes": (2, 3, 5)}).make_task().name != first
