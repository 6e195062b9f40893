"""The noise of gradients in the engine: sums over microbatches, and arguments for optimizers."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from noisegen import diagnostics
from noisegen.diagnostics import RunningNoise
from noisegen.training.task import PyTree, Task

METRICS = ("gradient_noise_scale", "gradient_variance", "gradient_squared_norm")


class NoiseSums(NamedTuple):
    """Sums over the microbatches of a batch; the leading axis is the mesh's batch axis."""

    squares: PyTree  # float32, of the gradients S of the summed losses: S^2 / examples
    groups: jax.Array  # float32, (sum of squared weights) / examples
    weights: jax.Array  # float32, sum of squared weights


def begin(task: Task, zeros: PyTree) -> tuple[NoiseSums | tuple[()], RunningNoise | tuple[()]]:
    """Empty sums, and running means of no update; () each where no noise is measured."""
    if not task.noise_group:
        return (), ()
    return NoiseSums(zeros, jnp.zeros(1), jnp.zeros(1)), diagnostics.init_running_noise()


def add_group(
    sums: NoiseSums | tuple[()], gradients: PyTree, weights: jax.Array, mask: jax.Array
) -> NoiseSums | tuple[()]:
    """One more microbatch, of which the examples in the mask count."""
    if not sums:
        return sums
    share = 1 / jnp.maximum(jnp.sum(mask), 1)  # of an empty one, every summand is zero
    squared_weights = jnp.sum(weights**2)

    def add(total, gradient):
        return total + share * gradient.astype(jnp.float32)[None] ** 2

    return NoiseSums(
        squares=jax.tree.map(add, sums.squares, gradients),
        groups=sums.groups + share * squared_weights,
        weights=sums.weights + squared_weights,
    )


def measure(
    task: Task,
    sums: NoiseSums | tuple[()],
    gradient: PyTree,
    batch_size: jax.Array,
    running: RunningNoise | tuple[()],
) -> tuple[dict[str, Any], RunningNoise | tuple[()]]:
    """Returns extra arguments for the optimizer, and the running means with this batch."""
    if not sums:
        return {}, running
    of_batch = diagnostics.GroupSums(
        gradient=gradient,
        squares=sums.squares,
        size=batch_size,
        groups=sums.groups,
        weights=sums.weights,
    )
    found = diagnostics.estimate_gradient_noise_from_sums(of_batch, task.num_examples)
    extra = {"batch_size": batch_size, "gradient_noise": found}
    return extra, diagnostics.update_running_noise(running, found, decay=1.0)


def metrics(running: RunningNoise | tuple[()]) -> dict[str, jax.Array]:
    """What is recorded: of the means over updates, NaN where there was none."""
    if not running:
        return {}
    values = (diagnostics.gradient_noise_scale(running), running.trace, running.squared_norm)
    measured = running.count > 0
    return {
        name: jnp.where(measured, value, jnp.nan)
        for name, value in zip(METRICS, values, strict=True)
    }


def metric_names(task: Task) -> tuple[str, ...]:
    """The names of what is recorded."""
    return METRICS if task.noise_group else ()
