"""Trains many runs at once, as the lanes of one device program.

The program runs under ``jax.shard_map`` on a mesh of two axes: devices share the runs along
``lanes``, and the batch of a run along ``batch``. If they share parameters, too, there is a third
axis, ``model``, along which the compiler divides the work (see `noisegen.training.partition`).
Every value by which runs differ is an array with one entry a lane. Batch sizes, horizons and
optimizer settings therefore mix freely, and one compilation serves all. A micro-step:

1. every lane takes its next examples; a mask ends the batch exactly at its size;
2. the gradient of the masked SUM of the losses is added to the lane's accumulator.

Micro-steps follow each other until a batch is complete, or an epoch over, in any lane. Then:

3. devices that share a batch add up their sums, and lanes whose batch is complete call the run's
   optax chain once, on the mean gradient.

Rare work (start of a run, new permutation, evaluation) is done for the lanes that need it only, a
few at a time. Lanes and their start are in `noisegen.training.lane_state`, evaluations in
`noisegen.training.lane_evaluation`.

If the training set stays on the host, lanes hold no orders of the examples. The host computes the
same orders, and feeds the microbatches of a number of micro-steps at once, as a window.

Functions that take `lanes` see the lanes of one device, with a leading axis of L. Functions that
take a `lane` see one of them without that axis, under ``jax.vmap``.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from noisegen.training import noise
from noisegen.training.data_order import RunInputs, combined_state, permutation, stream, take
from noisegen.training.lane_evaluation import evaluate_due
from noisegen.training.lane_state import (
    DIVERGED,
    FINISHED,
    TRAINING,
    Lane,
    Shape,
    optimizer_of_run,
)
from noisegen.training.rare_work import for_due, select_lanes
from noisegen.training.sharding import any_lane, local_positions, sum_over
from noisegen.training.task import PyTree, Task, update_optimizer
from noisegen.training.weighted import Weighted, example_sums

MICRO_STEPS = "micro_steps"  # Name of their loop in compiled programs.


def advance(
    task: Task,
    shape: Shape,
    lanes: Lane,
    data: dict[str, PyTree],
    num_steps: jax.Array,
    window: PyTree | None = None,
    first: jax.Array | None = None,
) -> tuple[Lane, jax.Array]:
    """Makes micro-steps until a run ends or `num_steps` are made.

    Args:
      task: The task.
      shape: Sizes of the program.
      lanes: The lanes.
      data: The task's arrays, by split.
      num_steps: Most micro-steps to make, int32.
      window: Examples of the lanes in consecutive micro-steps, a pytree of `(K, L, M, ...)` with
        this device's share M of a microbatch, if the host feeds them.
      first: Micro-step of the window to begin with, int32.

    Returns:
      The lanes and, as an array `(1,)`, the number of micro-steps made.
    """

    # The loop runs on the device, because a return to the host after every micro-step would cost
    # more than the micro-step of a small network. Devices that share lanes leave it independently;
    # those that share a batch hold the same lanes and leave it together.
    def must_continue(carry: tuple[jax.Array, Lane]) -> jax.Array:
        step, lanes = carry
        ended = (lanes.status == FINISHED) | (lanes.status == DIVERGED)
        return (step < num_steps) & ~any_lane(ended) & any_lane(lanes.status == TRAINING)

    def body(carry: tuple[jax.Array, Lane]) -> tuple[jax.Array, Lane]:
        step, lanes, due = _micro_steps(task, shape, *carry, data["train"], num_steps, fed)
        return step, _finish_batches(task, shape, lanes, due, data)

    def fed(step: jax.Array) -> PyTree | None:
        return None if window is None else _of_step(window, first + step)

    steps, lanes = jax.lax.while_loop(must_continue, body, (jnp.int32(0), lanes))
    return lanes, steps[None]  # An axis, along which the mesh concatenates its devices.


def accumulate(
    task: Task,
    shape: Shape,
    lanes: Lane,
    data: dict[str, PyTree],
    num_steps: jax.Array,
    window: PyTree | None = None,
) -> Lane:
    """Takes microbatches and their gradients only, nearly all of the time of `advance`.

    Batches never end: once they are complete, the masks are empty. The time is the same, because
    the shapes are. Of a window only the first micro-step is used.
    """
    fed = None if window is None else _of_step(window, jnp.int32(0))

    def body(_: jax.Array, lanes: Lane) -> Lane:
        return _take_and_accumulate(task, shape, lanes, data["train"], fed)[0]

    return jax.lax.fori_loop(0, num_steps, body, lanes)


def _of_step(window: PyTree, step: jax.Array) -> PyTree:
    """Returns the examples of all lanes in one micro-step of a window."""
    return jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, step, keepdims=False), window)


class Due(NamedTuple):
    """The lanes that need more than the next microbatch, booleans (L,)."""

    batch: jax.Array  # whose batch is complete
    epoch: jax.Array  # whose epoch is over


def _micro_steps(
    task: Task,
    shape: Shape,
    step: jax.Array,
    lanes: Lane,
    train: PyTree,
    num_steps: jax.Array,
    fed: Callable[[jax.Array], PyTree | None],
) -> tuple[jax.Array, Lane, Due]:
    """Takes microbatches in every lane until a batch is complete, or an epoch over, in any.

    A loop of its own, for a conditional in every micro-step would copy all that an update changes.
    The parameters stay as they are meanwhile, so XLA may convert them once for all micro-steps.
    """

    def must_continue(carry: tuple[jax.Array, Lane, Due]) -> jax.Array:
        step, _, due = carry
        return (step < num_steps) & ~any_lane(due.batch | due.epoch)

    def body(carry: tuple[jax.Array, Lane, Due]) -> tuple[jax.Array, Lane, Due]:
        step, lanes, _ = carry
        lanes, size = _take_and_accumulate(task, shape, lanes, train, fed(step))
        # A batch is complete at its size or, if the plan says so, at the end of an epoch.
        training = lanes.status == TRAINING
        epoch_over = training & (lanes.offset >= lanes.inputs.permutation_length)
        epoch_ends_batch = epoch_over & lanes.inputs.epoch_ends_batch & (lanes.seen > 0)
        complete = training & ((lanes.seen == size) | epoch_ends_batch)
        return step + 1, lanes, Due(complete, epoch_over)

    none = jnp.zeros(lanes.status.shape, bool)
    with jax.named_scope(MICRO_STEPS):
        return jax.lax.while_loop(must_continue, body, (step, lanes, Due(none, none)))


def _finish_batches(
    task: Task, shape: Shape, lanes: Lane, due: Due, data: dict[str, PyTree]
) -> Lane:
    """Makes the updates and evaluations that are due, and draws the next permutations."""
    lanes = _update(task, due.batch, lanes)
    if not shape.is_fed:
        lanes = lanes._replace(permutations=_next_permutations(task, shape, lanes, due.epoch))
    lanes = lanes._replace(
        epoch=jnp.where(due.epoch, lanes.epoch + 1, lanes.epoch),
        # Not 0: the last microbatch may have reached into the next epoch.
        offset=jnp.where(due.epoch, lanes.offset - lanes.inputs.permutation_length, lanes.offset),
    )
    return evaluate_due(task, shape, lanes, due.batch, data)


def _next_permutations(task: Task, shape: Shape, lanes: Lane, due: jax.Array) -> jax.Array:
    """Returns the permutations, with those of the next epochs in the lanes that are due."""

    def following(place: tuple[RunInputs, jax.Array], permutations: jax.Array) -> jax.Array:
        inputs, epoch = place
        # The next epoch's order moves up, and that of the epoch after it is drawn.
        return jnp.stack([permutations[1], permutation(task, inputs, epoch + 2)])

    place = (lanes.inputs, lanes.epoch)
    return for_due(due, following, place, lanes.permutations, shape.lanes_per_rare_step)


def _take_and_accumulate(
    task: Task, shape: Shape, lanes: Lane, train: PyTree, fed: PyTree | None
) -> tuple[Lane, jax.Array]:
    """Does the first half of a micro-step; returns the lanes and their batch sizes, int32 (L,)."""
    size = jax.vmap(functools.partial(_batch_size, task))(lanes)

    def one(lane: Lane, size: jax.Array, fed: PyTree | None) -> Lane:
        return _accumulate(task, shape.microbatch, lane, size, train, fed)

    if len(size) > 1:
        return jax.vmap(one)(lanes, size, fed), size
    # Without an axis of lanes XLA lays out a single lane's products better, which saves 10 %.
    lane = one(*jax.tree.map(lambda a: a[0], (lanes, size, fed)))
    return jax.tree.map(lambda a: a[None], lane), size


def _accumulate(
    task: Task, microbatch: int, lane: Lane, size: jax.Array, train: PyTree, fed: PyTree | None
) -> Lane:
    """Takes the lane's next examples and adds the gradient of their summed loss."""
    inputs = lane.inputs
    # The batch takes what it lacks, but not from the next epoch if the epoch ends it.
    left = inputs.permutation_length - lane.offset
    room = jnp.where(inputs.epoch_ends_batch, jnp.minimum(size - lane.seen, left), size - lane.seen)
    # A lane without a run in training computes as the others do, with an empty mask.
    taken = jnp.where(lane.status == TRAINING, jnp.minimum(room, microbatch), 0)
    place = (lane.permutations, lane.epoch, lane.offset)
    batch = take(inputs, *place, taken, microbatch, train, fed)
    # `seen + room` is the size that the batch will have, fewer than `size` if it is ragged.
    weights = _weights(task, lane, lane.seen + room, batch.mask)

    # The sum and not the mean: sums of microbatches add up to that of the batch, however it is cut.
    def summed_loss(params: PyTree) -> tuple[jax.Array, tuple[Weighted, PyTree]]:
        losses, state = task.loss(params, lane.state, batch)
        sums = example_sums(task, "The loss", losses, batch.mask)
        return jnp.sum(weights * sums.values), (jax.tree.map(jnp.sum, sums), state)

    (weighted, (loss, state)), gradients = jax.value_and_grad(summed_loss, has_aux=True)(
        lane.params
    )
    # Each device sums its own share, and `_update` adds up the devices.
    return lane._replace(
        state=combined_state(task, lane.params, lane.state, state),
        offset=lane.offset + taken,
        seen=lane.seen + taken,
        gradients=jax.tree.map(lambda s, g: s + g[None].astype(s.dtype), lane.gradients, gradients),
        batch_loss=lane.batch_loss + weighted,
        batch_weight=lane.batch_weight + loss.weights,
        loss=lane.loss + loss.values,
        weight=lane.weight + loss.weights,
        groups=noise.add_microbatch(lane.groups, gradients, weights, batch.mask),
    )


