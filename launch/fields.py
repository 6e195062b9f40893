"""Flags that override fields of an experiment's config.

A flag `--config.NAME=VALUE` is read by the kind of the field's default. Numbers may be written as
the tables write them (`2^-3`), lists as `0.1,0.2`, `(0.1, 0.2)` or `range(3)`.
"""

import ast
import collections
import contextlib
import difflib
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_dict

from launch import kept

_FLAG = re.compile(r"--?(no)?config\.([^=]+)(?:=(.*))?", re.DOTALL)
_FILE = re.compile(r"--?config(=.*)?", re.DOTALL)
_NEXT_FLAG = re.compile(r"--?[A-Za-z]")
_BOOLS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_MOST_BITS = 10_000  # of a power; beyond it no integer fits a float, and some take forever


def take(argv: Sequence[str]) -> tuple[list[str], list[tuple[str, str | None]]]:
    """Takes the flags that override fields out of a command line.

    Args:
      argv: The command line, the program's name first.

    Returns:
      The other words, and the name and value of each overridden field; the value is None for
      `--config.NAME` alone, as switches may be given.

    Raises:
      ValueError: If a field, or the file, is given twice.
    """
    words = collections.deque(flags.FLAGS.read_flags_from_files(list(argv[1:]), force_gnu=False))
    others, given, files = [argv[0]], [], 0
    while words:
        word = words.popleft()
        if word == "--":
            others += [word, *words]
            break
        if found := _FLAG.fullmatch(word):
            given.append((found[2], _given_value(found, words)))
            continue
        if _FILE.fullmatch(word):
            files += 1
        others.append(word)
        if words and _takes_next(word):
            others.append(words.popleft())
    if files > 1:
        raise ValueError("--config is given twice; give it once.")
    _check_apart([name for name, _ in given])
    return others, given


def override(config: ml_collections.ConfigDict, given: Iterable[tuple[str, str | None]]) -> None:
    """Sets the fields of a config that the command line gives.

    Args:
      config: Every field, with its default.
      given: As `take` returns them.

    Raises:
      ValueError: If there is no such field, or the value is none of its kind.
    """
    for name, text in given:
        *above, last = name.split(".")
        holder = config
        for index, part in enumerate(above):
            holder = _field(holder, part, name)
            if not isinstance(holder, ml_collections.ConfigDict):
                shown = ".".join(above[: index + 1])
                raise ValueError(f"--config.{name}: config.{shown} is {holder!r:.80}, no group.")
        default = _field(holder, last, name)
        if isinstance(default, ml_collections.ConfigDict):
            override(config, _group(name, text))
            continue
        if default is None and text not in ("None", "none"):
            default = _of_type(_type(holder, last))
        value = parse(name, text, kept.plain(default))
        with holder.ignore_type():  # as the value is of the right kind
            holder[last] = value


def parse(name: str, text: str | None, default: Any) -> Any:
    """Reads the value of a flag.

    Args:
      name: Of the field.
      text: What the command line gives.
      default: Of the field; the value must be of its kind; None accepts any.

    Raises:
      ValueError: If the text is no value of this kind.
    """
    if text is None:
        if not isinstance(default, bool):
            raise ValueError(f"--config.{name} needs a value: --config.{name}=...")
        return True
    try:
        if isinstance(default, kept.LISTS):
            return type(default)(_list(text, tuple(default)))
        return _free(text) if default is None else _scalar(text, default)
    except OverflowError as error:
        raise ValueError(f"--config.{name}={text} is too large; give a smaller number.") from error
    except ValueError as error:
        raise ValueError(f"--config.{name}={text} {error}") from error


def _given_value(found, words):
    """Returns the value of a flag, which may be the next word."""
    if found[1]:
        if found[3] is not None:
            raise ValueError(f"{found[0]}: --noconfig.{found[2]} takes no value.")
        return "false"
    if found[3] is None and words and not _NEXT_FLAG.match(words[0]):
        return words.popleft()
    return found[3]


def _takes_next(word):
    """Returns whether this is another flag whose value is the next word."""
    name = word.lstrip("-")
    return word.startswith("-") and name in flags.FLAGS and not flags.FLAGS[name].boolean


def _check_apart(names):
    """Checks that no field is given twice, by itself or within its group."""
    for name, count in collections.Counter(names).items():
        if count > 1:
            raise ValueError(f"--config.{name} is given twice; give it once.")
        if within := [other for other in names if other.startswith(f"{name}.")]:
            raise ValueError(f"--config.{name} and --config.{within[0]} overlap; give one of them.")


def _field(holder, part, name):
    """Returns a field of a group; the error for a missing one suggests a similar name."""
    if part in holder:
        try:
            return holder[part]
        except config_dict.RequiredValueError:
            return None
    close = difflib.get_close_matches(part, list(map(str, holder)), 1, 0.75)
    known = f'Did you mean "{close[0]}"?' if close else f"There are {', '.join(map(str, holder))}."
    raise ValueError(f"--config.{name}: the config has no such field: {part!r}. {known}")


def _type(holder, name):
    """Returns the type that an empty field takes."""
    try:
        return holder.get_type(name)
    except config_dict.RequiredValueError:
        return holder.get_ref(name).get_type()


