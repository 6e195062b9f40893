"""Warm-up: lower values during the first updates, followed by a constant or any schedule."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from noisegen import _validate
from noisegen.schedules._counts import as_count, as_float, num_reached, value_at


def constant_warmup_schedule(
    init_value: ArrayLike, after: optax.ScalarOrSchedule, num_steps: ArrayLike
) -> optax.Schedule:
    """Holds a low value during the first updates, then jumps.

    v(t) = init_value  if t < num_steps
    v(t) = after(t)    otherwise

    Args:
      init_value: Value during the warm-up, at least 0.
      after: Value after the warm-up, a number or a schedule. A schedule receives the update index
        counted from the start of training, not from the end of the warm-up.
      num_steps: Length of the warm-up in updates, at least 0.

    Returns:
      A schedule: update index -> value.

    Raises:
      ValueError: If a concrete argument is negative or not finite.

    Examples:
      >>> import jax.numpy as jnp, noisegen
      >>> learning_rate = noisegen.constant_warmup_schedule(0.1, after=3.2, num_steps=5)
      >>> print(learning_rate(jnp.array([0, 4, 5])))
      [0.1 0.1 3.2]

    References:
      Goyal et al., `Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour
      <https://arxiv.org/abs/1706.02677>`_, 2017, section 2.2
    """
    init_value, _ = _validate.non_negative(init_value=init_value, num_steps=num_steps)
    [after] = _validate.non_negative(schedules=True, after=after)
    # The warm-up has one boundary, at its end.
    end = as_count(num_steps)[..., None]

    def schedule(count: ArrayLike) -> jax.Array:
        return jnp.where(num_reached(end, count) > 0, value_at(after, count), init_value)

    return schedule


def gradual_warmup_schedule(
    init_value: ArrayLike,
    after: optax.ScalarOrSchedule,
    num_steps: ArrayLike,
    num_steps_per_increment: ArrayLike = 1,
) -> optax.Schedule:
    """Raises the value in equal increments during the first updates.

    v(t) = init_value + r(t) (after(t) - init_value)  if t < num_steps
    v(t) = after(t)                                   otherwise
    r(t) = floor(t / s) s / num_steps, where s = num_steps_per_increment

    Goyal et al. increment at every update (s = 1). With s updates per epoch and num_steps = k s,
    the value rises once per epoch, and epoch i = 1 .. k has the value
    ((k + 1 - i) init_value + (i - 1) after) / k of Signer & Barbier (2021).

    Args:
      init_value: Value at update 0, at least 0.
      after: Value after the warm-up, a number or a schedule. A schedule receives the update index
        counted from the start of training, not from the end of the warm-up.
      num_steps: Length of the warm-up in updates, at least 0.
      num_steps_per_increment: Updates between two increments, at least 1.

    Returns:
      A schedule: update index -> value.

    Raises:
      ValueError: If a concrete argument is out of its range.

    Examples:
      >>> import jax.numpy as jnp, noisegen
      >>> learning_rate = noisegen.gradual_warmup_schedule(0.1, after=0.5, num_steps=4)
      >>> print(learning_rate(jnp.arange(6)))
      [0.1 0.2 0.3 0.4 0.5 0.5]
      >>> per_epoch = noisegen.gradual_warmup_schedule(
      ...     0.1, after=0.5, num_steps=4, num_steps_per_increment=2
      ... )
      >>> print(per_epoch(jnp.arange(6)))
      [0.1 0.1 0.3 0.3 0.5 0.5]

    References:
      Goyal et al., `Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour
      <https://arxiv.org/abs/1706.02677>`_, 2017, section 2.2
    """
    init_value, length = _validate.non_negative(init_value=init_value, num_steps=num_steps)
    [after] = _validate.non_negative(schedules=True, after=after)
    # The end is compared as a whole number, exactly. The length divides as a float.
    end = as_count(num_steps)[..., None]
    [step] = _validate.in_range(1, np.inf, num_steps_per_increment=num_steps_per_increment)

    def schedule(count: ArrayLike) -> jax.Array:
        target = value_at(after, count)
        # Updates up to the last increment. Those since then do not count.
        num_risen = as_float(count) // step * step
        # With num_steps = 0 the warm-up value is never used, but must not be NaN.
        warming = init_value + (target - init_value) * num_risen / jnp.maximum(length, 1.0)
        return jnp.where(num_reached(end, count) > 0, target, warming)

    return schedule
