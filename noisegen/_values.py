"""Values of a run's fields as plain Python: finite numbers, booleans and words."""

import math
import numbers
from typing import Any

import numpy as np

Value = int | float | bool | str

EXACT = 2**53  # Floats hold every integer below it.

# Normal float32 numbers. Devices may flush smaller ones to zero, and cannot hold larger ones.
FLOAT32_MIN = float(np.finfo(np.float32).tiny)
FLOAT32_MAX = float(np.finfo(np.float32).max)


def plain(name: str, value: object) -> Value:
    """Converts a field's value to a plain Python number, boolean or word.

    Equal numbers become identical. Integral numbers become integers, or floats from 2^53 on if a
    float holds them exactly. A float of 32 bits or fewer becomes the float of its shortest decimal,
    so float32's 0.1 becomes 0.1. A number with few binary digits stays exact.

    Args:
      name: Name of the field, for the message.
      value: Finite number, boolean or word, of Python, NumPy, or an array without dimensions.

    Returns:
      The plain value.

    Raises:
      ValueError: If the value is of any other kind.

    Examples:
      >>> plain("learning_rate", np.float32(0.1)), plain("learning_rate", np.float32(2**-20))
      (0.1, 9.5367431640625e-07)
      >>> plain("nesterov", np.bool_(True)), plain("num_updates", 1e3), plain("drop_at", 10**20)
      (True, 1000, 1e+20)
    """
    # Bool is tested by type, because it is an integer to isinstance.
    if type(value) in (bool, str):
        return value
    if type(value) is not float:
        value = _to_python(name, value)
        if type(value) is not float:
            return value
    if not math.isfinite(value):
        raise ValueError(
            f"run field {name} must be a finite number, got {value!r}; correct the grid."
        )
    return int(value) if value.is_integer() and abs(value) < EXACT else value


def shown(value: object) -> str:
    """Returns a value in one short line, for a message."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def _to_python(name: str, value: Any) -> Value:
    """Returns a Python int, float, bool or str; a float may be infinite or NaN."""
    if isinstance(value, str):
        return str.__str__(value)  # The text of an instance of a subclass.
    if isinstance(value, np.generic) or getattr(value, "shape", None) == ():
        value = _from_array(name, value)
    elif isinstance(value, numbers.Integral):
        value = int(value)
    elif isinstance(value, numbers.Real):
        value = _to_float(name, value)
    else:
        raise _refusal(name, value)
    if type(value) is int and abs(value) >= EXACT:
        rounded = _to_float(name, value)
        return rounded if rounded == value else value
    return value


def _from_array(name: str, value: Any) -> Value:
    """Returns the Python value of a NumPy scalar or an array without dimensions."""
    try:
        array = np.asarray(value)
        if array.dtype.kind in "biuU":  # Boolean, integer, unsigned, text.
            return array.item()
        # Floats; NumPy does not know bfloat16, and gives it the kind V.
        number = float(array) if array.dtype.kind in "fV" else None
    except (TypeError, ValueError):  # Keys, tracers and records cannot be converted.
        number = None
    if number is None:
        raise _refusal(name, value)
    return _shortest(number, array) if array.itemsize <= 4 else number


def _shortest(number: float, array: np.ndarray) -> float:
    """Returns the shortest decimal that rounds to `number` in the array's type.

    Numbers with few binary digits, such as powers of two, are returned as they are.
    """
    few_bits = math.ldexp(math.frexp(number)[0], 2 * array.itemsize).is_integer()
    if few_bits or (number.is_integer() and abs(number) < 2**31):
        return number
    with np.errstate(over="ignore"):  # The largest numbers overflow when rounded up.
        for digits in range(1, 10):
            decimal = float(f"{number:.{digits}g}")
            if array.dtype.type(decimal) == array:
                return decimal
    return number


def _to_float(name: str, value: Any) -> float:
    """Returns the number as a float, rounded."""
    try:
        return float(value)
    except OverflowError:
        raise ValueError(
            f"run field {name} must be a finite number, got {shown(value)}, which is beyond every"
            " float; correct the grid."
        ) from None


def _refusal(name: str, value: Any) -> ValueError:
    """Returns the error for a value that is not a number, a boolean or a word."""
    return ValueError(
        f"run field {name} must be a number, a boolean or a word, got {shown(value)}"
        f" ({type(value).__name__}); a run is flat: write float(...) of other kinds of numbers, a"
        " field for each item of a list or mapping, and leave out fields that are None."
    )
