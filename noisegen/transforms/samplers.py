"""Samplers: noise of mean 0 and variance 1 per coordinate, for every leaf of a tree.

The noise of leaf i is drawn from ``fold_in(key, i)``, in float32 (float64 for float64 leaves). The
index also counts leaves masked out by :func:`optax.masked`. A leaf therefore gets the same noise
whether its neighbors are masked or not, and groups of :func:`optax.partition` share no noise. If
one entry of a mask, or one label, covers a whole subtree, the subtree counts as one leaf; then give
every group its own key.
"""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax

from noisegen import _validate


class Sampler(Protocol):
    """Function (key, tree) -> noise for every leaf, of mean 0 and variance 1 per coordinate."""

    def __call__(self, key: jax.Array, tree: Any) -> Any: ...


def normal_noise(key: jax.Array, tree: Any) -> Any:
    """Draws independent standard normal noise.

    Args:
      key: Random key.
      tree: Pytree of floating-point arrays, whose shapes and types the noise takes.

    Examples:
      >>> import jax, jax.numpy as jnp, noisegen
      >>> noise = noisegen.normal_noise(jax.random.key(0), {"w": jnp.zeros((100, 100))})
      >>> round(float(noise["w"].std()), 1)
      1.0
    """
    return _draw(jax.random.normal, key, tree)


def uniform_noise(key: jax.Array, tree: Any) -> Any:
    """Draws independent noise, uniform on [-sqrt(3), sqrt(3)).

    Args:
      key: Random key.
      tree: Pytree of floating-point arrays, whose shapes and types the noise takes.

    Examples:
      >>> import jax, jax.numpy as jnp, noisegen
      >>> noise = noisegen.uniform_noise(jax.random.key(0), jnp.zeros(10_000))
      >>> round(float(noise.std()), 1), round(float(noise.max()), 2)
      (1.0, 1.73)
    """
    width = 3**0.5  # U(-w, w) has the variance w**2 / 3.

    def uniform(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, minval=-width, maxval=width)

    return _draw(uniform, key, tree)


def sphere_noise(key: jax.Array, tree: Any) -> Any:
    """Draws noise uniform on the sphere of radius sqrt(d), over all d coordinates of the tree.

    The norm of the noise is the same at every step, and each coordinate has variance 1. For a
    perturbation of total norm r, as in Ge et al., use ``stddev = r / sqrt(d)``. Masked leaves do
    not count in d.

    Args:
      key: Random key.
      tree: Pytree of floating-point arrays, whose shapes and types the noise takes.

    Examples:
      >>> import jax, jax.numpy as jnp, noisegen
      >>> noise = noisegen.sphere_noise(jax.random.key(0), jnp.zeros(100))
      >>> round(float(jnp.linalg.norm(noise)), 4)
      10.0

    References:
      Ge et al., `Escaping From Saddle Points <https://arxiv.org/abs/1503.02101>`_, 2015
    """
    # A normal vector has a uniform direction. Its length is set over all leaves together.
    noise = normal_noise(key, tree)
    leaves = jax.tree.leaves(noise)
    dtypes = [leaf.dtype for leaf in leaves]
    dtype = max(dtypes, key=lambda dtype: dtype.itemsize, default=jnp.float32)
    # In the widest type of the leaves.
    total = sum((jnp.sum(leaf**2).astype(dtype) for leaf in leaves), jnp.zeros((), dtype))
    # A float, because int32 cannot hold the number of coordinates of the largest networks.
    num_coordinates = float(max(sum(leaf.size for leaf in leaves), 1))
    length = jnp.sqrt(total / num_coordinates)
    return jax.tree.map(lambda leaf: leaf / length.astype(leaf.dtype), noise)


def is_masked(leaf: Any) -> bool:
    """Returns whether a leaf is the placeholder of optax.masked."""
    return isinstance(leaf, optax.MaskedNode)


def _draw(draw: Callable[..., jax.Array], key: jax.Array, tree: Any) -> Any:
    """Draws noise for every leaf independently, and leaves masked leaves as they are."""
    leaves, treedef = jax.tree.flatten(tree, is_leaf=is_masked)

    def draw_leaf(index: int, leaf: Any) -> Any:
        if is_masked(leaf):
            return leaf
        dtype = jnp.result_type(leaf)
        _check_floating(index, dtype)
        # Counts masked leaves too, so a mask changes no noise of other leaves.
        own_key = jax.random.fold_in(key, index)
        return draw(own_key, jnp.shape(leaf), _validate.wide(dtype))

    return treedef.unflatten([draw_leaf(index, leaf) for index, leaf in enumerate(leaves)])


def _check_floating(index: int, dtype: Any) -> None:
    """Raises ValueError, with the remedy, if a leaf is not floating-point."""
    if jnp.issubdtype(dtype, jnp.floating):
        return
    remedy = "Leave it out with optax.masked."
    if jnp.issubdtype(dtype, jnp.complexfloating):
        remedy = (
            "Wrap the transformation in optax.contrib.split_real_and_imaginary, or leave the leaf "
            "out with optax.masked."
        )
    raise ValueError(f"noise needs floating-point leaves, but leaf {index} is {dtype}. {remedy}")
