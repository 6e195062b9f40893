"""Measures the noise of gradients: sums over microbatches, and arguments for optimizers."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from noisegen import diagnostics
from noisegen.diagnostics import RunningNoise
from noisegen.training.task import PyTree, Task

METRICS = ("gradient_noise_scale", "gradient_variance", "gradient_squared_norm")


class NoiseSums(NamedTuple):
    """Sums over the microbatches of a batch, which are the groups of `diagnostics.GroupSums`.

    The leading axis is the mesh's batch axis. The sums of gradients and of examples are missing,
    because a lane keeps them for its update.
    """

    squares: PyTree  # float32, of the gradients S of the summed losses: S^2 / examples
    groups: jax.Array  # float32 (1,), (sum of squared weights) / examples
    weights: jax.Array  # float32 (1,), sum of squared weights


def begin(task: Task, zeros: PyTree) -> tuple[NoiseSums | None, RunningNoise | None]:
    """Returns empty sums and empty running means, or None each if no noise is measured."""
    if task.noise_microbatch is None:
        return None, None
    return NoiseSums(zeros, jnp.zeros(1), jnp.zeros(1)), diagnostics.init_running_noise()


def add_microbatch(
    sums: NoiseSums | None, gradients: PyTree, weights: jax.Array, mask: jax.Array
) -> NoiseSums | None:
    """Adds a microbatch to the sums; only the examples in the mask count.

    Args:
      sums: Sums over the microbatches before it, or None if no noise is measured.
      gradients: Gradients of the weighted sum of losses over the mask.
      weights: Weights of the losses, float32 (M,), zero outside the mask.
      mask: Examples that count, booleans (M,).
    """
    if sums is None:
        return None
    # Any share will do for an empty microbatch, because all it multiplies is zero.
    share = 1 / jnp.maximum(jnp.sum(mask), 1)
    squared_weights = jnp.sum(weights**2)

    def add(total, gradient):
        # In float32, as a sum of squares of bfloat16 would lose what the estimate is made of.
        return total + share * gradient.astype(jnp.float32)[None] ** 2

    return NoiseSums(
        squares=jax.tree.map(add, sums.squares, gradients),
        groups=sums.groups + share * squared_weights,
        weights=sums.weights + squared_weights,
    )


def finish_batch(
    task: Task,
    sums: NoiseSums | None,
    gradient: PyTree,
    batch_size: jax.Array,
    running: RunningNoise | None,
) -> tuple[dict[str, Any], RunningNoise | None]:
    """Returns extra arguments for the optimizer, and the running means with this batch.

    Args:
      task: The task.
      sums: Sums over all microbatches of all devices, or None if no noise is measured.
      gradient: Gradient of the weighted sum of losses over the batch.
      batch_size: Examples of the batch, int32.
      running: Means over the batches before it.
    """
    if sums is None:
        return {}, None
    of_batch = diagnostics.GroupSums(
        gradient=gradient,
        squares=sums.squares,
        size=batch_size,
        groups=sums.groups,
        weights=sums.weights,
    )
    estimate = diagnostics.estimate_gradient_noise_from_sums(of_batch, task.num_examples)
    extra = {"batch_size": batch_size, "gradient_noise": estimate}
    # Without decay: the means of all updates since the last evaluation, which weigh the same.
    return extra, diagnostics.update_running_noise(running, estimate, decay=1.0)


def metrics(running: RunningNoise | None) -> dict[str, jax.Array]:
    """Returns the metrics of the means over updates, NaN if there was no update."""
    if running is None:
        return {}
    # The noise scale is the ratio of means. A mean of ratios would be biased.
    values = (diagnostics.gradient_noise_scale(running), running.trace, running.squared_norm)
    measured = running.count > 0
    return {
        name: jnp.where(measured, value, jnp.nan)
        for name, value in zip(METRICS, values, strict=True)
    }
