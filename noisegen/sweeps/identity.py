"""The identity of a run: a hash of what is trained and of the run's own fields, nothing else.

>>> from noisegen import sweeps
>>> sweeps.run_id("digits/mlp", {"batch_size": 64, "learning_rate": 0.5})
'4a7cb0136c13acce'
"""

import collections
import hashlib
import json
import math
import numbers
import struct
from collections.abc import Iterable, Mapping

import numpy as np

Value = int | float | bool | str

_INTEGERS = ("batch_size", "seed", "num_updates")  # integers on the device; others are float32
_EXACT = 2**53  # Below it a float holds every integer.
_EXACT_32 = 2**24  # Likewise for float32.
_FLOAT32 = struct.Struct("f")

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def normalise(run: Mapping[str, object]) -> dict[str, Value]:
    """Returns the run with plain Python values, integral numbers as integers, in its own order.

    Args:
      run: Flat mapping from field name to a value that `plain` takes.

    Returns:
      A new dict that JSON keeps exactly.

    Raises:
      ValueError: If the run is no mapping, a name is no text, or `plain` refuses a value.

    Examples:
      >>> normalise({"batch_size": 64.0, "learning_rate": 0.1, "last_batch": "keep"})
      {'batch_size': 64, 'learning_rate': 0.1, 'last_batch': 'keep'}
    """
    if not hasattr(run, "items"):
        raise ValueError(f"a run is a mapping from field to value, got {shown(run)}.")
    normal = {  # Nearly all are plain integers; a call takes several times as long.
        name: value if type(value) is int and -_EXACT < value < _EXACT else plain(name, value)
        for name, value in run.items()
    }
    if set(map(type, normal)) - {str}:
        _check_names(normal)
    return normal


def plain(name: str, value: object) -> Value:
    """Returns a field's value as a plain Python number, boolean or word.

    Equal numbers become one: an integral number is an integer, from 2^53 on a float if a float
    holds it. A number of 32 bits or fewer becomes the float of its shortest decimal, so float32's
    0.1 is 0.1; a number of few binary digits stays exact.

    Args:
      name: Name of the field, for the message.
      value: A finite number, boolean or word: Python's, NumPy's, or an array without dimensions.

    Raises:
      ValueError: If the value is anything else.

    Examples:
      >>> plain("learning_rate", np.float32(0.1)), plain("learning_rate", np.float32(2**-20))
      (0.1, 9.5367431640625e-07)
      >>> plain("nesterov", np.bool_(True)), plain("num_updates", 1e3), plain("drop_at", 10**20)
      (True, 1000, 1e+20)
    """
    if type(value) in (bool, str):
        return value
    if type(value) is not float:
        value = _python(name, value)
        if type(value) is not float:
            return value
    if not math.isfinite(value):
        raise ValueError(
            f"run field {name} must be a finite number, got {value!r}; correct the grid."
        )
    return int(value) if value.is_integer() and abs(value) < _EXACT else value


def on_device(name: str, value: Value) -> float | str | tuple:
    """Returns what the device sees of a plain value, for comparison: numbers rounded to float32.

    Examples:
      >>> on_device("learning_rate", 0.1) == on_device("learning_rate", 0.1 + 1e-12)
      True
      >>> on_device("seed", 2**24) == on_device("seed", 2**24 + 1)
      False
    """
    if type(value) is str:
        return value
    if type(value) is bool:
        return (value,)  # Else True would equal 1.
    if type(value) is int and (abs(value) <= _EXACT_32 or name in _INTEGERS):
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
    """Returns those of a field's different values that may be equal to another on the device."""
    found = [value for value in values if type(value) in (int, float)]
    if all(type(value) is int and abs(value) <= _EXACT_32 for value in found):
        return set()
    with np.errstate(over="ignore"):
        rounded = np.array(found, float).astype(np.float32)
    _, places, counts = np.unique(rounded, return_inverse=True, return_counts=True)
    return {value for value, count in zip(found, counts[places], strict=True) if count > 1}


def run_id(task_identity: str, run: Mapping[str, object]) -> str:
    """Returns the name of a run: 16 hexadecimal digits of the SHA-256 of its canonical JSON.

    Equal numbers give equal names, in any type (64 and 64.0) and order.

    Args:
      task_identity: Text that names everything compiled: model, loss, data, augmentation.
      run: As for `normalise`.

    Raises:
      ValueError: As `normalise` does.

    Examples:
      >>> run_id("t", {"a": 1, "b": 2.5}) == run_id("t", {"b": 2.5, "a": 1.0})
      True
    """
    return _hash(task_identity, normalise(run))


