"""Noise of stochastic gradient Langevin dynamics."""

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from noisegen import _validate
from noisegen.schedules._counts import value_at
from noisegen.transforms import gradient_noise


def langevin_noise(
    temperature: optax.ScalarOrSchedule, learning_rate: optax.ScalarOrSchedule, key: jax.Array
) -> optax.GradientTransformationExtraArgs:
    r"""Turns gradient descent into Langevin dynamics; stands **after** the learning rate.

    .. math:: \theta_{t+1} = \theta_t - \epsilon_t \nabla U(\theta_t)
      + \sqrt{2 \epsilon_t \tau_t} \, \xi_t, \qquad \xi_t \sim \mathcal{N}(0, I)

    For small :math:`\epsilon` its samples follow the Gibbs distribution
    :math:`p(\theta) \propto e^{-U(\theta) / \tau}`, where U is the loss whose gradient enters the
    chain. On :math:`U = h \theta^2 / 2` the stationary variance is :math:`2 \tau / (h (2 - \epsilon
    h))`, which tends to :math:`\tau / h`.

    **Which temperature.** If U is the sum over N examples (negative log-likelihood plus negative
    log-prior), the Bayesian posterior is at :math:`\tau = 1`; if U is that sum divided by N, as a
    mean loss is, at :math:`\tau = 1/N`. Welling & Teh take the sum and write :math:`\epsilon / 2`
    for our :math:`\epsilon`. This :math:`\tau` is not the T of :func:`noisegen.temperature`: SGD's
    own noise moves the parameters with covariance :math:`\epsilon T F` per update, F being that of
    per-example gradients; it comes on top, and acts like :math:`\tau = T F / 2`.

    Use without momentum. Before the learning rate the same dynamics would take
    ``add_gradient_noise(sqrt(2 * temperature / learning_rate), key)``.

    Args:
      temperature: :math:`\tau \ge 0`, in units of U: number, traced scalar or schedule.
      learning_rate: :math:`\epsilon \ge 0`, the one that the chain multiplies the gradient by:
        number, traced scalar or schedule.
      key: as in :func:`noisegen.add_gradient_noise`, with its guarantees.

    Returns:
      A gradient transformation with state :class:`noisegen.AddGradientNoiseState`. Its update
      ignores any keyword argument that other links of the chain may need.

    Raises:
      ValueError: `key` is not one threefry key, or a concrete number is negative or not finite.

    Examples:
      >>> import jax, jax.numpy as jnp, noisegen, optax
      >>> tx = optax.chain(
      ...     optax.sgd(0.1), noisegen.langevin_noise(0.5, learning_rate=0.1, key=jax.random.key(0))
      ... )
      >>> theta = jnp.zeros(1000)  # 1000 chains on U = theta^2 / 2, whose gradient is theta
      >>> state = tx.init(theta)
      >>> for _ in range(60):
      ...     updates, state = tx.update(theta, state)
      ...     theta = theta + updates
      >>> print(f"{theta.var():.1f}")  # 2 * 0.5 / (2 - 0.1) = 0.53
      0.5

    References:
      Welling & Teh, Bayesian Learning via Stochastic Gradient Langevin Dynamics, 2011
    """
    _validate.non_negative(temperature=temperature, learning_rate=learning_rate)
    _validate.scalar(temperature=temperature, learning_rate=learning_rate)

    def stddev(count: ArrayLike) -> jax.Array:
        return jnp.sqrt(2.0 * value_at(learning_rate, count) * value_at(temperature, count))

    return gradient_noise.add_gradient_noise(stddev, key)
