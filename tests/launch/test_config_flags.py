"""Fields of the config on the command line mean what people and tables write."""

import datetime
import enum
import pathlib

import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from absl import flags
from ml_collections import config_dict

from launch import cli, config_flags  # noqa: F401, cli defines --workdir


class Color(enum.Enum):
    RED = 1
    BLUE = 2


@pytest.mark.parametrize(
    ("text", "default", "value"),
    [
        ("2**-3,0.25", (0.1,), (0.125, 0.25)),
        ("2^-3", (0.1,), (0.125,)),
        ("2^-3, 2^3", (0.1,), (0.125, 8)),
        ("\N{MINUS SIGN}1", 0.5, -1.0),
        ("1e-3", (0.1,), (0.001,)),
        ("1/8", 0.5, 0.125),
        ("-2^2", 1, -4),
        ("2^6", 1, 64),
        ("0x10", 1, 16),
        ("1_000", 1, 1000),
        ("3", 0.5, 3.0),
        ("inf", 0.5, float("inf")),
        ("range(3)", (5, 6), (0, 1, 2)),
        ("range(0,10,2)", (5,), (0, 2, 4, 6, 8)),
        ("(range(2), 7)", (5,), (0, 1, 7)),
        ("range(3)", ("a",), ("range(3)",)),
        ("(1, 2)", (5,), (1, 2)),
        ("[1,2]", (5,), (1, 2)),
        ("'1,2'", (5,), (1, 2)),
        ("1,", (5,), (1,)),
        ("1", (5,), (1,)),
        ("()", (5,), ()),
        ("1,2", [5], [1, 2]),
        ("1,2", {5}, {1, 2}),
        ("0.5,1", (1, 2), (0.5, 1)),
        ("c,d", ("a", "b"), ("c", "d")),
        ("c", ("a", "b"), ("c",)),
        ("1,2", ("a",), ("1", "2")),
        ("'c d', \"e\"", ("a",), ("c d", "e")),
        ("(don't, x-y.z)", ("a",), ("don't", "x-y.z")),
        ("true,False", (True,), (True, False)),
        ("(1,2),(3,4)", ((0, 0),), ((1, 2), (3, 4))),
        ("((1,2),)", ((0, 0),), ((1, 2),)),
        ("None,0.1", (None, 0.5), (None, 0.1)),
        ("a,1,true", (), ("a", 1, True)),
        ("false", True, False),
        ("c,d", "word", "c,d"),
        ("", "word", ""),
        ("0.5", None, 0.5),
        ("a,b", None, ("a", "b")),
        ("None", None, None),
        ("word", None, "word"),
        ("(a)b", None, "(a)b"),
        ("/a b", pathlib.PurePosixPath("/"), pathlib.PurePosixPath("/a b")),
        ("2026-01-02", datetime.date(2025, 1, 1), datetime.date(2026, 1, 2)),
        ("BLUE", Color.RED, Color.BLUE),
    ],
)
def test_a_value_is_of_the_kind_of_the_default(text, default, value):
    found = config_flags.read("config.x", text, default)
    assert found == value and type(found) is type(value)
    if isinstance(value, tuple):
        assert list(map(type, found)) == list(map(type, value))


@pytest.mark.parametrize(
    ("text", "default", "words"),
    [
        ("", (0, 1), "default (0, 1)"),
        ("", ("a",), "default ('a',)"),
        ("high", 0.5, "type float"),
        ("0.5", 3, "type int"),
        ("64.0", 3, "type int"),
        ("a,b", (0, 1), "default (0, 1)"),
        ("true", (0, 1), "default (0, 1)"),
        ("0,,1", (0, 1), "default (0, 1)"),
        ("(0,1", (0, 1), "default (0, 1)"),
        ("0,1)", (0, 1), "default (0, 1)"),
        ("range(0.5)", (0, 1), "range(3)"),
        ("range()", (0, 1), "range(3)"),
        ("range(0,1,0)", (0, 1), "range(3)"),
        ("1,2", ((0, 0),), "default ((0, 0),)"),
        ("9^9^9^9", 0.5, "type float"),
        ("(2^2000)^1500", 1, "type int"),
        ("(-1)^0.5", 1.0, "type float"),
        ("'a'*3", 1.0, "type float"),
        ("10^400", 0.5, "is too large"),
        ("range(10^30)", (0, 1), "is too large"),
        ("1/0", 0.5, "type float"),
        ("maybe", (True,), "default (True,)"),
        ("None", 0.5, "type float"),
        ("float32", jnp.float32, "cannot be given"),
        ("1", ({"a": 1},), "default ({'a': 1},)"),
        ("GREEN", Color.RED, "RED, BLUE"),
        ("yesterday", datetime.date(2025, 1, 1), "yesterday"),
        ("__import__('os')", (0.1,), "default (0.1,)"),
    ],
)
def test_a_value_of_another_kind_is_refused_in_one_line(text, default, words):
    with pytest.raises(flags.Error) as error:
        config_flags.read("config.grid.x", text, default)
    said = str(error.value)
    assert said.startswith("--config.grid.x") and words in said and "\n" not in said


