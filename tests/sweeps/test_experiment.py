"""An experiment's file, read from the command line or found again from a sweep's directory."""

import json

import pytest

from launch import experiment
from noisegen import sweeps

SOURCE = '''"""A title

Some words.
Some more.
"""

import ml_collections
import numpy as np
from noisegen import sweeps, training


def get_config():
    grid = {"seed": (0, 1), "learning_rate": (0.5,)}
    return ml_collections.ConfigDict({"grid": grid, "rate": 0.5})


def get_task(config):
    functions = dict.fromkeys(("init", "loss", "metrics", "make_optimizer"))
    return training.Task(name=str(config.rate), train=np.ones(1), test=np.ones(1), **functions)


def get_runs(config):
    return sweeps.values(**config.grid)


def get_protocol(config):
    return sweeps.Protocol(best=1, of=len(config.grid.seed))
'''


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A file of an experiment, below the current directory."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return path


def get_config(path):
    names = {}
    exec(path.read_text(), names)
    return names["get_config"]()


def open_sweep(path, workdir, **changes):
    config = get_config(path)
    config.update(changes)
    plan = experiment.load(path, config)
    return sweeps.open_workdir(
        workdir, plan.name, "task", experiment.meta(plan, "the data", "the command")
    )


def test_the_file_says_everything(path):
    plan = experiment.load(path, get_config(path))
    assert (plan.name, plan.title, plan.description) == (
        "mine",
        "A title",
        "Some words.\nSome more.",
    )
    assert plan.runs == [{"seed": s, "learning_rate": 0.5} for s in (0, 1)]
    assert plan.protocols[0].of == 2 and plan.published == {}
    assert plan.make_tasks().name == "0.5"


def test_published_numbers_are_taken_where_there_are_some(path):
    path.write_text(SOURCE + "\ndef get_published(config):\n    return {('', 64): (98.6, None)}\n")
    assert experiment.load(path, get_config(path)).published == {("", 64): (98.6, None)}


def test_a_file_that_lacks_a_function_is_refused(path):
    path.write_text(SOURCE.replace("get_runs", "make_runs"))
    with pytest.raises(ValueError, match="mine.py lacks get_runs: an experiment defines"):
        experiment.load(path, get_config(path))


def test_a_sweep_leads_back_to_its_experiment_overrides_included(path, tmp_path):
    open_sweep(path, tmp_path / "sweep", rate=0.25, grid={"seed": (5,)})
    plan = experiment.load_from_workdir(tmp_path / "sweep")
    assert plan.make_tasks().name == "0.25"
    assert plan.runs == [{"seed": 5, "learning_rate": 0.5}]
    assert plan.config.grid.seed == (5,)


def test_a_field_that_the_file_has_lost_is_named(path, tmp_path):
    open_sweep(path, tmp_path / "sweep")
    path.write_text(SOURCE.replace('"rate"', '"speed"'))
    with pytest.raises(ValueError, match="an older .*mine.py, with other fields .*rate"):
        experiment.load_from_workdir(tmp_path / "sweep")


@pytest.mark.parametrize("where", ["outside", "sweep/inside", "sweeps/another/deep/inside"])
def test_only_files_below_the_current_directory_are_executed(path, tmp_path, monkeypatch, where):
    open_sweep(path, tmp_path / "sweep")
    here = tmp_path / "here"
    here.mkdir()
    moved = (here / where if "/" in where else tmp_path / where).with_suffix(".py")
    moved.parent.mkdir(parents=True, exist_ok=True)
    moved.write_text("raise AssertionError('executed')")
    for directory in ("sweep", "sweeps/another"):
        (here / directory).mkdir(parents=True, exist_ok=True)
    (here / "sweeps" / "another" / "sweep.json").write_text("{}")
    said = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    del said["crc32"]
    text = json.dumps(said).replace(str(path), str(moved))
    (here / "sweep" / "sweep.json").write_text(text)
    monkeypatch.chdir(here)
    with pytest.raises(FileNotFoundError, match="not executed; run the command where"):
        experiment.load_from_workdir(here / "sweep")


def test_the_code_of_a_task_and_that_with_which_a_sweep_was_begun(path, tmp_path):
    exp = experiment.load(path, get_config(path))
    assert experiment.begun_with(tmp_path) is None
    sweeps.open_workdir(tmp_path, exp.name, "task", {"code": exp.code})
    path.write_text(SOURCE.replace("str(config.rate)", "str(2 * config.rate)"))
    assert exp.code_files == (path,) and exp.code != experiment.begun_with(tmp_path)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("return sweeps.values(**config.grid)", "return []", "get_runs gives no runs"),
        ("return sweeps.values(**config.grid)", "return [None]", "get_runs gives None, .* Mapping"),
        (
            "return sweeps.values(**config.grid)",
            "pass",
            "get_runs gives None, which is no Iterable",
        ),
        ("return sweeps.Protocol", "sweeps.Protocol", "get_protocol gives None, .* a return?"),
    ],
)
def test_a_function_that_gives_the_wrong_thing_is_named(path, old, new, message):
    path.write_text(SOURCE.replace(old, new))
    with pytest.raises(ValueError, match=f"mine.py: {message}"):
        experiment.load(path, get_config(path))


def test_a_task_that_is_none_is_named(path):
    path.write_text(SOURCE.replace("return training.Task", "training.Task"))
    with pytest.raises(ValueError, match="get_task gives None, which is no Task"):
        experiment.load(path, get_config(path)).make_tasks()


@pytest.mark.parametrize("content", ["{}", '{"experiment": 3, "config": "{}", "command": ""}'])
def test_a_sweep_of_another_program_is_refused(path, tmp_path, content):
    (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(ValueError, match="is no sweep of `launch.sweep`"):
        experiment.load_from_workdir(tmp_path)
