"""Measured variance of every coordinate of some updates, parts of which may be masked."""

from typing import Any

import jax
import jax.numpy as jnp

from noisegen import _validate
from noisegen.transforms import samplers


def variances(covariance: str, gradient_noise: Any, updates: Any) -> Any:
    """Returns the variance of every coordinate of the updates, as a tree like the updates.

    Args:
      covariance: "isotropic" spreads the trace over all coordinates; "diagonal" gives each its own.
      gradient_noise: Object with `trace` and `diagonal` of the covariance of one example.
      updates: Updates of all parameters, or of a part if the others are masked.

    Raises:
      ValueError: If the noise does not fit the updates.
    """
    if covariance == "diagonal":
        diagonal = _measured(gradient_noise, "diagonal", like=updates)
        return jax.tree.map(lambda leaf: _number(leaf, "diagonal"), diagonal)
    trace = _number(_measured(gradient_noise, "trace", like=0.0), "trace")
    # The mean over all coordinates that were measured, and not over those of unmasked updates.
    mean = trace / _num_coordinates(gradient_noise, updates)
    return jax.tree.map(lambda leaf: mean, updates)


def _number(value: Any, field: str) -> Any:
    """Returns a field of the noise as a number or an array to calculate with."""
    [number] = _validate.real(**{f"gradient_noise.{field}": value})
    return number


def _measured(gradient_noise: Any, field: str, like: Any) -> Any:
    """Returns a field of the noise, which must have the structure and shapes of another tree."""
    measured = _without_masked(getattr(gradient_noise, field, None), like)
    if _shapes(measured) != _shapes(like):
        raise ValueError(
            f"gradient_noise.{field} must have the structure and shapes of the updates, but "
            f"gradient_noise is {_validate.kind(gradient_noise)} that does not fit. Give the "
            "result of noisegen.diagnostics.estimate_gradient_noise for the parameters that are "
            "updated; in a pool, set the noise_microbatch of the task."
        )
    return measured


def _shapes(tree: Any) -> tuple[Any, list[str]]:
    """Returns structure and shapes, with numbers of Python and of arrays being equal."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, [_validate.kind(leaf) for leaf in leaves]


def _without_masked(measured: Any, updates: Any) -> Any:
    """Removes the parts of a measured tree that are masked in the updates."""
    leaves, structure = jax.tree.flatten(updates, is_leaf=_is_absent)
    # A masked leaf may stand for a whole subtree of what was measured.
    try:
        parts = structure.flatten_up_to(measured)
    except ValueError:
        return measured  # The structures differ, and the caller refuses it.
    for index, leaf in enumerate(leaves):
        if _is_absent(leaf):
            parts[index] = leaf
    return structure.unflatten(parts)


def _is_absent(leaf: Any) -> bool:
    """Returns whether a leaf has no update: masked by optax, or removed as None."""
    return leaf is None or samplers.is_masked(leaf)


def _num_coordinates(gradient_noise: Any, updates: Any) -> float:
    """Counts the coordinates that the trace is the sum over.

    The count is a float, because int32 cannot hold the number of the largest networks.
    """
    num_updated = sum(jnp.size(leaf) for leaf in jax.tree.leaves(updates))
    diagonal = jax.tree.leaves(getattr(gradient_noise, "diagonal", None))
    num_measured = sum(jnp.size(leaf) for leaf in diagonal)
    if diagonal and num_measured < num_updated:
        raise ValueError(
            f"gradient_noise was measured on {num_measured} coordinates, fewer than the "
            f"{num_updated} of these updates. Measure the gradients of all parameters."
        )
    if diagonal:
        return float(max(num_measured, 1))
    # Without a diagonal only the updates tell the number, and masked ones do not.
    leaves = jax.tree.leaves(updates, is_leaf=samplers.is_masked)
    if any(samplers.is_masked(leaf) for leaf in leaves):
        raise ValueError(
            "gradient_noise.diagonal is missing and some updates are masked, so the number of "
            "coordinates of its trace is unknown. Give the whole result of "
            "noisegen.diagnostics.estimate_gradient_noise for all parameters."
        )
    return float(max(num_updated, 1))
