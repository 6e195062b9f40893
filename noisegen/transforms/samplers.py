r"""Samplers: noise of mean 0 and variance 1 per coordinate, for every leaf of a tree.

The noise of leaf i is drawn from ``fold_in(key, i)``, in float32 (float64 for float64 leaves). The
index counts the leaves that :func:`optax.masked` has taken out, so a leaf has the same noise
whether its neighbours are masked or not, and the groups of :func:`optax.partition` share none.
Where one entry of a mask, or one label, takes out a whole subtree, the subtree counts as one leaf:
then give every group a key of its own.
"""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax

from noisegen import _validate


class Sampler(Protocol):
    """A function (key, tree) -> noise for every leaf, of mean 0 and variance 1 per coordinate."""

    def __call__(self, key: jax.Array, tree: Any) -> Any: ...


def normal_noise(key: jax.Array, tree: Any) -> Any:
    """Independent standard normal noise.

    Examples:
      >>> import jax, jax.numpy as jnp, noisegen
      >>> noise = noisegen.normal_noise(jax.random.key(0), {"w": jnp.zeros((100, 100))})
      >>> round(float(noise["w"].std()), 1)
      1.0
    """
    return _draw(jax.random.normal, key, tree)


def uniform_noise(key: jax.Array, tree: Any) -> Any:
    r"""Independent noise, uniform on :math:`[-\sqrt{3}, \sqrt{3})`.

    Examples:
      >>> import jax, jax.numpy as jnp, noisegen
      >>> noise = noisegen.uniform_noise(jax.random.key(0), jnp.zeros(10_000))
      >>> round(float(noise.std()), 1), round(float(noise.max()), 2)
      (1.0, 1.73)
    """
    width = 3**0.5

    def uniform(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, minval=-width, maxval=width)

    return _draw(uniform, key, tree)


def sphere_noise(key: jax.Array, tree: Any) -> Any:
    r"""Noise uniform on the sphere of radius :math:`\sqrt{d}`, the whole tree being one d-vector.

    So the norm of the noise is the same at every step, and each coordinate has variance 1. For a
    perturbation of total norm r, as in Ge et al., use a ``stddev`` of :math:`r / \sqrt{d}`. Masked
    leaves do not count in d.

    Examples:
      >>> import jax, jax.numpy as jnp, noisegen
      >>> noise = noisegen.sphere_noise(jax.random.key(0), jnp.zeros(100))
      >>> round(float(jnp.linalg.norm(noise)), 4)
      10.0

    References:
      Ge et al., `Escaping From Saddle Points <https://arxiv.org/abs/1503.02101>`_, 2015
    """
    noise = normal_noise(key, tree)
    leaves = jax.tree.leaves(noise)
    dtypes = [leaf.dtype for leaf in leaves]
    dtype = max(dtypes, key=lambda dtype: dtype.itemsize, default=jnp.float32)
    total = sum((jnp.sum(leaf**2).astype(dtype) for leaf in leaves), jnp.zeros((), dtype))
    # As a float: an int32 does not hold the number of coordinates of the largest networks.
    length = jnp.sqrt(total / float(max(sum(leaf.size for leaf in leaves), 1)))
    return jax.tree.map(lambda leaf: leaf / length.astype(leaf.dtype), noise)


def _draw(draw: Callable[..., jax.Array], key: jax.Array, tree: Any) -> Any:
    """One independent draw per leaf; masked leaves keep their place and get none."""
    leaves, treedef = jax.tree.flatten(tree, is_leaf=is_masked)

    def draw_leaf(index: int, leaf: Any) -> Any:
        if is_masked(leaf):
            return leaf
        given = jnp.result_type(leaf)
        if not jnp.issubdtype(given, jnp.floating):
            remedy = "Leave it out with optax.masked."
            if jnp.issubdtype(given, jnp.complexfloating):
                remedy = (
                    "Wrap the transformation, optax.contrib.split_real_and_imaginary(...), or "
                    "leave it out with optax.masked."
                )
            raise ValueError(
                f"noise is for floating-point leaves, but leaf {index} is {given}. {remedy}"
            )
        dtype = _validate.wide(given)
        return draw(jax.random.fold_in(key, index), jnp.shape(leaf), dtype)

    return treedef.unflatten([draw_leaf(index, leaf) for index, leaf in enumerate(leaves)])


def is_masked(leaf: Any) -> bool:
    """Returns whether this is what optax.masked puts where a leaf was."""
    return isinstance(leaf, optax.MaskedNode)
