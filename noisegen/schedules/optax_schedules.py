"""The usual schedules under optax's names, with numbers that may be traced.

Optax's own functions branch in Python on their arguments, so they cannot take the horizon or the
warm-up of a run while it is traced. These take the same arguments and have the same values:

>>> import jax, jax.numpy as jnp, noisegen
>>> num_steps = jnp.array([100, 200])
>>> print(jax.vmap(lambda n: noisegen.linear_schedule(0.8, 0.0, transition_steps=n)(50))(num_steps))
[0.4 0.6]

t is the update index, 0 at the first update. Lengths are in updates. Negative lengths are refused.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from noisegen import _validate
from noisegen.schedules._counts import updates_since
from noisegen.schedules._transitions import cosine, fraction_done, if_positive, is_reached, mix

# Pairs of a boundary and the factor at it. A traced boundary cannot be the key of a dictionary.
BoundariesAndScales = Mapping[Any, ArrayLike] | Sequence[tuple[ArrayLike, ArrayLike]]


# Optax's own takes any number.
constant_schedule = optax.constant_schedule


def linear_schedule(
    init_value: ArrayLike,
    end_value: ArrayLike,
    transition_steps: ArrayLike,
    transition_begin: ArrayLike = 0,
) -> optax.Schedule:
    """Moves from one value to another along a line.

    v(t) = init_value + (end_value - init_value) u
    u = clip((t - transition_begin) / transition_steps, 0, 1)

    Args:
      init_value: Value at and before update transition_begin.
      end_value: Value transition_steps later and from then on.
      transition_steps: Length of the line, at least 0. As in optax, 0 holds init_value.
      transition_begin: First update of the line, at least 0.

    Returns:
      A schedule: update index -> value.

    Raises:
      ValueError: If a concrete argument is out of its range.

    Examples:
      >>> import jax.numpy as jnp, noisegen
      >>> print(noisegen.linear_schedule(1.0, 0.0, transition_steps=4)(jnp.arange(6)))
      [1.   0.75 0.5  0.25 0.   0.  ]
    """
    init_value, end_value = _validate.finite(init_value=init_value, end_value=end_value)
    _validate.non_negative(transition_steps=transition_steps, transition_begin=transition_begin)

    def schedule(count: ArrayLike) -> jax.Array:
        done = fraction_done(transition_begin, transition_steps, count)
        return mix(init_value, end_value, done)

    return schedule


def polynomial_schedule(
    init_value: ArrayLike,
    end_value: ArrayLike,
    power: ArrayLike,
    transition_steps: ArrayLike,
    transition_begin: ArrayLike = 0,
) -> optax.Schedule:
    """Moves from one value to another as a power of the time that is left.

    v(t) = end_value + (init_value - end_value) (1 - u)**power
    u = clip((t - transition_begin) / transition_steps, 0, 1)

    Args:
      init_value: Value at and before update transition_begin.
      end_value: Value transition_steps later and from then on, if power > 0.
      power: Exponent, at least 0. 1 is :func:`linear_schedule`.
      transition_steps: Length of the transition, at least 0. As in optax, 0 holds init_value.
      transition_begin: First update of the transition, at least 0.

    Returns:
      A schedule: update index -> value.

    Raises:
      ValueError: If a concrete argument is out of its range.

    Examples:
      >>> import jax.numpy as jnp, noisegen
      >>> print(noisegen.polynomial_schedule(1.0, 0.0, power=2, transition_steps=4)(jnp.arange(5)))
      [1.     0.5625 0.25   0.0625 0.    ]
    """
    init_value, end_value = _validate.finite(init_value=init_value, end_value=end_value)
    [power] = _validate.non_negative(power=power)
    _validate.non_negative(transition_steps=transition_steps, transition_begin=transition_begin)

    def schedule(count: ArrayLike) -> jax.Array:
        left = 1.0 - fraction_done(transition_begin, transition_steps, count)
        return mix(end_value, init_value, left**power)

    return schedule


def exponential_decay(
    init_value: ArrayLike,
    transition_steps: ArrayLike,
    decay_rate: ArrayLike,
    transition_begin: ArrayLike = 0,
    staircase: bool = False,
    end_value: ArrayLike | None = None,
) -> optax.Schedule:
    """Multiplies by a decay rate once in transition_steps updates.

    v(t) = init_value * decay_rate**u
    u = max(t - transition_begin, 0) / transition_steps, rounded down if staircase is true

    Args:
      init_value: Value at and before update transition_begin.
      transition_steps: Updates in which the value is multiplied once, at least 0.
      decay_rate: Factor, at least 0. As in optax, init_value is held if this or transition_steps
        is 0.
      transition_begin: First update of the decay, at least 0.
      staircase: Whether to drop once every transition_steps, not a little at each update. A
        Python boolean. Drops are exact in the first 16 million updates.
      end_value: Lower bound of the value if decay_rate < 1, otherwise its upper bound.

    Returns:
      A schedule: update index -> value.

    Raises:
      ValueError: If a concrete argument is out of its range.

    Examples:
      >>> import jax.numpy as jnp, noisegen
      >>> decay = noisegen.exponential_decay(1.0, transition_steps=2, decay_rate=0.25)
      >>> print(decay(jnp.arange(5)))
      [1.     0.5    0.25   0.125  0.0625]
    """
    [init_value] = _validate.finite(init_value=init_value)
    steps, rate = _validate.non_negative(transition_steps=transition_steps, decay_rate=decay_rate)
    _validate.non_negative(transition_begin=transition_begin)
    if end_value is not None:
        [end_value] = _validate.finite(end_value=end_value)

    def schedule(count: ArrayLike) -> jax.Array:
        is_decaying = (steps > 0) & (rate != 0)
        updates = updates_since(transition_begin, count)
        length = jnp.where(is_decaying, steps, 1.0)
        value = init_value * rate ** (updates // length if staircase else updates / length)
        if end_value is not None:
            low, high = jnp.maximum(value, end_value), jnp.minimum(value, end_value)
            value = jnp.where(rate < 1, low, high)
        return jnp.where(is_decaying, value, init_value)

    return schedule


def cosine_decay_schedule(
    init_value: ArrayLike,
    decay_steps: ArrayLike,
    alpha: ArrayLike = 0.0,
    exponent: ArrayLike = 1.0,
) -> optax.Schedule:
    """Decays along half a period of a cosine.

    v(t) = init_value (alpha + (1 - alpha) c**exponent)
    c = (1 + cos(pi min(t / decay_steps, 1))) / 2

    Args:
      init_value: Value at update 0.
      decay_steps: Length of the decay, > 0. In most cases it is the number of updates of the run.
      alpha: Last value as a fraction of init_value.
      exponent: Exponent of the cosine, at least 0.

    Returns:
      A schedule: update index -> value. NaN if a traced decay_steps is not above 0.

    Raises:
      ValueError: If a concrete argument is out of its range.

    Examples:
      >>> import jax.numpy as jnp, noisegen
      >>> learning_rate = noisegen.cosine_decay_schedule(0.8, decay_steps=100, alpha=0.5)
      >>> print(learning_rate(jnp.array([0, 50, 100, 200])))
      [0.8 0.6 0.4 0.4]

    References:
      Loshchilov & Hutter, `SGDR: Stochastic Gradient Descent with Warm Restarts
      <https://arxiv.org/abs/1608.03983>`_, 2017
    """
    init_value, alpha = _validate.finite(init_value=init_value, alpha=alpha)
    [exponent] = _validate.non_negative(exponent=exponent)
    [steps] = _validate.positive(decay_steps=decay_steps)
    init_value = if_positive(steps, init_value)

    def schedule(count: ArrayLike) -> jax.Array:
        left = cosine(fraction_done(0, decay_steps, count))
        return init_value * mix(alpha, 1.0, left**exponent)

    return schedule


def piecewise_constant_schedule(
    init_value: ArrayLike, boundaries_and_scales: BoundariesAndScales | None = None
) -> optax.Schedule:
    """Multiplies by a factor at each boundary.

    v(t) = init_value * product of the factors whose boundary b has t >= b

    Args:
      init_value: Value before the first boundary.
      boundaries_and_scales: Dictionary ``{boundary: factor}`` as in optax, or pairs
        ``[(boundary, factor), ...]``, since a traced boundary cannot be the key of a dictionary.
        Both are at least 0. A boundary at infinity is never reached.

    Returns:
      A schedule: update index -> value.

    Raises:
      ValueError: If a concrete argument is out of its range.

    Examples:
      >>> import jax, jax.numpy as jnp, noisegen
      >>> schedule = noisegen.piecewise_constant_schedule(1.0, {3: 0.5, 5: 0.1})
      >>> print(schedule(jnp.arange(7)))
      [1.   1.   1.   0.5  0.5  0.05 0.05]
      >>> @jax.jit
      ... def learning_rate(num_updates, t):
      ...     return noisegen.piecewise_constant_schedule(1.0, [(num_updates // 2, 0.1)])(t)
      >>> print(learning_rate(10, jnp.array([4, 5])))
      [1.  0.1]
    """
    [init_value] = _validate.finite(init_value=init_value)
    pairs = boundaries_and_scales or ()
    checked = []
    for boundary, scale in pairs.items() if isinstance(pairs, Mapping) else pairs:
        _validate.at_least(0, **{"a boundary of boundaries_and_scales": boundary})
        [scale] = _validate.non_negative(**{"a scale of boundaries_and_scales": scale})
        checked.append((boundary, scale))

    def schedule(count: ArrayLike) -> jax.Array:
        value = jnp.asarray(init_value)
        for boundary, scale in checked:
            value = jnp.where(is_reached(boundary, count), value * scale, value)
        return value

    return schedule


def join_schedules(
    schedules: Sequence[optax.Schedule], boundaries: Sequence[ArrayLike]
) -> optax.Schedule:
    """Applies schedules one after the other, by ``optax.join_schedules``.

    v(t) = schedules[k](t - boundaries[k - 1]), where k is the number of boundaries with t >= b;
    the first schedule gets t itself

    Args:
      schedules: Schedules, K + 1 of them. Each starts to count at its boundary.
      boundaries: Updates at which the next schedule takes over, K increasing numbers, at least 0.

    Returns:
      A schedule: update index -> value.

    Raises:
      ValueError: If there is not one boundary between every two schedules, or a concrete one is
        negative.

    Examples:
      >>> import jax.numpy as jnp, noisegen
      >>> rise = noisegen.linear_schedule(0.0, 1.0, transition_steps=2)
      >>> fall = noisegen.exponential_decay(1.0, transition_steps=1, decay_rate=0.5)
      >>> print(noisegen.join_schedules([rise, fall], [2])(jnp.arange(5)))
      [0.   0.5  1.   0.5  0.25]
    """
    if len(boundaries) != len(schedules) - 1:
        raise ValueError(
            f"boundaries must be one fewer than the schedules, but there are {len(boundaries)} for "
            f"{len(schedules)} schedules."
        )
    for boundary in boundaries:
        _validate.non_negative(**{"a boundary": boundary})
    return optax.join_schedules(tuple(schedules), tuple(boundaries))
