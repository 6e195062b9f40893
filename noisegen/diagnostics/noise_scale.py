"""The gradient noise scale, from averages of estimates over many batches.

Estimates of trace K and |G|^2 are unbiased, but their ratio is not. Trace and squared norm are
therefore averaged separately, and divided last.

>>> from noisegen import diagnostics
>>> running = diagnostics.init_running_noise()
>>> for trace in (4.0, 8.0):
...     noise = diagnostics.GradientNoise(trace, squared_norm=1.0, diagonal=None)
...     running = diagnostics.update_running_noise(running, noise, decay=1.0)
>>> float(diagnostics.gradient_noise_scale(running))
6.0

References:
  McCandlish et al., `An Empirical Model of Large-Batch Training
  <https://arxiv.org/abs/1812.06162>`_, 2018, appendix A
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from noisegen import _validate
from noisegen.diagnostics.gradient_noise import GradientNoise


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
    # Weight of the new batch, 1 for the first one. The zeros before it then leave no bias.
    share = (1 - decay) / (1 - decay ** count.astype(decay.dtype))
    share = jnp.where(decay == 1, 1 / count, share)  # The limit of 0 / 0.
    trace, norm = _trace_and_norm(noise)
    # Both or none, so that trace and squared norm are averages of the same batches.
    measured = jnp.isfinite(trace) & jnp.isfinite(norm)

    def average(old: ArrayLike, new: jax.Array) -> jax.Array:
        return jnp.where(measured, old + share * (new - old), old)

    return RunningNoise(
        trace=average(running.trace, trace),
        squared_norm=average(running.squared_norm, norm),
        count=jnp.where(measured, count, running.count),
    )


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
    # An unbiased estimate of a small |G|^2 is negative now and then.
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


def _trace_and_norm(noise: Any) -> list[jax.Array]:
    """Returns trace and squared norm as float32."""
    values = _validate.real(trace=noise.trace, squared_norm=noise.squared_norm)
    return [jnp.asarray(value, jnp.float32) for value in values]
