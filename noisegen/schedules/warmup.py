"""Warm-up: the first updates at a lower value, in front of a number or of any schedule."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from noisegen import _validate
from noisegen.schedules._types import (
    ScalarOrSchedule,
    Schedule,
    as_count,
    as_float,
    num_reached,
    value_at,
)


def constant_warmup(
    init_value: ArrayLike, after: ScalarOrSchedule, num_steps: ArrayLike
) -> Schedule:
    r"""Stays at a low value for the first updates, then jumps.

    .. math:: v_t = \begin{cases} v_0 & t < w \\ a(t) & t \ge w \end{cases}

    Args:
      init_value: :math:`v_0 \ge 0`, the value of the warm-up.
      after: a, what follows: a number, or a schedule, whose t counts from the start of training,
        not from the end of the warm-up.
      num_steps: w >= 0, updates of warm-up; 0 for none.

    Returns:
      A schedule: update index -> value.

    Raises:
      ValueError: a concrete argument is negative or not finite.

    Examples:
      >>> import jax.numpy as jnp, noisegen
      >>> learning_rate = noisegen.constant_warmup(0.1, after=3.2, num_steps=5)
      >>> print(learning_rate(jnp.array([0, 4, 5])))
      [0.1 0.1 3.2]

    References:
      Goyal et al., `Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour
      <https://arxiv.org/abs/1706.02677>`_, 2017, section 2.2
    """
    init_value, after, _ = _validate.non_negative(
        init_value=init_value, after=after, num_steps=num_steps
    )
    end = as_count(num_steps)[..., None]
    return lambda count: jnp.where(num_reached(end, count) > 0, value_at(after, count), init_value)


def gradual_warmup(
    init_value: ArrayLike,
    after: ScalarOrSchedule,
    num_steps: ArrayLike,
    num_steps_per_increment: ArrayLike = 1,
) -> Schedule:
    r"""Rises in equal increments over the first updates.

    .. math::
      v_t = \begin{cases} v_0 + r_t (a(t) - v_0) & t < w \\ a(t) & t \ge w \end{cases}, \qquad
      r_t = \frac{s}{w} \left\lfloor \frac{t}{s} \right\rfloor

    It starts at :math:`v_0` and reaches :math:`a` at t = w. Goyal et al. increment at every update
    (s = 1). With s = updates per epoch and w = k s it rises once per epoch: epoch i = 1 .. k has
    the value :math:`\frac{k + 1 - i}{k} v_0 + \frac{i - 1}{k} a` of Signer & Barbier (2021).

    Args:
      init_value: :math:`v_0 \ge 0`, the value at update 0.
      after: a, what follows: a number, or a schedule, whose t counts from the start of training,
        not from the end of the warm-up.
      num_steps: w >= 0, updates of warm-up; 0 for none.
      num_steps_per_increment: s, a whole number of updates, at least 1.

    Returns:
      A schedule: update index -> value.

    Raises:
      ValueError: a concrete argument is out of its range.

    Examples:
      >>> import jax.numpy as jnp, noisegen
      >>> learning_rate = noisegen.gradual_warmup(0.1, after=0.5, num_steps=4)
      >>> print(learning_rate(jnp.arange(6)))
      [0.1 0.2 0.3 0.4 0.5 0.5]
      >>> per_epoch = noisegen.gradual_warmup(0.1, 0.5, num_steps=4, num_steps_per_increment=2)
      >>> print(per_epoch(jnp.arange(6)))
      [0.1 0.1 0.3 0.3 0.5 0.5]

    References:
      Goyal et al., `Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour
      <https://arxiv.org/abs/1706.02677>`_, 2017, section 2.2
    """
    init_value, after, length = _validate.non_negative(
        init_value=init_value, after=after, num_steps=num_steps
    )
    end = as_count(num_steps)[..., None]
    [step] = _validate.in_range(1, np.inf, num_steps_per_increment=num_steps_per_increment)

    def schedule(count: ArrayLike) -> jax.Array:
        target = value_at(after, count)
        num_risen = as_float(count) // step * step
        warming = init_value + (target - init_value) * num_risen / jnp.maximum(length, 1.0)
        return jnp.where(num_reached(end, count) > 0, target, warming)

    return schedule
