"""Finds losses and metrics whose values depend on how a batch is cut into microbatches.

A microbatch is a matter of speed. It holds a part of a batch, or a batch and examples outside the
mask. The value for one example must therefore not depend on examples outside the mask, on those of
another ghost group, or on their number. The state must not depend on the number of calls. A plain
batch normalization breaks these rules.

The check calls each function on a few examples: in one call, in two calls, and with other examples
in the second half.
"""

import warnings

import jax
import jax.numpy as jnp
import numpy as np

from noisegen._math import ceil_div
from noisegen.training.evaluation import metric_spec
from noisegen.training.task import Batch, Task, make_key

_HALF = 16  # examples of each half, at least
_APART = 0.2  # part of the distance from the start; rounding differs by less, also in bfloat16
_RTOL, _ATOL = 1e-3, 1e-6  # rounding differs by far less, batch statistics by far more


def check_mixing(task: Task) -> None:
    """Checks that the value for an example does not depend on unrelated examples.

    Raises:
      ValueError: If the loss or a metric of an example depends on unrelated examples. A state that
        depends on the number of calls is a warning.
    """
    params, state = _compiled(lambda: task.init(make_key(0)))()
    model = (_moved(jax.device_get(params)), state)

    def metrics(params, state, batch):
        return task.metrics(params, state, batch), state

    def train_metrics(params, state, batch):
        return task.train_metrics(params, state, batch), state

    if not task.takes_whole_batches:
        _check(task, "loss", task.joint_loss or task.loss, model, task.train, task.ghost_size)
    _check(task, "metrics", metrics, model, task.test, 1)
    if metric_spec(task).train:
        _check(task, "train_metrics", train_metrics, model, task.train, 1)


def _check(task, name, function, model, examples, group):
    total = len(jax.tree.leaves(examples)[0])
    # The halves are whole groups of several examples, because two examples may be alike.
    half = group * ceil_div(_HALF, group)
    if task.only_batch_size and name == "loss":
        # More examples would be those of the next batch.
        half = min(half, task.only_batch_size // 2 // group * group)
    if total == 1 or not half:
        return  # There is no other example to exchange.
    seeds = np.arange(2 * half)
    in_first_half, kept = seeds < half, seeds <= half // 2
    whole = np.ones(2 * half, bool)
    random = np.random.RandomState(0)  # Its stream is equal in all versions of NumPy.
    first = random.randint(total, size=2 * half) if task.shuffle else seeds % total
    second = (first + random.randint(1, total, size=2 * half)) % total

    @_compiled
    def compiled(model, data, seeds, mask):
        keys = jax.vmap(make_key)(seeds)
        return jax.tree.map(_comparable, function(*model, Batch(data, keys, mask)))

    def call(indices, mask, seeds=seeds, model=model):
        data = jax.tree.map(lambda a: np.asarray(a)[indices], examples)
        return jax.device_get(compiled(*jax.device_put((model, data, seeds, mask))))

    losses, state = call(first, kept)
    other, other_state = call(np.where(kept, first, second), kept)
    if _differs(losses, other, kept) or _differs(state, other_state):
        raise ValueError(_message(task, name, "examples outside batch.mask", group))
    losses, state = call(first, whole)
    other, _ = call(np.where(in_first_half, first, second), in_first_half)
    if _differs(losses, other, in_first_half):
        what = "other examples" if group == 1 else f"other groups of {group} examples"
        raise ValueError(_message(task, name, what, group))
    if function is task.loss:
        other, _ = call(first, whole, np.where(in_first_half, seeds + 2 * half, seeds))
        if _differs(losses, other, ~in_first_half):
            warnings.warn(
                f"The loss of task {task.name!r} draws random numbers for several examples from "
                "one of batch.keys, so that results depend on the microbatch: draw those of every "
                "example from its own key, or give the microbatch.",
                stacklevel=2,
            )
            return  # The draws differ from call to call, so the state cannot be compared.
    # Another number of examples is another program. Its rounding differs, in bfloat16 by much.
    other, after = call(first[:half], whole[:half], seeds[:half])
    nothing = jax.tree.map(np.zeros_like, other)
    if _moves_apart(nothing, jax.tree.map(lambda a: a[:half], losses), other):
        raise ValueError(_message(task, name, "the number of examples in a call", group))
    _, after = call(first[half:], whole[half:], seeds[half:], (model[0], after))
    start = jax.device_get(jax.tree.map(_comparable, model[1]))
    if _moves_apart(start, state, after):
        warnings.warn(
            f"The state of task {task.name!r} changes once a call, not example by example, so that "
            "results depend on the microbatch. Update it as noisegen.models.GhostBatchNorm does, "
            "group by group, or give the microbatch.",
            stacklevel=2,
        )


def _differs(these, those, where=...):
    return not all(
        np.allclose(a[where], b[where], _RTOL, _ATOL, equal_nan=True)
        for a, b in zip(jax.tree.leaves(these), jax.tree.leaves(those), strict=True)
    )


def _moves_apart(start, these, those):
    """Returns whether two trees differ by a good part of their distance from the start."""

    def apart(start, this, that):
        moved, other = (
            np.abs(np.asarray(a, float) - np.asarray(start, float)) for a in (this, that)
        )
        difference = np.abs(np.asarray(this, float) - np.asarray(that, float))
        known = np.isfinite(difference)
        largest = np.max(moved, where=known, initial=0)
        rounding = _ATOL + _RTOL * np.abs(np.asarray(that, float))
        allowed = rounding + _APART * np.maximum(moved, other) + _APART / 4 * largest
        return (difference > allowed)[known].any()

    return any(jax.tree.leaves(jax.tree.map(apart, start, these, those)))


def _message(task, name, what, group):
    verb = "depends" if name == "loss" else "depend"
    remedy = (
        "In NNX use noisegen.models.GhostBatchNorm and give it mask=batch.mask; elsewhere take "
        "statistics over consecutive groups of examples within batch.mask, and give the task their "
        "ghost_size. Or train a single batch size in whole batches, with ghost_size and "
        "only_batch_size of that size. A frozen one needs use_running_average=True at its call."
        if name == "loss"
        else "Evaluate with running statistics."
    )
    return (
        f"The {name} of task {task.name!r} for an example {verb} on {what}, as with batch "
        f"normalization: the result would change with the microbatch. {remedy}"
    )


def _comparable(leaf):
    """Returns an array that NumPy can compare: random keys as their data, floats as float32."""
    leaf = jnp.asarray(leaf)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.key_data(leaf)
    return leaf.astype(jnp.float32) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def _moved(params):
    """Returns parameters nearby, because layers that begin with zeros hide what they mix."""
    random = np.random.RandomState(1)
    return jax.tree.map(
        lambda leaf: (leaf + 0.1 * random.normal(size=np.shape(leaf))).astype(leaf.dtype), params
    )


def _compiled(function):
    """Compiles a function with few optimizations, because it runs a few times only."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})
