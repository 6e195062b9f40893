"""Training by temperature instead of learning rate."""

import optax
from jax.typing import ArrayLike

from noisegen import _validate
from noisegen.schedules._counts import value_at
from noisegen.schedules.temperature import learning_rate_from_temperature


def scale_by_temperature(
    temperature: optax.ScalarOrSchedule, batch_size: optax.ScalarOrSchedule, momentum: ArrayLike
) -> optax.GradientTransformationExtraArgs:
    """Scales updates by the learning rate that gives a temperature.

    u <- -lr(t) u, lr(t) = temperature(t) * batch_size(t) * (1 - momentum)

    Like ``optax.scale_by_learning_rate``, which it replaces at the end of the chain, it also flips
    the sign. In the noise-dominated regime, runs with equal temperatures and equal epochs train
    alike at any batch size: use one temperature schedule and vary the batch size.

    Schedules count updates. A schedule meant in epochs is stretched with the number of updates per
    epoch, which depends on the batch size.

    Args:
      temperature: Temperature >= 0: a number, a traced scalar or a schedule.
      batch_size: Examples per update, > 0: a number, a traced scalar or a schedule. At constant
        temperature, growing batches raise the learning rate.
      momentum: Momentum in [0, 1) of the ``optax.trace`` in this chain, 0 if there is none. It is
        required, because omitting it would raise the temperature by 1 / (1 - momentum).

    Returns:
      A gradient transformation whose state counts updates. Its update ignores the extra arguments
      of other transformations in the chain.

    Raises:
      ValueError: If a concrete number is out of its range.

    Examples:
      >>> import jax.numpy as jnp, noisegen, optax
      >>> momentum = 0.5
      >>> tx = optax.chain(
      ...     optax.trace(momentum),
      ...     noisegen.scale_by_temperature(0.01, batch_size=64, momentum=momentum),
      ... )
      >>> updates, state = tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
      >>> updates
      Array([-0.32, -0.32], dtype=float32)

    References:
      Smith, Elsen & De, `On the Generalization Benefit of Noise in Stochastic Gradient Descent
      <https://arxiv.org/abs/2006.15081>`_, 2020, sections 2 and 3
    """
    _validate.non_negative(schedules=True, temperature=temperature)
    _validate.positive(schedules=True, batch_size=batch_size)
    _validate.in_range(0, 1, momentum=momentum)
    _validate.scalar(temperature=temperature, batch_size=batch_size, momentum=momentum)

    # Constants and schedules alike, as functions of the count that scale_by_learning_rate keeps.
    def learning_rate(count: ArrayLike) -> ArrayLike:
        return learning_rate_from_temperature(
            value_at(temperature, count), value_at(batch_size, count), momentum
        )

    return optax.with_extra_args_support(optax.scale_by_learning_rate(learning_rate))
