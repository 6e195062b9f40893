"""Flags for the fields of dataclasses and of an experiment's config.

`define` makes a flag for each field of a dataclass: `--ray.num_cpus=2`.

A flag `--config.NAME=VALUE` overrides a field of the experiment's config. The default of the field
decides how its value is read. Numbers may be written as tables show them (`2^-3`), lists as
`0.1,0.2`, `(0.1, 0.2)` or `range(3)`. The flags of ml_collections read neither, and read `a,b` as
one word.
"""

import ast
import collections
import contextlib
import dataclasses
import difflib
import operator
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_dict

from noisegen.sweeps import config_json

flags.disclaim_key_flags()  # the module that calls `define` shows its flags in --help

_OVERRIDE = re.compile(r"--?(no)?config\.([^=]+)(?:=(.*))?", re.DOTALL)
_CONFIG = re.compile(r"--?config(=.*)?", re.DOTALL)
_FLAG = re.compile(r"--?[A-Za-z]")
_ATTRIBUTE = re.compile(r"^ +(\w+): (.+(?:\n {8,}.+)*)", re.MULTILINE)
_DEFINE = {
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}
_BOOLS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
_CONSTANTS = {
    "None": None,
    "none": None,
    "True": True,
    "true": True,
    "False": False,
    "false": False,
}
_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
# A larger integer fits no float, and some powers would be computed for hours.
_MAX_POWER_BITS = 10_000


def define(name: str, options: type, optional: bool = False) -> Callable[[], dict[str, Any]]:
    """Defines the flag `--<name>.<field>` for each field of a dataclass.

    Args:
      name: Name of the group of flags.
      options: The dataclass. Its docstring's section "Attributes" has the help of the flags.
      optional: Whether fields without a value are left out, rather than at their defaults.

    Returns:
      A function that returns the values of the fields. Call it when the flags are parsed.
    """
    helps = dict(_ATTRIBUTE.findall(options.__doc__))
    types = typing.get_type_hints(options)
    holders = {}
    for field in dataclasses.fields(options):
        kinds = set(typing.get_args(types[field.name])) - {type(None)}
        kind = kinds.pop() if kinds else types[field.name]
        default = None if optional else field.default
        text = " ".join(helps[field.name].split())
        holders[field.name] = _DEFINE[kind](f"{name}.{field.name}", default, text)

    def values():
        given = {field: holder.value for field, holder in holders.items()}
        return {field: value for field, value in given.items() if value is not None}

    return values


def take(argv: Sequence[str]) -> tuple[list[str], list[tuple[str, str | None]]]:
    """Takes the flags that override fields of the config out of a command line.

    Args:
      argv: The command line, the program's name first.

    Returns:
      The other words, and name and value of each overridden field. The value is None for
      `--config.NAME` alone, which sets a switch.

    Raises:
      ValueError: If a field, or the file, is given twice.
    """
    words = collections.deque(flags.FLAGS.read_flags_from_files(list(argv[1:]), force_gnu=False))
    others, given, num_configs = [argv[0]], [], 0
    while words:
        word = words.popleft()
        if word == "--":
            others += [word, *words]
            break
        if match := _OVERRIDE.fullmatch(word):
            given.append((match[2], _value_of(match, words)))
            continue
        num_configs += bool(_CONFIG.fullmatch(word))
        others.append(word)
        if words and _has_separate_value(word):
            others.append(words.popleft())
    if num_configs > 1:
        raise ValueError("--config is given twice; give it once.")
    _check_distinct([name for name, _ in given])
    return others, given


def override(config: ml_collections.ConfigDict, given: Iterable[tuple[str, str | None]]) -> None:
    """Sets the fields of a config that the command line gives.

    Args:
      config: Every field, with its default.
      given: Names and values of fields, as `take` returns them.

    Raises:
      ValueError: If there is no such field, or the value is of another kind.
    """
    for name, text in given:
        *above, last = name.split(".")
        holder = config
        for index, part in enumerate(above):
            holder = _field(holder, part, name)
            if not isinstance(holder, ml_collections.ConfigDict):
                group = ".".join(above[: index + 1])
                raise ValueError(f"--config.{name}: config.{group} is {holder!r:.80}, no group.")
        default = _field(holder, last, name)
        if isinstance(default, ml_collections.ConfigDict):
            override(config, _group(name, text))
            continue
        if default is None and text not in ("None", "none"):
            default = _example(holder, last)
        value = parse(name, text, config_json.plain(default))
        with holder.ignore_type():  # the value is of the right kind
            holder[last] = value


