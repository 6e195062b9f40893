r"""How noisy a gradient is: the covariance of the examples' gradients, and the noise scale.

With :math:`g_n` the gradient of example n, :math:`G` their mean over the N examples and

.. math:: K = \frac{1}{N-1} \sum_n (g_n - G)(g_n - G)^T,

the mean gradient of a batch of B examples, drawn without replacement, has mean G and covariance
:math:`(1/B - 1/N) K`; of infinitely many examples, K / B. The estimates below are unbiased: their
averages over many batches are K and :math:`|G|^2`. A ratio of estimates is not, so average the two
apart and divide last, as :func:`gradient_noise_scale` does with running means.

A complex gradient counts as its real and imaginary parts do: trace and squared norm are those of
the pair, and an entry of the diagonal is the sum of both variances.

>>> import jax, jax.numpy as jnp
>>> from noisegen import diagnostics
>>> x = jnp.array([1.0, 3.0, 5.0, 7.0])  # the loss (w - x)**2 / 2 has the gradient w - x
>>> noise = diagnostics.noise_of_groups({"w": 0.0 - x}, sizes=1)
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
from noisegen._math import ceil_div

PyTree = Any


class GradientNoise(NamedTuple):
    """Unbiased estimates of the noise of one example's gradient."""

    trace: jax.Array  # (), float32, trace of K
    squared_norm: jax.Array  # (), float32, |G|^2; an estimate may be negative
    diagonal: PyTree  # like the parameters, float32, diagonal of K; of complex ones E |g - G|^2


class GroupSums(NamedTuple):
    """What :func:`noise_of_sums` needs of a batch, summed over its groups of examples.

    A group of n examples with weights w (1 each, most often, and n in sum) has the weighted sum S
    of its examples' gradients.
    """

    gradient: PyTree  # sum of S
    squares: PyTree  # sum of |S|^2 / n, per coordinate
    size: jax.Array  # sum of n: the batch size
    groups: jax.Array  # sum of (sum of w^2) / n: the number of groups, where every weight is 1
    weights: jax.Array  # sum of w^2: the batch size, where every weight is 1


def noise_of_groups(
    gradients: PyTree, sizes: ArrayLike, num_examples: ArrayLike = math.inf
) -> GradientNoise:
    r"""Noise from the mean gradients of a batch's groups: microbatches, devices, examples.

    With group means :math:`g_j` of :math:`n_j` examples, and their weighted mean :math:`\bar g`,

    .. math:: \hat K = \frac{1}{k - 1} \sum_{j=1}^k n_j (g_j - \bar g)(g_j - \bar g)^T, \qquad
      \widehat{|G|^2} = |\bar g|^2 - \left(\frac 1 B - \frac 1 N\right) \operatorname{tr} \hat K .

    Args:
      gradients: pytree of `(k, ...)`, all at the same parameters, before any artificial noise. Of a
        list of k gradients make one with `jax.tree.map(lambda *g: jnp.stack(g), *gradients)`: as it
        is, it would be taken for one pytree.
      sizes: `(k,)`, examples in each group, or one number for all.
      num_examples: N, of the training set that the batch is drawn from without replacement;
        infinite for fresh examples. Of augmented examples the trace is unbiased either way, and the
        squared norm with neither: it lies between the two.

    Returns:
      Trace, squared norm and diagonal, for one example. NaN where there is a single group, which
      says nothing about noise, or a size in a JAX array is not positive; the squared norm also
      where N is below the batch size.

    Raises:
      ValueError: the leaves, or the sizes, disagree about the number of groups; a concrete size is
        not positive, or N below 1 or below the batch size.

    Examples:
      >>> import jax.numpy as jnp
      >>> from noisegen import diagnostics
      >>> noise = diagnostics.noise_of_groups(jnp.array([[1.0, 0.0], [3.0, 0.0]]), sizes=8)
      >>> float(noise.trace), float(noise.squared_norm), noise.diagonal.tolist()
      (16.0, 3.0, [16.0, 0.0])
    """
    counts = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(gradients)}
    if len(counts) != 1 or () in counts:
        raise ValueError(
            "gradients must have one leading axis, of the groups, in every leaf; got lengths "
            f"{sorted(sum(counts, ()))}. Gradients in a list have to be stacked: "
            "jax.tree.map(lambda *g: jnp.stack(g), *gradients)."
        )
    [[k]] = counts
    [sizes] = _validate.positive(sizes=sizes)
    [num_examples] = _validate.at_least(1, num_examples=num_examples)
    if jnp.shape(sizes) not in ((), (k,)):
        raise ValueError(f"sizes must be one number or {k}, but their shape is {jnp.shape(sizes)}.")
    if not isinstance(sizes, jax.Array):
        _validate.at_least(np.broadcast_to(sizes, (k,)).sum(), num_examples=num_examples)
    sizes = jnp.broadcast_to(jnp.asarray(sizes, jnp.float32), (k,))
    sizes = jnp.where(sizes > 0, sizes, jnp.nan)
    total = sizes.sum()

    def mean(leaf):
        return _weighted_sum(sizes / total, _single(leaf))

    def spread(leaf):
        deviations = _single(leaf) - mean(leaf)[None]
        return _weighted_sum(sizes, _square(deviations)) / (k - 1 if k > 1 else jnp.nan)

    diagonal = jax.tree.map(spread, gradients)
    return _noise(
        jax.tree.map(mean, gradients), diagonal, _own_noise(1 / total, total, num_examples)
    )


