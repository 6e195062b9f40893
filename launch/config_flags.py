"""Flags for the fields of dataclasses and of an experiment's config.

`define` makes a flag for each field of a dataclass: `--ray.num_cpus=2`.

`override` makes a flag for each field of the experiment's config: `--config.run.momentum=0.5`. The
default of the field decides how its value is read. Numbers may be written as tables show them
(`2^-3`), lists as `0.1,0.2`, `(0.1, 0.2)` or `range(3)`. The flags of ml_collections read neither.
"""

import ast
import dataclasses
import difflib
import operator
import re
import typing
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_dict

from noisegen.sweeps import config_json

flags.disclaim_key_flags()  # the module that calls `define` shows its flags in --help

_FLAG = re.compile(r"--?([A-Za-z][^=]*)", re.DOTALL)  # a negative number is no flag
_FIELD = re.compile(r"(no)?config\..*", re.DOTALL)
_ATTRIBUTE = re.compile(r"^ +(\w+): (.+(?:\n {8,}.+)*)", re.MULTILINE)
_DEFINE = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}
_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_NAMES = {
    "true": True,
    "false": False,
    "none": None,
    "inf": float("inf"),
    "nan": float("nan"),
}
_WRITABLE = (*config_json.PLAIN, *config_json.LISTS)
_NOTATION = "numbers are written 64, 0.5, 1e-3, 2^-3 or 1/3, lists 1,2 or range(3)."
# Errors that Python raises for an expression that is none, or cannot be computed.
_UNREADABLE = (ArithmeticError, RecursionError, SyntaxError, TypeError, ValueError)
# A larger integer fits no float, and some powers would be computed for hours.
_MAX_POWER_BITS = 10_000


def define(
    prefix: str, options: type, names: Collection[str] = (), optional: bool = False
) -> Callable[[], dict[str, Any]]:
    """Defines the flag `--<prefix><field>` for fields of a dataclass.

    Args:
      prefix: Beginning of the names of the flags.
      options: The dataclass. Its docstring's section "Attributes" has the help of the flags.
      names: Names of the fields, by default all.
      optional: Whether fields without a value are left out, rather than at their defaults.

    Returns:
      A function that returns the values of the fields. Call it when the flags are parsed.
    """
    helps = dict(_ATTRIBUTE.findall(options.__doc__))
    types = typing.get_type_hints(options)
    holders = {}
    for field in dataclasses.fields(options):
        if names and field.name not in names:
            continue
        # The flag of a field of type `int | None` is one of type int.
        kinds = set(typing.get_args(types[field.name])) - {type(None)}
        kind = kinds.pop() if kinds else types[field.name]
        default = None if optional else field.default
        text = " ".join(helps[field.name].split())
        holders[field.name] = _DEFINE[kind](f"{prefix}{field.name}", default, text)

    def values():
        given = {field: holder.value for field, holder in holders.items()}
        return {field: value for field, value in given.items() if value is not None}

    return values


def check_others(words: Sequence[str]) -> None:
    """Refuses unknown flags. Flags of fields of the config pass; `override` checks them.

    Args:
      words: The words of the command line that are no known flags, the program's name first.

    Raises:
      flags.Error: If one is a flag.
    """
    for word in words[1:]:
        if word == "--":  # by custom, no flags follow
            break
        match = _FLAG.match(word)
        if match and not _FIELD.fullmatch(match[1]):
            raise _unknown(match[1], list(flags.FLAGS))


def override(config: ml_collections.ConfigDict, words: Sequence[str]) -> list[str]:
    """Sets the fields of a config that the command line gives.

    Args:
      config: Every field, with its default.
      words: The words of the command line that are no other flags, the program's name first.

    Returns:
      The words that are no flags.

    Raises:
      flags.Error: If there is no such field, or its value is of another kind.
    """
    fields = {f"config.{name}": place for name, *place in _fields(config)}
    texts = flags.FlagValues()  # apart from the flags of the command, which may have these names
    for name, (_, _, default) in fields.items():
        # absl reads booleans (`--noconfig.NAME`), and leaves anything else to `read`.
        kind = flags.DEFINE_bool if isinstance(default, bool) else flags.DEFINE_string
        kind(name, None, "", flag_values=texts)
    try:
        rest = texts(words)
    except flags.UnrecognizedFlagError as error:
        raise _unknown(error.flagname, fields) from None
    for name, (group, field, default) in fields.items():
        flag = texts[name]
        if flag.present > 1:
            raise flags.Error(f"--{name} is given twice; give it once.")
        if flag.present:
            value = flag.value
            with group.ignore_type():  # the value is of the right kind
                group[field] = value if isinstance(value, bool) else read(name, value, default)
    return rest


def read(name: str, text: str, default: Any) -> Any:
    """Reads the value of a field.

    Args:
      name: Name of the flag.
      text: The value as the command line gives it.
      default: Default of the field. The value must be of its kind; None accepts any kind.

    Raises:
      flags.Error: If the text is no value of this kind.
    """
    if not (default is None or _is_word(default) or isinstance(default, _WRITABLE)):
        raise flags.Error(f"--{name} cannot be given ({default!r:.80}); change the file instead.")
    try:
        return _value(text, default)
    except OverflowError as error:
        raise flags.Error(f"--{name}={text} is too large; give a smaller number.") from error
    except _UNREADABLE as error:
        kind = type(default).__name__
        hint = error if _is_word(default) else _NOTATION
        raise flags.Error(
            f"--{name}={text} must be of type {kind}, like the default {default!r:.80}; {hint}"
        ) from error


