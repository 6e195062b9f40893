"""The arithmetic of ghost batch normalization: statistics of groups, and a custom derivative."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from noisegen import _validate


class Axes(NamedTuple):
    """Axes of an array of ghost batches.

    Statistics of K groups and C features are arrays `(K, C)`. They have no other axes, whereas the
    array `x` also has examples and positions. If there are groups, the axis of the examples of a
    group follows that of the groups.
    """

    groups: int
    features: int

    def expand(self, values_KxC: jax.Array, ndim: int) -> jax.Array:
        """Reshapes statistics, so that they broadcast against an array with `ndim` axes."""
        shape = [1] * ndim
        shape[self.groups], shape[self.features] = values_KxC.shape
        # A reshape keeps the order of elements, so the two axes come in the order of `x` first.
        values = values_KxC if self.groups < self.features else values_KxC.T
        return values.reshape(shape)

    def squeeze(self, values: jax.Array) -> jax.Array:
        """Removes all other axes, of size 1, from statistics: the inverse of `expand`."""
        others = tuple(axis for axis in range(values.ndim) if axis not in self)
        values = values.squeeze(others)
        return values if self.groups < self.features else values.T

    def expand_mask(self, mask_KxG: jax.Array, ndim: int) -> jax.Array:
        """Reshapes a mask of the G examples of each group, so that it broadcasts."""
        shape = [1] * ndim
        shape[self.groups : self.groups + 2] = mask_KxG.shape
        return mask_KxG.reshape(shape)


def affine(
    x: jax.Array,
    mean: jax.Array,
    factor: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    axes: Axes,
) -> jax.Array:
    """Returns scale * (x - mean) * factor + bias: statistics are `(K, C)`, parameters `(C,)`."""
    # One factor per group and feature, so that the large array is multiplied once.
    factor = factor * scale.astype(x.dtype)[None]
    bias = bias.astype(x.dtype)[None]
    centered = x - axes.expand(mean, x.ndim)
    return centered * axes.expand(factor, x.ndim) + axes.expand(bias, x.ndim)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def normalize(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    mask: jax.Array | None,
    axes: Axes,
    epsilon: float,
    relu: bool,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalizes groups of examples by their own statistics.

    The derivative is custom because normalization is bound by memory traffic. It keeps no large
    array but `x`, and recomputes the others in two passes: one for the sums, one for the gradient.

    Args:
      x: Groups of examples, of any floating type.
      scale, bias: Parameters `(C,)`.
      mask: Booleans that broadcast against `x`, or None.
      axes: Axes of `x`.
      epsilon: Number added to the variance.
      relu: Whether to return `max(y, 0)`.

    Returns:
      Normalized values y, like `x`, and mean and variance `(K, C)` of the groups, which have no
      derivative.
    """
    return _forward(x, scale, bias, mask, axes, epsilon, relu)[0]


def _forward(x, scale, bias, mask, axes, epsilon, relu):
    # Centered twice: by `shift`, then by the mean that is left. So one pass gives both moments.
    shift = _shift(x, axes, mask)
    centered = x.astype(shift.dtype) - axes.expand(shift, x.ndim)
    # A product with the mask would not do, because zero times NaN is not zero.
    mean, var = _moments(_where(mask, centered, 0.0), axes, mask)
    centered = _where(mask, centered, axes.expand(mean, x.ndim))
    factor = jax.lax.rsqrt(var + epsilon)
    y = affine(centered, mean, factor, scale, bias, axes).astype(x.dtype)
    if relu:
        y = jax.nn.relu(y)
    return (y, shift + mean, var), (x, scale, bias, mask, shift, mean, factor)


