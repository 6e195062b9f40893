"""Checks at the boundary: Python and NumPy numbers are checked, whatever JAX may trace passes.

Each check takes its values by name, so that the message can name the culprit:

>>> positive(learning_rate=0.1, batch_size=64)
>>> positive(learning_rate=-0.1)
Traceback (most recent call last):
  ...
ValueError: learning_rate must be a finite number > 0, but it is -0.1.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def positive(**values: Any) -> None:
    """Every value is a finite number above zero."""
    _check("a finite number > 0", lambda v: (v > 0) & (v < np.inf), values)


def non_negative(**values: Any) -> None:
    """Every value is a finite number, zero or above."""
    _check("a finite number >= 0", lambda v: (v >= 0) & (v < np.inf), values)


def in_range(low: float, high: float, **values: Any) -> None:
    """Every value lies in the half-open interval [low, high)."""
    _check(f"a number in [{low}, {high})", lambda v: (v >= low) & (v < high), values)


def at_least(low: float, **values: Any) -> None:
    """Every value is a number of `low` or more, or infinite."""
    _check(f"a number >= {low}", lambda v: v >= low, values)


def fraction(**values: Any) -> None:
    """Every value lies in the closed interval from 0 to 1."""
    _check("a number from 0 to 1", lambda v: (v >= 0) & (v <= 1), values)


def scalar(**values: Any) -> None:
    """Every value, traced or not, is a single number (or a schedule of one)."""
    for name, value in values.items():
        if not callable(value) and np.shape(value) != ():
            raise ValueError(
                f"{name} must be a single number, but its shape is {np.shape(value)}. For one "
                f"value per run, build the transform inside the function given to jax.vmap."
            )


def kind(value: Any) -> str:
    """What a value is, in a message's words: a number, an array of a shape, or else its type.

    >>> kind(0.5), kind(np.ones((2, 3))), kind({})
    ('a number', 'an array of shape (2, 3)', 'a value of type dict')
    """
    shape = getattr(value, "shape", () if isinstance(value, int | float | complex) else None)
    if shape is None:
        return f"a value of type {type(value).__name__}"
    return f"an array of shape {shape}" if shape else "a number"


def _check(requirement: str, holds: Callable[[Any], Any], values: dict[str, Any]) -> None:
    """Raises for the first concrete value that does not hold; schedules and JAX arrays pass."""
    for name, value in values.items():
        if callable(value) or isinstance(value, jax.Array):
            continue
        number = np.asarray(value)
        if not (jax.dtypes.issubdtype(number.dtype, np.number) and np.all(holds(number))):
            raise ValueError(f"{name} must be {requirement}, but it is {value!r}.")
