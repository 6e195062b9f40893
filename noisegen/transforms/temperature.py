"""Training by temperature instead of learning rate."""

import optax
from jax.typing import ArrayLike

from noisegen import _validate
from noisegen.schedules._counts import value_at
from noisegen.schedules.temperature import learning_rate_from_temperature


def scale_by_temperature(
    temperature: optax.ScalarOrSchedule, batch_size: optax.ScalarOrSchedule, momentum: ArrayLike
) -> optax.GradientTransformationExtraArgs:
    r"""Stands in the place of the learning rate, and makes it from a temperature.

    .. math:: u_t \leftarrow -\epsilon_t u_t, \qquad \epsilon_t = T_t B_t (1 - m)

    In the noise dominated regime, runs of equal temperatures and equal epochs train alike at any
    batch size: give one schedule of temperatures and vary the batch. Multiplies by the minus sign
    too, as ``optax.scale_by_learning_rate`` does, so it comes last.

    The schedules count updates. One meant in epochs is stretched with the number of updates per
    epoch, which itself follows the batch size.

    Args:
      temperature: :math:`T_t \ge 0`: number, traced scalar or schedule.
      batch_size: :math:`B_t > 0`, examples per update: number, traced scalar or schedule (growing
        batches at constant temperature grow the learning rate).
      momentum: 0 <= m < 1 of the ``optax.trace`` in this chain; 0 if it has none. Asked for, since
        one that is forgotten heats the run by 1 / (1 - m).

    Returns:
      A gradient transformation; its state counts updates. Its update ignores any keyword argument
      that other links of the chain may need.

    Raises:
      ValueError: a concrete number is out of its range.

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
    _validate.non_negative(temperature=temperature)
    _validate.positive(batch_size=batch_size)
    _validate.in_range(0, 1, momentum=momentum)
    _validate.scalar(temperature=temperature, batch_size=batch_size, momentum=momentum)

    def learning_rate(count: ArrayLike) -> ArrayLike:
        return learning_rate_from_temperature(
            value_at(temperature, count), value_at(batch_size, count), momentum
        )

    return optax.with_extra_args_support(optax.scale_by_learning_rate(learning_rate))
