"""Tests that a config is restored from `sweep.json`, or refused before training."""

import datetime
import enum
import json
import pathlib

import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from ml_collections import config_dict

from noisegen import storage, sweeps
from noisegen.sweeps import config_json, experiment


class Color(enum.Enum):
    RED = 1
    BLUE = 2


def config():
    """Returns a config with fields of every type."""
    found = ml_collections.ConfigDict(
        {
            "seed": range(3),
            "rate": np.logspace(-2, 0, 3),
            "pairs": np.ones((2, 2), int),
            "device": jnp.arange(2),
            "small": jnp.bfloat16(0.5),
            "count": np.int64(7),
            "switch": np.bool_(True),
            "nested": {"layers": ((1, 2), (3,)), "words": ["a", "b"], "none": None},
            "mixed": (1, "a", None, 0.5),
            "nan": float("nan"),
            "dtype": jnp.bfloat16,
            "np_dtype": np.dtype("float32"),
            "function": np.tanh,
            "unnamed": lambda: None,
            "path": pathlib.PurePosixPath("/a"),
            "set": {3, 1},
            "bytes": b"abc",
            "date": datetime.date(2026, 1, 2),
            "color": Color.RED,
            "empty": config_dict.placeholder(int),
        }
    )
    found.twice = found.get_ref("count") * 2
    return found


CHANGED = {
    "seed": (5, 6),
    "rate": (0.5,),
    "mixed": ("b", 2),
    "path": pathlib.PurePosixPath("/b c"),
    "set": {4},
    "date": datetime.date(2027, 1, 2),
    "color": Color.BLUE,
    "empty": 3,
    "count": 9,
}


def make_config(**changes):
    """Returns the config with changed fields, as plain values."""
    found = config()
    with found.ignore_type():
        found.update(changes)
    config_json.make_plain(found)
    return found


def test_ranges_arrays_and_numpy_numbers_become_tuples_and_python_numbers():
    found = make_config()
    assert found.seed == (0, 1, 2) and found.rate == (0.01, 0.1, 1.0)
    assert found.pairs == ((1, 1), (1, 1)) and found.device == (0, 1)
    for name, value in {"count": 7, "switch": True, "small": 0.5, "twice": 14}.items():
        assert found[name] == value and type(found[name]) is type(value)
    assert list(map(type, (*found.seed, *found.rate))) == [int] * 3 + [float] * 3


@pytest.mark.parametrize("changes", [{}, CHANGED])
def test_fields_of_every_type_are_restored(changes):
    found = make_config(**changes)
    config_json.check_kept(found, config())
    again = config()
    config_json.restore(again, config_json.dump(found))
    config_json.make_plain(again)
    for name in found:
        if name not in ("nan", "unnamed"):
            assert again[name] == found[name], name
            assert type(again[name]) is type(found[name]), name
    assert np.isnan(again.nan) and callable(again.unnamed)


def test_a_required_field_must_be_given():
    found = ml_collections.ConfigDict({"a": {"b": config_dict.placeholder(int, required=True)}})
    with pytest.raises(ValueError, match=r"--config\.a\.b="):
        config_json.make_plain(found)
    found.a.b = 3
    config_json.make_plain(found)
    assert found.a.b == 3


def test_values_that_cannot_be_restored_are_refused():
    loop = []
    loop.append(loop)
    with pytest.raises(ValueError, match="sweep.json"):
        config_json.check_kept(*[ml_collections.ConfigDict({"a": loop})] * 2)
    one, other = (ml_collections.ConfigDict({"a": ([1], 2)}) for _ in range(2))
    other.a = (2, 2)
    config_json.check_kept(one, ml_collections.ConfigDict({"a": ([1], 2)}))
    with pytest.raises(ValueError, match=r"config\.a"):
        config_json.check_kept(one, other)


SOURCE = """
import jax.numpy as jnp
import ml_collections
from noisegen import storage, sweeps


def get_config():
    return ml_collections.ConfigDict({"seed": range(2), "dtype": jnp.bfloat16, "rate": 0.5})


def get_sweep(config):
    runs = sweeps.grid(seed=config.seed, learning_rate=(config.rate,))
    return sweeps.Sweep(lambda: None, runs)
"""


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Makes the directory of a sweep whose file is below the current directory."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "kept_mine.py"
    path.write_text(SOURCE)
    exp = experiment.load_experiment("kept_mine.py")
    config = exp.get_config()
    config.rate = 0.25
    origin = exp.get_sweep(config).origin
    meta = {"experiment": origin.experiment, "config": config_json.dump(config)}
    storage.open_workdir(tmp_path / "sweep", exp.name, "task", meta)
    return tmp_path / "sweep"


def test_a_sweep_with_a_dtype_and_a_range_is_opened(sweep):
    found = sweeps.Sweep.open(sweep)
    assert found.origin.config.seed == (0, 1) and found.origin.config.dtype is jnp.bfloat16
    assert [run["learning_rate"] for run in found.planned] == [0.25, 0.25]


@pytest.mark.parametrize("dtype", ["<class 'jax.numpy.bfloat16'>", "unserializable object: x"])
def test_a_sweep_of_an_older_version_is_opened(sweep, dtype):
    content = json.loads((sweep / "sweep.json").read_text())
    del content["crc32"]
    content["config"] = json.dumps(json.loads(content["config"]) | {"dtype": dtype})
    (sweep / "sweep.json").write_text(json.dumps(content))
    assert sweeps.Sweep.open(sweep).origin.config.dtype is jnp.bfloat16


def test_a_file_that_the_user_names_may_be_anywhere(sweep, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    moved = (tmp_path / "kept_mine.py").rename(tmp_path / "elsewhere" / "kept_mine.py")
    monkeypatch.chdir(sweep)
    with pytest.raises(FileNotFoundError, match="--config="):
        sweeps.Sweep.open(sweep)
    assert sweeps.Sweep.open(sweep, str(moved)).origin.config.rate == 0.25
    other = moved.with_name("other.py")
    other.write_text(SOURCE)
    with pytest.raises(ValueError, match="other.py .*'kept_mine'"):
        sweeps.Sweep.open(sweep, str(other))