def _weights(task: Task, lane: Lane, batch_size: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns the weights of a microbatch's losses, float32 (M,), zero outside the mask."""
    ones = mask.astype(jnp.float32)
    if task.example_weights is None:
        return ones
    # Positions in the whole batch, and one key per update: the weights do not depend on how the
    # batch is cut into microbatches.
    positions = lane.seen + local_positions(len(mask) * jax.lax.axis_size("batch"))
    key = jax.random.fold_in(stream(lane.inputs, "weights"), lane.count)
    return ones * task.example_weights(lane.inputs.hparams)(key, positions, batch_size)


def _update(task: Task, complete: jax.Array, lanes: Lane) -> Lane:
    """Makes one optax update on the mean gradient in the lanes whose batch is complete."""

    def apply(lane: Lane) -> Lane:
        # The sums over devices: once per update, not once per microbatch.
        total, value, weight, groups = jax.tree.map(
            lambda s: sum_over("batch", s[0]),
            (lane.gradients, lane.batch_loss, lane.batch_weight, lane.groups),
        )
        divisor = jnp.where(weight > 0, weight, 1)  # Without any weight the sums are 0.
        # Rounded once to the type of the parameters, as the gradient of a single batch would be.
        mean = jax.tree.map(
            lambda s, p: (s / divisor.astype(s.dtype)).astype(p.dtype), total, lane.params
        )
        # The noise is that of the whole batch, so the sums over devices come first.
        extra, running = noise.finish_batch(task, groups, total, lane.seen, lane.noise)
        updates, opt_state = update_optimizer(
            optimizer_of_run(task, lane.inputs),
            mean,
            lane.opt_state,
            lane.params,
            value / divisor,
            extra,
        )
        params = optax.apply_updates(lane.params, updates)
        # Parameters that are not finite stay so, so the run ends here and frees its lane.
        finite = [jnp.isfinite(p).all() for p in jax.tree.leaves(params)]
        finite = jnp.all(jnp.array(finite, bool))  # True without parameters
        return lane._replace(
            status=jnp.where(finite, lane.status, DIVERGED),
            params=params,
            opt_state=opt_state,
            count=lane.count + 1,
            seen=jnp.zeros_like(lane.seen),
            gradients=jax.tree.map(jnp.zeros_like, lane.gradients),
            batch_loss=jnp.zeros_like(lane.batch_loss),
            batch_weight=jnp.zeros_like(lane.batch_weight),
            groups=jax.tree.map(jnp.zeros_like, lane.groups),
            noise=running,
        )

    # Every lane computes an update, and lanes within a batch discard it: an update costs little
    # beside the microbatches, and gathering lanes would cost more.
    return select_lanes(complete, jax.vmap(apply)(lanes), lanes)


def _batch_size(task: Task, lane: Lane) -> jax.Array:
    """Returns the size of the batch that a lane works on, int32."""
    if task.batch_size is None:
        return lane.inputs.hparams["batch_size"]
    # The conversion drops a fraction, as the plan does.
    return jnp.asarray(task.batch_size(lane.inputs.hparams)(lane.count), jnp.int32)
