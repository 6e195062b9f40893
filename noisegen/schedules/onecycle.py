"""One-cycle schedules under optax's names: rise to a peak and fall below the first value.

All numbers may be traced, including the length of the cycle.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from noisegen import _validate
from noisegen.schedules._counts import as_float
from noisegen.schedules._transitions import cosine, fraction_done, if_positive, is_reached, mix


def linear_onecycle_schedule(
    transition_steps: ArrayLike,
    peak_value: ArrayLike,
    pct_start: ArrayLike = 0.3,
    pct_final: ArrayLike = 0.85,
    div_factor: ArrayLike = 25.0,
    final_div_factor: ArrayLike = 1e4,
) -> optax.Schedule:
    """Rises, falls and fades along three lines.

    The lines connect, with n = transition_steps and init_value = peak_value / div_factor,
    t = 0:                     init_value
    t = floor(pct_start n):    peak_value
    t = floor(pct_final n):    init_value
    t = n:                     init_value / final_div_factor, which is held

    If two of these updates are the same, as in a cycle of one update, the later line begins at its
    own value. Optax's schedule loses a factor there.

    If a number is traced, the products have single precision. A line may then begin one update
    earlier or later than with concrete numbers (never with the default fractions, up to 400,000
    updates).

    Args:
      transition_steps: Updates of the cycle n, > 0.
      peak_value: Largest value.
      pct_start: Fraction of the cycle at the peak, from 0 to 1.
      pct_final: Fraction of the cycle at which the last line begins, from pct_start to 1.
      div_factor: Ratio of the peak to the first value, > 0.
      final_div_factor: Ratio of the first value to the last, > 0.

    Returns:
      A schedule: update index -> value. NaN if a traced transition_steps is not above 0.

    Raises:
      ValueError: If a concrete argument is out of its range.

    Examples:
      >>> import jax.numpy as jnp, noisegen
      >>> cycle = noisegen.linear_onecycle_schedule(100, 0.8, div_factor=4, final_div_factor=10)
      >>> print(cycle(jnp.array([0, 15, 30, 85, 100])))
      [0.2  0.5  0.8  0.2  0.02]

    References:
      Smith & Topin, `Super-Convergence: Very Fast Training of Neural Networks Using Large Learning
      Rates <https://arxiv.org/abs/1708.07120>`_, 2017
    """
    start, final = _validate.fraction(pct_start=pct_start, pct_final=pct_final)
    # The name is for the message.
    _validate.non_negative(pct_final_beyond_pct_start=final - start)
    peak, init, last = _cycle_values(transition_steps, peak_value, div_factor, final_div_factor)
    points = [
        (0, init),
        (_whole_part(start, transition_steps), peak),
        (_whole_part(final, transition_steps), init),
        (transition_steps, last),
    ]
    return _through(points, lambda done: 1.0 - done)


def cosine_onecycle_schedule(
    transition_steps: ArrayLike,
    peak_value: ArrayLike,
    pct_start: ArrayLike = 0.3,
    div_factor: ArrayLike = 25.0,
    final_div_factor: ArrayLike = 1e4,
) -> optax.Schedule:
    """Rises, then falls, each along half a period of a cosine.

    The cosines connect, with n = transition_steps and init_value = peak_value / div_factor,
    t = 0:                     init_value
    t = floor(pct_start n):    peak_value
    t = n:                     init_value / final_div_factor, which is held

    Traced numbers are rounded as in :func:`linear_onecycle_schedule`.

    Args:
      transition_steps: Updates of the cycle n, > 0.
      peak_value: Largest value.
      pct_start: Fraction of the cycle at the peak, from 0 to 1.
      div_factor: Ratio of the peak to the first value, > 0.
      final_div_factor: Ratio of the first value to the last, > 0.

    Returns:
      A schedule: update index -> value. NaN if a traced transition_steps is not above 0.

    Raises:
      ValueError: If a concrete argument is out of its range.

    Examples:
      >>> import jax.numpy as jnp, noisegen
      >>> cycle = noisegen.cosine_onecycle_schedule(100, 0.8, div_factor=4, final_div_factor=10)
      >>> print(cycle(jnp.array([0, 15, 30, 100])))
      [0.2  0.5  0.8  0.02]

    References:
      Smith & Topin, 2017 (see :func:`linear_onecycle_schedule`)
    """
    [start] = _validate.fraction(pct_start=pct_start)
    peak, init, last = _cycle_values(transition_steps, peak_value, div_factor, final_div_factor)
    points = [
        (0, init),
        (_whole_part(start, transition_steps), peak),
        (transition_steps, last),
    ]
    return _through(points, cosine)


def _whole_part(fraction: ArrayLike, steps: ArrayLike) -> Any:
    """Returns floor(fraction * steps), as Python calculates it if both are concrete."""
    [steps] = _validate.real(steps=steps)
    product = fraction * steps
    return jnp.floor(product) if isinstance(product, jax.Array) else np.floor(product)


def _cycle_values(
    transition_steps: ArrayLike,
    peak_value: ArrayLike,
    div_factor: ArrayLike,
    final_div_factor: ArrayLike,
) -> tuple[ArrayLike, ArrayLike, ArrayLike]:
    """Returns the largest, first and last value of a cycle, after a check of the arguments."""
    [steps] = _validate.positive(transition_steps=transition_steps)
    [peak] = _validate.finite(peak_value=peak_value)
    div, final_div = _validate.positive(div_factor=div_factor, final_div_factor=final_div_factor)
    peak = if_positive(steps, peak)
    return peak, peak / div, peak / div / final_div


def _through(
    points: Sequence[tuple[ArrayLike, ArrayLike]], left: Callable[[jax.Array], jax.Array]
) -> optax.Schedule:
    """Returns a schedule that connects points (update, value).

    Args:
      points: Updates in order, the first at 0, and the values there. The last value is held.
      left: Weight of the value at the beginning of a piece, for the fraction of it that is done.
    """

    def schedule(count: ArrayLike) -> jax.Array:
        # At every boundary, the piece that begins there replaces those before it.
        value = points[0][1]
        for (begin, start), (end, stop) in itertools.pairwise(points):
            steps = as_float(end) - as_float(begin)
            piece = mix(stop, start, left(fraction_done(begin, steps, count)))
            value = jnp.where(is_reached(begin, count), piece, value)
        end, stop = points[-1]
        return jnp.where(is_reached(end, count), stop, value)

    return schedule
