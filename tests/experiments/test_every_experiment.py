"""Every experiment is as it says, and trains at its scale `test`."""

import importlib
import pathlib

import pytest

import experiments
from noisegen import sweeps
from noisegen.sweeps import checks
from noisegen.sweeps.experiment import load_experiment

HERE = pathlib.Path(experiments.__path__[0])
PATHS = sorted(path for path in HERE.rglob("*.py") if "def get_config(" in path.read_text())
NAMES = [str(path.relative_to(HERE).with_suffix("")) for path in PATHS]
# Of each paper one experiment is validated in `make test`, and the embedded one is trained. The
# slow tests train all, which validates them, too.
TRAINED = {"digits_noise"}
VALIDATED = {
    "additive_noise/table1",
    "jaiswal2020/figure3",
    "matched_noise/mnist_epochs",
    "signer2021/figure1",
    "smith2020/lstm",
}


def trained():
    """Returns every experiment as a parameter; all but the quick ones are slow."""
    marks = {name: [] if name in TRAINED else [pytest.mark.slow] for name in NAMES}
    assert marks.keys() >= TRAINED
    return [pytest.param(name, marks=each) for name, each in marks.items()]


def load(name, scale=None, **overrides):
    """The sweep of an experiment, as the command line makes it."""
    path = HERE / f"{name}.py"
    experiment = load_experiment(f"{path}:{scale}" if scale else str(path))
    config = experiment.get_config()
    config.lock()
    config.update_from_flattened_dict(overrides)
    return experiment.get_sweep(config)


def scales_of(name):
    """The scales of an experiment."""
    module = importlib.import_module(f"experiments.{name.replace('/', '.')}")
    with pytest.raises(ValueError, match="write one of (.*) after the colon") as refused:
        module.get_config("huge")
    return str(refused.value).split("write one of ")[1].split(" after the colon")[0].split(", ")


def test_there_are_experiments():
    assert len(NAMES) > 40


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is(name):
    sweep = load(name)
    assert sweep.title and sweep.description
    assert not sweep.title.endswith(".")  # a title, not a sentence
    assert sweep.name == name.rpartition("/")[2] and load(name, "test").name.endswith(":test")


@pytest.mark.parametrize("name", NAMES)
def test_its_protocols_read_the_grid_of_every_scale_and_no_run_stands_twice(name):
    scales = scales_of(name)
    assert scales[-1] == "test"
    for scale in scales:
        sweep = load(name, scale)
        runs = sweep.planned
        assert len(runs) == len(sweeps.by_run_id("any", runs))
        for protocol in sweep.protocols:
            checks.check_points(runs, protocol)
            assert protocol.of == len({run["seed"] for run in runs})
        # One seed of everything comes first; digits.py has another order.
        seeds = [run["seed"] for run in runs]
        assert seeds == sorted(seeds) or name == "digits"


@pytest.mark.parametrize("name", NAMES)
def test_no_field_can_be_misspelt(name):
    with pytest.raises((KeyError, AttributeError)):
        load(name, "test", **{"run.num_epoch": 1.0})


@pytest.mark.parametrize("name", NAMES)
def test_its_report_can_be_made(name):
    load(name, "test").validate_report()


@pytest.mark.parametrize("name", sorted(VALIDATED))
def test_its_task_and_protocols_read_what_its_runs_have(name, made_data):
    load(name, "test").validate()


@pytest.mark.parametrize("name", trained())
def test_it_trains_and_makes_a_table(name, made_data, tmp_path):
    sweep = load(name, "test")
    sweep.workdir = tmp_path / "sweep"
    task = sweep.task_of(sweep.planned[0])
    microbatch = task.noise_microbatch or max(4, task.ghost_size)
    pool = {"lanes": 2, "lane_devices": 1, "microbatch": microbatch, "eval_batch": 60}
    sweep.run(progress=False, pool=pool | {"lanes_per_rare_step": 1})
    assert sweep.is_complete()
    records = sweep.records()
    assert len(records) >= len(sweep.planned)
    assert {record.status for record in records} == {"finished"}
    for record in records:
        plan = sweep.state.runs()[record.run_id].plan
        assert (record.num_updates, record.num_examples) == (plan.num_updates, plan.num_examples)
    for protocol in sweep.protocols:
        rows = {run[protocol.row] for run in sweep.planned}
        assert {optimum.row for optimum in sweep.optima(protocol)} == rows
        assert sweep.table(protocol) is not None


def test_the_name_of_the_task_has_what_is_trained_and_not_how_fast(made_data):
    name = "additive_noise/table1"
    first = load(name, "test").state.task_name
    assert load(name, "test", convolution="lax").state.task_name == first
    assert load(name, "test", **{"task.dropout": 0.5}).state.task_name != first
    assert load(name, "test", **{"task.sizes": (2, 3, 5)}).state.task_name != first
