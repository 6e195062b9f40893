"""An experiment's file, read from the command line or found again from a sweep's directory."""

import json

import pytest

from noisegen import storage, sweeps
from noisegen.sweeps import experiment

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


def make_task(config):
    functions = dict.fromkeys(("init", "loss", "metrics", "make_optimizer"))
    return training.Task(name=str(config.rate), train=np.ones(1), test=np.ones(1), **functions)


def get_sweep(config):
    runs = sweeps.grid(**config.grid) * sweeps.fixed(batch_size=1)
    return sweeps.Sweep(
        lambda: make_task(config), runs, sweeps.Protocol(best=1, of=len(config.grid.seed))
    )
'''


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A file of an experiment, below the current directory."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return path


def load(path, workdir=None, **changes):
    exp = experiment.load_experiment(str(path))
    config = exp.get_config()
    config.update(changes)
    return exp.get_sweep(config, workdir)


def begin(path, workdir, **changes):
    sweep = load(path, workdir, **changes)
    with sweep.begun():
        pass
    return sweep


def test_the_file_says_everything(path):
    sweep = load(path)
    assert (sweep.name, sweep.title) == ("mine", "A title")
    assert sweep.description == "Some words.\nSome more."
    assert sweep.planned == [{"seed": s, "learning_rate": 0.5, "batch_size": 1} for s in (0, 1)]
    assert sweep.protocols[0].of == 2 and sweep.published == {}
    assert sweep.state.task_name == "0.5"


def test_a_file_is_executed_once(path):
    path.write_text("with open('log', 'a') as log:\n    log.write('x')\n" + SOURCE)
    load(path)
    begin(path, path.parent / "sweep")
    sweeps.Sweep.open(path.parent / "sweep")
    assert (path.parent / "log").read_text() == "x"


def test_a_file_that_lacks_a_function_is_refused(path):
    path.write_text(SOURCE.replace("get_sweep", "make_sweep"))
    with pytest.raises(ValueError, match="mine.py defines no get_sweep: an experiment defines"):
        load(path)


def test_a_sweep_leads_back_to_its_experiment_overrides_included(path, tmp_path):
    begin(path, tmp_path / "sweep", rate=0.25, grid={"seed": (5,)})
    sweep = sweeps.Sweep.open(tmp_path / "sweep")
    assert (sweep.name, sweep.title, sweep.state.task_name) == ("mine", "A title", "0.25")
    assert sweep.planned == [{"seed": 5, "learning_rate": 0.5, "batch_size": 1}]
    assert sweep.origin.config.grid.seed == (5,)


def test_a_field_that_the_file_has_lost_is_named(path, tmp_path):
    begin(path, tmp_path / "sweep")
    path.write_text(SOURCE.replace('"rate"', '"speed"'))
    with pytest.raises(ValueError, match="an older .*mine.py, with other fields .*rate"):
        sweeps.Sweep.open(tmp_path / "sweep")


@pytest.mark.parametrize("where", ["outside", "sweep/inside", "sweeps/another/deep/inside"])
def test_only_files_below_the_current_directory_are_executed(path, tmp_path, monkeypatch, where):
    begin(path, tmp_path / "sweep")
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
        sweeps.Sweep.open(here / "sweep")


def test_a_change_of_the_code_since_the_sweep_was_begun_is_a_warning(path, tmp_path):
    begin(path, tmp_path / "sweep")
    code = storage.read_sweep(tmp_path / "sweep")["code"]
    path.write_text(SOURCE.replace("np.ones(1)", "np.zeros(1)"))
    with pytest.warns(UserWarning, match="mine.py, or a file that it imports, has changed since"):
        begin(path, tmp_path / "sweep")
    assert storage.read_sweep(tmp_path / "sweep")["code"] == code


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("runs = sweeps.grid(**config.grid) * ", "runs = [] and ", "needs runs"),
        ("runs = sweeps.grid(**config.grid) * ", "runs = [None] or ", "A run is a mapping"),
        ("    return sweeps.Sweep", "    sweeps.Sweep", "get_sweep gives None, .* a return?"),
        ("sweeps.Protocol(best", "dict(best", "needs a Protocol"),
    ],
)
def test_a_function_that_gives_the_wrong_thing_is_named(path, old, new, message):
    path.write_text(SOURCE.replace(old, new))
    with pytest.raises(ValueError, match=message):
        load(path)


def test_a_task_that_is_none_is_named(path):
    path.write_text(SOURCE.replace("return training.Task", "training.Task"))
    with pytest.raises(ValueError, match="None is not a Task"):
        load(path).validate()


@pytest.mark.parametrize("content", ["{}", '{"sweep": "s", "task": "t", "experiment": 3}'])
def test_a_sweep_of_another_program_is_refused(path, tmp_path, content):
    (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(ValueError, match="is no sweep: |too little"):
        sweeps.Sweep.open(tmp_path)
