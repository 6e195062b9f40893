"""Warm-up: lower values during the first updates, then a constant, a decay or any schedule."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from noisegen import _validate
from noisegen.schedules._counts import as_count, as_float, num_reached, value_at
from noisegen.schedules._transitions import cosine, fraction_done, if_positive, is_reached, mix
from noisegen.schedules.optax_schedules import linear_schedule


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


def warmup_constant_schedule(
    init_value: ArrayLike, peak_value: ArrayLike, warmup_steps: ArrayLike
) -> optax.Schedule:
    """Rises along a line to a value that is held.

    v(t) = init_value + (peak_value - init_value) min(t / warmup_steps, 1)

    Args:
      init_value: Value at update 0.
      peak_value: Value at update warmup_steps and from then on.
      warmup_steps: Length of the warm-up, at least 0. As in optax, 0 holds init_value. With
        :func:`gradual_warmup_schedule`, 0 is no warm-up.

    Returns:
      A schedule: update index -> value.

    Raises:
      ValueError: If a concrete argument is out of its range.

    Examples:
      >>> import jax.numpy as jnp, noisegen
      >>> print(noisegen.warmup_constant_schedule(0.0, 0.8, warmup_steps=4)(jnp.arange(6)))
      [0.  0.2 0.4 0.6 0.8 0.8]
    """
    [peak_value] = _validate.finite(peak_value=peak_value)
    _validate.non_negative(warmup_steps=warmup_steps)
    return linear_schedule(init_value, peak_value, warmup_steps)


def warmup_cosine_decay_schedule(
    init_value: ArrayLike,
    peak_value: ArrayLike,
    warmup_steps: ArrayLike,
    decay_steps: ArrayLike,
    end_value: ArrayLike = 0.0,
    exponent: ArrayLike = 1.0,
) -> optax.Schedule:
    """Rises along a line, then decays along half a period of a cosine.

    v(t) = init_value + (peak_value - init_value) t / warmup_steps   if t < warmup_steps
    v(t) = end_value + (peak_value - end_value) c**exponent          otherwise
    c = (1 + cos(pi min((t - warmup_steps) / (decay_steps - warmup_steps), 1))) / 2

    Args:
      init_value: Value at update 0.
      peak_value: Value at update warmup_steps. As in optax, with 0 the value after it is 0.
      warmup_steps: Length of the warm-up, at least 0.
      decay_steps: Length of warm-up **and** decay, > warmup_steps. In most cases it is the number
        of updates of the run.
      end_value: Value at update decay_steps and from then on.
      exponent: Exponent of the cosine, at least 0.

    Returns:
      A schedule: update index -> value. NaN if traced lengths leave no update to decay in.

    Raises:
      ValueError: If a concrete argument is out of its range.

    Examples:
      >>> import jax.numpy as jnp, noisegen
      >>> learning_rate = noisegen.warmup_cosine_decay_schedule(
      ...     0.0, 0.8, warmup_steps=10, decay_steps=110
      ... )
      >>> print(learning_rate(jnp.array([0, 5, 10, 110])))
      [0.  0.4 0.8 0. ]

    References:
      Goyal et al., 2017 (warm-up, see :func:`gradual_warmup_schedule`), and Loshchilov & Hutter,
      2017 (decay, see :func:`cosine_decay_schedule`)
    """
    init_value, peak_value, end_value = _validate.finite(
        init_value=init_value, peak_value=peak_value, end_value=end_value
    )
    warmup, total, exponent = _validate.non_negative(
        warmup_steps=warmup_steps, decay_steps=decay_steps, exponent=exponent
    )
    # The name is for the message.
    [steps] = _validate.positive(decay_steps_beyond_the_warmup=total - warmup)
    peak_value = if_positive(steps, peak_value)

    def schedule(count: ArrayLike) -> jax.Array:
        rising = mix(init_value, peak_value, fraction_done(0, warmup_steps, count))
        left = cosine(fraction_done(warmup_steps, steps, count))
        last = jnp.where(peak_value == 0, 0.0, end_value)
        falling = mix(last, peak_value, left**exponent)
        return jnp.where(is_reached(warmup_steps, count), falling, rising)

    return schedule


def warmup_inverse_square_root_schedule(
    init_value: ArrayLike, peak_value: ArrayLike, warmup_steps: ArrayLike
) -> optax.Schedule:
    """Rises along a line, then decays as 1 / sqrt(t). Optax has no such schedule.

    v(t) = init_value + (peak_value - init_value) t / warmup_steps   if t < warmup_steps
    v(t) = peak_value sqrt(warmup_steps / t)                         otherwise

    It needs no horizon. The schedule of Vaswani et al. has init_value = 0 and
    peak_value = 1 / sqrt(d_model warmup_steps).

    Args:
      init_value: Value at update 0.
      peak_value: Value at update warmup_steps.
      warmup_steps: Length of the warm-up, at least 1. A traced number below 1 counts as 1.

    Returns:
      A schedule: update index -> value.

    Raises:
      ValueError: If a concrete argument is out of its range.

    Examples:
      >>> import jax.numpy as jnp, noisegen
      >>> schedule = noisegen.warmup_inverse_square_root_schedule(0.0, 0.8, warmup_steps=100)
      >>> print(schedule(jnp.array([0, 50, 100, 400, 1600])))
      [0.  0.4 0.8 0.4 0.2]

    References:
      Vaswani et al., `Attention Is All You Need <https://arxiv.org/abs/1706.03762>`_, 2017,
      section 5.3
    """
    init_value, peak_value = _validate.finite(init_value=init_value, peak_value=peak_value)
    [warmup_steps] = _validate.in_range(1, np.inf, warmup_steps=warmup_steps)

    def schedule(count: ArrayLike) -> jax.Array:
        length = jnp.maximum(warmup_steps, 1.0)
        rising = mix(init_value, peak_value, fraction_done(0, length, count))
        # This factor is 1 during the warm-up. After it, the other factor is the peak.
        return rising * jnp.sqrt(length / jnp.maximum(as_float(count), length))

    return schedule
