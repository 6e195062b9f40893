"""Shares a batch among the devices of the mesh's batch axis."""

import jax
import jax.numpy as jnp

from noisegen import _validate
from noisegen.training.task import Task


def local_positions(size: int) -> jax.Array:
    """Returns this device's positions in a piece of `size` examples spread over the batch axis."""
    share = size // jax.lax.axis_size("batch")
    return jax.lax.axis_index("batch") * share + jnp.arange(share)


def check_shape(task: Task, what: str, values: jax.Array, mask: jax.Array) -> None:
    """Checks that there is one number an example; a mean would count those outside the mask.

    Raises:
      ValueError: If there is not.
    """
    if not hasattr(values, "shape"):
        raise ValueError(
            f"{what} of task {task.name!r} must be one number an example, of shape (M,) = "
            f"{mask.shape}, but it is {_validate.kind(values)}."
        )
    if values.shape != mask.shape:
        raise ValueError(
            f"{what} of task {task.name!r} must be one number an example, of shape (M,) = "
            f"{mask.shape}, got shape {values.shape}; do not average over the batch."
        )
