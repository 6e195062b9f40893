r"""Noise that makes a large batch as noisy as a smaller one, without a size to tune.

A batch of B examples has the mean gradient G + noise of covariance (1/B - 1/N) K, where K is the
covariance of one example's gradient; see `noisegen.diagnostics`. What a smaller batch of
:math:`B_0` examples has more is :math:`(1/B_0 - 1/B) K`, whatever N. Three ways to add it, from the
coarsest to the exact one:

* ``matched_noise(..., covariance="isotropic")``: one variance for all coordinates, tr K together;
* ``matched_noise(..., covariance="diagonal")``: every coordinate's own variance;
* ``matched_weights``: the whole of K, by random weights on the examples of the batch.

>>> import jax, jax.numpy as jnp, noisegen, optax
>>> from noisegen import diagnostics
>>> tx = optax.chain(noisegen.matched_noise(64, jax.random.key(0)), optax.sgd(0.1))
>>> gradients = jnp.array([[1.0, 2.0], [3.0, 2.0]])  # of two microbatches of 512 examples
>>> updates, state = tx.update(
...     gradients.mean(0),
...     tx.init(None),
...     batch_size=1024,
...     gradient_noise=diagnostics.noise_of_groups(gradients, sizes=512),
... )

References:
  Hoffer, Hubara & Soudry, `Train longer, generalize better <https://arxiv.org/abs/1705.08741>`_,
  2017, and Wu et al., `On the Noisy Gradient Descent that Generalizes as SGD
  <https://arxiv.org/abs/1906.07405>`_, 2020 (random weights)
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from noisegen import _validate
from noisegen.transforms import samplers
from noisegen.transforms._variances import variances
from noisegen.transforms.gradient_noise import (
    AddGradientNoiseState,
    begin_noise,
    key_data,
    next_noise,
    with_noise,
)

COVARIANCES = ("isotropic", "diagonal")


def matched_variance(
    batch_size: ArrayLike,
    reference_batch_size: ArrayLike,
    *,
    learning_rate: ArrayLike = 1.0,
    reference_learning_rate: ArrayLike = 1.0,
    num_examples: ArrayLike = math.inf,
) -> ArrayLike:
    r"""How much noise a batch lacks, in units of the covariance K of one example's gradient.

    .. math:: x = \frac{\epsilon_0}{\epsilon} \left(\frac 1 {B_0} - \frac 1 N\right)
      - \left(\frac 1 B - \frac 1 N\right)

    **The target**: with x K added to its mean gradient, training with batch size B and learning
    rate :math:`\epsilon` has the temperature of :math:`B_0` and :math:`\epsilon_0`: equal noise in
    equal training time, which is updates times learning rate (momentum being equal).

    * At equal learning rates, the default, this is the covariance of every single update, and
      :math:`x = 1/B_0 - 1/B`.
    * By the linear rule, :math:`\epsilon / \epsilon_0 = B / B_0`, hardly anything is lacking:
      :math:`x = (1 - B_0/B) / N`. Adding :math:`1/B_0 - 1/B` on top of it would make training
      :math:`B / B_0` times too hot.
    * By the square-root rule the step of one update is as noisy as the reference's, but training
      time passes faster, and :math:`x = 1/\sqrt{B_0 B} - 1/B` for large N.

    Args:
      batch_size: B > 0.
      reference_batch_size: :math:`B_0 > 0`, need not be whole. From a temperature:
        :func:`noisegen.batch_size_from_temperature`.
      learning_rate: :math:`\epsilon > 0`.
      reference_learning_rate: :math:`\epsilon_0 > 0`.
      num_examples: N >= B, of the training set; plays no part at equal learning rates.

    Returns:
      x; of JAX arrays, traced ones among them, NaN where it would be below zero, or a number is out
      of its range.

    Raises:
      ValueError: a number is not positive; N is below B; or the batch is noisier than the
        reference: noise cannot be taken away.

    Examples:
      >>> import noisegen
      >>> noisegen.matched_variance(1024, 64)
      0.0146484375
    """
    given = batch_size, reference_batch_size, learning_rate, reference_learning_rate
    batch_size, reference_batch_size, learning_rate, reference_learning_rate = _validate.positive(
        batch_size=batch_size,
        reference_batch_size=reference_batch_size,
        learning_rate=learning_rate,
        reference_learning_rate=reference_learning_rate,
    )
    [num_examples] = _validate.at_least(_known(batch_size), num_examples=num_examples)
    # In this order, equal batches at equal learning rates lack exactly 0.
    ratio = reference_learning_rate / learning_rate
    lacking = ratio / reference_batch_size - 1 / batch_size + (1 - ratio) / num_examples
    if isinstance(lacking, jax.Array):
        sizes = (batch_size > 0) & (reference_batch_size > 0) & (num_examples >= batch_size)
        return jnp.where(sizes & (lacking >= 0), lacking, jnp.nan)
    if np.any(lacking < 0):
        rates = f" at learning rates {given[2]} and {given[3]}" if np.any(ratio != 1) else ""
        raise ValueError(
            f"A batch of {given[0]} is noisier already than the reference of "
            f"{given[1]}{rates}, and noise cannot be taken away: the reference must be "
            "the smaller batch."
        )
    return lacking


def matched_reference(
    reference_batch_size: ArrayLike,
    *,
    learning_rate: ArrayLike,
    reference_learning_rate: ArrayLike,
    num_examples: ArrayLike = math.inf,
) -> ArrayLike:
    r"""The reference batch size to match at another learning rate than the reference's own.

    .. math:: \frac 1 {B_0'} = \frac{\epsilon_0}{\epsilon}
      \left(\frac 1 {B_0} - \frac 1 N\right) + \frac 1 N

    :func:`matched_noise` and :func:`matched_weights` make one update as noisy as a reference's at
    an equal learning rate. Given :math:`B_0'`, they add the :func:`matched_variance` of these
    learning rates instead, and training has the temperature of :math:`B_0` and
    :math:`\epsilon_0`.

    Args:
      reference_batch_size: :math:`B_0`, in (0, N]; need not be whole.
      learning_rate: :math:`\epsilon > 0`, of the large batch.
      reference_learning_rate: :math:`\epsilon_0 > 0`.
      num_examples: N, of the training set.

    Returns:
      :math:`B_0'`, seldom whole. Where it is larger than the batch, the batch is noisier than the
      reference, and no noise can match it. Of JAX arrays NaN where a number is out of its range.

    Raises:
      ValueError: a number is not positive, or N is below :math:`B_0`.

    Examples:
      By the square-root rule from 64 to 1024 the learning rate is four times the reference's:

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
    [num_examples] = _validate.at_least(_known(reference_batch_size), num_examples=num_examples)
    ratio = reference_learning_rate / learning_rate
    noise = ratio / reference_batch_size + (1 - ratio) / num_examples
    if isinstance(noise, jax.Array):
        sizes = (reference_batch_size > 0) & (num_examples >= reference_batch_size)
        return jnp.where(sizes & (noise > 0), 1 / noise, jnp.nan)
    return 1 / noise


def matched_noise(
    reference_batch_size: ArrayLike, key: jax.Array, *, covariance: str = "diagonal"
) -> optax.GradientTransformationExtraArgs:
    r"""Adds normal noise that makes the batch's mean gradient as noisy as a smaller batch's.

    .. math:: g \leftarrow g + \sqrt{1/B_0 - 1/B} \; D^{1/2} \xi, \qquad
      D = \operatorname{diag} K \text{ or } \frac{\operatorname{tr} K}{d} I

    with the K measured at this very update. **On the mean gradient, before momentum and learning
    rate**, which it then passes through as the noise of sampling does; the target is the covariance
    of an update at an equal learning rate, see :func:`matched_variance`. The expected covariance is
    right at every update, since the estimate of K is unbiased. At :math:`B_0 = B` no bit changes.
    At another learning rate than the reference's, give the :func:`matched_reference`.

    **On a part of the parameters**, in ``optax.masked`` or ``optax.partition``, the noise is the
    same as without the mask: d counts all coordinates that K was measured on, and each leaf takes
    its own part of the diagonal. So give the whole of K, measured on all parameters.

    ``update`` takes two arguments more, which the pool of `noisegen.training` gives where the task
    has a `noise_microbatch`:

    * ``batch_size``: B, examples of this update;
    * ``gradient_noise``: what has `trace` and `diagonal` of K, for one example, such as
      `noisegen.diagnostics.noise_of_groups` of the gradients of microbatches or devices. If it has
      no diagonal, "isotropic" takes d from the updates, none of which may be masked then.

    In a sweep, give the task ``check_run=noisegen.tasks.check_matched_noise``: then the pool
    refuses runs where :math:`B_0 > B`. Otherwise they diverge at the first update.

    Args:
      reference_batch_size: :math:`B_0`, in (0, B]; need not be whole.
      key: as for :func:`noisegen.add_gradient_noise`, whose guarantees hold.
      covariance: "isotropic" or "diagonal".

    Returns:
      A gradient transformation; NaN where :math:`B_0 > B`, or :math:`B_0 < B` and K could not be
      measured.

    Raises:
      ValueError: an argument is out of its range; ``gradient_noise`` is of another kind, its
        diagonal is of other shapes than the updates or has fewer coordinates, or there is none
        though the updates are masked; in a call outside jit also :math:`B_0 > B`.

    Examples:
      >>> import jax, jax.numpy as jnp, noisegen
      >>> from noisegen import diagnostics
      >>> tx = noisegen.matched_noise(4, jax.random.key(0), covariance="isotropic")
      >>> noise = diagnostics.GradientNoise(trace=1e6, squared_norm=0.0, diagonal=())
      >>> updates, state = tx.update(
      ...     jnp.zeros(10_000), tx.init(None), batch_size=8, gradient_noise=noise
      ... )
      >>> round(float(jnp.var(updates)))  # (1 / 4 - 1 / 8) * 1e6 / 10_000
      12
    """
    _validate.positive(reference_batch_size=reference_batch_size)
    _validate.scalar(reference_batch_size=reference_batch_size)
    if covariance not in COVARIANCES:
        raise ValueError(f"covariance must be one of {COVARIANCES}, but it is {covariance!r}.")
    begin = begin_noise(key)

    def init_fn(params: Any) -> AddGradientNoiseState:
        del params
        return begin()

    def update_fn(
        updates: Any,
        state: AddGradientNoiseState,
        params: Any = None,
        *,
        batch_size: ArrayLike | None = None,
        gradient_noise: Any = None,
        **others: Any,
    ) -> Any:
        del params, others
        if batch_size is None or gradient_noise is None:
            raise ValueError(
                "matched_noise needs the batch: update(..., batch_size=, "
                "gradient_noise=); in a pool, give the task a noise_microbatch."
            )
        lacking = matched_variance(batch_size, reference_batch_size)
        spread = variances(covariance, gradient_noise, updates)
        noise, state = next_noise(state, updates, samplers.normal_noise)

        def add(gradient, variance, xi):
            # Where nothing is lacking, a variance that could not be measured does no harm.
            dtype = _validate.wide(xi.dtype)
            variance = jnp.asarray(lacking, dtype) * jnp.asarray(variance, dtype)
            variance = jnp.where(lacking == 0, 0.0, variance)
            return with_noise(gradient, jnp.sqrt(variance), xi)

        return jax.tree.map(add, updates, spread, noise), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def matched_weights(
    key: jax.Array, places: jax.Array, batch_size: ArrayLike, reference_batch_size: ArrayLike
) -> jax.Array:
    r"""Random weights of examples that make a batch's mean gradient as noisy as a smaller one's.

    .. math:: w_{2k} = 1 + s \xi_k, \quad w_{2k+1} = 1 - s \xi_k, \quad \xi_k \sim N(0, 1), \qquad
      s^2 = \frac{B^2}{2 \lfloor B / 2 \rfloor} \left(\frac 1 {B_0} - \frac 1 B\right)

    The mean of the weighted losses, :math:`\frac 1 B \sum_i w_i \ell_i`, has the gradient of the
    plain mean and, beside it, noise of covariance :math:`(1/B_0 - 1/B) K` with the *whole*
    covariance K of the examples' gradients: a pair contributes :math:`g_{2k} - g_{2k+1}`, of
    covariance 2 K. The weights of a pair have the mean 1, so the mean gradient itself is not
    scaled. No gradient is computed twice and none is kept; only loss and backward pass see the
    weights, so any way to cut a batch into microbatches gives the same. The last example of an odd
    batch has the weight 1. At another learning rate than the reference's, give the
    :func:`matched_reference`. Each loss must be that of one example: where ghost batches are
    normalised together, noise that their members share is not all there.

    In a task: ``example_weights=lambda hparams: lambda key, places, batch_size:
    matched_weights(key, places, batch_size, hparams["reference_batch_size"])``.

    A small batch is as noisy in one update; over an epoch without replacement its noise adds up to
    nearly zero at unchanged parameters, as that of the weights does not.

    Args:
      key: one key for the update: the same for every microbatch and device.
      places: `(M,)` whole numbers, each example's place in its batch, from 0 to B - 1. Which
        example stands where must be left to chance, as in a shuffled batch.
      batch_size: B.
      reference_batch_size: :math:`B_0`, in (0, B]; need not be whole.

    Returns:
      `(M,)` float32 weights, of mean 1 over a batch; NaN where JAX arrays say :math:`B_0 > B`, and
      for a batch of 1.

    Raises:
      ValueError: numbers say :math:`B_0 > B`, or are not positive; `key` is not one threefry key,
        or `places` are not whole numbers in a row.

    Examples:
      >>> import jax, jax.numpy as jnp, noisegen
      >>> weights = noisegen.matched_weights(jax.random.key(0), jnp.arange(1000), 1000, 100)
      >>> round(float(weights.mean()), 3), round(float(weights.std()))
      (1.0, 3)
    """
    key_data(key)  # refuses what is no key
    places = jnp.asarray(places)
    if places.ndim != 1 or not jnp.issubdtype(places.dtype, jnp.integer):
        raise ValueError(
            "places must be whole numbers, one for each example of a (micro)batch, such as "
            f"jnp.arange(batch_size), but they are {places.dtype} of shape {places.shape}."
        )
    places = places.astype(jnp.int32)
    lacking = matched_variance(batch_size, reference_batch_size)
    [size] = _validate.positive(batch_size=batch_size)
    paired = size // 2 * 2
    # Infinite where a single example has no other to be paired with, and its weight NaN.
    variance = jnp.asarray(lacking, jnp.float32) / jnp.asarray(paired, jnp.float32)
    size = jnp.asarray(size, jnp.float32)
    deviation = size * jnp.sqrt(jnp.where(lacking == 0, 0.0, variance))

    def draw(pair):
        return jax.random.normal(jax.random.fold_in(key, pair), dtype=jnp.float32)

    paired = jnp.asarray(paired).astype(jnp.int32)
    signs = jnp.where(places < paired, 1 - 2 * (places % 2), 0).astype(jnp.float32)
    return 1 + deviation * signs * jax.vmap(draw)(places // 2)


def _known(size):
    """The largest of some sizes; 1 where JAX traces them."""
    return 1 if isinstance(size, jax.Array) else np.max(size)
