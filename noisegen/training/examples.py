"""Which examples a run takes, in which order, and the state that they leave.

A run's examples are one stream of permutations of the training set. Everything random follows from
the run's seed, by named streams of keys.
"""

import zlib
from typing import NamedTuple

import jax
import jax.numpy as jnp

from noisegen.training.evaluation import local_positions
from noisegen.training.task import Batch, PyTree, Task, begun, make_key


class Numbers(NamedTuple):
    """What tells one run from another, as scalars (one entry a lane)."""

    hparams: dict[str, jax.Array]  # seed and num_updates among them
    order_length: jax.Array  # int32, examples taken from one permutation: most often an epoch
    cut: jax.Array  # bool, the end of an epoch ends the batch
    eval_updates: jax.Array  # int32 (E,), update counts, padded with zeros


def stream(numbers: Numbers, name: str) -> jax.Array:
    """The named random stream of a run."""
    key = make_key(numbers.hparams["seed"])
    return jax.random.fold_in(key, zlib.crc32(name.encode()) & 0x7FFFFFFF)


def permutation(task: Task, numbers: Numbers, epoch: jax.Array) -> jax.Array:
    """The order of the examples in an epoch (of which `order_length` are used)."""
    if not task.shuffle:
        return jnp.arange(task.num_examples, dtype=jnp.int32)
    key = jax.random.fold_in(stream(numbers, "permutation"), epoch)
    return jax.random.permutation(key, task.num_examples).astype(jnp.int32)


def first_permutations(task: Task, numbers: Numbers) -> jax.Array:
    """The orders of the first two epochs, (2, N)."""
    return jnp.stack([permutation(task, numbers, jnp.int32(epoch)) for epoch in (0, 1)])


def take(
    numbers: Numbers,
    permutations: jax.Array,
    epoch: jax.Array,
    offset: jax.Array,
    taken: jax.Array,
    microbatch: int,
    train: PyTree,
) -> Batch:
    """The `taken` examples from `offset` on, which may reach into the next epoch."""
    within = local_positions(microbatch)
    mask = within < taken
    # Outside the mask stands an example of the batch: the gradient of another one may be infinite,
    # and zero times infinity is not zero.
    places = offset + jnp.where(mask, within, 0)
    later = (places >= numbers.order_length).astype(jnp.int32)
    examples = permutations[later, places - later * numbers.order_length]
    return Batch(
        data=jax.tree.map(lambda a: a[examples], train),
        keys=jax.vmap(jax.random.fold_in, (None, 0))(
            stream(numbers, "example"), epoch * numbers.order_length + places
        ),
        mask=mask,
    )


def combined_state(task: Task, params: PyTree, before: PyTree, after: PyTree) -> PyTree:
    """The state after a microbatch, of which each batch device has had its share."""
    if jax.lax.axis_size("batch") == 1 or task.combine_state is None:
        return after
    parts = jax.tree.map(lambda leaf: jax.lax.all_gather(leaf, "batch"), after)
    return task.combine_state(params, before, parts)


def recomputed_state(
    task: Task,
    microbatch: int,
    params: PyTree,
    orders: tuple[Numbers, jax.Array],
    train: PyTree,
) -> PyTree:
    """The state that one pass over the training set leaves, in the first order of a run's."""
    numbers = orders[0]._replace(order_length=jnp.int32(task.num_examples))

    def piece(index, state):
        offset = index * microbatch
        taken = jnp.minimum(task.num_examples - offset, microbatch)
        batch = take(numbers, orders[1], 0, offset, taken, microbatch, train)
        return combined_state(task, params, state, task.loss(params, state, batch)[1])

    state = begun(task, stream(numbers, "init"))[1]
    return jax.lax.fori_loop(0, -(-task.num_examples // microbatch), piece, state)


def first_orders(task: Task, seed: int) -> tuple[Numbers, jax.Array]:
    """Numbers of a run that is nothing but its seed, and the first orders of its examples."""
    zero = jnp.int32(0)
    numbers = Numbers({"seed": jnp.int32(seed)}, zero, jnp.bool_(False), zero[None])
    return numbers, first_permutations(task, numbers)
