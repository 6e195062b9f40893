"""Shares a batch among the devices of the mesh's batch axis, and keeps lanes in step."""

import jax
import jax.numpy as jnp

from noisegen import _validate
from noisegen.training.task import PyTree, Task


def local_positions(size: int) -> jax.Array:
    """Returns this device's positions in a piece of `size` examples spread over the batch axis.

    Args:
      size: Examples of the piece, a multiple of the axis size.

    Returns:
      Consecutive positions, int32 `(size / devices,)`.
    """
    share = size // jax.lax.axis_size("batch")
    # Consecutive, so that a ghost batch lies on one device.
    return jax.lax.axis_index("batch") * share + jnp.arange(share)


def sum_over(axis: str, tree: PyTree) -> PyTree:
    """Returns the sums of arrays over the devices of an axis of the mesh."""
    # XLA refuses a sum over one device in a program whose devices all share one model.
    return tree if jax.lax.axis_size(axis) == 1 else jax.lax.psum(tree, axis)


def any_lane(due: jax.Array) -> jax.Array:
    """Returns whether any lane is due, by which the program branches; `due` is boolean (L,).

    Devices with other lanes branch for themselves. If devices share a model they branch together,
    because some operations between devices wait for all devices of the mesh.
    """
    if jax.sharding.get_abstract_mesh().shape.get("model", 1) == 1:
        return due.any()
    return sum_over("lanes", due.any().astype(jnp.int32)) > 0


def check_shape(task: Task, what: str, values: jax.Array, mask: jax.Array) -> None:
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