def config():
    found = ml_collections.ConfigDict(
        {
            "seed": range(3),
            "rate": np.logspace(-2, 0, 3),
            "count": np.int64(7),
            "run": {"momentum": 0.9, "nesterov": False, "damped": True, "decay": None},
            "empty": config_dict.placeholder(int),
        }
    )
    found.twice = found.get_ref("count") * 2
    found.lock()
    return found


def test_overridden_fields_are_set_in_any_spelling():
    found = config()
    words = ["sweep", "a.py", "--config.seed=5", "-config.rate", "2^-1,1", "--config.count=8"]
    words += ["--config.run.momentum", "-1", "--config.run.nesterov", "--noconfig.run.damped"]
    words += ["--config.run.decay=1", "--config.empty=3", "--", "--config.x=1"]
    rest = config_flags.override(found, words)
    assert rest == ["sweep", "a.py", "--config.x=1"]
    assert (found.seed, found.rate, found.count, found.twice) == ((5,), (0.5, 1), 8, 16)
    run = {"momentum": -1.0, "nesterov": True, "damped": False, "decay": 1}
    assert found.run.to_dict() == run
    assert found.empty == 3


def test_a_required_field_takes_a_value_of_its_type():
    found = ml_collections.ConfigDict()
    found.needed = config_dict.required_placeholder(float)
    config_flags.override(found, ["sweep", "--config.needed=1"])
    assert found.needed == 1.0 and isinstance(found.needed, float)


def test_fields_that_are_not_overridden_keep_their_defaults():
    found = config()
    assert config_flags.override(found, ["sweep"]) == ["sweep"]
    assert found.run == config().run and found.seed == range(3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config.run.momentm=1"], "no flag --config.run.momentm; .*--config.run.momentum"),
        (["--config.momentum=1"], "no flag --config.momentum; .*--config.run.momentum"),
        (["--config.zzz=1"], "no flag --config.zzz; the config has .*seed"),
        (["--config.items=1"], "no flag --config.items"),
        (["--config.count.x=1"], "no flag --config.count.x; the config has count"),
        (["--config.run={'momentum': 1}"], "no flag --config.run; the config has .*run.momentum"),
        (["-config.count=1", "--config.count=2"], "--config.count is given twice"),
        (["--config.count"], "Missing value for flag --config.count"),
        (["--config.run.nesterov=maybe"], "--config.run.nesterov=maybe"),
        (["--noconfig.run.nesterov=1"], "does not take an argument"),
    ],
)
def test_a_field_that_makes_no_sense_is_named(words, message):
    with pytest.raises((flags.Error, ValueError), match=message):
        config_flags.override(config(), ["sweep", *words])


@pytest.mark.parametrize("words", [["--config.a=1", "-1"], ["--noconfig.a"], ["--", "--bogus"]])
def test_fields_and_values_are_no_unknown_flags(words):
    config_flags.check_others(["sweep", *words])


def test_an_unknown_flag_is_refused_with_the_nearest_one():
    with pytest.raises(flags.Error, match="no flag --workdirr; did you mean --workdir"):
        config_flags.check_others(["sweep", "a.py", "--workdirr=b"])
    with pytest.raises(flags.Error, match="no flag --zzz; --help"):
        config_flags.check_others(["sweep", "--zzz"])
