r"""Samplers: noise of mean 0 and variance 1 per coordinate, for every leaf of a tree.

The noise of leaf i is drawn from ``fold_in(key, i)``, in float32 (float64 for float64 leaves). The
index counts the leaves that :func:`optax.masked` has taken out, so a leaf has the same noise
whether its neighbours are masked or not, and the groups of :func:`optax.partition` share none.
"""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax


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
    mean_square = sum(jnp.sum(leaf**2) for leaf in leaves) / max(sum(x.size for x in leaves), 1)
    return jax.tree.map(lambda leaf: leaf / jnp.sqrt(mean_square).astype(leaf.dtype), noise)


def _draw(draw: Callable[..., jax.Array], key: jax.Array, tree: Any) -> Any:
    """One independent draw per leaf; masked leaves keep their place and get none."""
    leaves, treedef = jax.tree.flatten(tree, is_leaf=_is_masked)

    def draw_leaf(index: int, leaf: Any) -> Any:
        if _is_masked(leaf):
            return leaf
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(
                f"noise is for floating-point leaves, but leaf {index} is {leaf.dtype}. "
                "Leave it out with optax.masked."
            )
        dtype = jnp.promote_types(leaf.dtype, jnp.float32)
        return draw(jax.random.fold_in(key, index), leaf.shape, dtype)

    return treedef.unflatten([draw_leaf(index, leaf) for index, leaf in enumerate(leaves)])


def _is_masked(leaf: Any) -> bool:
    """Whether this is what optax.masked puts where a leaf was."""
    return isinstance(leaf, optax.MaskedNode)
