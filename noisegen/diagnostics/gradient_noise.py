"""Gradient noise: covariance of per-example gradients, and the gradient noise scale.

Let g_n be the gradient of example n, and G their mean over the N examples. The covariance is
K = 1 / (N - 1) sum_n (g_n - G)(g_n - G)^T. The mean gradient of a batch of B examples, drawn
without replacement, has mean G and covariance (1/B - 1/N) K. With infinitely many examples the
covariance is K / B.

The estimates below are unbiased: averaged over many batches they give K and |G|^2. A ratio of
estimates is biased, so average trace and squared norm separately, and divide last.
:func:`update_running_noise` and :func:`gradient_noise_scale` do so.

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
  <https://arxiv.org/abs/1812.06162>`_, 2018, appendix A (noise scale, two batch sizes); Jastrzebski
  et al., `Three Factors Influencing Minima in SGD <https://arxiv.org/abs/1711.04623>`_, 2017
  (covariance without replacement)
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
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

    def mean(leaf):
        return _weighted_sum(sizes / total, _single(leaf))

    def variance(leaf):
        deviations = _single(leaf) - mean(leaf)[None]
        degrees_of_freedom = num_groups - 1 if num_groups > 1 else jnp.nan
        return _weighted_sum(sizes, _square(deviations)) / degrees_of_freedom

    diagonal = jax.tree.map(variance, gradients)
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
    least = 1 if isinstance(size, jax.Array) else size
    [num_examples] = _validate.at_least(least, num_examples=num_examples)
    size = jnp.asarray(size, jnp.float32)
    groups = jnp.asarray(groups, jnp.float32)
    weights = jnp.asarray(weights, jnp.float32)
    # With weights of 1 these are the k - 1 degrees of freedom. With one group there are none.
    degrees_of_freedom = groups - weights / size
    per_example = 1 / jnp.where(degrees_of_freedom > 0, degrees_of_freedom, jnp.nan)

    def variance(squares, gradient):
        [squares] = _validate.real(squares=squares)
        squares = jnp.asarray(squares, jnp.float32)
        # The difference of two large numbers may round to less than zero.
        return jnp.maximum(squares - _square(_single(gradient)) / size, 0) * per_example

    diagonal = jax.tree.map(variance, sums.squares, sums.gradient)
    mean = jax.tree.map(lambda leaf: _single(leaf) / size, sums.gradient)
    return _noise(mean, diagonal, _variance_of_mean(weights / size**2, size, num_examples))


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

    def gradient(example):
        return jax.tree.map(_single, jax.grad(loss)(params, example))

    # Two passes, so that no difference of large numbers cancels.
    mean = _mean_over_examples(gradient, examples, total, chunk)

    def squared_deviation(example):
        return jax.tree.map(lambda g, m: _square(g - m), gradient(example), mean)

    squares = _mean_over_examples(squared_deviation, examples, total, chunk)
    diagonal = jax.tree.map(lambda s: s * (total / (total - 1)), squares)
    return _noise(mean, diagonal, 0.0)


def gradient_noise_scale(noise: Any) -> jax.Array:
    """Returns the simple noise scale, trace K / |G|^2, in examples.

    It is the batch size at which noise and gradient are equally strong. Larger batches help less
    and less. Its inverse is the signal-to-noise ratio of one example, see
    :func:`signal_to_noise_ratio`. The noise scale of SGD is :func:`noisegen.sgd_noise_scale`.

    Args:
      noise: Object with `trace` and `squared_norm`, averaged over many batches.

    Returns:
      The noise scale. NaN if trace or squared norm is not finite, or if the squared norm is not
      positive. In the latter case the gradient is lost in the noise: average over more batches.

    Examples:
      >>> from noisegen import diagnostics
      >>> float(diagnostics.gradient_noise_scale(diagnostics.RunningNoise(8.0, 2.0, 1)))
      4.0
    """
    trace, norm = _trace_and_norm(noise)
    defined = (norm > 0) & jnp.isfinite(norm) & jnp.isfinite(trace)
    return trace / jnp.where(defined, norm, jnp.nan)


def signal_to_noise_ratio(noise: Any, batch_size: ArrayLike = 1) -> jax.Array:
    """Returns the signal-to-noise ratio of a batch's mean gradient, B |G|^2 / trace K.

    It is 1 if the batch size equals the noise scale.

    Args:
      noise: Object with `trace` and `squared_norm`, averaged over many batches.
      batch_size: Examples per update B > 0.

    Returns:
      The ratio. NaN if the squared norm or a traced batch size is not positive.

    Examples:
      >>> from noisegen import diagnostics
      >>> float(diagnostics.signal_to_noise_ratio(diagnostics.RunningNoise(8.0, 2.0, 1), 16))
      4.0
    """
    [batch_size] = _validate.positive(batch_size=batch_size)
    return jnp.where(batch_size > 0, batch_size, jnp.nan) / gradient_noise_scale(noise)


class RunningNoise(NamedTuple):
    """Running means of trace and squared norm, averaged separately over `count` batches."""

    trace: jax.Array  # (), float32
    squared_norm: jax.Array  # (), float32
    count: jax.Array  # (), int32


def init_running_noise() -> RunningNoise:
    """Returns the averages before the first batch, which are zero."""
    return RunningNoise(jnp.float32(0), jnp.float32(0), jnp.int32(0))


def update_running_noise(
    running: RunningNoise, noise: GradientNoise, decay: ArrayLike = 0.99
) -> RunningNoise:
    """Adds one batch to bias-corrected exponential averages.

    average(t) = average(t-1) + (1 - decay) / (1 - decay**t) (x(t) - average(t-1))

    With decay = 1 it is the plain mean of all batches. A batch without an estimate (NaN) changes
    nothing.

    Args:
      running: Averages so far, starting from :func:`init_running_noise`.
      noise: Gradient noise of one batch.
      decay: Decay rate of the average, from 0 to 1.

    Returns:
      The new averages. NaN if a traced decay is out of its range.

    Raises:
      ValueError: If a concrete decay is out of its range.

    Examples:
      >>> from noisegen import diagnostics
      >>> running = diagnostics.init_running_noise()
      >>> for trace in (4.0, 8.0):
      ...     noise = diagnostics.GradientNoise(trace, squared_norm=1.0, diagonal=None)
      ...     running = diagnostics.update_running_noise(running, noise, decay=1.0)
      >>> float(diagnostics.gradient_noise_scale(running))
      6.0
    """
    [decay] = _validate.fraction(decay=decay)
    count = optax.safe_increment(jnp.asarray(running.count))
    decay = jnp.asarray(decay, jnp.float32)
    decay = jnp.where((decay >= 0) & (decay <= 1), decay, jnp.nan)
    share = (1 - decay) / (1 - decay ** count.astype(decay.dtype))
    share = jnp.where(decay == 1, 1 / count, share)  # The limit of 0 / 0.
    trace, norm = _trace_and_norm(noise)
    measured = jnp.isfinite(trace) & jnp.isfinite(norm)

    def average(old, new):
        return jnp.where(measured, old + share * (new - old), old)

    return RunningNoise(
        trace=average(running.trace, trace),
        squared_norm=average(running.squared_norm, norm),
        count=jnp.where(measured, count, running.count),
    )


def _num_groups(gradients: PyTree) -> int:
    """Returns the length of the leading axis, which all leaves must share."""
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(gradients)}
    if len(lengths) != 1 or () in lengths:
        raise ValueError(
            "gradients must have one leading axis, of the groups, in every leaf; got lengths "
            f"{sorted(sum(lengths, ()))}. Stack gradients that are in a list: "
            "jax.tree.map(lambda *g: jnp.stack(g), *gradients)."
        )
    [[num_groups]] = lengths
    return num_groups


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
        batch_size = np.broadcast_to(sizes, (num_groups,)).sum()
        _validate.at_least(batch_size, num_examples=num_examples)
    sizes = jnp.broadcast_to(jnp.asarray(sizes, jnp.float32), (num_groups,))
    return jnp.where(sizes > 0, sizes, jnp.nan), num_examples


def _mean_over_examples(
    fn: Callable[[PyTree], PyTree], examples: PyTree, total: int, chunk: int
) -> PyTree:
    """Returns the mean of a function of one example, computed in chunks."""

    def add_chunk(index, sums):
        positions = index * chunk + jnp.arange(chunk)
        # The last chunk repeats the last example, with a weight of 0.
        rows = jnp.minimum(positions, total - 1)
        weights = (positions < total).astype(jnp.float32)
        values = jax.vmap(fn)(jax.tree.map(lambda a: jnp.asarray(a)[rows], examples))
        return jax.tree.map(lambda s, value: s + _weighted_sum(weights, value), sums, values)

    first = jax.tree.map(lambda a: jnp.asarray(a)[0], examples)
    zeros = jax.tree.map(lambda v: jnp.zeros(v.shape, v.dtype), jax.eval_shape(fn, first))
    num_chunks = math.ceil(total / chunk)
    sums = jax.lax.fori_loop(0, num_chunks, add_chunk, zeros)
    return jax.tree.map(lambda s: s / total, sums)


def _trace_and_norm(noise: Any) -> list[jax.Array]:
    """Returns trace and squared norm as float32."""
    values = _validate.real(trace=noise.trace, squared_norm=noise.squared_norm)
    return [jnp.asarray(value, jnp.float32) for value in values]


def _variance_of_mean(
    fresh: jax.Array, batch_size: jax.Array, num_examples: ArrayLike
) -> jax.Array:
    """Returns the covariance of a batch's mean in units of K, given its value for N = infinity."""
    num_examples = jnp.asarray(num_examples, jnp.float32)
    return jnp.where(num_examples >= batch_size, fresh - 1 / num_examples, jnp.nan)


def _noise(mean: PyTree, diagonal: PyTree, factor: ArrayLike) -> GradientNoise:
    """Returns the estimates; subtracts from the squared norm the noise of the mean, factor * K."""
    trace = _sum(diagonal)
    return GradientNoise(trace, _sum(jax.tree.map(_square, mean)) - factor * trace, diagonal)


def _sum(tree: PyTree) -> jax.Array:
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
