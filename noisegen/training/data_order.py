"""Orders the examples of a run, and computes the state that a pass over them leaves.

A run takes its examples from one stream of permutations of the training set. All random numbers
follow from the run's seed, through named streams of keys.
"""

import zlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from noisegen._math import ceil_div
from noisegen.training import sources
from noisegen.training.sharding import local_positions
from noisegen.training.task import Batch, Hparams, PyTree, RunHparams, Task, concrete_init, make_key


class RunInputs(NamedTuple):
    """The values by which runs differ, as scalars (with a leading axis of lanes in a program)."""

    hparams: dict[str, jax.Array]  # float32, counts int32; seed and num_updates among them
    permutation_length: jax.Array  # int32, examples taken from one permutation: usually an epoch
    epoch_ends_batch: jax.Array  # bool
    eval_updates: jax.Array  # int32 (E,), update counts, padded with zeros


def stream(inputs: RunInputs, name: str) -> jax.Array:
    """Returns the key of a run's named random stream.

    Streams of other names are independent, so a new one changes no number of the others.
    """
    return stream_of_seed(inputs.hparams["seed"], name)


def stream_of_seed(seed: jax.typing.ArrayLike, name: str) -> jax.Array:
    """Returns the key of the named random stream of the runs with a seed."""
    key = make_key(seed)
    # A checksum, because Python's hash of text differs from process to process. The mask keeps it
    # within int32.
    return jax.random.fold_in(key, zlib.crc32(name.encode()) & 0x7FFFFFFF)


def permutation(task: Task, inputs: RunInputs, epoch: jax.Array) -> jax.Array:
    """Returns the order of the examples in an epoch, int32 (N,).

    The run uses the first `permutation_length` of them.
    """
    return permutation_of_seed(task, inputs.hparams["seed"], epoch)


def permutation_of_seed(
    task: Task, seed: jax.typing.ArrayLike, epoch: jax.typing.ArrayLike
) -> jax.Array:
    """Returns the order of the examples in an epoch of the runs with a seed, int32 (N,)."""
    if not task.shuffle:
        return jnp.arange(task.num_examples, dtype=jnp.int32)
    # The epoch's own key: any epoch can be drawn without those before it, as when a run resumes.
    key = jax.random.fold_in(stream_of_seed(seed, "permutation"), epoch)
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
    fed: PyTree | None = None,
) -> Batch:
    """Returns the `taken` examples from `offset` on, which may reach into the next epoch.

    Args:
      inputs: Inputs of the run.
      permutations: Orders of this epoch and the next, int32 (2, N). Unused if examples are fed.
      epoch: Permutations used up, int32.
      offset: Examples taken from this epoch, int32.
      taken: Examples to take, int32, at most `microbatch`.
      microbatch: Examples of a microbatch, over all batch devices.
      train: The training set, a pytree of (N, ...). Unused if examples are fed.
      fed: This device's share of the microbatch, read by the host in the same order (see
        `noisegen.training.feed`), or None.

    Returns:
      This device's share of the microbatch, in which a mask marks the examples that were taken.
    """
    # The shape is that of a whole microbatch whatever `taken` is, so one program serves all sizes.
    within = local_positions(microbatch)
    mask = within < taken
    # Positions outside the mask hold an example of the batch: the gradient of another one may be
    # infinite, and zero times infinity is not zero.
    positions = offset + jnp.where(mask, within, 0)
    if fed is None:
        # A microbatch is no longer than an epoch, so two permutations are enough.
        later = (positions >= inputs.permutation_length).astype(jnp.int32)  # 0 or 1
        examples = permutations[later, positions - later * inputs.permutation_length]
        fed = sources.gather(train, examples)
    return Batch(
        data=fed,
        # A key follows from the position in the stream alone, so the microbatch cannot change it.
        keys=jax.vmap(jax.random.fold_in, (None, 0))(
            stream(inputs, "example"), epoch * inputs.permutation_length + positions
        ),
        mask=mask,
        hparams=RunHparams(inputs.hparams),
    )


