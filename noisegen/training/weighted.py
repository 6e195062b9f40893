"""Values with weights, for means that do not count every example alike, such as those of tokens."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from noisegen import _validate
from noisegen.training.task import Task


class Weighted(NamedTuple):
    """Values with weights, in place of one number for each example.

    The loss of a task may return it, and so may each of its metrics. The mean is then

        sum of weights * values / sum of weights

    over all entries of all examples: of a batch for the loss, of a split for a metric. The pool
    adds up both sums before it divides, so the mean is the same for every microbatch. A batch
    whose weights are all zero has the loss 0 and no gradient. A metric whose weights are all zero
    is NaN, which does not make the run count as diverged.

    Attributes:
      values: ``(M, ...)``, for instance ``(M, T)`` for the losses of T tokens. Values of weight
        zero are left out, even if they are not finite.
      weights: Numbers of at least 0, or booleans, of the same shape. They get no gradient. A
        negative one among those of a few examples is refused before training.

    Examples:
      Sentences of different lengths, padded to T tokens:

      >>> import optax
      >>> from noisegen import training
      >>> def loss(model, batch):
      ...     tokens, is_text = batch.data["tokens"], batch.data["is_text"]  # (M, T + 1), (M, T)
      ...     losses = optax.softmax_cross_entropy_with_integer_labels(
      ...         model(tokens[:, :-1]), tokens[:, 1:]
      ...     )
      ...     return training.Weighted(losses, is_text)

      The examples that a classifier finds, as shares of the right ones and of the found ones:

      >>> def metrics(model, batch):
      ...     is_found, is_right = model(batch.data["x"]) > 0, batch.data["y"]
      ...     return {
      ...         "test_recall": training.Weighted(is_found, is_right),
      ...         "test_precision": training.Weighted(is_right, is_found),
      ...     }
    """

    values: jax.Array
    weights: jax.Array


def example_sums(task: Task, what: str, values: object, mask: jax.Array) -> Weighted:
    """Returns the sums of each example's weighted values and of its weights.

    Args:
      task: The task.
      what: The function or metric, at the start of messages.
      values: What it returned: an array with one number for each example, or `Weighted`.
      mask: Mask of the microbatch, `(M,)`.

    Returns:
      Both sums, float32 `(M,)`, zero outside the mask.

    Raises:
      ValueError: If the shapes are others.
    """
    check_values(task, what, values, mask)
    if not isinstance(values, Weighted):
        # Not a product, because zero times infinity is not zero.
        return Weighted(jnp.where(mask, values.astype(jnp.float32), 0), mask.astype(jnp.float32))
    weights = jax.lax.stop_gradient(jnp.asarray(values.weights, jnp.float32))
    counted = jnp.where(weights != 0, weights * jnp.asarray(values.values, jnp.float32), 0)
    axes = tuple(range(1, weights.ndim))
    return Weighted(
        jnp.where(mask, jnp.sum(counted, axes), 0), jnp.where(mask, jnp.sum(weights, axes), 0)
    )


def dtype_of(values: object) -> jnp.dtype:
    """Returns the type of the values that a function returned, with or without weights."""
    return jnp.result_type(values.values if isinstance(values, Weighted) else values)


def check_values(task: Task, what: str, values: object, mask: jax.Array) -> None:
    """Checks the shapes of what a function of the task returned, see `example_sums`."""
    if not isinstance(values, Weighted):
        _check_shape(task, what, values, mask)
        return
    shapes = [jnp.shape(each) for each in values]
    if shapes[0] != shapes[1] or shapes[0][:1] != mask.shape:
        raise ValueError(
            f"{what} of task {task.name!r} must have values and weights of one shape that begins "
            f"with (M,) = {mask.shape}, got {shapes[0]} and {shapes[1]}."
        )
    if jnp.issubdtype(jnp.result_type(values.weights), jnp.complexfloating):
        raise ValueError(f"{what} of task {task.name!r} must have real weights.")


def _check_shape(task: Task, what: str, values: jax.Array, mask: jax.Array) -> None:
    """Checks that a function of the task returned one number per example.

    A mean over the microbatch would count examples outside the mask, and could not be combined with
    the means of other microbatches.

    Args:
      task: The task.
      what: The function or metric, at the start of the message.
      values: The result.
      mask: Mask of the microbatch, `(M,)`.

    Raises:
      ValueError: If the result has any other shape.
    """
    if not hasattr(values, "shape"):
        raise ValueError(
            f"{what} of task {task.name!r} must be one number per example, of shape (M,) = "
            f"{mask.shape}, but it is {_validate.kind(values)}."
        )
    if values.shape != mask.shape:
        remedy = "do not average over the batch"
        if values.shape[:1] == mask.shape:
            remedy = (
                "sum or average over the other axes. Predictions of shape (M, 1) and labels of "
                "shape (M,) give (M, M): drop the last axis of the predictions"
            )
        raise ValueError(
            f"{what} of task {task.name!r} must be one number per example, of shape (M,) = "
            f"{mask.shape}, got shape {values.shape}; {remedy}."
        )