def _backward(axes, epsilon, relu, residuals, cotangents):
    """With z = (x - mean) * factor and means over a group,

    dx = scale * factor * (dy - mean(dy) - z * mean(dy * z))
    """
    x, scale, bias, mask, shift, mean, factor = residuals
    dy = cotangents[0]
    # Without the barriers here and below, XLA stores values that two passes need. To compute them
    # twice is faster than to write and read them.
    x = jax.lax.optimization_barrier(x)

    def read(x: jax.Array, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns z, and the part of dy that the ReLU passes on, 0 outside the mask."""
        # Twice, as in the forward pass: the difference of large numbers would lose the digits.
        z = x.astype(shift.dtype) - axes.expand(shift, x.ndim)
        z = (z - axes.expand(mean, x.ndim)) * axes.expand(factor, x.ndim)
        dy = dy.astype(shift.dtype)
        if relu:
            y = affine(z, jnp.zeros_like(mean), jnp.ones_like(factor), scale, bias, axes)
            # 1 or 0: XLA for GPUs would write a Boolean to memory. Unlike in `jax.nn.relu`, a
            # gradient that is not finite gives NaN also where y is not positive.
            dy = dy * jnp.maximum(jnp.sign(y), 0.0)
        return _where(mask, z, 0.0), _where(mask, dy, 0.0)

    z, passed = read(x, dy)
    mean_dy, mean_dyz = _mean(passed, axes, mask), _mean(passed * z, axes, mask)
    x, dy, mean_dy, mean_dyz = jax.lax.optimization_barrier((x, dy, mean_dy, mean_dyz))
    z, passed = read(x, dy)
    dx = passed - axes.expand(mean_dy, x.ndim) - z * axes.expand(mean_dyz, x.ndim)
    dx = dx * axes.expand(factor * scale.astype(factor.dtype)[None], x.ndim)
    dx = _where(mask, dx, 0.0)
    count = _count_elements(x, axes, mask)
    dbias = (mean_dy * count).sum(0).astype(bias.dtype)
    dscale = (mean_dyz * count).sum(0).astype(scale.dtype)
    return dx.astype(x.dtype), dscale, dbias, None


normalize.defvjp(_forward, _backward)


def _where(mask: jax.Array | None, x: jax.Array, otherwise: jax.Array | float) -> jax.Array:
    """Returns `x` with other values outside the mask, if there is one."""
    return x if mask is None else jnp.where(mask, x, otherwise)


def _shift(x: jax.Array, axes: Axes, mask: jax.Array | None) -> jax.Array:
    """Returns the mean `(K, C)` of the first example of each group that is in the mask.

    The variance of a group of G examples is at least (shift - mean)^2 / G. So the variance of
    values minus the shift loses at most the last log2(G + 1) bits, however far the values are from
    zero.
    """
    axis = axes.groups + 1
    if mask is None:
        first = jax.lax.slice_in_dim(x, 0, 1, axis=axis)
    else:
        first = jnp.take_along_axis(x, mask.argmax(axis, keepdims=True), axis)
        # A group without examples may hold NaN.
        first = jnp.where(mask.any(axis, keepdims=True), first, 0.0)
    others = tuple(axis for axis in range(x.ndim) if axis not in axes)
    return axes.squeeze(first.mean(others, keepdims=True, dtype=_validate.wide(x.dtype)))


def _moments(x: jax.Array, axes: Axes, mask: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Returns mean and variance `(K, C)` of values near 0, 0 outside the mask."""
    mean, square = _mean(x, axes, mask), _mean(x * x, axes, mask)
    # Rounding may take a variance of zero below it.
    return mean, jnp.maximum(square - mean * mean, 0.0)


def _mean(x: jax.Array, axes: Axes, mask: jax.Array | None) -> jax.Array:
    """Returns the mean `(K, C)` over positions and masked-in examples; x is 0 at all others."""
    examples = axes.groups + 1
    positions = tuple(axis for axis in range(x.ndim) if axis not in (*axes, examples))
    if all(x.shape[axis] == 1 for axis in positions):
        sums = x.sum((examples, *positions), keepdims=True)
    else:
        # Without the barrier, XLA for GPUs merges both sums. The numbers of short sums it then
        # stores in float32.
        sums = jax.lax.optimization_barrier(x.sum(positions, keepdims=True))
        sums = sums.sum(examples, keepdims=True)
    return axes.squeeze(sums) / _count_elements(x, axes, mask)


def _count_elements(x: jax.Array, axes: Axes, mask: jax.Array | None) -> jax.Array | float:
    """Returns the number of elements that a mean of `_mean` is over, `(K, 1)` with a mask."""
    num_positions = x.size // math.prod(x.shape[axis] for axis in (*axes, axes.groups + 1))
    if mask is None:
        return float(num_positions * x.shape[axes.groups + 1])
    mask_KxG = mask.reshape(x.shape[axes.groups : axes.groups + 2])
    # At least 1, so that a group without examples has finite statistics, which are not used.
    num_examples = jnp.maximum(mask_KxG.sum(1, keepdims=True), 1)
    return num_examples.astype(_validate.wide(x.dtype)) * float(num_positions)
