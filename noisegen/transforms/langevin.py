"""Noise of stochastic gradient Langevin dynamics."""

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from noisegen import _validate
from noisegen.schedules._counts import value_at
from noisegen.transforms import additive


def langevin_noise(
    temperature: optax.ScalarOrSchedule, learning_rate: optax.ScalarOrSchedule, key: jax.Array
) -> optax.GradientTransformationExtraArgs:
    """Adds the noise of Langevin dynamics; placed **after** the learning rate.

    theta(t+1) = theta(t) - lr(t) grad U(theta(t)) + sqrt(2 lr(t) tau(t)) xi(t), xi ~ N(0, I)

    For a small learning rate lr, samples follow the Gibbs distribution
    p(theta) ~ exp(-U(theta) / tau), where U is the loss whose gradient enters the chain. On
    U = h theta**2 / 2 the stationary variance is 2 tau / (h (2 - lr h)), which approaches tau / h.

    **Choice of the temperature tau.** If U is a sum over N examples (negative log-likelihood plus
    negative log-prior), the Bayesian posterior has tau = 1. If U is that sum divided by N, as a
    mean loss is, it has tau = 1 / N. Welling & Teh take the sum, and their learning rate is 2 lr.
    This tau is not T of :func:`noisegen.temperature`. The noise of SGD itself moves the parameters
    with covariance lr T F per update, where F is the covariance of per-example gradients. It adds
    to the Langevin noise, and acts like tau = T F / 2.

    Use without momentum. The same dynamics before the learning rate would need
    ``add_gradient_noise(sqrt(2 * temperature / learning_rate), key)``.

    Args:
      temperature: Temperature tau >= 0, in units of U: a number, a traced scalar or a schedule.
      learning_rate: Learning rate lr >= 0 by which the chain multiplies the gradient: a number, a
        traced scalar or a schedule.
      key: Key of the noise, see :func:`noisegen.add_gradient_noise`, whose guarantees hold.

    Returns:
      A gradient transformation with state :class:`noisegen.AddGradientNoiseState`. Its update
      ignores the extra arguments of other transformations in the chain.

    Raises:
      ValueError: If `key` is not one threefry key, or a concrete number is negative or not finite.

    Examples:
      >>> import jax, jax.numpy as jnp, noisegen, optax
      >>> tx = optax.chain(
      ...     optax.sgd(0.1), noisegen.langevin_noise(0.5, learning_rate=0.1, key=jax.random.key(0))
      ... )
      >>> theta = jnp.zeros(1000)  # 1000 chains on U = theta**2 / 2, whose gradient is theta
      >>> state = tx.init(theta)
      >>> for _ in range(60):
      ...     updates, state = tx.update(theta, state)
      ...     theta = theta + updates
      >>> print(f"{theta.var():.1f}")  # 2 * 0.5 / (2 - 0.1) = 0.53
      0.5

    References:
      Welling & Teh, Bayesian Learning via Stochastic Gradient Langevin Dynamics, 2011
    """
    _validate.non_negative(schedules=True, temperature=temperature, learning_rate=learning_rate)
    _validate.scalar(temperature=temperature, learning_rate=learning_rate)

    # The noise enters after the learning rate, so it is in units of the parameters.
    def stddev(count: ArrayLike) -> jax.Array:
        return jnp.sqrt(2.0 * value_at(learning_rate, count) * value_at(temperature, count))

    return additive.add_gradient_noise(stddev, key)
