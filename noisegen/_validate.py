"""Argument checks at the public boundary.

Python and NumPy numbers are checked by value. JAX arrays may be traced, so only their type is
checked.

Each check takes its values by name, so that the message names the argument, and returns them as
numbers to calculate with. Python and NumPy numbers become Python floats (float64 arrays), so that
unsigned integers cannot wrap around, small types cannot overflow, and JAX treats them as weakly
typed. JAX arrays keep their type, but are float32 at least; integers become weakly typed floats.

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


def positive(*, schedules: bool = False, **values: Any) -> list[Any]:
    """Checks that every value is a finite number above zero, or a schedule if those are allowed."""
    return _check("a finite number > 0", lambda v: (v > 0) & (v < np.inf), values, schedules)


def non_negative(*, schedules: bool = False, **values: Any) -> list[Any]:
    """Checks that every value is a finite number from zero on, or a schedule if allowed."""
    return _check("a finite number >= 0", lambda v: (v >= 0) & (v < np.inf), values, schedules)


def finite(**values: Any) -> list[Any]:
    """Checks that every value is a finite number."""
    return _check("a finite number", np.isfinite, values)


def in_range(low: float, high: float, **values: Any) -> list[Any]:
    """Checks that every value lies in the half-open interval [low, high)."""
    return _check(f"a number in [{low}, {high})", lambda v: (v >= low) & (v < high), values)


def at_least(low: float, **values: Any) -> list[Any]:
    """Checks that every value is at least `low`; infinity is allowed."""
    shown = int(low) if low % 1 == 0 else low
    return _check(f"a number >= {shown}", lambda v: v >= low, values)


def fraction(**values: Any) -> list[Any]:
    """Checks that every value lies in the closed interval from 0 to 1."""
    return _check("a number from 0 to 1", lambda v: (v >= 0) & (v <= 1), values)


def multiplier(**values: Any) -> list[Any]:
    """Checks that every value lies in (0, 1], so that repeated multiplication cannot grow."""
    requirement = "a number in (0, 1], since every drop multiplies by it (0.5 halves)"
    return _check(requirement, lambda v: (v > 0) & (v <= 1), values)


def real(**values: Any) -> list[Any]:
    """Checks that every value is a real number or an array; NaN and infinity are allowed."""
    return _check("a real number", lambda v: True, values)


def whole(low: int, **values: Any) -> list[int]:
    """Checks that every value is a single whole number of at least `low`; returns Python ints."""
    requirement = f"a whole number >= {low}"
    scalar(**values)
    numbers = _check(requirement, lambda v: (v >= low) & (v < np.inf) & (v % 1 == 0), values)
    return [int(number) for number in numbers]


def text(**values: Any) -> None:
    """Checks that every value is text, and not blanks alone."""
    for name, value in values.items():
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{name} must be text, such as 'mine', but it is {_shown(value)}.")


def scalar(**values: Any) -> None:
    """Checks that every value, traced or not, is a single number or a schedule."""
    for name, value in values.items():
        if not callable(value) and np.shape(value) != ():
            raise ValueError(
                f"{name} must be a single number, but its shape is {np.shape(value)}. For one "
                f"value per run, build the transform inside the function given to jax.vmap."
            )


def weak_float(integer: jax.Array) -> jax.Array:
    """Converts a JAX integer to a weakly typed float, like Python's numbers."""
    # Under strict promotion no other operation gives a weakly typed float.
    with jax.numpy_dtype_promotion("standard"):
        return integer * 1.0


def wide(dtype: Any) -> Any:
    """Returns the type to calculate in: float32 for integers and narrower floats."""
    inexact = jnp.issubdtype(dtype, jnp.inexact)
    return dtype if inexact and np.dtype(dtype).itemsize >= 4 else jnp.dtype(jnp.float32)


def kind(value: Any) -> str:
    """Describes a value in a message: a number, an array of a shape, or another type.

    >>> kind(0.5), kind(np.ones((2, 3))), kind({})
    ('a number', 'an array of shape (2, 3)', 'a value of type dict')
    """
    if isinstance(value, int | float | complex):
        return "a number"
    shape = getattr(value, "shape", None)
    if shape is None:
        return f"a value of type {type(value).__name__}"
    return f"an array of shape {shape}" if shape else "a number"


def _check(
    requirement: str,
    holds: Callable[[Any], Any],
    values: dict[str, Any],
    schedules: bool = False,
) -> list[Any]:
    """Returns the numbers; raises ValueError for the first concrete one that fails the check."""
    if schedules:
        requirement += " or a schedule"
    numbers = []
    for name, value in values.items():
        if schedules and callable(value):
            numbers.append(value)
            continue
        number = _number(value)
        # JAX arrays may be traced, and their values are not looked at.
        is_concrete = not isinstance(number, jax.Array)
        if number is None or (is_concrete and not np.all(holds(number))):
            raise ValueError(f"{name} must be {requirement}, but it is {_shown(value)}.")
        numbers.append(number)
    return numbers


def _number(value: Any) -> Any:
    """Returns a real number (or an array of them) as a float, and None for any other value."""
    if isinstance(value, jax.Array):
        if jnp.issubdtype(value.dtype, jnp.integer):
            return weak_float(value)
        if jnp.issubdtype(value.dtype, jnp.floating):
            dtype = wide(value.dtype)
            # astype would remove weak typing, so it is called only if the type changes.
            return value if dtype == value.dtype else value.astype(dtype)
        return None
    try:
        array = np.asarray(value)
        if array.dtype == object and isinstance(value, int):  # An integer of more than 64 bits.
            return float(value)
    # Rows of unequal lengths, an integer beyond every float, a list of traced numbers.
    except (ValueError, OverflowError, TypeError):
        return None
    if not (jnp.issubdtype(array.dtype, jnp.integer) or jnp.issubdtype(array.dtype, jnp.floating)):
        return None
    array = array.astype(np.float64)
    return array if array.ndim else float(array)


def _shown(value: Any) -> str:
    """Returns a value for a message, in one line of limited length."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python refuses to print the largest integers.
        text = "a very large integer"
    return text if len(text) <= 200 else f"{text[:150]} ..."
