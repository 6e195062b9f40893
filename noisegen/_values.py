"""Values of a run's fields: finite numbers, booleans and words, as plain Python values."""

import math
import numbers

import numpy as np

Value = int | float | bool | str

EXACT = 2**53  # Below it a float holds every integer.


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
    return int(value) if value.is_integer() and abs(value) < EXACT else value


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
    if type(value) is int and abs(value) >= EXACT:
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