def _unknown(name: str, names: Collection[str]) -> flags.Error:
    """Returns the error for a flag that does not exist, with the nearest one as a hint."""
    # Without their groups, so that those of one group are not near each other for that.
    last_parts = {each.rpartition(".")[2]: each for each in names}
    near = difflib.get_close_matches(name.rpartition(".")[2], last_parts, n=1)
    if near:
        hint = f"did you mean --{last_parts[near[0]]}?"
    elif _FIELD.fullmatch(name):
        fields = [each.removeprefix("config.") for each in names]
        hint = f"the config has {', '.join(fields) or 'no fields'}."
    else:
        hint = "--help lists the flags."
    return flags.Error(f"There is no flag --{name}; {hint}")


def _fields(
    config: ml_collections.ConfigDict, prefix: str = ""
) -> Iterator[tuple[str, ml_collections.ConfigDict, str, Any]]:
    """Yields each field of a config: its full name, its group, its name there, its default."""
    for name in config:
        try:
            value = config_json.plain(config[name])
        except config_dict.RequiredValueError:  # the command line is to give it
            value = None
        if isinstance(value, ml_collections.ConfigDict):
            yield from _fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", config, name, _example(config, name, value)


def _example(config: ml_collections.ConfigDict, name: str, value: Any) -> Any:
    """Returns a value of the type that a field requires, or None if it accepts any."""
    if value is not None:
        return value
    # A placeholder has a type, but no value yet.
    try:
        kind = config.get_type(name)
    except config_dict.RequiredValueError:
        kind = config.get_ref(name).get_type()
    return kind() if kind in _WRITABLE else None


def _value(text: str, like: Any) -> Any:
    """Reads a value of the same kind as another."""
    if config_json.is_text(like):
        return config_json.from_text(text, like)
    if isinstance(like, str):
        return text
    if isinstance(like, config_json.LISTS) and like and all(map(_is_word, like)):
        example = next(iter(like))
        return type(like)(_value(word, example) for word in _words(text))
    if like is not None:
        return _of_kind(_evaluated(text), like)
    try:
        return _evaluated(text)
    except _UNREADABLE:
        return tuple(_words(text)) if "," in text else text


def _is_word(value: Any) -> bool:
    """Returns whether a value is written as it is, rather than as a Python expression."""
    return isinstance(value, str) or config_json.is_text(value)


def _of_kind(value: Any, like: Any) -> Any:
    """Returns a value in the type of another. A single value also makes a list."""
    if isinstance(like, config_json.LISTS):
        values = value if isinstance(value, tuple) else (value,)
        # Elements may be of any kind that the default has, and of every kind if it has none.
        examples = {_kind(each): each for each in like}
        if examples and not examples.keys() >= {_kind(each) for each in values}:
            raise TypeError("the elements are of another kind")
        return type(like)(
            _of_kind(each, examples.get(tuple, ())) if isinstance(each, tuple) else each
            for each in values
        )
    if isinstance(like, float) and _kind(value) is float:  # a whole number will do
        return float(value)
    if type(value) is not type(like):
        raise TypeError(f"{value!r} is of another kind")
    return value


def _kind(value: Any) -> type:
    """Returns the type of a value, one for all numbers and one for all lists."""
    if isinstance(value, config_json.LISTS):
        return tuple
    return float if type(value) is int else type(value)


def _words(text: str) -> list[str]:
    """Splits a list of words, which need no quotes."""
    text = text.strip()
    if not text:
        raise ValueError("there is no word")
    if text[0] + text[-1] in ("()", "[]", "{}"):
        text = text[1:-1]
    words = [word.strip().strip("'\"") for word in text.split(",")]
    return words if words[-1] else words[:-1]  # a comma may follow the last


def _evaluated(text: str) -> Any:
    """Evaluates a text as a number, a word, or a tuple of them.

    Numbers are read as people and tables write them: 0.5, 1e-3, 2^-3, 2**-3, 1/3.
    """
    # Quotes around a whole value are those that a shell would have removed.
    text = text.strip().strip("'\"").replace("\N{MINUS SIGN}", "-").replace("^", "**")
    return _computed(ast.parse(text, mode="eval").body)


def _computed(node: ast.AST) -> Any:
    """Computes a Python expression. Only arithmetic, lists and ranges are computed."""
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):  # a word without quotes
            return _NAMES.get(name.lower(), name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_computed(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _arithmetic(_OPERATORS[type(op)], _computed(left), _computed(right))
        case ast.Call(func=ast.Name(id="range"), args=arguments, keywords=[]):
            return tuple(range(*map(_computed, arguments)))
        case ast.Tuple(elts=elements) | ast.List(elts=elements) | ast.Set(elts=elements):
            values = []
            for element in elements:
                value = _computed(element)
                # A range within a list stands for its numbers.
                values += value if isinstance(element, ast.Call) else [value]
            return tuple(values)
    raise ValueError(f"{ast.unparse(node)} is no number, word or list")


def _arithmetic(operation: Callable, left: Any, right: Any) -> int | float:
    """Computes with two numbers."""
    if {_kind(left), _kind(right)} != {float}:  # Python would multiply words, too
        raise TypeError("arithmetic needs numbers")
    is_power = operation is operator.pow and isinstance(left, int)
    if is_power and left.bit_length() * abs(right) > _MAX_POWER_BITS:
        raise ValueError("the power is too large")
    return operation(left, right)
