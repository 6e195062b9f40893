"""Decay schedules: power law, hold then decay (Smith et al.), steps at given epochs.

Every schedule is a function of the update index t = 0, 1, 2, ... All numbers may be traced,
including the length of the run, so one compiled program can train runs of different lengths:

>>> import jax, jax.numpy as jnp, noisegen
>>> num_steps = jnp.array([100, 200])
>>> print(jax.vmap(lambda n: noisegen.hold_then_decay_schedule(1.0, num_steps=n)(69))(num_steps))
[0.0625 1.    ]
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from noisegen import _validate
from noisegen.schedules._counts import as_count, as_float, num_reached

_NUM_DROPS = 10  # One drop per twentieth of the run, in its second half.
_LATEST = 1e30  # Epoch that stands for infinity in float32, where infinity times 0 would be NaN.


def power_decay_schedule(init_value: ArrayLike, gamma: ArrayLike) -> optax.Schedule:
    """Decays as a power of the update index.

    v(t) = init_value / (1 + t)**gamma

    As the argument of :func:`noisegen.add_gradient_noise`, the value is a **standard deviation**.
    For papers that state a variance, as ``optax.add_noise`` does, use
    :func:`power_decay_from_variance_schedule`.

    Args:
      init_value: Value at update 0, at least 0.
      gamma: Exponent, at least 0.

    Returns:
      A schedule: update index -> value.

    Raises:
      ValueError: If a concrete argument is negative or not finite.

    Examples:
      >>> import jax.numpy as jnp, noisegen
      >>> stddev = noisegen.power_decay_schedule(0.3, gamma=0.5)
      >>> print(stddev(jnp.array([0, 3, 99])))
      [0.3  0.15 0.03]
    """
    init_value, gamma = _validate.non_negative(init_value=init_value, gamma=gamma)

    def schedule(count: ArrayLike) -> jax.Array:
        return init_value / (1.0 + as_float(count)) ** gamma

    return schedule


def power_decay_from_variance_schedule(
    init_variance: ArrayLike, gamma: ArrayLike
) -> optax.Schedule:
    """Returns a standard deviation, whose variance decays as a power of the update index.

    v(t) = sqrt(init_variance / (1 + t)**gamma)

    This equals ``power_decay_schedule(sqrt(init_variance), gamma / 2)``. It is the noise of
    ``optax.add_noise(init_variance, gamma)``.

    Args:
      init_variance: Variance at update 0, at least 0.
      gamma: Exponent of the variance, at least 0.

    Returns:
      A schedule: update index -> standard deviation.

    Raises:
      ValueError: If a concrete argument is negative or not finite.

    Examples:
      >>> import jax.numpy as jnp, noisegen
      >>> stddev = noisegen.power_decay_from_variance_schedule(0.09, gamma=1.0)
      >>> print(stddev(jnp.array([0, 3, 99])))
      [0.3  0.15 0.03]

    References:
      Neelakantan et al., `Adding Gradient Noise Improves Learning for Very Deep Networks
      <https://arxiv.org/abs/1511.06807>`_, 2015
    """
    init_variance, gamma = _validate.non_negative(init_variance=init_variance, gamma=gamma)
    # The square root of the whole law, which is the same law with other numbers.
    return power_decay_schedule(init_variance**0.5, gamma / 2)


def hold_then_decay_schedule(
    init_value: ArrayLike, num_steps: ArrayLike, decay_rate: ArrayLike = 0.5
) -> optax.Schedule:
    """Holds for half of the run, then drops every twentieth of the run.

    v(t) = init_value * decay_rate**k(t)
    k(t) = number of j in 10, 11, ..., 19 with t >= floor(j num_steps / 20)

    The first drop is after half of the updates, the tenth and last at the last twentieth. All of it
    is integer arithmetic, so drops fall on exactly these updates.

    Args:
      init_value: Value in the first half, > 0.
      num_steps: Updates in the run, at least 20. A fractional part is dropped.
      decay_rate: Factor of each of the ten drops, in (0, 1], as in optax. 0.5 halves the value.

    Returns:
      A schedule: update index -> value. NaN if a traced decay rate is out of its range.

    Raises:
      ValueError: If a concrete argument is out of its range.

    Examples:
      >>> import jax.numpy as jnp, noisegen
      >>> learning_rate = noisegen.hold_then_decay_schedule(0.8, num_steps=9765)
      >>> print(learning_rate(jnp.array([0, 4881, 4882, 5369, 5370, 9764])))
      [8.0000e-01 8.0000e-01 4.0000e-01 4.0000e-01 2.0000e-01 7.8125e-04]

    References:
      Smith, Elsen & De, `On the Generalization Benefit of Noise in Stochastic Gradient Descent
      <https://arxiv.org/abs/2006.15081>`_, 2020, section 4
    """
    [init_value] = _validate.positive(init_value=init_value)
    init_value, decay_rate = _checked_rate(init_value, decay_rate)
    drops = _ten_drops(num_steps)

    def schedule(count: ArrayLike) -> jax.Array:
        return init_value * decay_rate ** as_float(num_reached(drops, count))

    return schedule


def hold_then_decay_to_schedule(
    init_value: ArrayLike, num_steps: ArrayLike, final_value: ArrayLike
) -> optax.Schedule:
    """Holds for half of the run, then reaches a final value in ten drops of equal ratio.

    This is :func:`hold_then_decay_schedule` with
    decay_rate = (final_value / init_value)**(1 / 10), so that initial and final value can be tuned
    independently. The value rises if final_value is larger.

    Args:
      init_value: Value in the first half, > 0.
      num_steps: Updates in the run, at least 20. A fractional part is dropped.
      final_value: Value after the tenth drop, > 0.

    Returns:
      A schedule: update index -> value.

    Raises:
      ValueError: If a concrete argument is out of its range.

    Examples:
      >>> import jax.numpy as jnp, noisegen
      >>> learning_rate = noisegen.hold_then_decay_to_schedule(1.0, num_steps=100, final_value=0.01)
      >>> print(learning_rate(jnp.array([0, 49, 95, 99])))
      [1.   1.   0.01 0.01]

    References:
      Smith, Elsen & De, 2020 (see :func:`hold_then_decay_schedule`), section 7.1
    """
    init_value, final_value = _validate.positive(init_value=init_value, final_value=final_value)
    drops = _ten_drops(num_steps)
    ratio = final_value / init_value

    def schedule(count: ArrayLike) -> jax.Array:
        # The exponent is exactly 1 after the tenth drop.
        return init_value * ratio ** (as_float(num_reached(drops, count)) / _NUM_DROPS)

    return schedule


def step_decay_schedule(
    init_value: ArrayLike,
    epochs: Sequence[ArrayLike] | ArrayLike,
    decay_rate: ArrayLike,
    num_updates_per_epoch: ArrayLike,
) -> optax.Schedule:
    """Multiplies by a decay rate at given epochs.

    v(t) = init_value * decay_rate**k(t)
    k(t) = number of epochs e with t >= e * num_updates_per_epoch

    A drop happens at the first update that starts at or after its epoch. Products that are whole
    numbers up to rounding count as whole, so a fractional num_updates_per_epoch cannot delay a
    drop. Traced numbers have single precision: in runs of millions of updates, a drop may come one
    update early.

    Args:
      init_value: Value before the first drop, > 0.
      epochs: Epochs of the drops, `(K,)`, increasing from above 0. A drop at infinity, or beyond
        the largest update that an int32 counts, never happens.
      decay_rate: Factor of each drop, in (0, 1], as in optax. 0.5 halves the value.
      num_updates_per_epoch: Updates per epoch, > 0. It is fractional (N / B) if batches straddle
        epochs.

    Returns:
      A schedule: update index -> value. NaN if a traced argument is out of its range.

    Raises:
      ValueError: If the epochs do not increase from above 0, or a concrete number is out of its
        range.

    Examples:
      >>> import jax.numpy as jnp, noisegen
      >>> learning_rate = noisegen.step_decay_schedule(
      ...     0.1, (30, 60), decay_rate=0.1, num_updates_per_epoch=5
      ... )
      >>> print(learning_rate(jnp.array([0, 149, 150, 299, 300])))
      [0.1   0.1   0.01  0.01  0.001]
    """
    init_value, per_epoch = _validate.positive(
        init_value=init_value, num_updates_per_epoch=num_updates_per_epoch
    )
    init_value, decay_rate = _checked_rate(init_value, decay_rate)
    if isinstance(per_epoch, jax.Array):
        init_value = jnp.where(per_epoch > 0, init_value, jnp.nan)
    epochs = _checked_epochs(epochs)
    if isinstance(epochs, jax.Array):
        increase = jnp.all(epochs > 0) & jnp.all(epochs[1:] > epochs[:-1])
        init_value = jnp.where(increase, init_value, jnp.nan)
    boundaries = _first_updates(epochs, per_epoch)

    def schedule(count: ArrayLike) -> jax.Array:
        return init_value * decay_rate ** as_float(num_reached(boundaries, count))

    return schedule


def _checked_rate(init_value: ArrayLike, decay_rate: ArrayLike) -> tuple[ArrayLike, ArrayLike]:
    """Returns both numbers; the initial value is NaN if a traced decay rate is out of range."""
    [decay_rate] = _validate.multiplier(decay_rate=decay_rate)
    if isinstance(decay_rate, jax.Array):
        # The initial value becomes NaN, not the decay rate, since NaN**0 is 1.
        init_value = jnp.where((decay_rate > 0) & (decay_rate <= 1), init_value, jnp.nan)
    return init_value, decay_rate


def _ten_drops(num_steps: ArrayLike) -> Any:
    """Returns the update indices of the ten drops, calculated in whole numbers."""
    _validate.in_range(2 * _NUM_DROPS, np.inf, num_steps=num_steps)
    num_steps = as_count(num_steps)[..., None]  # With an axis for the drops.
    xp = jnp if isinstance(num_steps, jax.Array) else np
    if jnp.issubdtype(num_steps.dtype, jnp.floating):
        num_steps = xp.floor(num_steps)
    twentieths = _NUM_DROPS + xp.arange(_NUM_DROPS, dtype=num_steps.dtype)
    # Equal to twentieths * num_steps // 20, without numbers that are larger than num_steps.
    whole, rest = num_steps // (2 * _NUM_DROPS), num_steps % (2 * _NUM_DROPS)
    return twentieths * whole + twentieths * rest // (2 * _NUM_DROPS)


def _checked_epochs(epochs: Sequence[ArrayLike] | ArrayLike) -> Any:
    """Returns epochs as an array `(K,)`, of JAX if one of them is a JAX array, else of NumPy.

    Raises:
      ValueError: If they are not numbers along one axis, or are concrete and do not increase from
        above 0.
    """
    # Traced fields of a run come one by one, and become one array.
    if isinstance(epochs, list | tuple) and any(isinstance(e, jax.Array) for e in epochs):
        numbers = []
        for epoch in epochs:
            _validate.scalar(epochs=epoch)
            [number] = _validate.real(epochs=epoch)
            numbers.append(jnp.asarray(number))
        epochs = jnp.stack(numbers)
    [epochs] = _validate.real(epochs=epochs)
    if isinstance(epochs, jax.Array):
        if epochs.ndim != 1:
            raise ValueError(
                f"epochs must be numbers along one axis, but their shape is {epochs.shape}."
            )
        return epochs
    epochs = np.asarray(epochs, float)
    if epochs.ndim != 1 or not np.all(np.diff(epochs, prepend=0) > 0):
        raise ValueError(
            f"epochs must be increasing numbers above zero, but they are {epochs.tolist()}."
        )
    return epochs


def _first_updates(epochs: Any, per_epoch: ArrayLike) -> Any:
    """Returns the first update at or after each epoch, infinite for a drop that never happens."""
    # Double precision if both are concrete, single precision if one is traced.
    if isinstance(epochs, jax.Array):
        if not isinstance(per_epoch, jax.Array):
            per_epoch = jnp.asarray(per_epoch, epochs.dtype)
        epochs = jnp.minimum(epochs.astype(per_epoch.dtype), _LATEST)
    elif isinstance(per_epoch, jax.Array):
        epochs = jnp.asarray(np.minimum(epochs, _LATEST), per_epoch.dtype)
    else:
        per_epoch = np.float64(per_epoch)
    with np.errstate(over="ignore"):  # An epoch that overflows is never reached.
        updates = epochs * per_epoch[..., None]
    # Division and product each round once. Without this margin, 60000.004 would become 60001.
    shrunk = updates * (1 - 2 * float(jnp.finfo(updates.dtype).eps))
    # In NumPy, concrete boundaries stay float64, which is exact for every count.
    return jnp.ceil(shrunk) if isinstance(shrunk, jax.Array) else np.ceil(shrunk)