def by_run_id(task_identity: str, runs: Iterable[Mapping[str, object]]) -> dict[str, dict]:
    """Returns the runs of a grid by name, each once, in the order of the grid.

    Of several runs that are equal on the device, as 0.1 and 0.1 + 1e-12 are, the first stays.

    Args:
      task_identity: As for `run_id`.
      runs: A grid, or any iterable of runs.

    Returns:
      A dict from run_id to the normalised run.

    Raises:
      ValueError: As `normalise` does.

    Examples:
      >>> list(by_run_id("t", [{"seed": 0}, {"seed": 0.0}]).values())
      [{'seed': 0}]
    """
    planned = {}
    for run in map(normalise, runs):
        planned.setdefault(_hash(task_identity, run), run)
    return _once_on_device(planned)


def _once_on_device(planned):
    """Returns the runs by name without those that are equal on the device to an earlier one."""
    columns = collections.defaultdict(set)
    for run in planned.values():
        for name, value in run.items():
            columns[name].add(value)
    close = {name: close_on_device(values) for name, values in columns.items()}
    close = {name: values for name, values in close.items() if values}
    if not close:
        return planned
    once, seen = {}, set()
    for run_name, run in planned.items():
        if any(run.get(name) in values for name, values in close.items()):
            key = frozenset((name, on_device(name, value)) for name, value in run.items())
            if key in seen:
                continue
            seen.add(key)
        once[run_name] = run
    return once


def _hash(task_identity, run):
    """Returns the run_id of a run that is already normalised."""
    text = _encode({"task": task_identity, "run": run})
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _check_names(run):
    """Checks that the names of fields are text."""
    for name in run:
        if not isinstance(name, str):
            raise ValueError(f"run field {shown(name)} must have a word for its name.")


def _python(name, value):
    """Returns a Python int, float, bool or str; a float may be infinite or nan."""
    if isinstance(value, str):
        return str.__str__(value)  # of a subclass, the text itself
    if isinstance(value, np.generic) or getattr(value, "shape", None) == ():
        value = _of_array(name, value)
    elif isinstance(value, numbers.Integral):
        value = int(value)
    elif isinstance(value, numbers.Real):
        value = _float(name, value)
    else:
        raise _refused(name, value)
    if type(value) is int and abs(value) >= _EXACT:
        rounded = _float(name, value)
        return rounded if rounded == value else value
    return value


def _of_array(name, value):
    """Returns the Python value of a NumPy scalar or an array without dimensions."""
    try:
        array = np.asarray(value)
        if array.dtype.kind in "biuU":
            return array.item()
        number = float(array) if array.dtype.kind in "fV" else None
    except (TypeError, ValueError):  # keys, tracers, records
        number = None
    if number is None:
        raise _refused(name, value)
    return _shortest(number, array) if array.itemsize <= 4 else number


def _shortest(number, array):
    """Returns the shortest decimal that the array's type rounds to `number`, if that is long."""
    few_bits = math.ldexp(math.frexp(number)[0], 2 * array.itemsize).is_integer()
    if few_bits or (number.is_integer() and abs(number) < 2**31):
        return number
    decimals = (float(f"{number:.{digits}g}") for digits in range(1, 10))
    with np.errstate(over="ignore"):  # Rounded up, the largest numbers overflow.
        return next((each for each in decimals if array.dtype.type(each) == array), number)


def _float(name, value):
    """Returns the number as a float, rounded."""
    try:
        return float(value)
    except OverflowError:
        raise ValueError(
            f"run field {name} must be a finite number, got {shown(value)}, which is beyond every"
            " float; correct the grid."
        ) from None


def _refused(name, value):
    """Makes the error for a value that is no number, boolean or word."""
    return ValueError(
        f"run field {name} must be a number, a boolean or a word, got {shown(value)}"
        f" ({type(value).__name__}); a run is flat: write float(...) of other kinds of numbers, a"
        " field for each item of a list or mapping, and leave out fields that are None."
    )


def shown(value: object) -> str:
    """Returns a value in one short line, for a message."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
