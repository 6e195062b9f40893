"""Losses of a single float32 vector in place of a parameter tree."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

PyTree = Any


def flatten_loss(
    loss: Callable[[PyTree], jax.Array], params: PyTree
) -> tuple[Callable[[jax.Array], jax.Array], jax.Array]:
    """Returns the loss as a function of one float32 vector, and the parameters as that vector.

    Raises:
      ValueError: If a leaf of the parameters is not floating-point.
    """
    check_floating(params=params)
    # Converted before they are raveled, since `unravel` restores the types it has seen.
    single = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    x, unravel = ravel_pytree(single)
    return lambda x: loss(unravel(x)), x


def check_floating(**trees: PyTree) -> None:
    """Raises ValueError for the first leaf that is not floating-point."""
    for name, tree in trees.items():
        for path, leaf in jax.tree.leaves_with_path(tree):
            dtype = jnp.result_type(leaf)
            if jnp.issubdtype(dtype, jnp.floating):
                continue
            remedy = (
                "Leave out counters, keys and the like (for Flax NNX: nnx.split(model, nnx.Param, "
                "...))."
            )
            if jnp.issubdtype(dtype, jnp.complexfloating):
                remedy = "Give its real and imaginary parts as two leaves."
            raise ValueError(
                f"{name} must hold floating-point arrays only, but {leaf_name(path)} is {dtype}. "
                f"{remedy}"
            )


def leaf_name(path: Any) -> str:
    """Returns the path of a leaf as text for a message."""
    return jax.tree_util.keystr(path) or "the only leaf"