def parse(name: str, text: str | None, default: Any) -> Any:
    """Reads the value of a field.

    Args:
      name: Name of the field.
      text: The value as the command line gives it.
      default: Default of the field. The value must be of its kind; None accepts any kind.

    Raises:
      ValueError: If the text is no value of this kind.
    """
    if text is None:
        if not isinstance(default, bool):
            raise ValueError(f"--config.{name} needs a value: --config.{name}=...")
        return True
    try:
        return _value(text, default)
    except OverflowError as error:
        raise ValueError(f"--config.{name}={text} is too large; give a smaller number.") from error
    except ValueError as error:
        raise ValueError(f"--config.{name}={text} {error}") from error


def _value_of(match, words):
    """Returns the value of a matched flag, which may be the next word."""
    negated, name, value = match.groups()
    if negated:
        if value is not None:
            raise ValueError(f"{match[0]}: --noconfig.{name} takes no value.")
        return "false"
    if value is None and words and not _FLAG.match(words[0]):
        return words.popleft()
    return value


def _has_separate_value(word):
    """Returns whether a word is another flag whose value is the next word."""
    name = word.lstrip("-")
    return word.startswith("-") and name in flags.FLAGS and not flags.FLAGS[name].boolean


def _check_distinct(names):
    """Checks that no field is given twice, by itself or within its group."""
    for name, count in collections.Counter(names).items():
        if count > 1:
            raise ValueError(f"--config.{name} is given twice; give it once.")
        within = [other for other in names if other.startswith(f"{name}.")]
        if within:
            raise ValueError(f"--config.{name} and --config.{within[0]} overlap; give one of them.")


def _field(holder, part, name):
    """Returns a field of a group. The error for a missing one suggests a similar name."""
    if part in holder:
        try:
            return holder[part]
        except config_dict.RequiredValueError:
            return None
    fields = [str(field) for field in holder]
    close = difflib.get_close_matches(part, fields, n=1, cutoff=0.75)
    hint = f'Did you mean "{close[0]}"?' if close else f"There are {', '.join(fields)}."
    raise ValueError(f"--config.{name}: the config has no such field: {part!r}. {hint}")


def _example(holder, name):
    """Returns a value of the type that an empty field requires, or None if it accepts any."""
    try:
        kind = holder.get_type(name)
    except config_dict.RequiredValueError:
        kind = holder.get_ref(name).get_type()
    return kind() if kind in (*config_json.PLAIN, *config_json.LISTS) else None


def _group(name, text):
    """Returns the fields of a group that a dictionary gives."""
    try:
        fields = ast.literal_eval(text or "")
    except (SyntaxError, ValueError):
        fields = None
    if not isinstance(fields, dict):
        raise ValueError(
            f"--config.{name}={text or ''} must be a dictionary, as config.{name} is a group; set "
            f"one field with --config.{name}.FIELD=..."
        )
    return [
        (f"{name}.{key}", value if isinstance(value, str) else repr(value))
        for key, value in fields.items()
    ]


def _value(text, like):
    """Reads a value of the same kind as another."""
    if like is None:
        return _any(text)
    if isinstance(like, config_json.LISTS):
        return type(like)(_list(text, tuple(like)))
    if isinstance(like, bool):
        if text.strip().lower() not in _BOOLS:
            raise ValueError("must be true or false.")
        return _BOOLS[text.strip().lower()]
    if config_json.is_text(like):
        return config_json.from_text(text, like)
    if isinstance(like, int):
        return _integer(text)
    if isinstance(like, float):
        return float(_number(text))
    if isinstance(like, str):
        return text
    raise ValueError(f"cannot be given here, as it is {like!r:.80}: change the experiment's file.")


