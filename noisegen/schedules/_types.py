"""What a schedule is, and a number that may be one."""

from collections.abc import Callable

import jax
from jax.typing import ArrayLike

Schedule = Callable[[ArrayLike], jax.Array]  # index of the update, from 0 -> value
ScalarOrSchedule = ArrayLike | Schedule


def value_at(value: ScalarOrSchedule, count: ArrayLike) -> ArrayLike:
    """The value at update `count`, of a schedule or of a constant."""
    return value(count) if callable(value) else value
