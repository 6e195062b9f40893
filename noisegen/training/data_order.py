"""Orders the examples of a run, and computes the state that a pass over them leaves.

A run takes its examples from one stream of permutations of the training set. All random numbers
follow from the run's seed, through named streams of keys.
"""

import zlib
from typing import NamedTuple

import jax
import jax.numpy as jnp

from noisegen._math import ceil_div
from noisegen.training.sharding import local_positions
from noisegen.training.task import Batch, PyTree, Task, concrete_init, make_key


class RunInputs(NamedTuple):
    """The values by which runs differ, as scalars (one entry a lane)."""

    hparams: dict[str, jax.Array]  # seed and num_updates among them
    permutation_length: jax.Array  # int32, examples taken from one permutation: usually an epoch
    epoch_ends_batch: jax.Array  # bool
    eval_updates: jax.Array  # int32 (E,), update counts, padded with zeros


def stream(inputs: RunInputs, name: str) -> jax.Array:
    """Returns the key of a run's named random stream."""
    key = make_key(inputs.hparams["seed"])
    return jax.random.fold_in(key, zlib.crc32(name.encode()) & 0x7FFFFFFF)


def permutation(task: Task, inputs: RunInputs, epoch: jax.Array) -> jax.Array:
    """Returns the order of the examples in an epoch; the run uses `permutation_length` of them."""
    if not task.shuffle:
        return jnp.arange(task.num_examples, dtype=jnp.int32)
    key = jax.random.fold_in(stream(inputs, "permutation"), epoch)
    return jax.random.permutation(key, task.num_examples).astype(jnp.int32)


def first_permutations(task: Task, inputs: RunInputs) -> jax.Array:
    """Returns the orders of the first two epochs, (2, N)."""
    return jnp.stack([permutation(task, inputs, jnp.int32(epoch)) for epoch in (0, 1)])


def take(
    inputs: RunInputs,
    permutations: jax.Array,
    epoch: jax.Array,
    offset: jax.Array,
    taken: jax.Array,
    microbatch: int,
    train: PyTree,
) -> Batch:
    """Returns the `taken` examples from `offset` on, which may reach into the next epoch."""
    within = local_positions(microbatch)
    mask = within < taken
    # Positions outside the mask hold an example of the batch: the gradient of another one may be
    # infinite, and zero times infinity is not zero.
    positions = offset + jnp.where(mask, within, 0)
    # A microbatch is no longer than an epoch, so two permutations are enough.
    later = (positions >= inputs.permutation_length).astype(jnp.int32)
    examples = permutations[later, positions - later * inputs.permutation_length]
    return Batch(
        data=jax.tree.map(lambda a: a[examples], train),
        # A key follows from the position in the stream alone, so the microbatch cannot change it.
        keys=jax.vmap(jax.random.fold_in, (None, 0))(
            stream(inputs, "example"), epoch * inputs.permutation_length + positions
        ),
        mask=mask,
    )


def combined_state(task: Task, params: PyTree, before: PyTree, after: PyTree) -> PyTree:
    """Returns the state after a microbatch that was shared among the batch devices."""
    if jax.lax.axis_size("batch") == 1 or task.combine_state is None:
        return after
    parts = jax.tree.map(lambda leaf: jax.lax.all_gather(leaf, "batch"), after)
    return task.combine_state(params, before, parts)


def recomputed_state(
    task: Task,
    microbatch: int,
    params: PyTree,
    orders: tuple[RunInputs, jax.Array],
    train: PyTree,
) -> PyTree:
    """Returns the state after one pass over the training set, in the run's first order."""
    inputs = orders[0]._replace(permutation_length=jnp.int32(task.num_examples))

    def piece(index, state):
        offset = index * microbatch
        taken = jnp.minimum(task.num_examples - offset, microbatch)
        batch = take(inputs, orders[1], 0, offset, taken, microbatch, train)
        return combined_state(task, params, state, task.loss(params, state, batch)[1])

    state = concrete_init(task, stream(inputs, "init"))[1]
    return jax.lax.fori_loop(0, ceil_div(task.num_examples, microbatch), piece, state)


def first_orders(task: Task, seed: int) -> tuple[RunInputs, jax.Array]:
    """Returns inputs that hold a seed only, and the first orders of that seed's examples."""
    zero = jnp.int32(0)
    inputs = RunInputs({"seed": jnp.int32(seed)}, zero, jnp.bool_(False), zero[None])
    return inputs, first_permutations(task, inputs)
