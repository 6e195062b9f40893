"""Fields of the config on the command line mean what people and tables write."""

import datetime
import enum
import pathlib

import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from ml_collections import config_dict

from launch import config_flags


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
        ("'c d', \"e,f\"", ("a",), ("c d", "e,f")),
        ("(don't, x-y.z)", ("a",), ("don't", "x-y.z")),
        ("true,False", (True,), (True, False)),
        ("(1,2),(3,4)", ((0, 0),), ((1, 2), (3, 4))),
        ("((1,2),)", ((0, 0),), ((1, 2),)),
        ("None,0.1", (None, 0.5), (None, 0.1)),
        ("a,1,true", (), ("a", 1, True)),
        ("false", True, False),
        (None, False, True),
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
    found = config_flags.parse("x", text, default)
    assert found == value and type(found) is type(value)
    if isinstance(value, tuple):
        assert list(map(type, found)) == list(map(type, value))


@pytest.mark.parametrize(
    ("text", "default", "words"),
    [
        ("", (0, 1), "is empty"),
        ("high", 0.5, "must be a number"),
        ("0.5", 3, "must be a whole number"),
        ("64.0", 3, "must be a whole number"),
        ("a,b", (0, 1), "must be a number"),
        ("true", (0, 1), "must be a number"),
        ("0,,1", (0, 1), "between two commas"),
        ("(0,1", (0, 1), "must be a number"),
        ("0,1)", (0, 1), "must be a number"),
        ("range(0.5)", (0, 1), "whole number"),
        ("range()", (0, 1), "ranges such as range(3)"),
        ("range(0,1,0)", (0, 1), "ranges such as range(3)"),
        ("1,2", ((0, 0),), "must hold lists"),
        ("9^9^9^9", 0.5, "must be a number"),
        ("(2^2000)^1500", 1, "must be a number"),
        ("10^400", 0.5, "is too large"),
        ("range(10^30)", (0, 1), "is too large"),
        ("1/0", 0.5, "must be a number"),
        ("maybe", True, "true or false"),
        ("2", True, "true or false"),
        (None, 0.5, "needs a value"),
        ("None", 0.5, "must be a number"),
        ("float32", jnp.float32, "cannot be given here"),
        ("GREEN", Color.RED, "RED, BLUE"),
        ("yesterday", datetime.date(2025, 1, 1), "yesterday"),
        ("__import__('os')", (0.1,), "must be a number"),
    ],
)
def test_a_value_of_another_kind_is_refused_in_one_line(text, default, words):
    with pytest.raises(ValueError) as error:
        config_flags.parse("grid.x", text, default)
    said = str(error.value)
    assert said.startswith("--config.grid.x") and words in said and "\n" not in said


def test_fields_are_taken_out_of_the_command_line_in_any_spelling():
    argv = ["sweep", "--config=a.py", "-config.a=1", "--config.b", "-2", "--config.c", "x y"]
    argv += ["--noconfig.d", "--config.e", "--other", "--config.f=", "--", "--config.g=1"]
    others, given = config_flags.take(argv)
    assert others == ["sweep", "--config=a.py", "--other", "--", "--config.g=1"]
    assert given == [
        *(("a", "1"), ("b", "-2"), ("c", "x y"), ("d", "false"), ("e", None), ("f", "")),
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-config.a=1", "--config.a=2"], "--config.a is given twice"),
        (["--config.a", "1", "--noconfig.a"], "--config.a is given twice"),
        (["--config=a.py", "-config=b.py"], "--config is given twice"),
        (["--config.a={}", "--config.a.b=1"], "overlap"),
        (["--noconfig.a=1"], "takes no value"),
    ],
)
def test_a_field_is_given_once(words, message):
    with pytest.raises(ValueError, match=message):
        config_flags.take(["sweep", *words])


def config():
    found = ml_collections.ConfigDict(
        {
            "seed": range(3),
            "rate": np.logspace(-2, 0, 3),
            "count": np.int64(7),
            "run": {"momentum": 0.9, "nesterov": False, "decay": None},
            "empty": config_dict.placeholder(int),
        }
    )
    found.twice = found.get_ref("count") * 2
    found.lock()
    return found


def test_overridden_fields_are_set_whatever_they_were():
    found = config()
    given = {"seed": "5", "rate": "2^-1,1", "count": "8", "run": "{'momentum': 0.5, 'decay': 1}"}
    config_flags.override(found, [*given.items(), ("run.nesterov", None), ("empty", "3")])
    assert (found.seed, found.rate, found.count, found.twice) == ((5,), (0.5, 1), 8, 16)
    assert found.run.to_dict() == {"momentum": 0.5, "nesterov": True, "decay": 1}
    assert found.empty == 3


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("run.momentm", "1", "no such field: 'momentm'. Did you mean \"momentum\""),
        ("zzz", "1", "no such field: 'zzz'. There are count, empty, rate, run, seed, twice"),
        ("items", "1", "no such field: 'items'"),
        ("count.x", "1", "config.count is .*7.*, no group"),
        ("run", "3", "must be a dictionary, as config.run is a group"),
        ("run", "{'momentm': 1}", "no such field: 'momentm'"),
    ],
)
def test_fields_that_are_not_there_are_named(name, text, message):
    with pytest.raises(ValueError, match=message):
        config_flags.override(config(), [(name, text)])