def _any(text):
    """Reads a value of any kind: a number, a constant, a list or a word."""
    with contextlib.suppress(ValueError):
        return _number(text)
    if text.strip() in _CONSTANTS:
        return _CONSTANTS[text.strip()]
    if _is_list(text) or len(_parts(text)) > 1:
        return tuple(_list(text, ()))
    return _unquoted(text)


def _list(text, like):
    """Reads the elements of a list. A single value is a list, too."""
    if not text.strip():
        raise ValueError("is empty; give values, such as 0,1.")
    words = bool(like) and all(isinstance(value, str) for value in like)
    if not words:
        text = _unquoted(text)
    elements = []
    for part in _parts(text):
        if not part:
            raise ValueError("must have a value between two commas.")
        call = None if words else re.fullmatch(r"range\((.*)\)", part)
        if call:
            elements += _range(call[1])
        else:
            elements.append(_element(part, like))
    return elements


def _element(text, like):
    """Reads an element of a list whose default has the elements `like`."""
    kinds = {type(value) for value in like}
    if kinds and kinds <= {int, float}:
        return _number(text)
    if len(kinds) != 1 or like[0] is None:
        return _any(text)
    if isinstance(like[0], Mapping):
        raise ValueError("cannot be given here: change the experiment's file.")
    if isinstance(like[0], config_json.LISTS):
        if not _is_list(text):
            raise ValueError(f"must hold lists, such as {like[0]!r}, but {text} is no list.")
        return _value(text, like[0])
    return _value(_unquoted(text), like[0])


def _parts(text):
    """Splits a list at its commas, but for commas within brackets or quotes."""
    text = text.strip()
    node = _parsed(text)
    if node is None:  # words that are no Python
        if text[:1] + text[-1:] in ("()", "[]"):
            text = text[1:-1]
        return [part.strip() for part in text.split(",")]
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return [ast.get_source_segment(text, element) for element in node.elts]
    return [text]


def _is_list(text):
    """Returns whether a text is a list in brackets, or a range."""
    node = _parsed(text)
    if isinstance(node, ast.Call):
        return getattr(node.func, "id", None) == "range"
    return isinstance(node, ast.Tuple | ast.List | ast.Set) and text.strip()[0] in "([{"


def _parsed(text):
    """Returns a text as a Python expression, or None if it is none."""
    with contextlib.suppress(SyntaxError, ValueError, RecursionError):
        return ast.parse(text.strip(), mode="eval").body
    return None


def _unquoted(text):
    node = _parsed(text)
    quoted = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return node.value if quoted else text.strip()


def _range(text):
    numbers = [_integer(part) for part in _parts(text) if part]
    if not 1 <= len(numbers) <= 3 or numbers[2:] == [0]:
        raise ValueError("must have ranges such as range(3) or range(0, 10, 2).")
    return list(range(*numbers))


def _integer(text):
    number = _number(text)
    if not isinstance(number, int):
        raise ValueError("must be a whole number (int), such as 64 or 2^6.")
    return number


def _number(text):
    """Reads a number as people and tables write it: 0.5, 1e-3, 2^-3, 2**-3, 1/3."""
    text = text.strip().replace("\N{MINUS SIGN}", "-")
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    try:
        return _evaluated(ast.parse(text.replace("^", "**"), mode="eval").body)
    except (SyntaxError, ValueError, ArithmeticError, RecursionError):
        raise ValueError("must be a number (float or int), such as 0.5, 1e-3 or 2^-3.") from None


def _evaluated(node):
    """Computes an expression of numbers."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_evaluated(node.operand)
    if not isinstance(node, ast.BinOp) or type(node.op) not in _OPERATORS:
        raise ValueError
    left, right = _evaluated(node.left), _evaluated(node.right)
    if isinstance(node.op, ast.Pow):
        bits = left.bit_length() if isinstance(left, int) else 1
        if bits * abs(right) > _MAX_POWER_BITS:
            raise ValueError
    value = _OPERATORS[type(node.op)](left, right)
    if isinstance(value, complex):
        raise ValueError
    return value
