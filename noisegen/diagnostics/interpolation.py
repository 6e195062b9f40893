r"""Any measure of a network, on the line or the plane through checkpoints.

With the checkpoints :math:`\theta_S` of a small batch and :math:`\theta_L` of a large one, the loss
along :math:`(1 - \alpha) \theta_S + \alpha \theta_L` shows how wide the two minima are, and whether
a barrier stands between them.

>>> import jax.numpy as jnp
>>> from noisegen import diagnostics
>>> def loss(params):  # minima at -1 and 1
...     return (params["w"] ** 2 - 1) ** 2
>>> small, large = {"w": jnp.float32(-1)}, {"w": jnp.float32(1)}
>>> diagnostics.along_line(loss, small, large, jnp.linspace(0, 1, 5)).tolist()
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

PyTree = Any
Measure = Callable[[PyTree], PyTree]  # params -> pytree of scalars


def interpolate(first: PyTree, second: PyTree, alpha: ArrayLike) -> PyTree:
    r"""Parameters on the line through two checkpoints.

    .. math:: \theta = (1 - \alpha) \theta_S + \alpha \theta_L

    bf16 and f16 leaves are combined in float32 and rounded once. At 0 and 1 finite checkpoints come
    back unchanged, to the last bit.

    Args:
      first: :math:`\theta_S`, a pytree of floating-point arrays.
      second: :math:`\theta_L`, of the same structure and shapes.
      alpha: one number, concrete or traced; below 0 and above 1 the line goes on.

    Returns:
      A pytree like the two.

    Raises:
      ValueError: the checkpoints differ in structure or in a shape, a leaf is not floating-point,
        or `alpha` is not a single number.

    Examples:
      >>> import jax.numpy as jnp
      >>> from noisegen import diagnostics
      >>> first, second = {"w": jnp.array([0.0, 4.0])}, {"w": jnp.array([1.0, 2.0])}
      >>> diagnostics.interpolate(first, second, alpha=2)
      {'w': Array([2., 0.], dtype=float32)}
    """
    [alpha] = _checked(0, alpha=alpha)
    check_same_network(first=first, second=second)
    return _combine((1 - alpha, alpha), (first, second))


def along_line(measure: Measure, first: PyTree, second: PyTree, alphas: ArrayLike) -> PyTree:
    r"""A measure at points of the line through two checkpoints, one point at a time.

    **Batch statistics** of neither checkpoint fit a network between them: with them the line shows
    a barrier that is not there. `measure` gets parameters alone, so let it compute the statistics
    from training data at those parameters, as below.

    Args:
      measure: params -> scalar, or a pytree of scalars: loss, accuracy, ... It runs under
        ``jax.lax.map``, in the memory of one evaluation.
      first: parameters at 0.
      second: parameters at 1.
      alphas: `(A,)`, points on the line.

    Returns:
      What `measure` returns, each scalar `(A,)`.

    Raises:
      ValueError: as for :func:`interpolate`, or `alphas` has not one axis.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from noisegen import diagnostics
      >>> train, test = jax.random.normal(jax.random.key(0), (2, 64, 3)) + 1
      >>> def measure(params):
      ...     hidden = train @ params["w"]
      ...     mean, stddev = hidden.mean(0)[None], hidden.std(0)[None]  # of this very network
      ...     return {"spread": ((test @ params["w"] - mean) / stddev).std()}
      >>> first, second = {"w": jnp.eye(3)}, {"w": 100 * jnp.eye(3)}
      >>> diagnostics.along_line(measure, first, second, jnp.linspace(0, 1, 3))["spread"].round(1)
      Array([1.1, 1.1, 1.1], dtype=float32)
    """
    [alphas] = _checked(1, alphas=alphas)
    check_same_network(first=first, second=second)

    def at(alpha):
        return measure(_combine((1 - alpha, alpha), (first, second)))

    return jax.lax.map(at, alphas)


def over_plane(
    measure: Measure,
    origin: PyTree,
    first: PyTree,
    second: PyTree,
    alphas: ArrayLike,
    betas: ArrayLike,
) -> PyTree:
    r"""A measure at points of the plane through three checkpoints, one point at a time.

    .. math:: \theta = \theta_0 + \alpha (\theta_1 - \theta_0) + \beta (\theta_2 - \theta_0)

    Args:
      measure: as for :func:`along_line`, batch statistics included.
      origin: :math:`\theta_0`, at (0, 0).
      first: :math:`\theta_1`, at (1, 0). For a direction d give origin + d.
      second: :math:`\theta_2`, at (0, 1).
      alphas: `(A,)`.
      betas: `(B,)`.

    Returns:
      What `measure` returns, each scalar `(A, B)`.

    Raises:
      ValueError: as for :func:`interpolate`, or `alphas` or `betas` has not one axis.

    Examples:
      >>> import jax.numpy as jnp
      >>> from noisegen import diagnostics
      >>> corners = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
      >>> diagnostics.over_plane(lambda w: 10 * w[0] + w[1], *corners, jnp.arange(2), jnp.arange(3))
      Array([[ 0.,  1.,  2.],
             [10., 11., 12.]], dtype=float32)
    """
    alphas, betas = _checked(1, alphas=alphas, betas=betas)
    check_same_network(origin=origin, first=first, second=second)

    def at(alpha, beta):
        return measure(_combine((1 - alpha - beta, alpha, beta), (origin, first, second)))

    return jax.lax.map(lambda a: jax.lax.map(lambda b: at(a, b), betas), alphas)


def check_same_network(**checkpoints: PyTree) -> None:
    """Raises for the first leaf that is missing, of another shape, or not floating-point."""
    (name, params), *others = checkpoints.items()
    check_floating(**checkpoints)
    for other, its_params in others:
        _check_same_leaves((name, other), (_shapes(params), _shapes(its_params)))
        if jax.tree.structure(params) != jax.tree.structure(its_params):
            raise ValueError(
                f"{name} and {other} must be checkpoints of the same network, but their containers "
                f"differ: {jax.tree.structure(params)} and {jax.tree.structure(its_params)}."
            )


def check_floating(**trees: PyTree) -> None:
    """Raises for the first leaf that is not floating-point."""
    for name, tree in trees.items():
        for path, leaf in jax.tree.leaves_with_path(tree):
            if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
                remedy = (
                    "Leave counters, keys and the like out of it (for Flax NNX: "
                    "nnx.split(model, nnx.Param, ...))."
                )
                if jnp.issubdtype(jnp.result_type(leaf), jnp.complexfloating):
                    remedy = "Give its real and imaginary parts as two leaves."
                raise ValueError(
                    f"{name} must hold floating-point arrays only, but {_name(path)} is "
                    f"{jnp.result_type(leaf)}. {remedy}"
                )


def _check_same_leaves(names: tuple[str, str], shapes: tuple[dict, dict]) -> None:
    for path in [*shapes[0], *shapes[1]]:
        found = [s.get(path, "missing") for s in shapes]
        if found[0] != found[1]:
            raise ValueError(
                f"{names[0]} and {names[1]} must be checkpoints of the same network, but leaf "
                f"{path} is {found[0]} in {names[0]} and {found[1]} in {names[1]}: interpolating "
                f"checkpoints of different networks has no meaning."
            )


def _checked(ndim: int, **values: ArrayLike) -> list[jax.Array]:
    """The values as floats of JAX's; raises for other numbers of axes, and for complex numbers."""
    requirement = ("a single number", "an array of one axis")[ndim]
    for name, value in values.items():
        if np.ndim(value) != ndim:
            raise ValueError(f"{name} must be {requirement}, but its shape is {np.shape(value)}.")
    return [jnp.asarray(number) for number in _validate.real(**values)]


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    return {_name(path): jnp.shape(leaf) for path, leaf in jax.tree.leaves_with_path(tree)}


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path) or "the only leaf"


def _combine(weights: tuple[ArrayLike, ...], trees: tuple[PyTree, ...]) -> PyTree:
    """The sum of weight times tree, in float32 at least."""

    def combine(*leaves):
        dtype = jnp.result_type(*leaves)
        wide = _validate.wide(dtype)
        terms = (
            jnp.asarray(w, wide) * jnp.asarray(x, wide)
            for w, x in zip(weights, leaves, strict=True)
        )
        return sum(terms).astype(dtype)

    return jax.tree.map(combine, *trees)
