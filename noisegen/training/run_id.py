"""Identifies a run by a hash of its task's name and its hyperparameters.

>>> run_id("digits/mlp", {"batch_size": 64, "learning_rate": 0.5})
'4a7cb0136c13acce'
"""

import collections
import hashlib
import json
import struct
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from noisegen import _values
from noisegen._values import plain, shown

Value = _values.Value

# Fields that the device counts with, as int32. Above 2**24, float32 would skip integers.
INTEGERS = frozenset({"batch_size", "seed", "num_updates", "num_examples"})

_EXACT = _values.EXACT
_EXACT_32 = 2**24  # Up to it a float32 holds every integer.
_FLOAT32 = struct.Struct("f")  # For a single number twice as fast as np.float32.

# The text that is hashed. Any change to it changes the id of every run, and with it orphans all
# records on disk. Made once, because json.dumps makes an encoder at every call.
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def canonicalize(
    run: Mapping[str, object], convert: Callable[[str, object], Value] = plain
) -> dict[str, Value]:
    """Returns the run with plain Python values, integral numbers as integers, in its own order.

    Args:
      run: Flat mapping from field name to a value that `plain` takes.
      convert: Converts a value that is not a plain small integer, given its field's name.

    Returns:
      A new dict that JSON keeps exactly.

    Raises:
      ValueError: If the run is no mapping, a name is no text, or `plain` refuses a value.

    Examples:
      >>> canonicalize({"batch_size": 64.0, "learning_rate": 0.1, "last_batch": "keep"})
      {'batch_size': 64, 'learning_rate': 0.1, 'last_batch': 'keep'}
    """
    check_is_mapping(run)
    canonical = {}
    for name, value in run.items():
        # Small integers need no conversion, whose call takes several times as long.
        if type(value) is not int or not -_EXACT < value < _EXACT:
            value = convert(name, value)
        canonical[name] = value
    if set(map(type, canonical)) - {str}:
        _check_names(canonical)
    return canonical


def check_is_mapping(run: object) -> None:
    """Checks that a run is a mapping.

    Raises:
      ValueError: If it is not.
    """
    if not hasattr(run, "items"):
        raise ValueError(f"a run is a mapping from field to value, got {shown(run)}.")


def on_device(name: str, value: Value) -> float | str | tuple:
    """Returns a plain value as the device sees it, for comparison: numbers rounded to float32.

    Examples:
      >>> on_device("learning_rate", 0.1) == on_device("learning_rate", 0.1 + 1e-12)
      True
      >>> on_device("seed", 2**24) == on_device("seed", 2**24 + 1)
      False
    """
    if type(value) is str:
        return value
    if type(value) is bool:
        return (value,)  # A bare True would equal 1.
    if type(value) is int and (abs(value) <= _EXACT_32 or name in INTEGERS):
        return value
    return rounded(value)


def rounded(value: float) -> float:
    """Returns a number rounded to float32.

    Examples:
      >>> rounded(0.1), rounded(0.5)
      (0.10000000149011612, 0.5)
    """
    try:
        return _FLOAT32.unpack(_FLOAT32.pack(value))[0]
    except OverflowError:  # The planner refuses it.
        return value


def close_on_device(values: Iterable[Value]) -> set[Value]:
    """Returns the values of a field that may be equal to a different value on the device."""
    # Booleans and words are constants of the program, where they stay what they are.
    numbers = [value for value in values if type(value) in (int, float)]
    if all(type(value) is int and abs(value) <= _EXACT_32 for value in numbers):
        return set()
    with np.errstate(over="ignore"):  # The planner refuses values beyond float32.
        on_device = np.array(numbers, float).astype(np.float32)
    _, indices, counts = np.unique(on_device, return_inverse=True, return_counts=True)
    return {value for value, count in zip(numbers, counts[indices], strict=True) if count > 1}


def run_id(task_name: str, run: Mapping[str, object]) -> str:
    """Returns the id of a run: 16 hexadecimal digits of the SHA-256 of its canonical JSON.

    Equal numbers give equal ids, in any type (64 and 64.0) and order.

    Args:
      task_name: Name of all that is compiled: model, loss, data, augmentation.
      run: As for `canonicalize`.

    Raises:
      ValueError: As `canonicalize` does.

    Examples:
      >>> run_id("t", {"a": 1, "b": 2.5}) == run_id("t", {"b": 2.5, "a": 1.0})
      True
    """
    return hash_canonical(task_name, canonicalize(run))


def by_run_id(task_name: str, runs: Iterable[Mapping[str, object]]) -> dict[str, dict]:
    """Returns the runs of a grid by run_id, each once, in the order of the grid.

    Of several runs that are equal on the device, as 0.1 and 0.1 + 1e-12 are, the first stays.

    Args:
      task_name: As for `run_id`.
      runs: A grid, or any iterable of runs.

    Returns:
      A dict from run_id to the canonical run.

    Raises:
      ValueError: As `canonicalize` does.

    Examples:
      >>> list(by_run_id("t", [{"seed": 0}, {"seed": 0.0}]).values())
      [{'seed': 0}]
    """
    planned = {}
    for run in map(canonicalize, runs):
        planned.setdefault(hash_canonical(task_name, run), run)
    return once_on_device(planned)


def once_on_device(planned: Mapping[str, Mapping[str, Value]]) -> Mapping[str, Mapping[str, Value]]:
    """Returns canonical runs by run_id, without runs equal on the device to an earlier one."""
    # Only a few values of a large grid are close, so most runs need no comparison.
    columns = collections.defaultdict(set)
    for run in planned.values():
        for name, value in run.items():
            columns[name].add(value)
    close = {}
    for name, values in columns.items():
        close_values = close_on_device(values)
        if close_values:
            close[name] = close_values
    if not close:
        return planned
    once = {}
    seen = set()
    for run_name, run in planned.items():
        # A run without a close value equals no other, so only these need a key.
        if any(run.get(name) in values for name, values in close.items()):
            key = frozenset((name, on_device(name, value)) for name, value in run.items())
            if key in seen:
                continue
            seen.add(key)
        once[run_name] = run
    return once


def hash_canonical(task_name: str, run: Mapping[str, Value]) -> str:
    """Returns the run_id of a run that is already canonical."""
    text = _encode({"task": task_name, "run": run})
    # 64 bits: among a million runs, two share an id with a probability of 3e-8.
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _check_names(run: Mapping[object, Value]) -> None:
    """Checks that the names of fields are text."""
    for name in run:
        if not isinstance(name, str):
            raise ValueError(f"run field {shown(name)} must have a word for its name.")
