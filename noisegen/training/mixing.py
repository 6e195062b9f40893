"""Finds losses and metrics that mix examples which a pool must keep apart.

A microbatch is a matter of speed: it holds a part of a batch, or a batch and examples outside the
mask. So what a function gives for one example must not depend on examples outside the mask, nor on
those of another ghost group. A plain batch normalization breaks both rules. Reading the function's
code cannot tell; calling it twice, with other examples in the second half, can.
"""

import warnings

import jax
import jax.numpy as jnp
import numpy as np

from noisegen.training.task import Batch, Task, make_key

_RTOL, _ATOL = 1e-3, 1e-6  # rounding differs by far less, batch statistics by far more


def check_mixing(task: Task) -> None:
    """Runs a task's functions on a few examples, and again with others in place of some.

    Raises:
      ValueError: If the loss or a metric of an example depends on examples that have nothing to
        do with it.
    """
    if task.takes_whole_batches:
        checks = [("metrics", "test", 1)]
    else:
        checks = [("loss", "train", task.ghost_size), ("metrics", "test", 1)]
    for name, split, group in checks:
        if len(jax.tree.leaves(getattr(task, split))[0]) > 1:
            _check_function(task, name, split, group)


def _check_function(task, name, split, group):
    examples = getattr(task, split)
    random = np.random.RandomState(0)  # its stream never changes with NumPy
    first, second = random.randint(len(jax.tree.leaves(examples)[0]), size=(2, 2 * group))
    kept = np.arange(2 * group) < (group + 1) // 2  # of the first group, a part
    swapped = np.where(np.arange(2 * group) < group, first, second)
    keys = jax.random.split(make_key(0), 2 * group)
    others = jax.random.split(make_key(1), 2 * group)
    whole = np.ones(2 * group, bool)
    data = {
        "first": jax.tree.map(lambda a: np.asarray(a)[first], examples),
        "outside": jax.tree.map(lambda a: np.asarray(a)[np.where(kept, first, second)], examples),
        "swapped": jax.tree.map(lambda a: np.asarray(a)[swapped], examples),
    }

    @jax.jit
    def values(data, keys, mask):
        params, state = task.init(make_key(0))
        params = _moved(params)
        found = getattr(task, name)(params, state, Batch(data, keys, mask))
        return found if name == "loss" else (found, ())

    def differs(these, those, where):
        return not all(
            np.allclose(a[where], b[where], _RTOL, _ATOL, equal_nan=True)
            for a, b in zip(jax.tree.leaves(these), jax.tree.leaves(those), strict=True)
        )

    outcomes, state = jax.device_get(values(data["first"], keys, kept))
    found, found_state = jax.device_get(values(data["outside"], keys, kept))
    if differs(outcomes, found, kept) or differs(state, found_state, ...):
        raise ValueError(_message(task, name, "examples outside batch.mask", group))
    outcomes, _ = jax.device_get(values(data["first"], keys, whole))
    found, _ = jax.device_get(values(data["swapped"], keys, whole))
    if differs(outcomes, found, slice(group)):
        what = "other examples" if group == 1 else f"other groups of {group} examples"
        raise ValueError(_message(task, name, what, group))
    if name == "loss":
        found, _ = jax.device_get(values(data["first"], others.at[group:].set(keys[group:]), whole))
        if differs(outcomes, found, slice(group, None)):
            warnings.warn(
                f"The loss of task {task.name!r} draws random numbers for several examples from "
                "one of batch.keys, so that results depend on the microbatch: draw those of every "
                "example from its own key, or give the microbatch.",
                stacklevel=2,
            )


def _message(task, name, what, group):
    verb = "depends" if name == "loss" else "depend"
    remedy = (
        "In NNX use noisegen.models.GhostBatchNorm and give it mask=batch.mask; elsewhere take "
        "statistics over consecutive groups of examples within batch.mask, and give the task their "
        "ghost_size. Or train a single batch size in whole batches, with ghost_size and "
        "only_batch_size of that size."
        if name == "loss"
        else "Evaluate with running statistics."
    )
    return (
        f"The {name} of task {task.name!r} for an example {verb} on {what}, as with batch "
        f"normalization: the result would change with the microbatch. {remedy}"
    )


def _moved(params):
    """Returns parameters somewhere near, since layers that begin with zeros hide what they mix."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(make_key(2), max(len(leaves), 1))
    moved = [
        (leaf + 0.1 * jax.random.normal(key, jnp.shape(leaf), jnp.float32)).astype(leaf.dtype)
        for key, leaf in zip(keys, leaves, strict=False)
    ]
    return structure.unflatten(moved)
