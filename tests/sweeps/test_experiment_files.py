"""Tests that experiments of any name and location are imported as ordinary modules."""

import os
import sys

import pytest

from noisegen.sweeps import experiment
from noisegen.sweeps import experiment_files as files

BODY = """
import ml_collections
from noisegen import sweeps

def get_config():
    return ml_collections.ConfigDict({"seed": (0, 1)})

def get_sweep(config):
    return sweeps.Sweep(lambda: None, sweeps.grid(seed=config.seed))
"""


@pytest.fixture(autouse=True)
def _own_modules(monkeypatch, tmp_path):
    """Removes imported modules after each test, and enters an empty directory."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(path, text=BODY):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


HEADS = {
    "dataclass": (
        "from __future__ import annotations\nimport dataclasses\n"
        "@dataclasses.dataclass\nclass Options:\n    width: int = 64\nFOUND = Options().width\n"
    ),
    "Flax dataclass": (
        "from __future__ import annotations\nimport flax\n"
        "@flax.struct.dataclass\nclass Options:\n    width: int = 64\nFOUND = Options().width\n"
    ),
    "main block": 'FOUND = 64\nif __name__ == "__main__":\n    FOUND = 0\n',
    "neighbor": "import net\nFOUND = net.WIDTH\n",
    "relative neighbor": "from . import net\nFOUND = net.WIDTH\n",
    "relative parent": "from ..deep.net import WIDTH\nFOUND = WIDTH\n",
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("packages", [True, False])
def test_a_file_elsewhere_is_imported_with_its_neighbors(tmp_path, head, packages):
    text, body = HEADS[head], BODY
    path = write(tmp_path / "project" / "deep" / "mine.py", f"'Title'\n{text}{body}")
    write(path.with_name("net.py"), "WIDTH = 64")
    if packages:
        for directory in (path.parent, path.parent.parent):
            write(directory / "__init__.py", "")
    exp = experiment.load_experiment(str(path))
    assert exp.name == "mine"
    assert exp.get_sweep(exp.get_config()).planned == [{"seed": 0}, {"seed": 1}]
    assert files.load(path).FOUND == 64
    assert not list(path.parent.glob("__pycache__/mine*"))


def test_a_file_is_executed_again_only_if_it_changed(tmp_path):
    text = f"with open({str(tmp_path / 'log')!r}, 'a') as log:\n    log.write('x')\n" + BODY
    path = write(tmp_path / "once.py", text)
    experiment.load_experiment(str(path))
    experiment.load_experiment(str(path))
    assert (tmp_path / "log").read_text() == "x"
    write(path, text + "\n")
    experiment.load_experiment(str(path))
    assert (tmp_path / "log").read_text() == "xx"


@pytest.mark.parametrize("name", ["optax.py", "json.py", "noisegen.py"])
def test_a_file_with_the_name_of_a_library_does_not_replace_it(tmp_path, name):
    known = sys.modules[name.removesuffix(".py")]
    assert experiment.load_experiment(str(write(tmp_path / name))).name == name.removesuffix(".py")
    assert sys.modules[name.removesuffix(".py")] is known


@pytest.mark.parametrize("name", ["a b.py", "a,b.py", "50%.py", "ä.py", "v1.2.py", "1-x.py", "x"])
def test_files_of_any_name_are_imported(tmp_path, name):
    path = write(tmp_path / name)
    assert experiment.load_experiment(str(path)).path == path


@pytest.mark.parametrize(
    ("text", "path", "scale"),
    [
        ("a:b.py", "a:b.py", []),
        ("a:b.py:cpu", "a:b.py", ["cpu"]),
        ("c.py:cpu", "c.py", ["cpu"]),
        ("c.py:x:y", "c.py", ["x:y"]),
        ("no.py:cpu", "no.py", ["cpu"]),
    ],
)
def test_the_scale_follows_the_longest_existing_path(text, path, scale):
    for name in ("a:b.py", "c.py"):
        with open(name, "w"):
            pass
    assert files.split(text) == (files.pathlib.Path(path), scale)


def test_modules_are_found_by_name(tmp_path, monkeypatch):
    path = write(tmp_path / "mypkg" / "sweep.py", BODY.replace("config():", "config(scale='x'):"))
    monkeypatch.syspath_prepend(tmp_path)
    assert experiment.load_experiment("mypkg.sweep").path == path
    assert experiment.load_experiment("mypkg.sweep:cpu").name == "sweep:cpu"
    monkeypatch.chdir(tmp_path)
    assert str(experiment.load_experiment("mypkg.sweep").path) == os.path.join("mypkg", "sweep.py")


def test_a_link_is_imported_with_the_neighbors_of_its_target(tmp_path):
    path = write(tmp_path / "there" / "mine.py", f"import next_to_it\n{BODY}")
    write(path.with_name("next_to_it.py"), "")
    link = tmp_path / "link.py"
    link.symlink_to(path)
    assert experiment.load_experiment(str(link)).name == "link"


def test_a_tilde_stands_for_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = write(tmp_path / "mine.py")
    assert experiment.load_experiment("~/mine.py").path == path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(:", "mine.py, line 1: "),
        ("import nothing_of_this_name", "mine.py, line 1: No module named 'nothing_of_this_name'"),
        ("\nfrom . import nothing", "mine.py, line 2: cannot import name 'nothing'"),
        ("import broken", r"broken.py, line 1: "),
        ("x = '\0'", "mine.py"),
        ("get_config = dict", "mine.py defines no get_sweep"),
        ("", "defines no get_config"),
    ],
)
def test_an_invalid_file_is_refused_with_its_name_and_line(tmp_path, text, message):
    write(tmp_path / "broken.py", "def broken(:")
    path = write(tmp_path / "mine.py", text)
    with pytest.raises((ValueError, ImportError), match=message) as error:
        experiment.load_experiment(str(path))
    assert "\n" not in str(error.value)


def test_an_error_raised_by_a_file_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "mine", raising=False)  # Of another test.
    path = write(tmp_path / "mine.py", "1 / 0")
    with pytest.raises(ZeroDivisionError):
        experiment.load_experiment(str(path))
    assert "mine" not in sys.modules


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a directory"):
        experiment.load_experiment(str(tmp_path))


def test_a_scale_is_required_if_and_only_if_the_file_has_scales(tmp_path):
    path = write(tmp_path / "mine.py")
    with pytest.raises(ValueError, match="no scales"):
        experiment.load_experiment(f"{path}:cpu").get_config()
    write(path, BODY.replace("get_config():", "get_config(scale):"))
    with pytest.raises(ValueError, match="has scales"):
        experiment.load_experiment(str(path)).get_config()


def test_a_config_may_be_a_plain_dict(tmp_path):
    path = write(tmp_path / "mine.py", BODY.replace("ml_collections.ConfigDict", "dict"))
    assert experiment.load_experiment(str(path)).get_config().seed == (0, 1)
    write(path, BODY.replace("return ml_collections", "ml_collections"))
    with pytest.raises(ValueError, match="get_config gives None"):
        experiment.load_experiment(str(path)).get_config()
