"""Gradient noise: the covariance of per-example gradients, estimated or exact.

Let g_n be the gradient of example n, and G their mean over the N examples. The covariance is
K = 1 / (N - 1) sum_n (g_n - G)(g_n - G)^T. The mean gradient of a batch of B examples, drawn
without replacement, has mean G and covariance (1/B - 1/N) K. With infinitely many examples the
covariance is K / B.

The estimates below are unbiased: averaged over many batches they give K and |G|^2. A ratio of
estimates is biased, so average trace and squared norm separately, and divide last
(`noisegen.diagnostics.noise_scale`).

A complex gradient counts as its real and imaginary parts. Trace and squared norm are those of the
pair, and an entry of the diagonal is the sum of both variances.

>>> import jax, jax.numpy as jnp
>>> from noisegen import diagnostics
>>> x = jnp.array([1.0, 3.0, 5.0, 7.0])  # the loss (w - x)**2 / 2 has the gradient w - x
>>> noise = diagnostics.estimate_gradient_noise({"w": 0.0 - x}, sizes=1)
>>> float(noise.trace).__round__(2), float(jnp.var(x, ddof=1)).__round__(2)
(6.67, 6.67)

References:
  McCandlish et al., `An Empirical Model of Large-Batch Training
  <https://arxiv.org/abs/1812.06162>`_, 2018, appendix A (two batch sizes); Jastrzebski et al.,
  `Three Factors Influencing Minima in SGD <https://arxiv.org/abs/1711.04623>`_, 2017 (covariance
  without replacement)
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from noisegen import _validate

PyTree = Any


class GradientNoise(NamedTuple):
    """Unbiased estimates of the noise of one example's gradient."""

    trace: jax.Array  # (), float32: trace of K
    squared_norm: jax.Array  # (), float32: |G|^2; an estimate may be negative
    diagonal: PyTree  # like the parameters, float32: diagonal of K, or E|g - G|^2 if complex


class GroupSums(NamedTuple):
    """Sums over the groups of a batch, from which the gradient noise is estimated.

    S is the weighted sum of the gradients of a group of n examples. The weights w are usually 1
    each, and sum to n.
    """

    gradient: PyTree  # sum of S
    squares: PyTree  # sum of |S|^2 / n, per coordinate
    size: jax.Array  # sum of n: the batch size
    groups: jax.Array  # sum of (sum of w^2) / n: the number of groups if every weight is 1
    weights: jax.Array  # sum of w^2: the batch size if every weight is 1


def estimate_gradient_noise(
    gradients: PyTree, sizes: ArrayLike, num_examples: ArrayLike = math.inf
) -> GradientNoise:
    """Estimates gradient noise from the mean gradients of a batch's groups.

    Groups are microbatches, devices or examples. With group means g_j of n_j examples, j = 1 .. k,
    and their weighted mean g over the B examples of the batch:

    K = 1 / (k - 1) sum_j n_j (g_j - g)(g_j - g)^T
    |G|^2 = |g|^2 - (1/B - 1/N) trace K

    Args:
      gradients: Pytree of `(k, ...)`, at the same parameters, before any artificial noise. Stack a
        list of k gradients with `jax.tree.map(lambda *g: jnp.stack(g), *gradients)`. A list itself
        would be taken for one pytree.
      sizes: Examples in each group, `(k,)` or one number for all.
      num_examples: Size N of the training set from which the batch is drawn without replacement.
        Infinite for fresh examples. For augmented examples the trace is unbiased with either; the
        unbiased squared norm lies between the two.

    Returns:
      Trace, squared norm and diagonal for one example. NaN if there is a single group, or if a
      traced size is not positive. The squared norm is also NaN if N is less than the batch size.

    Raises:
      ValueError: If leaves or sizes disagree about the number of groups, a concrete size is not
        positive, or N is less than 1 or than the batch size.

    Examples:
      >>> import jax.numpy as jnp
      >>> from noisegen import diagnostics
      >>> noise = diagnostics.estimate_gradient_noise(jnp.array([[1.0, 0.0], [3.0, 0.0]]), sizes=8)
      >>> float(noise.trace), float(noise.squared_norm), noise.diagonal.tolist()
      (16.0, 3.0, [16.0, 0.0])
    """
    num_groups = _num_groups(gradients)
    sizes, num_examples = _checked_sizes(sizes, num_examples, num_groups)
    total = sizes.sum()

    def mean(leaf: ArrayLike) -> jax.Array:
        return _weighted_sum(sizes / total, _single(leaf))

    def variance(leaf: ArrayLike) -> jax.Array:
        # The mean of a group has covariance K / n_j, so every term n_j (g_j - g)^2 counts alike.
        deviations = _single(leaf) - mean(leaf)[None]
        degrees_of_freedom = num_groups - 1 if num_groups > 1 else jnp.nan
        return _weighted_sum(sizes, _square(deviations)) / degrees_of_freedom

    diagonal = jax.tree.map(variance, gradients)
    # The noise of the mean adds to its squared norm, and is subtracted there.
    factor = _variance_of_mean(1 / total, total, num_examples)
    return _noise(jax.tree.map(mean, gradients), diagonal, factor)


