"""Checks at the boundary: Python and NumPy numbers are checked, whatever JAX may trace passes.

Each check takes its values by name, so that the message can name the culprit, and returns them as
numbers to calculate with. Python's and NumPy's become Python floats (float64 arrays): no unsigned
number wraps around, no small integer or float16 overflows, and JAX takes them for weakly typed.
JAX's keep their type, but are at least float32, and integers become weakly typed floats.

>>> learning_rate, batch_size = positive(learning_rate=0.1, batch_size=64)
>>> batch_size
64.0
>>> positive(learning_rate=-0.1)
Traceback (most recent call last):
  ...
ValueError: learning_rate must be a finite number > 0, but it is -0.1.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def positive(**values: Any) -> list[Any]:
    """Checks that every value is a finite number above zero, or a schedule."""
    return _check("a finite number > 0", lambda v: (v > 0) & (v < np.inf), values, schedules=True)


def non_negative(**values: Any) -> list[Any]:
    """Checks that every value is a finite number, zero or above, or a schedule."""
    return _check("a finite number >= 0", lambda v: (v >= 0) & (v < np.inf), values, schedules=True)


def in_range(low: float, high: float, **values: Any) -> list[Any]:
    """Checks that every value lies in the half-open interval [low, high)."""
    return _check(f"a number in [{low}, {high})", lambda v: (v >= low) & (v < high), values)


def at_least(low: float, **values: Any) -> list[Any]:
    """Checks that every value is a number of `low` or more, or infinite."""
    shown = int(low) if low % 1 == 0 else low
    return _check(f"a number >= {shown}", lambda v: v >= low, values)


def fraction(**values: Any) -> list[Any]:
    """Checks that every value lies in the closed interval from 0 to 1."""
    return _check("a number from 0 to 1", lambda v: (v >= 0) & (v <= 1), values)


def multiplier(**values: Any) -> list[Any]:
    """Checks that every value lies in (0, 1]: multiplied by it again and again, nothing grows."""
    requirement = "a number in (0, 1], since every drop multiplies by it (0.5 halves)"
    return _check(requirement, lambda v: (v > 0) & (v <= 1), values)


def real(**values: Any) -> list[Any]:
    """Checks that every value is a real number, or an array of such; NaN and infinities pass."""
    return _check("a real number", lambda v: True, values)


def whole(low: int, **values: Any) -> list[int]:
    """Checks that every value is a single whole number of `low` or more; returns Python ints."""
    requirement = f"a whole number >= {low}"
    scalar(**values)
    numbers = _check(requirement, lambda v: (v >= low) & (v < np.inf) & (v % 1 == 0), values)
    return [int(number) for number in numbers]


def scalar(**values: Any) -> None:
    """Checks that every value, traced or not, is a single number (or a schedule of one)."""
    for name, value in values.items():
        if not callable(value) and np.shape(value) != ():
            raise ValueError(
                f"{name} must be a single number, but its shape is {np.shape(value)}. For one "
                f"value per run, build the transform inside the function given to jax.vmap."
            )


def weak_float(integer: jax.Array) -> jax.Array:
    """Returns an integer of JAX's as a weakly typed float, as Python's numbers are."""
    with jax.numpy_dtype_promotion("standard"):  # in strict mode there is no way to such a float
        return integer * 1.0


def wide(dtype: Any) -> Any:
    """Returns the type to calculate in: float32 in place of narrower ones and of integers."""
    inexact = jnp.issubdtype(dtype, jnp.inexact)
    return dtype if inexact and np.dtype(dtype).itemsize >= 4 else jnp.dtype(jnp.float32)


def kind(value: Any) -> str:
    """Says in a message's words if a value is a number, an array of a shape, or of another type.

    >>> kind(0.5), kind(np.ones((2, 3))), kind({})
    ('a number', 'an array of shape (2, 3)', 'a value of type dict')
    """
    shape = getattr(value, "shape", () if isinstance(value, int | float | complex) else None)
    if shape is None:
        return f"a value of type {type(value).__name__}"
    return f"an array of shape {shape}" if shape else "a number"


def _check(
    requirement: str,
    holds: Callable[[Any], Any],
    values: dict[str, Any],
    *,
    schedules: bool = False,
) -> list[Any]:
    """Returns the numbers; raises for the first concrete one that does not hold."""
    numbers = []
    for name, value in values.items():
        if schedules and callable(value):
            numbers.append(value)
            continue
        number = _number(value)
        # Values of JAX arrays may be traced: their type alone is checked.
        if number is None or not (isinstance(number, jax.Array) or np.all(holds(number))):
            raise ValueError(f"{name} must be {requirement}, but it is {_shown(value)}.")
        numbers.append(number)
    return numbers


def _number(value: Any) -> Any:
    """Returns a real number (or an array of such) as a float, and None for anything else."""
    if isinstance(value, jax.Array):
        if jnp.issubdtype(value.dtype, jnp.integer):
            return weak_float(value)
        if jnp.issubdtype(value.dtype, jnp.floating):
            dtype = wide(value.dtype)
            return value if dtype == value.dtype else value.astype(dtype)  # stays weakly typed
        return None
    try:
        array = np.asarray(value)
        if array.dtype == object and isinstance(value, int):  # of more than 64 bits
            return float(value)
    except (ValueError, OverflowError):  # rows of unequal lengths, an int that no float holds
        return None
    if not (jnp.issubdtype(array.dtype, jnp.integer) or jnp.issubdtype(array.dtype, jnp.floating)):
        return None
    array = array.astype(np.float64)
    return array if array.ndim else float(array)


def _shown(value: Any) -> str:
    """Returns a value for a message, in one line that is not too long."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python does not print the largest integers
        text = "a very large integer"
    return text if len(text) <= 200 else f"{text[:150]} ..."
