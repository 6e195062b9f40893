"""Pieces that schedules are made of: transitions between two values, and their boundaries."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from noisegen import _validate
from noisegen.schedules._counts import as_count, num_reached, updates_since


def mix(start: ArrayLike, end: ArrayLike, weight: ArrayLike) -> ArrayLike:
    """Returns `start` at weight 0 and `end` at weight 1, both exactly, and a line between."""
    return (1.0 - weight) * start + weight * end


def cosine(fraction: ArrayLike) -> jax.Array:
    """Returns half a period of a cosine, 1 at fraction 0 and 0 at fraction 1, both exactly."""
    return (1.0 + jnp.cos(jnp.pi * fraction)) / 2


def fraction_done(begin: ArrayLike, steps: ArrayLike, count: ArrayLike) -> jax.Array:
    """Returns the fraction of a transition that is done, from 0 to 1; 0 if it has no steps."""
    [steps] = _validate.real(steps=steps)
    has_steps = steps > 0
    done = updates_since(begin, count) / jnp.where(has_steps, steps, 1.0)
    return jnp.where(has_steps, jnp.minimum(done, 1.0), 0.0)


def is_reached(boundary: ArrayLike, count: ArrayLike) -> jax.Array:
    """Returns whether update `count` is at or after a boundary."""
    return num_reached(as_count(boundary)[..., None], count) > 0


def if_positive(steps: ArrayLike, value: ArrayLike) -> ArrayLike:
    """Returns the value, or NaN if a traced number of steps is not above 0."""
    return jnp.where(steps > 0, value, jnp.nan) if isinstance(steps, jax.Array) else value
