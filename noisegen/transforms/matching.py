"""Algebra and example weights that make a large batch as noisy as a smaller one.

The mean gradient of a batch of B examples, drawn from N, is the full gradient plus noise of
covariance (1/B - 1/N) K, where K is the covariance of one example's gradient (see
`noisegen.diagnostics`). Compared with a smaller batch of B0 examples, it lacks noise of covariance
(1/B0 - 1/B) K, whatever N. There are three ways to add it, from the coarsest to the exact one:

* ``matched_noise(..., covariance="isotropic")``: one variance for all coordinates, from trace K;
* ``matched_noise(..., covariance="diagonal")``: a variance for every coordinate;
* ``matched_weights``: the whole of K, by random weights on the examples of the batch.

References:
  Hoffer, Hubara & Soudry, `Train longer, generalize better <https://arxiv.org/abs/1705.08741>`_,
  2017, and Wu et al., `On the Noisy Gradient Descent that Generalizes as SGD
  <https://arxiv.org/abs/1906.07405>`_, 2020 (random weights)
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from noisegen import _validate
from noisegen.transforms._noise_stream import key_data


def matched_variance(
    batch_size: ArrayLike,
    reference_batch_size: ArrayLike,
    *,
    learning_rate: ArrayLike = 1.0,
    reference_learning_rate: ArrayLike = 1.0,
    num_examples: ArrayLike = math.inf,
) -> ArrayLike:
    """Returns the noise that a batch lacks, in units of the covariance K of one example's gradient.

    x = (lr0 / lr) (1/B0 - 1/N) - (1/B - 1/N)

    **Meaning.** With noise of covariance x K added to its mean gradient, training with batch size B
    and learning rate lr has the temperature of B0 and lr0. That is equal noise in equal training
    time, where time is updates times learning rate, at equal momentum.

    * At equal learning rates (the default) it is the covariance of every single update, and
      x = 1/B0 - 1/B.
    * Under the linear rule, lr / lr0 = B / B0, almost nothing is lacking: x = (1 - B0/B) / N.
      Adding 1/B0 - 1/B on top would make the temperature B / B0 times too high.
    * Under the square-root rule one update is as noisy as the reference's, but training time passes
      faster, and x = 1/sqrt(B0 B) - 1/B for large N.

    Args:
      batch_size: Examples per update B > 0.
      reference_batch_size: Examples per update B0 > 0 of the reference, possibly fractional.
        :func:`noisegen.batch_size_from_temperature` gives it from a temperature.
      learning_rate: Learning rate lr > 0.
      reference_learning_rate: Learning rate lr0 > 0 of the reference.
      num_examples: Examples N >= B in the training set. Irrelevant at equal learning rates.

    Returns:
      x. For JAX arrays, NaN if x would be negative or an argument is out of its range.

    Raises:
      ValueError: If a concrete number is not positive, N is less than B, or the batch is noisier
        than the reference, since noise cannot be removed.

    Examples:
      >>> import noisegen
      >>> noisegen.matched_variance(1024, 64)
      0.0146484375
    """
    batch_size, reference_batch_size, learning_rate, reference_learning_rate = _validate.positive(
        batch_size=batch_size,
        reference_batch_size=reference_batch_size,
        learning_rate=learning_rate,
        reference_learning_rate=reference_learning_rate,
    )
    [num_examples] = _validate.at_least(_largest(batch_size), num_examples=num_examples)
    # In this order of operations, equal batches at equal learning rates lack exactly 0.
    ratio = reference_learning_rate / learning_rate
    lacking = ratio / reference_batch_size - 1 / batch_size + (1 - ratio) / num_examples
    if isinstance(lacking, jax.Array):
        valid = (batch_size > 0) & (reference_batch_size > 0) & (num_examples >= batch_size)
        return jnp.where(valid & (lacking >= 0), lacking, jnp.nan)
    if np.any(lacking < 0):
        raise ValueError(
            f"A batch of {batch_size} at learning rate {learning_rate} is already noisier than the "
            f"reference of {reference_batch_size} at {reference_learning_rate}, and noise cannot "
            "be removed: choose a smaller reference batch size."
        )
    return lacking


def matched_reference(
    reference_batch_size: ArrayLike,
    *,
    learning_rate: ArrayLike,
    reference_learning_rate: ArrayLike,
    num_examples: ArrayLike = math.inf,
) -> ArrayLike:
    """Returns the reference batch size to match if the learning rates differ.

    1/B0' = (lr0 / lr) (1/B0 - 1/N) + 1/N

    :func:`matched_noise` and :func:`matched_weights` make one update as noisy as a reference update
    at an equal learning rate. Given B0', they add the :func:`matched_variance` of these learning
    rates instead, and training has the temperature of B0 and lr0.

    Args:
      reference_batch_size: Examples per update B0 of the reference, in (0, N], possibly fractional.
      learning_rate: Learning rate lr > 0 of the large batch.
      reference_learning_rate: Learning rate lr0 > 0 of the reference.
      num_examples: Examples N in the training set.

    Returns:
      B0', usually fractional. If it exceeds the batch size, the batch is noisier than the reference
      and cannot be matched. For JAX arrays, NaN if an argument is out of its range.

    Raises:
      ValueError: If a concrete number is not positive, or N is less than B0.

    Examples:
      Under the square-root rule from 64 to 1024, the learning rate is 4 times the reference's:

      >>> import noisegen
      >>> reference = noisegen.matched_reference(
      ...     64, learning_rate=0.4, reference_learning_rate=0.1
      ... )
      >>> reference, noisegen.matched_variance(1024, reference)
      (256.0, 0.0029296875)
    """
    reference_batch_size, learning_rate, reference_learning_rate = _validate.positive(
        reference_batch_size=reference_batch_size,
        learning_rate=learning_rate,
        reference_learning_rate=reference_learning_rate,
    )
    [num_examples] = _validate.at_least(_largest(reference_batch_size), num_examples=num_examples)
    ratio = reference_learning_rate / learning_rate
    noise = ratio / reference_batch_size + (1 - ratio) / num_examples  # 1/B0'
    if isinstance(noise, jax.Array):
        valid = (reference_batch_size > 0) & (num_examples >= reference_batch_size)
        return jnp.where(valid & (noise > 0), 1 / noise, jnp.nan)
    return 1 / noise


def matched_weights(
    key: jax.Array, positions: jax.Array, batch_size: ArrayLike, reference_batch_size: ArrayLike
) -> jax.Array:
    """Draws weights of examples that make a batch's mean gradient as noisy as a smaller batch's.

    w[2k] = 1 + s xi[k], w[2k + 1] = 1 - s xi[k], where xi[k] ~ N(0, 1) and
    s**2 = B**2 / (2 floor(B / 2)) (1/B0 - 1/B)

    The mean of the weighted losses, sum(w[i] loss[i]) / B, has the gradient of the plain mean plus
    noise of covariance (1/B0 - 1/B) K, with the *whole* covariance K of the examples' gradients.
    The reason is that a pair contributes the difference of two gradients, of covariance 2 K. The
    weights of a pair average to 1, so the mean gradient is not scaled. In a batch of odd size, the
    last weight is 1.

    No gradient is computed twice or stored. Only loss and backward pass see the weights, so the
    result does not depend on how a batch is cut into microbatches. If the learning rates differ,
    pass the :func:`matched_reference`. Each loss must depend on one example: if ghost batches are
    normalized together, noise shared by their members is not fully reproduced.

    In a task, use ``example_weights=lambda hparams: lambda key, positions, batch_size:
    matched_weights(key, positions, batch_size, hparams["reference_batch_size"])``.

    The noise of a small batch matches in a single update only. Over an epoch without replacement
    and at fixed parameters, sampling noise sums to almost zero, whereas the noise of weights does
    not.

    Args:
      key: Key of the update, the same for every microbatch and device.
      positions: Integers `(M,)`, the position of each example in its batch, from 0 to B - 1. The
        order of examples in the batch must be random.
      batch_size: Examples per update B.
      reference_batch_size: Examples per update B0 of the reference, in (0, B], possibly fractional.

    Returns:
      Weights `(M,)`, float32, of mean 1 over a batch. NaN for a batch of 1, or if JAX arrays have
      B0 > B.

    Raises:
      ValueError: If concrete numbers are not positive or have B0 > B, `key` is not one threefry
        key, or `positions` are not integers `(M,)`.

    Examples:
      >>> import jax, jax.numpy as jnp, noisegen
      >>> weights = noisegen.matched_weights(jax.random.key(0), jnp.arange(1000), 1000, 100)
      >>> round(float(weights.mean()), 3), round(float(weights.std()))
      (1.0, 3)
    """
    key_data(key)  # Raises for anything but one key.
    positions = jnp.asarray(positions)
    if positions.ndim != 1 or not jnp.issubdtype(positions.dtype, jnp.integer):
        raise ValueError(
            "positions must be integers, one for each example of a (micro)batch, such as "
            f"jnp.arange(batch_size), but they are {positions.dtype} of shape {positions.shape}."
        )
    positions = positions.astype(jnp.int32)
    lacking = matched_variance(batch_size, reference_batch_size)
    [size] = _validate.positive(batch_size=batch_size)
    # Of the B examples, 2 floor(B / 2) have a partner, and carry the noise of all.
    num_paired = size // 2 * 2
    # Infinite in a batch of 1: its only example has no partner, and gets a weight of NaN.
    variance = jnp.asarray(lacking, jnp.float32) / jnp.asarray(num_paired, jnp.float32)
    size = jnp.asarray(size, jnp.float32)
    deviation = size * jnp.sqrt(jnp.where(lacking == 0, 0.0, variance))

    # One key per pair: its draw is the same in every microbatch and on every device.
    def draw(pair: jax.Array) -> jax.Array:
        return jax.random.normal(jax.random.fold_in(key, pair), dtype=jnp.float32)

    num_paired = jnp.asarray(num_paired).astype(jnp.int32)
    # 1 for the first of a pair, -1 for the second, 0 for an example without a partner.
    signs = jnp.where(positions < num_paired, 1 - 2 * (positions % 2), 0).astype(jnp.float32)
    return 1 + deviation * signs * jax.vmap(draw)(positions // 2)


def _largest(size: ArrayLike) -> ArrayLike:
    """Returns the largest of concrete sizes, or 1 if they may be traced."""
    return 1 if isinstance(size, jax.Array) else np.max(size)
