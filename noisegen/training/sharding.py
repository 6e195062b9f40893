"""Places arrays on a mesh, and lets its devices share a batch and branch together."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from noisegen.training.task import PyTree


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


def shardings_on(mesh: Mesh, specs: PyTree) -> PyTree:
    """Returns the shardings on a mesh for a tree of partition specs."""
    return jax.tree.map(functools.partial(NamedSharding, mesh), specs)


def map_prefix(function: Callable[[Any, Any], Any], prefix: PyTree, tree: PyTree) -> PyTree:
    """Maps a function over the leaves of a tree, each with the leaf of the prefix above it."""
    return jax.tree.map(
        lambda first, part: jax.tree.map(functools.partial(function, first), part), prefix, tree
    )
