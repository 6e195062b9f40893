r"""How much the loss can rise in a small box around the parameters.

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
from noisegen.diagnostics import hessian

PyTree = Any

_FIRST = 1 / 8  # step, of a coordinate with a gradient of mean size; a box reaches from -1 to 1
_SHORTEST, _LONGEST = 2.0**-30, 2.0**30  # first tries, so that halving never ends in 0
_HALVINGS = 12
_ENOUGH = 0.3  # of the rise that the slope promises: steps far past a maximum are halved


def sharpness(
    loss: Callable[[PyTree], jax.Array],
    params: PyTree,
    *,
    epsilon: ArrayLike = 1e-3,
    num_iterations: int = 10,
    subspace: int | None = None,
    key: jax.Array | None = None,
) -> jax.Array:
    r"""Largest relative rise of the loss in a box around the parameters, in percent.

    With the flattened parameters x, n of them, and a matrix A (n x p; the identity for the full
    space),

    .. math:: \phi = 100 \, \frac{\max_{z \in C_\epsilon} f(x + A z) - f(x)}{1 + f(x)}, \qquad
      C_\epsilon = \{ z : |z_i| \le \epsilon (|(A^+ x)_i| + 1) \} .

    **The maximum** is searched for, so that the value is a lower bound, 0 at least. Keskar et al.
    take 10 iterations of L-BFGS-B, a program for one problem at a time on the host. Here it is
    projected gradient ascent, which maps over many networks: in units of the box, a step of the
    gradient over its mean size, clipped to the box, and halved until the loss rises by a fair part
    of what the slope promises; the next step starts at twice its length. In a box this small the
    loss mostly bends upwards and its maximum is at a corner. The first steps, 1/8 long, choose the
    corner as L-BFGS-B does, from inside; ten steps that double reach it in every coordinate that
    counts (of a linear loss, they miss less than 1 % of the rise). Where the gradient is exactly 0,
    all coordinates go up.

    **A random subspace** has independent standard normal entries in A, our choice: the paper only
    says random. Memory: twice n x p x 4 bytes. Compare values of one epsilon and subspace only.

    Args:
      loss: params -> scalar, f > -1 (most losses are never negative); free of dropout, with batch
        statistics fixed or those of a fixed batch.
      params: pytree of floating-point arrays; raised to float32.
      epsilon: > 0, the box's half width for a parameter of 0. The paper: 1e-3 and 5e-4.
      num_iterations: >= 1, a gradient each and from 1 to 13 losses. With fewer than 8, corners are
        not reached.
      subspace: p, 1 <= p <= n; None for the full space. The paper: 100.
      key: draws A; needed with `subspace`, else not used. Networks to be compared share it.

    Returns:
      A scalar. NaN where the loss or its gradient at `params` is not finite, or the loss is -1 or
      less. Points of the box where the loss is not finite do not count.

    Raises:
      ValueError: a leaf is not floating-point, a number is out of its range, or `subspace` comes
        without a key.

    Examples:
      >>> import jax.numpy as jnp
      >>> from noisegen import diagnostics
      >>> w = jnp.array([1.0])  # the loss is 1, and 1.002**2 at the corner
      >>> print(f"{diagnostics.sharpness(lambda w: jnp.sum(w**2), w):.4f}")
      0.2002
    """
    epsilon, _ = _validate.positive(epsilon=epsilon, num_iterations=num_iterations)
    [num_iterations] = _validate.whole(1, num_iterations=num_iterations)
    flat_loss, x = hessian.flatten(loss, params)
    # Otherwise accelerators round matrix products to 10 bits, more than the loss rises.
    with jax.default_matmul_precision("highest"):
        half_widths, displace = _box(x, epsilon, subspace, key)

        def loss_in_box(u):  # |u_i| <= 1
            return flat_loss(x + displace(half_widths * u))

        centre = jnp.zeros_like(half_widths)
        start, gradient = jax.value_and_grad(loss_in_box)(centre)
        highest = _climb(loss_in_box, (centre, start, gradient), num_iterations)
    rise = jnp.maximum(highest - start, 0.0)  # the same loss may round differently
    defined = jnp.isfinite(start) & (start > -1) & jnp.isfinite(gradient).all()
    return jnp.where(defined, 100 * rise / (1 + start), jnp.nan)


def _box(
    x: jax.Array, epsilon: ArrayLike, subspace: int | None, key: jax.Array | None
) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
    """Half widths of the box of z, and z -> A z."""
    if subspace is None:
        return epsilon * (jnp.abs(x) + 1), lambda z: z
    [subspace] = _validate.whole(1, subspace=subspace)
    if not subspace <= x.size or key is None:
        raise ValueError(
            f"subspace must lie between 1 and the number of parameters, {x.size}, and come with a "
            f"key, but it is {subspace} {'without' if key is None else 'with'} a key."
        )
    key = jax.random.clone(key)  # that networks share a key is no mistake
    a = jax.random.normal(key, (x.size, subspace), jnp.float32)
    q, r = jnp.linalg.qr(a)
    coordinates = jax.scipy.linalg.solve_triangular(r, q.T @ x)
    return epsilon * (jnp.abs(coordinates) + 1), lambda z: a @ z


def _climb(
    loss: Callable[[jax.Array], jax.Array],
    start: tuple[jax.Array, jax.Array, jax.Array],
    num_iterations: int,
) -> jax.Array:
    """The highest loss found; `start` is a point, its loss and its gradient."""

    def iterate(_, carry):
        u, value, gradient, size = carry
        mean = jnp.abs(gradient).mean()
        uphill = jnp.where(mean > 0, gradient / mean, 1.0)

        def move(size):
            return jnp.clip(u + size * uphill, -1, 1)

        size, found = _backtrack(
            lambda s: loss(move(s)), lambda s: gradient @ (move(s) - u), value, size
        )
        u = jnp.where(found, move(size), u)
        return u, *jax.value_and_grad(loss)(u), jnp.clip(2 * size, _SHORTEST, _LONGEST)

    carry = (*start, jnp.float32(_FIRST))
    return jax.lax.fori_loop(0, num_iterations, iterate, carry)[1]


def _backtrack(loss, slope, value, size):
    """The first of size, size / 2, ... that raises the loss enough, and whether there is one."""
    smallest = size * 0.5**_HALVINGS

    def too_long(s):
        raised = loss(s)
        return ~(jnp.isfinite(raised) & (raised >= value + _ENOUGH * slope(s)))

    size = jax.lax.while_loop(lambda s: (s >= smallest) & too_long(s), lambda s: s / 2, size)
    return size, size >= smallest
