"""How a sweep keeps the config of its experiment: as JSON, in `sweep.json`.

Ranges, arrays and NumPy's numbers are tuples and Python's numbers from the beginning. Paths, dates
and members of enumerations are held as text. Fields of other kinds, such as dtypes and functions,
are held by name, and the experiment's file says again what they are.
"""

import contextlib
import datetime
import enum
import json
import math
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np
from ml_collections import config_dict

LISTS = (tuple, list, set, frozenset)
PLAIN = (bool, int, float, str)
_TEXTS = (enum.Enum, pathlib.PurePath, datetime.date, datetime.time)


def plain(value: Any) -> Any:
    """Returns ranges and arrays as tuples, and NumPy's numbers as Python's; others as they are."""
    if isinstance(value, range):
        return tuple(value)
    if isinstance(value, np.generic | np.ndarray | jax.Array):
        with contextlib.suppress(TypeError, ValueError):  # of keys
            return _tuples(np.asarray(value).tolist())
    if type(value) in LISTS:
        return type(value)(map(plain, value))
    return value


def make_plain(config: ml_collections.ConfigDict, group: str = "") -> None:
    """Makes every field of a config `plain`.

    Args:
      config: Is changed.
      group: Name of the config where it is a group of another, with a dot at its end.

    Raises:
      ValueError: If a required field has no value.
    """
    for name in config:
        try:
            value = config[name]
        except config_dict.RequiredValueError:
            raise ValueError(f"--config.{group}{name}=... must be given.") from None
        if isinstance(value, ml_collections.ConfigDict):
            make_plain(value, f"{group}{name}.")
        elif (simple := plain(value)) is not value:
            with config.ignore_type():
                config[name] = simple


def dump(config: ml_collections.ConfigDict) -> str:
    """Returns a config as JSON."""
    return json.dumps(_stored(config))


def restore(config: ml_collections.ConfigDict, text: str) -> None:
    """Sets the fields of a config to what `dump` kept.

    Args:
      config: As the experiment's file gives it.
      text: What `dump` returned.

    Raises:
      KeyError: If the config lacks a field.
      TypeError, ValueError: If a field is of another kind.
    """
    _restore(config, json.loads(text), "config")


def check_kept(config: ml_collections.ConfigDict, fresh: ml_collections.ConfigDict) -> None:
    """Checks that `restore` makes of a fresh config what `dump` was given.

    Raises:
      ValueError: If it does not, naming the field.
    """
    name = "config"
    try:
        restore(fresh, dump(config))
        make_plain(fresh)
        name = _difference(config, fresh, "config")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"The config cannot be kept in sweep.json ({' '.join(str(error).split())}); make its "
            "fields numbers, words, or tuples of them."
        ) from error
    if name:
        raise ValueError(
            f"{name} cannot be kept in sweep.json, as it is read back as another value; make it a "
            "number, a word, or a tuple of them."
        )


def is_text(value: Any) -> bool:
    """Returns whether a value is of a kind that is held as text."""
    return isinstance(value, _TEXTS)


def from_text(text: str, like: Any) -> Any:
    """Reads a value that `is_text`, of the same kind as another.

    Raises:
      ValueError: If the text is none.
    """
    if isinstance(like, enum.Enum):
        if text not in type(like).__members__:
            raise ValueError(f"must be one of {', '.join(type(like).__members__)}.")
        return type(like)[text]
    if isinstance(like, pathlib.PurePath):
        return type(like)(text)
    return type(like).fromisoformat(text)


def _tuples(value):
    """Returns lists within lists as tuples."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _stored(value):
    """Returns a value as JSON holds it."""
    value = plain(value)
    if isinstance(value, ml_collections.ConfigDict | dict):
        return {name: _stored(value[name]) for name in value}
    if type(value) in LISTS:
        items = list(map(_stored, value))
        return sorted(items, key=repr) if isinstance(value, set | frozenset) else items
    if isinstance(value, enum.Enum):
        return value.name
    if value is None or isinstance(value, PLAIN):
        return value
    if is_text(value):
        return str(value) if isinstance(value, pathlib.PurePath) else value.isoformat()
    if isinstance(value, type) or callable(value):
        named = getattr(value, "__qualname__", None)
        return f"{value.__module__}.{named}" if named else repr(value)
    return repr(value)


def _restore(holder, stored, name):
    """Sets the fields of a group."""
    for key, value in stored.items():
        where = f"{name}.{key}"
        if key not in holder:
            raise KeyError(f"{where} is not there any more")
        default = _default(holder, key)
        if isinstance(default, ml_collections.ConfigDict):
            if not isinstance(value, dict):
                raise TypeError(f"{where} was {value!r:.80}")
            _restore(default, value, where)
        elif (found := _restored(default, value, where)) is not default:
            with holder.ignore_type():
                holder[key] = found


def _default(holder, key):
    try:
        return plain(holder[key])
    except config_dict.RequiredValueError:
        return None


def _restored(default, stored, name):
    """Returns a value that JSON held, of the kind of the default; else the default."""
    if default is None or stored is None:
        return _tuples(stored)
    if is_text(default):
        return from_text(stored, default)
    if isinstance(default, PLAIN):
        numbers = isinstance(default, int | float) and isinstance(stored, int | float)
        if not (numbers or isinstance(stored, type(default))):
            raise TypeError(f"{name} was {stored!r:.80}")
        return float(stored) if isinstance(default, float) else stored
    if type(default) in LISTS:
        if not isinstance(stored, list):
            raise TypeError(f"{name} was {stored!r:.80}")
        likes = list(default)
        likes += (likes[:1] or [None]) * len(stored)
        pairs = zip(likes, stored, strict=False)
        return type(default)(_restored_element(like, value, name) for like, value in pairs)
    return default


def _restored_element(like, stored, name):
    """Returns an element of a list, in which numbers and words may be mixed."""
    simple = isinstance(like, PLAIN) and not is_text(like)
    return _tuples(stored) if simple else _restored(like, stored, name)


def _difference(one, other, name):
    """Returns the name of a field that differs, or None; of kinds held by name none does."""
    if isinstance(one, ml_collections.ConfigDict):
        for key in one:
            if found := _difference(plain(one[key]), plain(other[key]), f"{name}.{key}"):
                return found
        return None
    if type(one) in (tuple, list):
        alike = type(one) is type(other) and len(one) == len(other)
        pairs = zip(one, other, strict=True) if alike else ()
        return name if not alike or any(_difference(a, b, name) for a, b in pairs) else None
    if isinstance(one, float) and math.isnan(one):
        return None if isinstance(other, float) and math.isnan(other) else name
    if one is None or is_text(one) or isinstance(one, (*PLAIN, set, frozenset, dict)):
        return None if type(one) is type(other) and one == other else name
    return None