def estimate_gradient_noise_from_sums(
    sums: GroupSums, num_examples: ArrayLike = math.inf
) -> GradientNoise:
    """Estimates gradient noise from sums over groups, in the memory of a single group.

    The result is that of :func:`estimate_gradient_noise`. Weights that sum to n in every group are
    allowed. They make the gradient noisier, and the estimate is of the noise without them. Sums of
    squares cancel: if the mean gradient is 100 times its deviation between groups, or more, few
    digits are left in float32.

    Args:
      sums: Sums over the groups of the batch.
      num_examples: Size N of the training set, see :func:`estimate_gradient_noise`.

    Returns:
      Trace, squared norm and diagonal for one example.

    Raises:
      ValueError: If N is less than 1 or than a concrete batch size.

    Examples:
      >>> import jax.numpy as jnp
      >>> from noisegen import diagnostics
      >>> sums = diagnostics.GroupSums(gradient=32.0, squares=80.0, size=16, groups=2, weights=16)
      >>> float(diagnostics.estimate_gradient_noise_from_sums(sums).trace)
      16.0
    """
    # Floats, because the square of a size exceeds int32, as do large numbers of examples.
    size, groups, weights = _validate.positive(
        size=sums.size, groups=sums.groups, weights=sums.weights
    )
    least = 1 if isinstance(size, jax.Array) else size  # A traced size is compared below.
    [num_examples] = _validate.at_least(least, num_examples=num_examples)
    size = jnp.asarray(size, jnp.float32)
    groups = jnp.asarray(groups, jnp.float32)
    weights = jnp.asarray(weights, jnp.float32)
    # With weights of 1 these are the k - 1 degrees of freedom. With one group there are none.
    degrees_of_freedom = groups - weights / size
    per_example = 1 / jnp.where(degrees_of_freedom > 0, degrees_of_freedom, jnp.nan)

    def variance(squares: ArrayLike, gradient: ArrayLike) -> jax.Array:
        [squares] = _validate.real(squares=squares)
        squares = jnp.asarray(squares, jnp.float32)
        # The difference of two large numbers may round to less than zero.
        return jnp.maximum(squares - _square(_single(gradient)) / size, 0) * per_example

    diagonal = jax.tree.map(variance, sums.squares, sums.gradient)
    mean = jax.tree.map(lambda leaf: _single(leaf) / size, sums.gradient)
    # Weights make the mean noisier: sum w^2 / B^2 in place of 1 / B.
    factor = _variance_of_mean(weights / size**2, size, num_examples)
    return _noise(mean, diagonal, factor)


def gradient_covariance(
    loss: Callable[[PyTree, PyTree], jax.Array], params: PyTree, examples: PyTree, chunk: int = 64
) -> GradientNoise:
    """Computes the exact trace and diagonal of K, and squared norm of G, over a set of examples.

    Args:
      loss: Function `(params, example) -> ()`, the loss of one example.
      params: Pytree of floating-point or complex arrays.
      examples: Pytree of `(N, ...)`, N >= 2.
      chunk: Number of examples whose gradients are held in memory at once.

    Returns:
      Exact values instead of estimates. Not finite if a gradient is not finite.

    Raises:
      ValueError: If there are fewer than 2 examples, their number differs between leaves, or
        `chunk` is less than 1.

    Examples:
      >>> import jax.numpy as jnp
      >>> from noisegen import diagnostics
      >>> x = jnp.array([1.0, 3.0, 5.0, 7.0])
      >>> noise = diagnostics.gradient_covariance(lambda w, x: (w - x) ** 2 / 2, 1.0, x)
      >>> round(float(noise.trace), 2), float(noise.squared_norm)
      (6.67, 9.0)
    """
    [chunk] = _validate.whole(1, chunk=chunk)
    lengths = {len(leaf) for leaf in jax.tree.leaves(examples)}
    if len(lengths) != 1:
        raise ValueError(f"examples must be as many in every leaf, but are {sorted(lengths)}.")
    [total] = lengths
    if total < 2:
        raise ValueError(f"Needs 2 examples or more, got {total}.")

    def gradient(example: PyTree) -> PyTree:
        return jax.tree.map(_single, jax.grad(loss)(params, example))

    # Two passes, so that no difference of large numbers cancels.
    mean = _mean_over_examples(gradient, examples, total, chunk)

    def squared_deviation(example: PyTree) -> PyTree:
        return jax.tree.map(lambda g, m: _square(g - m), gradient(example), mean)

    squares = _mean_over_examples(squared_deviation, examples, total, chunk)
    diagonal = jax.tree.map(lambda s: s * (total / (total - 1)), squares)
    # The mean over all examples is G itself, without noise.
    return _noise(mean, diagonal, 0.0)