def noise_of_sums(sums: GroupSums, num_examples: ArrayLike = math.inf) -> GradientNoise:
    """The estimate of :func:`noise_of_groups` from sums, which take the memory of one group.

    Weights that add up to n in every group are allowed for: they make the gradient noisier, and
    the estimate is of the noise without them. Sums of squares cancel: where a mean gradient is 100
    times as large as its deviation between groups, or more, float32 leaves few digits.

    Args:
      sums: over the groups of the batch.
      num_examples: as for :func:`noise_of_groups`.

    Raises:
      ValueError: N is below 1, or below a concrete batch size.

    Examples:
      >>> import jax.numpy as jnp
      >>> from noisegen import diagnostics
      >>> sums = diagnostics.GroupSums(gradient=32.0, squares=80.0, size=16, groups=2, weights=16)
      >>> float(diagnostics.noise_of_sums(sums).trace)
      16.0
    """
    # As floats: the square of a size is beyond int32, and large numbers of examples are.
    size, groups, weights = _validate.positive(
        size=sums.size, groups=sums.groups, weights=sums.weights
    )
    known = 1 if isinstance(size, jax.Array) else size
    [num_examples] = _validate.at_least(known, num_examples=num_examples)
    size = jnp.asarray(size, jnp.float32)
    groups, weights = (jnp.asarray(sum_, jnp.float32) for sum_ in (groups, weights))
    spread = groups - weights / size
    per_example = 1 / jnp.where(spread > 0, spread, jnp.nan)

    def variance(squares, gradient):
        [squares] = _validate.real(squares=squares)
        return (
            jnp.maximum(jnp.asarray(squares, jnp.float32) - _square(_single(gradient)) / size, 0)
            * per_example
        )

    diagonal = jax.tree.map(variance, sums.squares, sums.gradient)
    mean = jax.tree.map(lambda leaf: _single(leaf) / size, sums.gradient)
    return _noise(mean, diagonal, _own_noise(weights / size**2, size, num_examples))