def check_no_state(task: Task, state: PyTree, batch_devices: int) -> None:
    """Raises ValueError if there is a state, because batch devices cannot agree on one."""
    if jax.tree.leaves(state):
        raise ValueError(
            f"Task {task.name!r} has a state beside its parameters, so that its batches cannot be "
            f"spread over devices: batch_devices={batch_devices} must be 1."
        )


def combined_state(task: Task, params: PyTree, before: PyTree, after: PyTree) -> PyTree:
    """Returns the state after a microbatch that was shared among the batch devices."""
    if jax.lax.axis_size("batch") == 1:
        return after
    if task.combine_state is None:
        # Reached only if `init` takes hyperparameters: `Program` refuses all other tasks earlier.
        check_no_state(task, after, jax.lax.axis_size("batch"))
        return after
    return task.combine_state(params, before, _gather_parts(after))


def _gather_parts(tree: PyTree) -> PyTree:
    """Gathers the arrays of all batch devices: a leading axis, in the order of their shares.

    Arrays of one type take one operation together, because XLA for TPUs may combine no operations.
    """
    leaves, structure = jax.tree.flatten(tree)
    gathered = list(leaves)
    for dtype in dict.fromkeys(leaf.dtype for leaf in leaves):
        chosen = [index for index, leaf in enumerate(leaves) if leaf.dtype == dtype]
        flat = jnp.concatenate([leaves[index].reshape(-1) for index in chosen])
        parts = jax.lax.all_gather(flat, "batch")
        ends = np.cumsum([leaves[index].size for index in chosen])
        for index, part in zip(chosen, jnp.split(parts, ends[:-1], axis=1), strict=True):
            gathered[index] = part.reshape(len(parts), *leaves[index].shape)
    return jax.tree.unflatten(structure, gathered)


def recomputed_state(
    task: Task,
    microbatch: int,
    params: PyTree,
    orders: tuple[RunInputs, jax.Array],
    train: PyTree,
) -> PyTree:
    """Returns the state after one pass over the training set, in one order of the run.

    Args:
      task: The task.
      microbatch: Examples of a microbatch, over all batch devices.
      params: Parameters, at which the loss is computed.
      orders: Inputs of the run, and its orders of the examples (E, N), of which the first is used.
      train: The training set, a pytree of (N, ...) or `HostExamples`.
    """
    # The pass covers all N examples, also those that an epoch of the run drops.
    inputs = orders[0]._replace(permutation_length=jnp.int32(task.num_examples))

    def piece(index, state):
        offset = index * microbatch
        # The last piece may be ragged, and its mask says so.
        taken = jnp.minimum(task.num_examples - offset, microbatch)
        batch = take(inputs, orders[1], 0, offset, taken, microbatch, train)
        return combined_state(task, params, state, task.loss(params, state, batch)[1])

    # It starts from the state of a fresh run, so nothing of the state in training is left in it.
    state = concrete_init(task, stream(inputs, "init"), inputs.hparams)[1]
    return jax.lax.fori_loop(0, ceil_div(task.num_examples, microbatch), piece, state)


def first_orders(task: Task, seed: int, hparams: Hparams) -> tuple[RunInputs, jax.Array]:
    """Returns inputs without a plan, and the first orders of a seed's examples.

    `recomputed_state` takes them as `orders` if the seed of the parameters is unknown.

    Args:
      task: The task.
      seed: Seed of the orders, in place of the one in the hyperparameters.
      hparams: Hyperparameters of the run.
    """
    zero = jnp.int32(0)
    inputs = RunInputs(
        hparams={**hparams, "seed": jnp.int32(seed)},
        permutation_length=zero,
        epoch_ends_batch=jnp.bool_(False),
        eval_updates=zero[None],
    )
    return inputs, first_permutations(task, inputs)
