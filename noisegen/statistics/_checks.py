"""Checks arguments: what is not a sample, a table or a level gets a ValueError."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def sample(name: str, values: ArrayLike) -> np.ndarray:
    """Returns a list of numbers as a float array of shape (N,); None becomes nan."""
    return _array(name, values, ndim=1, expected="a list of numbers, one for each seed")


def table(name: str, scores: ArrayLike) -> np.ndarray:
    """Returns a table of scores as a float array of shape (P, N); None becomes nan."""
    found = _array(name, scores, ndim=2, expected="a table of points x seeds")
    if not found.size:
        raise ValueError(f"{name} needs at least one point and one seed, got {found.shape}.")
    return found


def level(value: float) -> float:
    """Returns the level of an interval, which must lie between 0 and 1."""
    if not 0 < value < 1:
        raise ValueError(f"level must lie between 0 and 1, for example 0.95; got {value}.")
    return value


def at_least(name: str, value: int, least: int) -> int:
    """Returns a whole number, which must not be less than `least`."""
    if value != int(value) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}; got {value}.")
    return int(value)


def positive(name: str, value: float) -> float:
    """Returns a finite number, which must be greater than 0."""
    if not 0 < value < np.inf:
        raise ValueError(f"{name} must be greater than 0; got {value}.")
    return value


def same_length(**samples: Sequence[float] | np.ndarray) -> None:
    """Raises an error unless all samples have the same length."""
    lengths = {name: len(values) for name, values in samples.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ValueError(f"{' and '.join(lengths)} must have one number for each other; {shown}.")


def _array(name, values, ndim, expected):
    try:
        found = np.asarray(values, float)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be {expected}; got {values!r:.100}.") from None
    if found.ndim != ndim:
        raise ValueError(f"{name} must be {expected}; got an array of shape {found.shape}.")
    return found