def _group(name, text):
    """Returns the fields that a dictionary gives, as flags of their own."""
    try:
        found = ast.literal_eval(text or "")
    except (SyntaxError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise ValueError(
            f"--config.{name}={text or ''} must be a dictionary, as config.{name} is a group; set "
            f"one field with --config.{name}.FIELD=..."
        )
    texts = {key: value if isinstance(value, str) else repr(value) for key, value in found.items()}
    return [(f"{name}.{key}", value) for key, value in texts.items()]


def _of_type(kind):
    """Returns a value like those that an empty field takes; None for any."""
    return kind() if kind in (*kept.PLAIN, *kept.LISTS) else None


def _scalar(text, like):
    """Reads a value of the same kind as another."""
    if isinstance(like, bool):
        if text.strip().lower() not in _BOOLS:
            raise ValueError("must be true or false.")
        return _BOOLS[text.strip().lower()]
    if kept.is_text(like):
        return kept.from_text(text, like)
    if isinstance(like, int):
        return _whole(text)
    if isinstance(like, float):
        return float(_number(text))
    if isinstance(like, str):
        return text
    raise ValueError(f"cannot be given here, as it is {like!r:.80}: change the experiment's file.")


def _free(text):
    """Reads a value of any kind."""
    with contextlib.suppress(ValueError):
        return _number(text)
    text = text.strip()
    words = {"None": None, "none": None, "True": True, "true": True, "False": False, "false": False}
    if text in words:
        return words[text]
    within = text[:1] in _CLOSING and _closes(text)
    if within or re.match(r"range\(", text) or len(_split(text)) > 1:
        return tuple(_list(text, ()))
    return _unquoted(text)


def _list(text, like):
    """Reads a list whose elements are like those of another; a single value is a list, too."""
    inner = text.strip()
    if not inner:
        raise ValueError("is empty; give values, such as 0,1.")
    if not _is_words(like) and _unquoted(inner) != inner and len(_split(inner)) == 1:
        inner = _unquoted(inner)
    if inner[0] in _CLOSING and _closes(inner):
        inner = inner[1:-1]
    parts = [part.strip() for part in _split(inner)]
    if parts[-1] == "":  # after the last comma
        parts.pop()
    if "" in parts:
        raise ValueError("has nothing between two commas.")
    found = []
    for part in parts:
        called = None if _is_words(like) else re.fullmatch(r"range\((.*)\)", part)
        found += _range(called[1]) if called else [_element(part, like)]
    return found


def _element(text, like):
    """Reads an element of a list."""
    kinds = {type(value) for value in like}
    if like and kinds <= {int, float}:
        return _number(text)
    if len(kinds) != 1:
        return _free(text)
    if isinstance(like[0], kept.LISTS):
        if not (text[0] in _CLOSING and _closes(text)):
            raise ValueError(f"must hold lists, such as {like[0]!r}, but {text} is none.")
        return type(like[0])(_list(text, tuple(like[0])))
    if isinstance(like[0], Mapping):
        raise ValueError("cannot be given here: change the experiment's file.")
    return _free(text) if like[0] is None else _scalar(_unquoted(text), like[0])


def _is_words(like):
    return bool(like) and all(isinstance(value, str) for value in like)


def _split(text):
    """Splits at the commas that are within no brackets and quotes."""
    parts, closing, quote, start = [], [], "", 0
    for index, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"" and not text[start:index].strip("([{ "):
            quote = letter
        elif letter in _CLOSING:
            closing.append(_CLOSING[letter])
        elif closing and letter == closing[-1]:
            closing.pop()
        elif letter in ")]}":
            raise ValueError(f"has a {letter} that closes nothing.")
        elif letter == "," and not closing:
            parts.append(text[start:index])
            start = index + 1
    if closing or quote:
        raise ValueError(f"lacks a {closing[-1] if closing else quote}.")
    return [*parts, text[start:]]


def _closes(text):
    """Returns whether the bracket at the beginning is closed at the end."""
    if text[-1] != _CLOSING[text[0]]:
        return False
    with contextlib.suppress(ValueError):
        _split(text[1:-1])
        return True
    return False


def _unquoted(text):
    text = text.strip()
    quoted = len(text) > 1 and text[0] in "'\"" and text.find(text[0], 1) == len(text) - 1
    return text[1:-1] if quoted else text


def _range(text):
    numbers = [_whole(part) for part in _split(text)] if text.strip() else []
    if not (0 < len(numbers) < 4 and numbers[2:] != [0]):
        raise ValueError("must have ranges such as range(3) or range(0, 10, 2).")
    return list(range(*numbers))


def _whole(text):
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
    if not (isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS):
        raise ValueError
    left, right = _evaluated(node.left), _evaluated(node.right)
    if isinstance(node.op, ast.Pow):
        bits = left.bit_length() if isinstance(left, int) else 1
        if bits * abs(right) > _MOST_BITS:
            raise ValueError
    value = _OPERATORS[type(node.op)](left, right)
    if isinstance(value, complex):
        raise ValueError
    return value
