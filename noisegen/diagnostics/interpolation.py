"""Measures of a network, evaluated on the line or the plane through checkpoints.

Let A be a checkpoint of a small batch and B one of a large batch. The loss at
(1 - alpha) A + alpha B shows the width of both minima, and the barrier between them.

>>> import jax.numpy as jnp
>>> from noisegen import diagnostics
>>> def loss(params):  # minima at -1 and 1
...     return (params["w"] ** 2 - 1) ** 2
>>> small, large = {"w": jnp.float32(-1)}, {"w": jnp.float32(1)}
>>> diagnostics.evaluate_on_line(loss, small, large, jnp.linspace(0, 1, 5)).tolist()
[0.0, 0.5625, 1.0, 0.5625, 0.0]

References:
  Goodfellow, Vinyals & Saxe, `Qualitatively characterizing neural network optimization problems
  <https://arxiv.org/abs/1412.6544>`_, 2015; Keskar et al., `On Large-Batch Training for Deep
  Learning <https://arxiv.org/abs/1609.04836>`_, 2017 (25 points on [-1, 2])
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from noisegen import _validate
from noisegen.diagnostics._flatten import check_floating, leaf_name

PyTree = Any
Measure = Callable[[PyTree], PyTree]  # params -> pytree of scalars


def interpolate(first: PyTree, second: PyTree, alpha: ArrayLike) -> PyTree:
    """Interpolates linearly between the parameters of two checkpoints.

    (1 - alpha) * first + alpha * second

    bf16 and f16 leaves are combined in float32 and rounded once. At 0 and 1, finite checkpoints are
    returned unchanged to the last bit.

    Args:
      first: Pytree of floating-point arrays.
      second: Pytree of the same structure and shapes.
      alpha: Position on the line, one number, concrete or traced. Values below 0 and above 1
        extrapolate.

    Returns:
      A pytree like the two.

    Raises:
      ValueError: If the checkpoints differ in structure or a shape, a leaf is not floating-point,
        or `alpha` is not a single number.

    Examples:
      >>> import jax.numpy as jnp
      >>> from noisegen import diagnostics
      >>> first, second = {"w": jnp.array([0.0, 4.0])}, {"w": jnp.array([1.0, 2.0])}
      >>> diagnostics.interpolate(first, second, alpha=2)
      {'w': Array([2., 0.], dtype=float32)}
    """
    [alpha] = _checked(0, alpha=alpha)
    _check_same_network(first=first, second=second)
    return _combine((1 - alpha, alpha), (first, second))


def evaluate_on_line(measure: Measure, first: PyTree, second: PyTree, alphas: ArrayLike) -> PyTree:
    """Evaluates a measure at points of the line through two checkpoints, one at a time.

    **Batch statistics** of the checkpoints do not fit a network between them, and would show a
    barrier that does not exist. `measure` receives parameters only, so let it compute the
    statistics from training data at these parameters, as in the example.

    Args:
      measure: Function params -> scalar or pytree of scalars, such as loss and accuracy. It runs
        under ``jax.lax.map``, in the memory of one evaluation.
      first: Parameters at 0.
      second: Parameters at 1.
      alphas: Points on the line, `(A,)`.

    Returns:
      The result of `measure`, with each scalar `(A,)`.

    Raises:
      ValueError: If the checkpoints do not fit (see :func:`interpolate`), or `alphas` does not have
        one axis.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from noisegen import diagnostics
      >>> train, test = jax.random.normal(jax.random.key(0), (2, 64, 3)) + 1
      >>> def measure(params):
      ...     hidden = train @ params["w"]
      ...     mean, stddev = hidden.mean(0)[None], hidden.std(0)[None]  # of this very network
      ...     return ((test @ params["w"] - mean) / stddev).std()
      >>> first, second = {"w": jnp.eye(3)}, {"w": 100 * jnp.eye(3)}
      >>> diagnostics.evaluate_on_line(measure, first, second, jnp.linspace(0, 1, 3)).round(1)
      Array([1.1, 1.1, 1.1], dtype=float32)
    """
    [alphas] = _checked(1, alphas=alphas)
    _check_same_network(first=first, second=second)

    def evaluate_at(alpha: jax.Array) -> PyTree:
        return measure(_combine((1 - alpha, alpha), (first, second)))

    # One at a time, in the memory of one evaluation. `jax.vmap` would hold all networks at once.
    return jax.lax.map(evaluate_at, alphas)


def evaluate_on_plane(
    measure: Measure,
    origin: PyTree,
    first: PyTree,
    second: PyTree,
    alphas: ArrayLike,
    betas: ArrayLike,
) -> PyTree:
    """Evaluates a measure at points of the plane through three checkpoints, one at a time.

    origin + alpha * (first - origin) + beta * (second - origin)

    Args:
      measure: Function params -> scalar or pytree of scalars. See :func:`evaluate_on_line`,
        also for batch statistics.
      origin: Parameters at (0, 0).
      first: Parameters at (1, 0). For a direction d, pass origin + d.
      second: Parameters at (0, 1).
      alphas: Coordinates along the first axis, `(A,)`.
      betas: Coordinates along the second axis, `(B,)`.

    Returns:
      The result of `measure`, with each scalar `(A, B)`.

    Raises:
      ValueError: If the checkpoints do not fit (see :func:`interpolate`), or `alphas` or `betas`
        does not have one axis.

    Examples:
      >>> import jax.numpy as jnp
      >>> from noisegen import diagnostics
      >>> corners = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
      >>> def measure(w):
      ...     return 10 * w[0] + w[1]
      >>> diagnostics.evaluate_on_plane(measure, *corners, jnp.arange(2), jnp.arange(3))
      Array([[ 0.,  1.,  2.],
             [10., 11., 12.]], dtype=float32)
    """
    alphas, betas = _checked(1, alphas=alphas, betas=betas)
    _check_same_network(origin=origin, first=first, second=second)

    def evaluate_at(alpha: jax.Array, beta: jax.Array) -> PyTree:
        # origin + alpha (first - origin) + beta (second - origin), in three terms.
        return measure(_combine((1 - alpha - beta, alpha, beta), (origin, first, second)))

    def evaluate_row(alpha: jax.Array) -> PyTree:
        return jax.lax.map(lambda beta: evaluate_at(alpha, beta), betas)

    return jax.lax.map(evaluate_row, alphas)


def _check_same_network(**checkpoints: PyTree) -> None:
    """Raises ValueError if a leaf is missing, of another shape, or not floating-point."""
    check_floating(**checkpoints)
    (name, params), *others = checkpoints.items()
    for other_name, other in others:
        _check_same_leaves(name, _shapes(params), other_name, _shapes(other))
        # Equal leaves may still be held in other containers, such as tuples and lists.
        if jax.tree.structure(params) != jax.tree.structure(other):
            raise ValueError(
                f"{name} and {other_name} must be checkpoints of the same network, but their "
                f"containers differ: {jax.tree.structure(params)} and {jax.tree.structure(other)}."
            )


def _check_same_leaves(name: str, shapes: dict, other_name: str, other_shapes: dict) -> None:
    """Raises ValueError for the first leaf that only one has, or in another shape."""
    for path in [*shapes, *other_shapes]:
        shape = shapes.get(path, "missing")
        other_shape = other_shapes.get(path, "missing")
        if shape != other_shape:
            raise ValueError(
                f"{name} and {other_name} must be checkpoints of the same network, but leaf {path} "
                f"is {shape} in {name} and {other_shape} in {other_name}."
            )


def _checked(ndim: int, **values: ArrayLike) -> list[jax.Array]:
    """Returns real numbers as JAX arrays; raises ValueError for another number of axes."""
    requirement = "a single number" if ndim == 0 else "an array of one axis"
    for name, value in values.items():
        if np.ndim(value) != ndim:
            raise ValueError(f"{name} must be {requirement}, but its shape is {np.shape(value)}.")
    return [jnp.asarray(number) for number in _validate.real(**values)]


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every leaf, by its path."""
    return {leaf_name(path): jnp.shape(leaf) for path, leaf in jax.tree.leaves_with_path(tree)}


def _combine(weights: tuple[ArrayLike, ...], trees: tuple[PyTree, ...]) -> PyTree:
    """Returns the weighted sum of trees, calculated in float32 at least."""

    # A sum of products: with weights of exactly 0 and 1 it returns a finite tree unchanged.
    def combine(*leaves: ArrayLike) -> jax.Array:
        dtype = jnp.result_type(*leaves)
        wide = _validate.wide(dtype)
        terms = [
            jnp.asarray(weight, wide) * jnp.asarray(leaf, wide)
            for weight, leaf in zip(weights, leaves, strict=True)
        ]
        return sum(terms).astype(dtype)

    return jax.tree.map(combine, *trees)
