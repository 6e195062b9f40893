"""Sharpness of a minimum: largest rise of the loss in a small box around the parameters.

>>> import jax, jax.numpy as jnp
>>> from noisegen import diagnostics
>>> def loss(w, curvature):
...     return curvature * jnp.sum(w**2) / 2
>>> w = jnp.array([0.1, -0.1])
>>> rise = jax.jit(jax.vmap(lambda h: diagnostics.sharpness(lambda w: loss(w, h), w)))
>>> [f"{percent:.3f}" for percent in rise(jnp.array([1.0, 100.0]))]
['0.022', '1.106']

References:
  Keskar et al., `On Large-Batch Training for Deep Learning: Generalization Gap and Sharp Minima
  <https://arxiv.org/abs/1609.04836>`_, 2017, equations 3 and 4
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from noisegen import _validate
from noisegen.diagnostics._flatten import flatten_loss

PyTree = Any

# Step lengths are in units of the box, which reaches from -1 to 1, for a coordinate whose gradient
# has the mean size.
_FIRST_STEP = 1 / 8
_SHORTEST, _LONGEST = 2.0**-30, 2.0**30  # Bounds of the first try, so that halving never reaches 0.
_HALVINGS = 12
_ENOUGH = 0.3  # Fraction of the rise promised by the slope. Steps far past a maximum are halved.


def sharpness(
    loss: Callable[[PyTree], jax.Array],
    params: PyTree,
    *,
    epsilon: ArrayLike = 1e-3,
    num_iterations: int = 10,
    subspace: int | None = None,
    key: jax.Array | None = None,
) -> jax.Array:
    """Searches for the largest relative rise of the loss in a box around the parameters.

    With the n flattened parameters x, and a matrix A (n x p, the identity for the full space):

    sharpness = 100 (max_{z in C} f(x + A z) - f(x)) / (1 + f(x))
    C = {z : |z_i| <= epsilon (|(A^+ x)_i| + 1)}

    **The maximum** is searched for, so the result is a lower bound, at least 0. Keskar et al. use
    10 iterations of L-BFGS-B, which solves one problem at a time on the host. Here it is projected
    gradient ascent, which maps over many networks. In units of the box, a step is the gradient
    divided by its mean size, clipped to the box. It is halved until the loss rises by a fair part
    of the rise that the slope promises. The next step starts at twice its length.

    In a box this small the loss mostly curves upwards, with its maximum at a corner. The first
    steps, of length 1/8, choose the corner from inside, as L-BFGS-B does. Ten doubling steps reach
    it in every coordinate that matters; on a linear loss they miss less than 1 % of the rise. If
    the gradient is exactly 0, all coordinates are increased.

    **A random subspace** has independent standard normal entries in A. This is our choice, since
    the paper only says random. It needs twice n x p x 4 bytes. Compare only values with equal
    epsilon and subspace.

    Args:
      loss: Function params -> scalar f > -1, without dropout, and with batch statistics fixed or
        those of a fixed batch.
      params: Pytree of floating-point arrays, converted to float32.
      epsilon: Half width of the box for a parameter of 0, > 0. The paper uses 1e-3 and 5e-4.
      num_iterations: Number of iterations >= 1, each of one gradient and 1 to 13 losses. With fewer
        than 8, corners are not reached.
      subspace: Dimension p of the subspace, from 1 to n, or None for the full space. The paper uses
        100.
      key: Random key of A, required with `subspace`. Networks that are compared share the key.

    Returns:
      The sharpness in percent, a scalar. NaN if the loss is -1 or less, or if the loss or its
      gradient at `params` is not finite. Points with a loss that is not finite are ignored.

    Raises:
      ValueError: If a leaf is not floating-point, a number is out of its range, or `subspace` is
        given without a key.

    Examples:
      >>> import jax.numpy as jnp
      >>> from noisegen import diagnostics
      >>> w = jnp.array([1.0])  # the loss is 1, and 1.002**2 at the corner
      >>> print(f"{diagnostics.sharpness(lambda w: jnp.sum(w**2), w):.4f}")
      0.2002
    """
    [epsilon] = _validate.positive(epsilon=epsilon)
    [num_iterations] = _validate.whole(1, num_iterations=num_iterations)
    flat_loss, x = flatten_loss(loss, params)
    # Accelerators round matrix products to 10 bits by default, which exceeds the rise of the loss.
    with jax.default_matmul_precision("highest"):
        half_widths, displace = _box(x, epsilon, subspace, key)

        # The box becomes the cube |u_i| <= 1, so one step length suits coordinates of all sizes.
        def loss_in_box(u: jax.Array) -> jax.Array:
            return flat_loss(x + displace(half_widths * u))

        center = jnp.zeros_like(half_widths)
        start, gradient = jax.value_and_grad(loss_in_box)(center)
        highest = _climb(loss_in_box, (center, start, gradient), num_iterations)
    rise = jnp.maximum(highest - start, 0.0)  # The same loss may round differently.
    defined = jnp.isfinite(start) & (start > -1) & jnp.isfinite(gradient).all()
    return jnp.where(defined, 100 * rise / (1 + start), jnp.nan)


def _box(
    x: jax.Array, epsilon: ArrayLike, subspace: int | None, key: jax.Array | None
) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
    """Returns the half widths of the box of z, and the function z -> A z."""
    if subspace is None:
        return epsilon * (jnp.abs(x) + 1), lambda z: z
    [subspace] = _validate.whole(1, subspace=subspace)
    if subspace > x.size or key is None:
        given = "without" if key is None else "with"
        raise ValueError(
            f"subspace must lie between 1 and the number of parameters, {x.size}, and come with a "
            f"key, but it is {subspace} {given} a key."
        )
    key = jax.random.clone(key)  # Networks that are compared may share a key.
    a = jax.random.normal(key, (x.size, subspace), jnp.float32)
    # A^+ x by the QR decomposition of A.
    q, r = jnp.linalg.qr(a)
    coordinates = jax.scipy.linalg.solve_triangular(r, q.T @ x)
    return epsilon * (jnp.abs(coordinates) + 1), lambda z: a @ z


def _climb(
    loss: Callable[[jax.Array], jax.Array],
    start: tuple[jax.Array, jax.Array, jax.Array],
    num_iterations: int,
) -> jax.Array:
    """Returns the highest loss found, from a start point with its loss and gradient."""

    def iterate(_: jax.Array, carry: tuple) -> tuple:
        u, value, gradient, size = carry
        mean = jnp.abs(gradient).mean()
        # At a stationary point all coordinates increase, since no direction is better.
        uphill = jnp.where(mean > 0, gradient / mean, 1.0)

        def move(size: jax.Array) -> jax.Array:
            return jnp.clip(u + size * uphill, -1, 1)

        def loss_after(size: jax.Array) -> jax.Array:
            return loss(move(size))

        def promised_rise(size: jax.Array) -> jax.Array:
            return gradient @ (move(size) - u)  # Of the linear loss, along the clipped step.

        size, raised = _backtrack(loss_after, promised_rise, value, size)
        # Stays where it is if no step raises the loss, so the value never falls.
        u = jnp.where(raised, move(size), u)
        value, gradient = jax.value_and_grad(loss)(u)
        return u, value, gradient, jnp.clip(2 * size, _SHORTEST, _LONGEST)

    carry = (*start, jnp.float32(_FIRST_STEP))
    _, highest, _, _ = jax.lax.fori_loop(0, num_iterations, iterate, carry)
    return highest


def _backtrack(
    loss: Callable[[jax.Array], jax.Array],
    slope: Callable[[jax.Array], jax.Array],
    value: jax.Array,
    size: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Shortens a step until it raises the loss enough.

    Args:
      loss: Function of the step length, the loss after the step.
      slope: Function of the step length, the rise that the slope promises.
      value: Loss before the step.
      size: Step length to begin with.

    Returns:
      The first of size, size / 2, ... that raises the loss enough, and whether there is one.
    """
    smallest = size * 0.5**_HALVINGS

    def is_too_long(s: jax.Array) -> jax.Array:
        raised = loss(s)
        # A loss that is not finite is no maximum, but a network that has broken down.
        return ~(jnp.isfinite(raised) & (raised >= value + _ENOUGH * slope(s)))

    size = jax.lax.while_loop(lambda s: (s >= smallest) & is_too_long(s), lambda s: s / 2, size)
    return size, size >= smallest
