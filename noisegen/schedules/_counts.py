"""Counts of updates, as schedules receive them: of any type, concrete or traced."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from noisegen import _validate


def value_at(value: optax.ScalarOrSchedule, count: ArrayLike) -> ArrayLike:
    """Returns the value of a constant or of a schedule at update `count`, as a float."""
    if callable(value):
        value = value(count)
    # Schedules may be the user's own, so anything may come back.
    [value] = _validate.real(**{"the value of a schedule": value})
    return value


def as_float(count: ArrayLike) -> jax.Array:
    """Returns a count as a float, weakly typed unless the count is a float array."""
    count = as_count(count)
    if not isinstance(count, jax.Array):
        # A Python float makes a weakly typed array, so the schedule keeps the type of its values.
        return jnp.asarray(count if count.ndim else float(count))
    if _is_integer(count):
        return _validate.weak_float(count)
    return count


def as_count(count: ArrayLike) -> Any:
    """Returns a count as a NumPy float64 or a JAX array, whose integers stay integers."""
    if isinstance(count, jax.Array) and _is_integer(count):
        # Arithmetic on int8 or int16 would overflow.
        return count if count.dtype.itemsize >= 4 else count.astype(jnp.int32)
    [count] = _validate.real(count=count)
    return count if isinstance(count, jax.Array) else np.float64(count)


def updates_since(start: ArrayLike, count: ArrayLike) -> jax.Array:
    """Returns the updates from `start` to `count` as a float, 0 before `start`.

    Whole numbers are subtracted as such, and the difference is rounded once.
    """
    start, count = as_count(start), as_count(count)
    if not isinstance(count, jax.Array):
        if not isinstance(start, jax.Array):
            return as_float(np.maximum(count - start, 0))
        count = _as_array(count)
    is_whole = np.all(start % 1 == 0) if not isinstance(start, jax.Array) else _is_integer(start)
    if _is_integer(count) and is_whole:
        start = _round_up(start, _last(count))
        return as_float(jnp.maximum(count, start) - start)
    return jnp.maximum(as_float(count) - as_float(start), 0.0)


def num_reached(boundaries: Any, count: ArrayLike) -> jax.Array:
    """Counts the boundaries that update `count` has reached.

    The comparison is exact for whole numbers. Like optax, a JAX count stops at the largest value of
    its type, so boundaries at or beyond this value are never reached. Python and NumPy counts are
    not limited.

    Args:
      boundaries: Update indices `(K,)`, NumPy float64 or traced. An infinite one is never reached.
      count: Update index, of any shape.

    Returns:
      Number of boundaries reached, int32, of the shape of `count`.
    """
    count = as_count(count)
    if not isinstance(count, jax.Array):
        if not isinstance(boundaries, jax.Array):
            # Both are concrete, and float64 compares them exactly.
            return jnp.asarray((count[..., None] >= boundaries).sum(-1), jnp.int32)
        # The boundaries are traced.
        count = _as_array(count)
    if _is_integer(count):
        # One below the largest value, so that the largest can stand for a boundary never reached.
        last = _last(count)
        count = jnp.minimum(count, last - 1)
        boundaries = _round_up(boundaries, last)
    count, boundaries = count[..., None], jnp.asarray(boundaries, count.dtype)
    shape = np.broadcast_shapes(count.shape, boundaries.shape)
    reached = jnp.broadcast_to(count, shape) >= jnp.broadcast_to(boundaries, shape)
    return reached.sum(-1, dtype=jnp.int32)


def _is_integer(array: jax.Array) -> bool:
    return jnp.issubdtype(array.dtype, jnp.integer)


def _as_array(count: Any) -> jax.Array:
    """Returns a NumPy count as a JAX array, to compare with traced numbers."""
    # Whole counts become integers, which are compared without rounding.
    dtype = jnp.int32 if np.all(count % 1 == 0) else float
    return jnp.asarray(np.clip(count, 0, 2**31 - 1), dtype)


def _last(count: jax.Array) -> np.ndarray:
    """Returns the largest count of an integer type, at most the largest exact float64."""
    return np.asarray(min(int(jnp.iinfo(count.dtype).max), 2**53), count.dtype)


def _round_up(boundaries: Any, last: np.ndarray) -> Any:
    """Rounds boundaries up to whole numbers of the type of `last`, at most `last`."""
    if not isinstance(boundaries, jax.Array):
        return np.minimum(np.ceil(boundaries), float(last)).astype(last.dtype)
    if _is_integer(boundaries):
        low = np.asarray(0, boundaries.dtype)
        high = min(int(last), int(jnp.iinfo(boundaries.dtype).max))
        return jnp.clip(boundaries, low, np.asarray(high, boundaries.dtype)).astype(last.dtype)
    # Converting a float out of the integer's range gives different results on different hardware,
    # so these floats are replaced before the conversion.
    within = boundaries < float(last)
    rounded = jnp.ceil(jnp.where(within, boundaries, 0.0))
    return jnp.where(within, rounded.astype(last.dtype), last)
