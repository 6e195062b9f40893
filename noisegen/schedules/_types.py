"""What a schedule is, a number that may be one, and the counts of updates that it is given."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from noisegen import _validate

Schedule = Callable[[ArrayLike], jax.Array]  # index of the update, from 0 -> value
ScalarOrSchedule = ArrayLike | Schedule


def value_at(value: ScalarOrSchedule, count: ArrayLike) -> ArrayLike:
    """Returns the value at update `count`, of a schedule or of a constant, as a float."""
    value = value(count) if callable(value) else value
    [value] = _validate.real(**{"the value of a schedule": value})
    return value


def as_float(count: ArrayLike) -> jax.Array:
    """Returns a count as a float, weakly typed where it may be: it takes the type of others."""
    count = as_count(count)
    if isinstance(count, jax.Array):
        integer = jnp.issubdtype(count.dtype, jnp.integer)
        return _validate.weak_float(count) if integer else count
    return jnp.asarray(count if count.ndim else float(count))


def as_count(count: ArrayLike) -> Any:
    """Returns a number of updates: float64 of NumPy's, or JAX's, where an integer remains one."""
    if isinstance(count, jax.Array) and jnp.issubdtype(count.dtype, jnp.integer):
        return count if count.dtype.itemsize >= 4 else count.astype(jnp.int32)
    [count] = _validate.real(count=count)
    return count if isinstance(count, jax.Array) else np.float64(count)


def num_reached(boundaries: Any, count: ArrayLike) -> jax.Array:
    """Returns how many of some boundaries an update has reached.

    All is exact for whole numbers. A count of JAX's stays at its largest value, as those of optax
    do, and boundaries at or beyond it are never reached. Counts of Python's and NumPy's go on.

    Args:
      boundaries: `(K,)` float64 of NumPy's, or traced; infinite ones are never reached.
      count: of any shape.

    Returns:
      int32, of the shape of `count`.
    """
    count = as_count(count)
    if not isinstance(count, jax.Array):
        if not isinstance(boundaries, jax.Array):
            return jnp.asarray((count[..., None] >= boundaries).sum(-1), jnp.int32)
        whole = np.all(count % 1 == 0)
        count = jnp.asarray(np.clip(count, 0, 2**31 - 1), jnp.int32 if whole else float)
    if jnp.issubdtype(count.dtype, jnp.integer):
        last = min(int(jnp.iinfo(count.dtype).max), 2**53)
        count = jnp.minimum(count, np.asarray(last - 1, count.dtype))
        boundaries = _whole(boundaries, np.asarray(last, count.dtype))
    count, boundaries = count[..., None], jnp.asarray(boundaries, count.dtype)
    shape = np.broadcast_shapes(count.shape, boundaries.shape)
    reached = jnp.broadcast_to(count, shape) >= jnp.broadcast_to(boundaries, shape)
    return reached.sum(-1, dtype=jnp.int32)


def _whole(boundaries, last):
    """Returns the first whole numbers at or after the boundaries, `last` at most, of its type."""
    if not isinstance(boundaries, jax.Array):
        return np.minimum(np.ceil(boundaries), float(last)).astype(last.dtype)
    if jnp.issubdtype(boundaries.dtype, jnp.integer):
        most = min(int(last), int(jnp.iinfo(boundaries.dtype).max))
        low, high = (np.asarray(end, boundaries.dtype) for end in (0, most))
        return jnp.clip(boundaries, low, high).astype(last.dtype)
    within = boundaries < float(last)  # beyond it, a conversion depends on the machine
    kept = jnp.ceil(jnp.where(within, boundaries, 0.0))
    return jnp.where(within, kept.astype(last.dtype), last)
