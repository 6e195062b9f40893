"""Decays: power law, hold then fall (Smith et al.), steps at given epochs.

Every factory gives a function of the update index t = 0, 1, 2, ... and every number in it may be
traced, the horizon included, so one compiled program can train runs of different lengths:

>>> import jax, jax.numpy as jnp, noisegen
>>> horizons = jnp.array([100, 200])
>>> print(jax.vmap(lambda n: noisegen.hold_then_decay(1.0, num_steps=n)(69))(horizons))
[0.0625 1.    ]
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from noisegen import _validate
from noisegen.schedules._types import Schedule, as_count, as_float, num_reached

_NUM_DROPS = 10  # one each twentieth of the second half


def power_decay(init_value: ArrayLike, gamma: ArrayLike) -> Schedule:
    r"""Decays as a power of the update index.

    .. math:: v_t = \frac{\eta}{(1 + t)^\gamma}, \qquad v_0 = \eta

    Given to :func:`noisegen.add_gradient_noise` this makes :math:`\eta` a **standard deviation**.
    Where a paper (and ``optax.add_noise``) makes it a variance, use
    :func:`power_decay_from_variance`.

    Args:
      init_value: :math:`\eta \ge 0`, the value at update 0, in the units of the result.
      gamma: exponent :math:`\gamma \ge 0`, dimensionless.

    Returns:
      A schedule: update index -> value.

    Raises:
      ValueError: a concrete argument is negative or not finite.

    Examples:
      >>> import jax.numpy as jnp, noisegen
      >>> stddev = noisegen.power_decay(0.3, gamma=0.5)
      >>> print(stddev(jnp.array([0, 3, 99])))
      [0.3  0.15 0.03]
    """
    init_value, gamma = _validate.non_negative(init_value=init_value, gamma=gamma)

    def schedule(count: ArrayLike) -> jax.Array:
        return init_value / (1.0 + as_float(count)) ** gamma

    return schedule


def power_decay_from_variance(init_variance: ArrayLike, gamma: ArrayLike) -> Schedule:
    r"""Standard deviation whose square, the variance, decays as a power of the update index.

    .. math:: \sigma_t = \sqrt{\frac{\alpha}{(1 + t)^\gamma}}, \qquad \sigma_0 = \sqrt{\alpha}

    The same law in both conventions: ``power_decay_from_variance(a, c)`` equals
    ``power_decay(sqrt(a), c / 2)``, and gives the noise of ``optax.add_noise(a, c)``.

    Args:
      init_variance: :math:`\alpha \ge 0`, the variance at update 0 (square of the result's units).
      gamma: exponent :math:`\gamma \ge 0` of the variance, dimensionless.

    Returns:
      A schedule: update index -> standard deviation.

    Raises:
      ValueError: a concrete argument is negative or not finite.

    Examples:
      >>> import jax.numpy as jnp, noisegen
      >>> stddev = noisegen.power_decay_from_variance(0.09, gamma=1.0)
      >>> print(stddev(jnp.array([0, 3, 99])))
      [0.3  0.15 0.03]

    References:
      Neelakantan et al., `Adding Gradient Noise Improves Learning for Very Deep Networks
      <https://arxiv.org/abs/1511.06807>`_, 2015
    """
    init_variance, gamma = _validate.non_negative(init_variance=init_variance, gamma=gamma)
    return power_decay(init_variance**0.5, gamma / 2)


def hold_then_decay(
    init_value: ArrayLike, num_steps: ArrayLike, decay_rate: ArrayLike = 0.5
) -> Schedule:
    r"""Holds for half of the run, then multiplies by a decay rate every twentieth of it.

    .. math::
      v_t = \epsilon_0 \gamma^{k_t}, \qquad
      k_t = \begin{cases} 0 & t < h \\ \min(10, 1 + \lfloor (t - h) / p \rfloor) & t \ge h
      \end{cases}, \qquad h = \lfloor n / 2 \rfloor, \quad p = \lfloor n / 20 \rfloor

    The first drop is at h and the tenth and last at h + 9p, so the end value is
    :math:`\epsilon_0 \gamma^{10}`. All of it is integer arithmetic: the drops fall on exactly
    these updates. What n lacks to a multiple of 20 (at most 10 updates) is spent at the end value.

    Args:
      init_value: :math:`\epsilon_0 > 0`, the value of the first half.
      num_steps: n, updates in the run, at least 20 (a fraction is cut off).
      decay_rate: :math:`\gamma`, above 0 and at most 1: each of the ten drops multiplies by it, as
        in optax's schedules. To halve give 0.5, not 2.

    Returns:
      A schedule: update index -> value. NaN where JAX arrays have a decay rate out of its range.

    Raises:
      ValueError: a concrete argument is out of its range.

    Examples:
      >>> import jax.numpy as jnp, noisegen
      >>> learning_rate = noisegen.hold_then_decay(0.8, num_steps=9765)
      >>> print(learning_rate(jnp.array([0, 4881, 4882, 5369, 5370, 9764])))
      [8.0000e-01 8.0000e-01 4.0000e-01 4.0000e-01 2.0000e-01 7.8125e-04]

    References:
      Smith, Elsen & De, `On the Generalization Benefit of Noise in Stochastic Gradient Descent
      <https://arxiv.org/abs/2006.15081>`_, 2020, section 4
    """
    [init_value] = _validate.positive(init_value=init_value)
    init_value, decay_rate = _checked_rate(init_value, decay_rate)
    drops = _ten_drops(num_steps)
    return lambda count: init_value * decay_rate ** as_float(num_reached(drops, count))


def hold_then_decay_to(
    init_value: ArrayLike, num_steps: ArrayLike, final_value: ArrayLike
) -> Schedule:
    r"""Holds for half of the run, then falls to a final value in ten equal ratios.

    :func:`hold_then_decay` with :math:`\gamma = (\epsilon_f / \epsilon_0)^{1/10}`, so that the
    initial and the final value can be tuned independently. A final value above the initial one
    makes it rise.

    Args:
      init_value: :math:`\epsilon_0 > 0`, the value of the first half.
      num_steps: n, updates in the run, at least 20 (a fraction is cut off).
      final_value: :math:`\epsilon_f > 0`, the value after the tenth drop.

    Returns:
      A schedule: update index -> value.

    Raises:
      ValueError: a concrete argument is out of its range.

    Examples:
      >>> import jax.numpy as jnp, noisegen
      >>> learning_rate = noisegen.hold_then_decay_to(1.0, num_steps=100, final_value=0.01)
      >>> print(learning_rate(jnp.array([0, 49, 95, 99])))
      [1.   1.   0.01 0.01]

    References:
      Smith, Elsen & De, 2020 (see :func:`hold_then_decay`), section 7.1
    """
    init_value, final_value = _validate.positive(init_value=init_value, final_value=final_value)
    drops = _ten_drops(num_steps)
    ratio = final_value / init_value
    return lambda count: init_value * ratio ** (as_float(num_reached(drops, count)) / _NUM_DROPS)


def step_decay(
    init_value: ArrayLike,
    epochs: Sequence[float],
    decay_rate: ArrayLike,
    num_updates_per_epoch: ArrayLike,
) -> Schedule:
    r"""Multiplies by a decay rate at given epochs.

    .. math:: v_t = \epsilon_0 \gamma^{k_t}, \qquad k_t = \#\{e \in \text{epochs} : t \ge e u\}

    A drop happens at the first update that starts at or after its epoch. Epochs times u is taken
    for a whole number when it is one up to rounding, so a fractional u cannot delay a drop. (A
    traced u has single precision: where a run is millions of updates, a drop may be one early.)

    Args:
      init_value: :math:`\epsilon_0 > 0`, the value before the first drop.
      epochs: where the drops are, increasing, in epochs from the start; not traced. A drop at
        infinity, or past the last update that an int32 counts, never comes.
      decay_rate: :math:`\gamma`, above 0 and at most 1: every drop multiplies by it, as in optax's
        schedules. To halve give 0.5, not 2.
      num_updates_per_epoch: u > 0, updates in an epoch; N / B, a fraction, where batches straddle
        epochs.

    Returns:
      A schedule: update index -> value. NaN where JAX arrays have a decay rate or number of updates
      out of its range.

    Raises:
      ValueError: `epochs` does not increase from above zero, or a concrete number is out of its
        range.

    Examples:
      >>> import jax.numpy as jnp, noisegen
      >>> learning_rate = noisegen.step_decay(0.1, (30, 60), 0.1, num_updates_per_epoch=5)
      >>> print(learning_rate(jnp.array([0, 149, 150, 299, 300])))
      [0.1   0.1   0.01  0.01  0.001]
    """
    init_value, per_epoch = _validate.positive(
        init_value=init_value, num_updates_per_epoch=num_updates_per_epoch
    )
    init_value, decay_rate = _checked_rate(init_value, decay_rate)
    if isinstance(per_epoch, jax.Array):
        init_value = jnp.where(per_epoch > 0, init_value, jnp.nan)
    boundaries = _first_updates(epochs, per_epoch)
    return lambda count: init_value * decay_rate ** as_float(num_reached(boundaries, count))


def _checked_rate(init_value: ArrayLike, decay_rate: ArrayLike) -> tuple[ArrayLike, ArrayLike]:
    """Returns a schedule's two numbers; the first is NaN where the traced second makes no sense."""
    [decay_rate] = _validate.multiplier(decay_rate=decay_rate)
    if isinstance(decay_rate, jax.Array):  # the initial value, since NaN to the power of 0 is 1
        init_value = jnp.where((decay_rate > 0) & (decay_rate <= 1), init_value, jnp.nan)
    return init_value, decay_rate


def _ten_drops(num_steps: ArrayLike) -> Any:
    """Returns the updates of the ten drops; whole numbers throughout."""
    _validate.in_range(2 * _NUM_DROPS, np.inf, num_steps=num_steps)
    num_steps = as_count(num_steps)[..., None]
    xp = jnp if isinstance(num_steps, jax.Array) else np
    if jnp.issubdtype(num_steps.dtype, jnp.floating):
        num_steps = xp.floor(num_steps)
    hold, interval = num_steps // 2, xp.maximum(num_steps // (2 * _NUM_DROPS), 1)
    return hold + interval * xp.arange(_NUM_DROPS, dtype=num_steps.dtype)


def _first_updates(epochs: Sequence[float], per_epoch: ArrayLike) -> Any:
    """Returns the first update at or after each epoch, infinite where it never comes."""
    [epochs] = _validate.real(epochs=epochs)
    epochs = np.asarray(epochs, float)
    if epochs.ndim != 1 or not np.all(np.diff(epochs, prepend=0) > 0):
        raise ValueError(
            f"epochs must be increasing numbers above zero, but they are {epochs.tolist()}."
        )
    # In double precision when the number is concrete, in single when it is traced; shrunk by the
    # error of one division and one product, lest 60000.004 be rounded up to the next update.
    if isinstance(per_epoch, jax.Array):
        epochs = jnp.asarray(np.minimum(epochs, 1e30), per_epoch.dtype)
    else:
        per_epoch = np.float64(per_epoch)
    with np.errstate(over="ignore"):  # to infinity, as it should
        updates = epochs * per_epoch[..., None]
    shrunk = updates * (1 - 2 * float(jnp.finfo(updates.dtype).eps))
    return jnp.ceil(shrunk) if isinstance(shrunk, jax.Array) else np.ceil(shrunk)
