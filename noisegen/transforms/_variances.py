"""The measured variance of every coordinate of some updates, a part of which may be masked."""

import jax
import jax.numpy as jnp

from noisegen import _validate
from noisegen.transforms import samplers


def variances(covariance, gradient_noise, updates):
    """Returns the variance of every coordinate, a tree like the updates."""
    if covariance == "diagonal":
        found = _measured(gradient_noise, "diagonal", like=updates)
        return jax.tree.map(lambda leaf: _number(leaf, "diagonal"), found)
    trace = _number(_measured(gradient_noise, "trace", like=0.0), "trace")
    mean = trace / _num_coordinates(gradient_noise, updates)
    return jax.tree.map(lambda leaf: mean, updates)


def _number(value, field):
    [number] = _validate.real(**{f"gradient_noise.{field}": value})
    return number


def _num_coordinates(gradient_noise, updates):
    """Counts the coordinates of the trace, as a float: an int32 does not hold the largest."""
    here = sum(jnp.size(leaf) for leaf in jax.tree.leaves(updates))
    measured = jax.tree.leaves(getattr(gradient_noise, "diagonal", ()))
    if measured:
        total = sum(jnp.size(leaf) for leaf in measured)
        if total < here:
            raise ValueError(
                f"gradient_noise was measured on {total} coordinates, fewer than the {here} of "
                "these updates. Give what noisegen.diagnostics.noise_of_groups makes of gradients "
                "of all the parameters."
            )
        return float(max(total, 1))
    if any(map(samplers.is_masked, jax.tree.leaves(updates, is_leaf=samplers.is_masked))):
        raise ValueError(
            "gradient_noise.diagonal is missing, and some of the updates are masked, so that the "
            "number of coordinates of its trace is unknown. Give all that "
            "noisegen.diagnostics.noise_of_groups returns for gradients of all the parameters."
        )
    return float(max(here, 1))


def _unmasked(found, updates):
    """Returns a measured tree without the parts that are masked in the updates."""
    leaves, structure = jax.tree.flatten(updates, is_leaf=_is_absent)
    try:
        parts = structure.flatten_up_to(found)
    except ValueError:  # it is of another structure
        return found
    kept = [leaf if _is_absent(leaf) else part for leaf, part in zip(leaves, parts, strict=True)]
    return structure.unflatten(kept)


def _is_absent(leaf):
    return leaf is None or samplers.is_masked(leaf)


def _measured(gradient_noise, field, like):
    """Returns a field of the noise; refuses one that differs from a tree in structure or shapes."""
    found = _unmasked(getattr(gradient_noise, field, ()), like)
    given = _kinds(found)
    for path, expected in _kinds(like).items():
        if given.get(path) != expected:
            raise ValueError(
                f"gradient_noise.{field}{path} must be {expected} for these updates, but it is "
                f"{given.get(path, 'nothing of the kind')}; gradient_noise is "
                f"{_validate.kind(gradient_noise)}. Give what noisegen.diagnostics.noise_of_groups "
                "makes of gradients of the very parameters that are updated; in a pool, give the "
                "task a noise_microbatch."
            )
    return found


def _kinds(tree):
    """Describes every leaf of a tree, by its path, and how the tree holds them."""
    leaves = jax.tree.leaves_with_path(tree)
    kinds = {jax.tree_util.keystr(path): _validate.kind(leaf) for path, leaf in leaves}
    return kinds | {"'s structure": jax.tree.structure(tree)}
