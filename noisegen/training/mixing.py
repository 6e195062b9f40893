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
    params, state = _compiled(lambda: task.init(make_key(0)))()
    params = _moved(jax.device_get(params))
    if not task.takes_whole_batches:
        loss = task.joint_loss or task.loss
        _check_function(task, "loss", loss, (params, state), task.train, task.ghost_size)

    def metrics(params, state, batch):
        return task.metrics(params, state, batch), ()

    _check_function(task, "metrics", metrics, (params, state), task.test, 1)


def _check_function(task, name, function, model, examples, group):
    total = len(jax.tree.leaves(examples)[0])
    if total == 1:
        return  # there is no other example
    # The second half consists of whole groups, and of several examples, as two may be alike.
    half = group * -(-4 // group)
    seeds = np.arange(2 * half)
    in_first_half, kept = seeds < half, seeds < (half + 1) // 2
    other_seeds = np.where(in_first_half, seeds + 2 * half, seeds)
    whole = np.ones(2 * half, bool)
    random = np.random.RandomState(0)  # its stream never changes with NumPy
    first = random.randint(total, size=2 * half)
    second = (first + random.randint(1, total, size=2 * half)) % total

    def chosen(indices):
        return jax.tree.map(lambda a: np.asarray(a)[indices], examples)

    data = {
        "first": chosen(first),
        "outside": chosen(np.where(kept, first, second)),
        "swapped": chosen(np.where(in_first_half, first, second)),
    }

    @_compiled
    def values(model, data, seeds, mask):
        keys = jax.vmap(make_key)(seeds)
        return jax.tree.map(_comparable, function(*model, Batch(data, keys, mask)))

    def computed(examples, seeds, mask):
        return jax.device_get(values(*jax.device_put((model, data[examples], seeds, mask))))

    def differs(these, those, where):
        return not all(
            np.allclose(a[where], b[where], _RTOL, _ATOL, equal_nan=True)
            for a, b in zip(jax.tree.leaves(these), jax.tree.leaves(those), strict=True)
        )

    outcomes, state = computed("first", seeds, kept)
    found, found_state = computed("outside", seeds, kept)
    if differs(outcomes, found, kept) or differs(state, found_state, ...):
        raise ValueError(_message(task, name, "examples outside batch.mask", group))
    outcomes, _ = computed("first", seeds, whole)
    found, _ = computed("swapped", seeds, whole)
    if differs(outcomes, found, in_first_half):
        what = "other examples" if group == 1 else f"other groups of {group} examples"
        raise ValueError(_message(task, name, what, group))
    if function is task.loss:
        found, _ = computed("first", other_seeds, whole)
        if differs(outcomes, found, ~in_first_half):
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


def _comparable(leaf):
    """Returns an array that NumPy can compare: random keys as their data, floats as float32."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.key_data(leaf)
    return leaf.astype(jnp.float32) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def _moved(params):
    """Returns parameters somewhere near, since layers that begin with zeros hide what they mix."""
    random = np.random.RandomState(1)
    return jax.tree.map(
        lambda leaf: (leaf + 0.1 * random.normal(size=np.shape(leaf))).astype(leaf.dtype), params
    )


def _compiled(function):
    """Compiles a function that runs a few times on a few examples, so hardly optimizes it."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})