def _num_groups(gradients: PyTree) -> int:
    """Returns the length of the leading axis, which all leaves must share."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(gradients)]
    lengths = {shape[0] for shape in shapes if shape}
    if len(lengths) != 1 or () in shapes:
        raise ValueError(
            "gradients must have one leading axis, of the groups, in every leaf; got lengths "
            f"{sorted(lengths)}. Stack gradients that are in a list: "
            "jax.tree.map(lambda *g: jnp.stack(g), *gradients)."
        )
    return lengths.pop()


def _checked_sizes(
    sizes: ArrayLike, num_examples: ArrayLike, num_groups: int
) -> tuple[jax.Array, ArrayLike]:
    """Returns the sizes as float32 `(k,)`, NaN if not positive, and the number of examples."""
    [sizes] = _validate.positive(sizes=sizes)
    [num_examples] = _validate.at_least(1, num_examples=num_examples)
    if jnp.shape(sizes) not in ((), (num_groups,)):
        raise ValueError(
            f"sizes must be one number or {num_groups}, but their shape is {jnp.shape(sizes)}."
        )
    if not isinstance(sizes, jax.Array):
        # Traced sizes cannot be refused. `_variance_of_mean` gives NaN for them.
        batch_size = np.broadcast_to(sizes, (num_groups,)).sum()
        _validate.at_least(batch_size, num_examples=num_examples)
    sizes = jnp.broadcast_to(jnp.asarray(sizes, jnp.float32), (num_groups,))
    return jnp.where(sizes > 0, sizes, jnp.nan), num_examples


def _mean_over_examples(
    fn: Callable[[PyTree], PyTree], examples: PyTree, total: int, chunk: int
) -> PyTree:
    """Returns the mean of a function of one example, computed in chunks."""

    def add_chunk(index: jax.Array, sums: PyTree) -> PyTree:
        positions = index * chunk + jnp.arange(chunk)
        # The last chunk repeats the last example, with a weight of 0.
        rows = jnp.minimum(positions, total - 1)
        weights = (positions < total).astype(jnp.float32)
        values = jax.vmap(fn)(jax.tree.map(lambda a: jnp.asarray(a)[rows], examples))
        return jax.tree.map(lambda s, value: s + _weighted_sum(weights, value), sums, values)

    # The shapes of the sums are those of one example's values.
    first = jax.tree.map(lambda a: jnp.asarray(a)[0], examples)
    zeros = jax.tree.map(lambda v: jnp.zeros(v.shape, v.dtype), jax.eval_shape(fn, first))
    num_chunks = math.ceil(total / chunk)
    sums = jax.lax.fori_loop(0, num_chunks, add_chunk, zeros)
    return jax.tree.map(lambda s: s / total, sums)


def _variance_of_mean(
    fresh: jax.Array, batch_size: jax.Array, num_examples: ArrayLike
) -> jax.Array:
    """Returns the covariance of a batch's mean in units of K, given its value for N = infinity."""
    num_examples = jnp.asarray(num_examples, jnp.float32)
    return jnp.where(num_examples >= batch_size, fresh - 1 / num_examples, jnp.nan)


def _noise(mean: PyTree, diagonal: PyTree, factor: ArrayLike) -> GradientNoise:
    """Returns the estimates.

    Args:
      mean: Mean gradient of the batch.
      diagonal: Estimate of the diagonal of K.
      factor: Covariance of the mean gradient in units of K. The squared norm of the mean exceeds
        |G|^2 by factor * trace K, on average.
    """
    trace = _sum(diagonal)
    squared_norm = _sum(jax.tree.map(_square, mean)) - factor * trace
    return GradientNoise(trace, squared_norm, diagonal)


def _sum(tree: PyTree) -> jax.Array:
    """Returns the sum over all leaves, zero without any."""
    return sum((jnp.sum(leaf) for leaf in jax.tree.leaves(tree)), jnp.float32(0))


def _single(leaf: ArrayLike) -> jax.Array:
    """Returns a gradient in single precision, real or complex."""
    leaf = jnp.asarray(leaf)
    is_complex = jnp.issubdtype(leaf.dtype, jnp.complexfloating)
    return leaf.astype(jnp.complex64 if is_complex else jnp.float32)


def _square(leaf: jax.Array) -> jax.Array:
    """Returns the squared absolute value, a real number."""
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        return jnp.real(leaf) ** 2 + jnp.imag(leaf) ** 2
    return leaf**2


def _weighted_sum(weights: jax.Array, leaf: jax.Array) -> jax.Array:
    """Sums over the leading axis in full precision, since deviations are small differences."""
    return jnp.tensordot(weights.astype(leaf.dtype), leaf, 1, precision="highest")
