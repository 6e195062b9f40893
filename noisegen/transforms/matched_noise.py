"""Normal noise that makes a large batch as noisy as a smaller one.

>>> import jax, jax.numpy as jnp, noisegen, optax
>>> from noisegen import diagnostics
>>> tx = optax.chain(noisegen.matched_noise(64, jax.random.key(0)), optax.sgd(0.1))
>>> gradients = jnp.array([[1.0, 2.0], [3.0, 2.0]])  # of two microbatches of 512 examples
>>> updates, state = tx.update(
...     gradients.mean(0),
...     tx.init(None),
...     batch_size=1024,
...     gradient_noise=diagnostics.estimate_gradient_noise(gradients, sizes=512),
... )
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from noisegen import _validate
from noisegen.transforms import samplers
from noisegen.transforms._noise_stream import (
    AddGradientNoiseState,
    add_scaled,
    begin_noise,
    next_noise,
)
from noisegen.transforms._variances import variances
from noisegen.transforms.matching import matched_variance

COVARIANCES = ("isotropic", "diagonal")


def matched_noise(
    reference_batch_size: ArrayLike, key: jax.Array, *, covariance: str = "diagonal"
) -> optax.GradientTransformationExtraArgs:
    """Adds normal noise that makes the batch's mean gradient as noisy as a smaller batch's.

    g <- g + sqrt((1/B0 - 1/B) D) xi, where xi ~ N(0, I) and
    D = diag K               for covariance="diagonal"
    D = (trace K / d) I      for covariance="isotropic"

    K is the covariance of one example's gradient, measured at the same update. Its estimate is
    unbiased, so the expected covariance is right at every update. At B0 = B no bit changes. Place
    the transformation **before momentum and learning rate**, on the mean gradient. The target is
    the covariance of one update at equal learning rates, see :func:`matched_variance`. If the
    learning rates differ, pass the :func:`matched_reference`.

    **Part of the parameters.** Inside ``optax.masked`` or ``optax.partition`` the noise is the same
    as without the mask. Pass the whole of K, measured on all parameters: d counts all coordinates
    on which K was measured, and each leaf takes its part of the diagonal.

    The update takes two extra arguments, which the pool of `noisegen.training` passes if the task
    has a `noise_microbatch`:

    * ``batch_size``: examples B of this update;
    * ``gradient_noise``: object with `trace` and `diagonal` of K, such as
      `noisegen.diagnostics.estimate_gradient_noise` returns for the gradients of microbatches or
      devices. Without a diagonal, "isotropic" takes d from the updates, which must not be masked.

    In a sweep, give the task ``check_run=noisegen.tasks.check_matched_noise``. The pool then
    refuses runs with B0 > B, which diverge at the first update otherwise.

    Args:
      reference_batch_size: Examples per update B0 of the reference, in (0, B], possibly fractional.
      key: Key of the noise, see :func:`noisegen.add_gradient_noise`, whose guarantees hold.
      covariance: "isotropic" or "diagonal".

    Returns:
      A gradient transformation. Updates are NaN if B0 > B, or if B0 < B and K is NaN.

    Raises:
      ValueError: If an argument is out of its range. Updates raise if ``gradient_noise`` does not
        fit them, or if concrete numbers have B0 > B.

    Examples:
      >>> import jax, jax.numpy as jnp, noisegen
      >>> from noisegen import diagnostics
      >>> tx = noisegen.matched_noise(4, jax.random.key(0), covariance="isotropic")
      >>> noise = diagnostics.GradientNoise(trace=1e6, squared_norm=0.0, diagonal=None)
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
        **extra_args: Any,
    ) -> Any:
        del params, extra_args
        if batch_size is None or gradient_noise is None:
            raise ValueError(
                "matched_noise needs update(..., batch_size=, gradient_noise=); in a pool, set the "
                "noise_microbatch of the task."
            )
        # The covariance that the batch lacks is `lacking` times that of one example.
        lacking = matched_variance(batch_size, reference_batch_size)
        per_example = variances(covariance, gradient_noise, updates)
        noise, state = next_noise(state, updates, samplers.normal_noise)

        def add(gradient: jax.Array, variance: ArrayLike, xi: jax.Array) -> jax.Array:
            dtype = _validate.wide(xi.dtype)
            variance = jnp.asarray(lacking, dtype) * jnp.asarray(variance, dtype)
            # If no noise is lacking, a variance of NaN (not measured) must do no harm.
            variance = jnp.where(lacking == 0, 0.0, variance)
            return add_scaled(gradient, jnp.sqrt(variance), xi)

        return jax.tree.map(add, updates, per_example, noise), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