def gradient_covariance(
    loss: Callable[[PyTree, PyTree], jax.Array], params: PyTree, examples: PyTree, chunk: int = 64
) -> GradientNoise:
    """Exact trace and diagonal of K over a set of examples, and the squared norm of its gradient.

    Args:
      loss: `(params, example) -> ()`, of one example.
      params: pytree of floating-point or complex arrays.
      examples: pytree of `(N, ...)`, N >= 2.
      chunk: examples whose gradients are held at once.

    Returns:
      The exact values, no estimates; not finite where a gradient is not.

    Raises:
      ValueError: fewer than 2 examples, or not as many in every leaf; `chunk` is below 1.

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

    def mean_of(fn):
        def piece(index, sums):
            places = index * chunk + jnp.arange(chunk)
            some = jax.tree.map(lambda a: jnp.asarray(a)[jnp.minimum(places, total - 1)], examples)
            counted = (places < total).astype(jnp.float32)
            return jax.tree.map(
                lambda s, g: s + _weighted_sum(counted, g), sums, jax.vmap(fn)(some)
            )

        first = jax.tree.map(lambda a: jnp.asarray(a)[0], examples)
        zeros = jax.tree.map(lambda g: jnp.zeros(g.shape, g.dtype), jax.eval_shape(fn, first))
        sums = jax.lax.fori_loop(0, ceil_div(total, chunk), piece, zeros)
        return jax.tree.map(lambda s: s / total, sums)

    mean = mean_of(gradient)
    squares = mean_of(lambda e: jax.tree.map(lambda g, m: _square(g - m), gradient(e), mean))
    return _noise(mean, jax.tree.map(lambda s: s * (total / (total - 1)), squares), 0.0)


def gradient_noise_scale(noise: Any) -> jax.Array:
    r"""The simple noise scale, :math:`\operatorname{tr} K / |G|^2`, in examples.

    The batch size at which noise and gradient are equally strong; beyond it, larger batches help
    less and less. Its inverse is the signal-to-noise ratio of one example, see
    :func:`signal_to_noise_ratio`.

    Args:
      noise: whatever has `trace` and `squared_norm`, averaged over many batches.

    Returns:
      NaN where the squared norm is not above zero: the gradient is lost in the noise, and more
      batches must be averaged. NaN, too, where trace or norm is not finite.

    Examples:
      >>> from noisegen import diagnostics
      >>> float(diagnostics.gradient_noise_scale(diagnostics.RunningNoise(8.0, 2.0, 1)))
      4.0
    """
    trace, norm = _trace_and_norm(noise)
    defined = (norm > 0) & jnp.isfinite(norm) & jnp.isfinite(trace)
    return trace / jnp.where(defined, norm, jnp.nan)


def signal_to_noise_ratio(noise: Any, batch_size: ArrayLike = 1) -> jax.Array:
    r"""Of a batch's mean gradient, :math:`B |G|^2 / \operatorname{tr} K`: 1 at the noise scale.

    Args:
      noise: as for :func:`gradient_noise_scale`.
      batch_size: B > 0.

    Returns:
      The ratio; NaN where the squared norm, or a batch size in a JAX array, is not above zero.

    Examples:
      >>> from noisegen import diagnostics
      >>> float(diagnostics.signal_to_noise_ratio(diagnostics.RunningNoise(8.0, 2.0, 1), 16))
      4.0
    """
    [batch_size] = _validate.positive(batch_size=batch_size)
    return jnp.where(batch_size > 0, batch_size, jnp.nan) / gradient_noise_scale(noise)


class RunningNoise(NamedTuple):
    """Running means of trace and squared norm, apart from each other, over `count` batches."""

    trace: jax.Array  # (), float32
    squared_norm: jax.Array  # (), float32
    count: jax.Array  # (), int32


def init_running_noise() -> RunningNoise:
    """Returns the averages before the first batch: all zeros."""
    return RunningNoise(jnp.float32(0), jnp.float32(0), jnp.int32(0))


def update_running_noise(
    running: RunningNoise, noise: GradientNoise, decay: ArrayLike = 0.99
) -> RunningNoise:
    r"""One more batch, in exponential averages that are means from the first batch on.

    .. math:: \bar x_t = \bar x_{t-1} + \frac{1 - d}{1 - d^t} (x_t - \bar x_{t-1})

    which is the bias-corrected exponential average; with d = 1 the plain mean of all batches. A
    batch without an estimate (NaN) changes nothing.

    Args:
      running: the averages so far; before the first batch, :func:`init_running_noise`.
      noise: of one batch.
      decay: 0 <= d <= 1.

    Returns:
      The averages; NaN where a JAX array says that the decay is out of its range.

    Raises:
      ValueError: the decay is out of its range.

    Examples:
      >>> from noisegen import diagnostics
      >>> running = diagnostics.init_running_noise()
      >>> for trace in (4.0, 8.0):
      ...     noise = diagnostics.GradientNoise(trace, squared_norm=1.0, diagonal=())
      ...     running = diagnostics.update_running_noise(running, noise, decay=1.0)
      >>> float(diagnostics.gradient_noise_scale(running))
      6.0
    """
    [decay] = _validate.fraction(decay=decay)
    count = optax.safe_increment(jnp.asarray(running.count))
    decay = jnp.asarray(decay, jnp.float32)
    decay = jnp.where((decay >= 0) & (decay <= 1), decay, jnp.nan)
    share = jnp.where(decay == 1, 1 / count, (1 - decay) / (1 - decay ** count.astype(decay.dtype)))
    trace, norm = _trace_and_norm(noise)
    measured = jnp.isfinite(trace) & jnp.isfinite(norm)

    def average(old, new):
        return jnp.where(measured, old + share * (new - old), old)

    return RunningNoise(
        trace=average(running.trace, trace),
        squared_norm=average(running.squared_norm, norm),
        count=jnp.where(measured, count, running.count),
    )


def _trace_and_norm(noise):
    """Returns trace and squared norm as float32."""
    values = _validate.real(trace=noise.trace, squared_norm=noise.squared_norm)
    return [jnp.asarray(value, jnp.float32) for value in values]


def _own_noise(fresh, batch_size, num_examples):
    """The covariance of a batch's mean in units of K; `fresh` is that of fresh examples."""
    num_examples = jnp.asarray(num_examples, jnp.float32)
    return jnp.where(num_examples >= batch_size, fresh - 1 / num_examples, jnp.nan)


def _noise(mean, diagonal, factor):
    """The estimates, the mean's own noise (`factor` times K) taken off its squared norm."""
    trace = _sum(diagonal)
    return GradientNoise(trace, _sum(jax.tree.map(_square, mean)) - factor * trace, diagonal)


def _sum(tree):
    return sum((jnp.sum(leaf) for leaf in jax.tree.leaves(tree)), jnp.float32(0))


def _single(leaf):
    """A gradient in single precision, real or complex."""
    leaf = jnp.asarray(leaf)
    complex_ = jnp.issubdtype(leaf.dtype, jnp.complexfloating)
    return leaf.astype(jnp.complex64 if complex_ else jnp.float32)


def _square(leaf):
    """The squared absolute value, a real number."""
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        return jnp.real(leaf) ** 2 + jnp.imag(leaf) ** 2
    return leaf**2


def _weighted_sum(weights, leaf):
    """Sums over the leading axis in full precision: deviations are differences of large numbers."""
    return jnp.tensordot(weights.astype(leaf.dtype), leaf, 1, precision="highest")
