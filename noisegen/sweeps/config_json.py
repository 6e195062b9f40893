"""Converts the config of an experiment to JSON and back, for `sweep.json`.

Ranges, arrays and NumPy numbers are made tuples and Python numbers from the start. Paths, dates and
enumeration members are stored as text. Values of other types, such as dtypes and functions, are
stored by name for readers only, and restored from the experiment's file.
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
_TEXTS = (enum.Enum, pathlib.PurePath, datetime.date, datetime.time)  # Stored as text.


def plain(value: Any) -> Any:
    """Returns ranges and arrays as tuples, and NumPy numbers as Python numbers."""
    if isinstance(value, range):
        return tuple(value)
    if isinstance(value, np.generic | np.ndarray | jax.Array):
        with contextlib.suppress(TypeError, ValueError):  # Random keys have no such form.
            return _tuples(np.asarray(value).tolist())
    if type(value) in LISTS:
        return type(value)(map(plain, value))
    return value


def make_plain(config: ml_collections.ConfigDict, group: str = "") -> None:
    """Makes every field of a config `plain`.

    Args:
      config: The config, which is changed in place.
      group: Name of the config within another, with a dot at its end.

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
            continue
        simple = plain(value)
        if simple is not value:  # Else the field is left alone, as it may refer to another field.
            with config.ignore_type():
                config[name] = simple


def dump(config: ml_collections.ConfigDict) -> str:
    """Returns a config as JSON."""
    return json.dumps(_stored(config))


def restore(config: ml_collections.ConfigDict, text: str) -> None:
    """Sets the fields of a config to stored values.

    Args:
      config: The default config of the experiment's file, which is changed in place.
      text: JSON that `dump` returned.

    Raises:
      KeyError: If the config lacks a field.
      TypeError, ValueError: If a field is of another type.
    """
    _restore(config, json.loads(text), "config")


def check_kept(config: ml_collections.ConfigDict, fresh: ml_collections.ConfigDict) -> None:
    """Checks that a config survives `dump` and `restore`.

    Args:
      config: The config.
      fresh: The default config of the experiment's file, which is changed in place.

    Raises:
      ValueError: If a field is restored as another value.
    """
    try:
        restore(fresh, dump(config))
        make_plain(fresh)
        name = _find_difference(config, fresh, "config")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"The config cannot be kept in sweep.json ({' '.join(str(error).split())}); make its "
            "fields numbers, words, or tuples of them."
        ) from error
    if name is not None:
        raise ValueError(
            f"{name} cannot be kept in sweep.json, since another value is read back; make it a "
            "number, a word, or a tuple of them."
        )


def is_text(value: Any) -> bool:
    """Returns whether a value is of a type that is stored as text."""
    return isinstance(value, _TEXTS)


def from_text(text: str, like: Any) -> Any:
    """Reads a value that is stored as text.

    Args:
      text: The text.
      like: A value of the same type.

    Raises:
      ValueError: If the text is not a value of this type.
    """
    if isinstance(like, enum.Enum):
        if text not in type(like).__members__:
            raise ValueError(f"must be one of {', '.join(type(like).__members__)}.")
        return type(like)[text]
    if isinstance(like, pathlib.PurePath):
        return type(like)(text)
    return type(like).fromisoformat(text)


def _tuples(value):
    """Returns lists, and lists within them, as tuples."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _stored(value):
    """Returns a value as JSON can hold it."""
    value = plain(value)
    if isinstance(value, ml_collections.ConfigDict | dict):
        return {name: _stored(value[name]) for name in value}
    if type(value) in (set, frozenset):
        return sorted(map(_stored, value), key=repr)
    if type(value) in LISTS:
        return list(map(_stored, value))
    if isinstance(value, enum.Enum):
        return value.name
    if value is None or isinstance(value, PLAIN):
        return value
    if isinstance(value, pathlib.PurePath):
        return str(value)
    if is_text(value):  # Dates and times.
        return value.isoformat()
    return _describe(value)


def _describe(value) -> str:
    """Returns a text for a value that is not restored from JSON."""
    name = getattr(value, "__qualname__", None)
    if name and (isinstance(value, type) or callable(value)):
        return f"{value.__module__}.{name}"
    return repr(value)


def _restore(config, stored, group) -> None:
    """Sets the fields of a config, or of a group in it, to stored values."""
    for name, value in stored.items():
        full_name = f"{group}.{name}"
        if name not in config:
            raise KeyError(f"{full_name} is not there any more")
        default = _default(config, name)
        if isinstance(default, ml_collections.ConfigDict):
            _check_type(value, dict, full_name)
            _restore(default, value, full_name)
            continue
        restored = _restored(default, value, full_name)
        if restored is not default:
            with config.ignore_type():
                config[name] = restored


def _default(config, name):
    """Returns a field's default as a plain value, None if the field is required."""
    try:
        return plain(config[name])
    except config_dict.RequiredValueError:
        return None


def _restored(default, stored, name):
    """Returns a stored value in the type of its default."""
    if default is None or stored is None:
        return _tuples(stored)
    if is_text(default):
        return from_text(stored, default)
    if isinstance(default, int | float) and isinstance(stored, int | float):
        return float(stored) if isinstance(default, float) else stored
    if isinstance(default, PLAIN):
        _check_type(stored, type(default), name)
        return stored
    if type(default) in LISTS:
        _check_type(stored, list, name)
        return _restored_list(default, stored, name)
    return default  # Stored by name only.


def _restored_list(default, stored, name):
    """Returns a stored list, tuple or set, in the type of its default."""
    defaults = list(default)
    # Further items are like the first default, or plain if there is none.
    further = defaults[0] if defaults else None
    items = []
    for index, value in enumerate(stored):
        like = defaults[index] if index < len(defaults) else further
        # Numbers and words may be mixed in a list.
        if isinstance(like, PLAIN) and not is_text(like):
            items.append(_tuples(value))
        else:
            items.append(_restored(like, value, name))
    return type(default)(items)


def _check_type(stored, kind, name) -> None:
    """Checks the type of a stored value."""
    if not isinstance(stored, kind):
        raise TypeError(f"{name} was {stored!r:.80}")


def _find_difference(one, other, name) -> str | None:
    """Returns the name of a field that differs, or None. Values stored by name are not compared."""
    if isinstance(one, ml_collections.ConfigDict):
        for key in one:
            difference = _find_difference(plain(one[key]), plain(other[key]), f"{name}.{key}")
            if difference is not None:
                return difference
        return None
    return None if _are_equal(one, other) else name


def _are_equal(one, other) -> bool:
    """Returns whether two values are of the same type and equal, as far as they are restored."""
    if type(one) in (tuple, list):
        if type(one) is not type(other) or len(one) != len(other):
            return False
        pairs = zip(one, other, strict=True)
        return all(_find_difference(first, second, "") is None for first, second in pairs)
    if isinstance(one, float) and math.isnan(one):
        return isinstance(other, float) and math.isnan(other)
    if one is None or is_text(one) or isinstance(one, (*PLAIN, set, frozenset, dict)):
        return type(one) is type(other) and one == other
    return True  # Stored by name only.
