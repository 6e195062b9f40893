"""Trains many runs at once, as the lanes of one device program.

The program runs under ``jax.shard_map`` on a mesh of two axes: devices share the runs along
``lanes``, and the batch of a run along ``batch``. Every value by which runs differ is an array with
one entry a lane. Batch sizes, horizons and optimizer settings therefore mix freely, and one
compilation serves all. The micro-step:

1. every lane takes its next examples; a mask ends the batch exactly at its size;
2. the gradient of the masked SUM of the losses is added to the lane's accumulator;
3. lanes whose batch is complete call the run's optax chain once, on the mean gradient.

Rare work (start of a run, new permutation, evaluation) is done for the lanes that need it only, a
few at a time.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec

from noisegen.diagnostics import RunningNoise
from noisegen.training import noise
from noisegen.training.data_order import (
    RunInputs,
    combined_state,
    first_permutations,
    permutation,
    recomputed_state,
    stream,
    take,
)
from noisegen.training.evaluation import evaluate_splits, evaluated_splits, metric_spec
from noisegen.training.sharding import check_shape, local_positions
from noisegen.training.task import (
    PyTree,
    Task,
    build_optimizer,
    concrete_init,
    eval_params,
    update_optimizer,
)

IDLE, TRAINING, FINISHED, DIVERGED = range(4)


class Shape(NamedTuple):
    """The sizes that the program is compiled for."""

    microbatch: int  # examples, over all devices of the batch axis
    eval_batch: int  # likewise
    lanes_per_rare_step: int  # lanes that do rare work together


class Lane(NamedTuple):
    """The state of one run in training."""

    inputs: RunInputs
    status: jax.Array  # int32: IDLE, TRAINING, FINISHED or DIVERGED
    params: PyTree
    state: PyTree
    opt_state: optax.OptState
    permutations: jax.Array  # int32 (2, N), of this epoch and the next
    count: jax.Array  # int32, updates made
    epoch: jax.Array  # int32, permutations used up
    offset: jax.Array  # int32, examples taken from this epoch
    seen: jax.Array  # int32, examples in the batch so far
    evals: jax.Array  # int32, evaluations made
    curve: dict[str, jax.Array]  # float32 (E,) each
    final: dict[str, jax.Array]  # float32, the task's `train_metrics` at the end of the run
    # Sums over this device's share of the examples; the leading axis is the mesh's batch axis.
    gradients: PyTree  # float32 (float64 for such parameters), over the batch so far
    batch_loss: jax.Array  # float32, likewise: the weighted losses
    loss: jax.Array  # float32, over the examples since the last evaluation
    examples: jax.Array  # int32, likewise
    groups: noise.NoiseSums | None  # over the batch so far; None if no noise is measured
    noise: RunningNoise | None  # over the updates since the last evaluation


SUMS = ("gradients", "batch_loss", "loss", "examples", "groups")
LANE_SPEC = Lane(
    **{
        field: PartitionSpec("lanes", "batch") if field in SUMS else PartitionSpec("lanes")
        for field in Lane._fields
    }
)


def empty(task: Task, inputs: RunInputs) -> Lane:
    """Returns idle lanes, all zeros, one for each entry of the inputs."""
    shapes = jax.eval_shape(jax.vmap(functools.partial(_start, task)), inputs)
    return jax.tree.map(jnp.zeros_like, shapes)


def restart(task: Task, shape: Shape, lanes: Lane, fresh: jax.Array, inputs: RunInputs) -> Lane:
    """Starts the runs of the inputs in the fresh lanes."""
    return _for_due(
        fresh, functools.partial(_start, task), inputs, lanes, shape.lanes_per_rare_step
    )


def insert_lane(lanes: Lane, index: jax.Array, fields: dict[str, PyTree]) -> Lane:
    """Replaces some fields of the lane at `index`, which counts the lanes of all devices."""
    count = len(lanes.status)
    # Each device compares the global indices of its own lanes.
    here = jax.lax.axis_index("lanes") * count + jnp.arange(count) == index
    fields = jax.tree.map(lambda value: value[None], fields)
    return lanes._replace(
        **{name: _where(here, value, getattr(lanes, name)) for name, value in fields.items()}
    )


def _start(task, inputs):
    """Returns a lane at the beginning of its run."""
    spec = metric_spec(task)
    params, state = concrete_init(task, stream(inputs, "init"))
    optimizer = _optimizer(task, inputs)
    zero = jnp.int32(0)
    zeros = jax.tree.map(
        lambda p: jnp.zeros((1, *p.shape), jnp.promote_types(p.dtype, jnp.float32)), params
    )
    groups, running = noise.begin(task, zeros)
    final = dict.fromkeys(spec.train, jnp.float32(jnp.nan))
    curve = jnp.full(inputs.eval_updates.shape, jnp.nan, jnp.float32)
    return Lane(
        inputs=inputs,
        status=jnp.where(inputs.hparams["num_updates"] > 0, TRAINING, IDLE).astype(jnp.int32),
        params=params,
        state=state,
        opt_state=optimizer.init(params),
        permutations=first_permutations(task, inputs),
        count=zero,
        epoch=zero,
        offset=zero,
        seen=zero,
        evals=zero,
        curve=dict.fromkeys(spec.curve, curve),
        final=final,
        gradients=zeros,
        batch_loss=jnp.zeros((1,), jnp.float32),
        loss=jnp.zeros((1,), jnp.float32),
        examples=jnp.zeros((1,), jnp.int32),
        groups=groups,
        noise=running,
    )


def advance(
    task: Task, shape: Shape, lanes: Lane, data: dict[str, PyTree], num_steps: jax.Array
) -> tuple[Lane, jax.Array]:
    """Makes micro-steps until a run ends or `num_steps` are made.

    Returns:
      The lanes and, as an array `(1,)`, the number of micro-steps made.
    """

    def must_continue(carry):
        step, lanes = carry
        ended = (lanes.status == FINISHED) | (lanes.status == DIVERGED)
        return (step < num_steps) & ~ended.any() & (lanes.status == TRAINING).any()

    def body(carry):
        step, lanes = carry
        return step + 1, micro_step(task, shape, lanes, data)

    steps, lanes = jax.lax.while_loop(must_continue, body, (jnp.int32(0), lanes))
    return lanes, steps[None]


def accumulate(
    task: Task, shape: Shape, lanes: Lane, data: dict[str, PyTree], num_steps: jax.Array
) -> Lane:
    """Takes microbatches and their gradients only, nearly all of the time of `advance`."""

    def body(_, lanes):
        return _take_and_accumulate(task, shape, lanes, data["train"])[0]

    return jax.lax.fori_loop(0, num_steps, body, lanes)


def micro_step(task: Task, shape: Shape, lanes: Lane, data: dict[str, PyTree]) -> Lane:
    """Takes a microbatch in every lane, then makes the updates and evaluations that are due."""
    lanes, size = _take_and_accumulate(task, shape, lanes, data["train"])
    # A batch is complete at its size or, if the plan says so, at the end of an epoch.
    training = lanes.status == TRAINING
    epoch_over = training & (lanes.offset >= lanes.inputs.permutation_length)
    due = (lanes.seen == size) | (epoch_over & lanes.inputs.epoch_ends_batch & (lanes.seen > 0))
    due &= training
    lanes = jax.lax.cond(due.any(), functools.partial(_update, task, due), lambda same: same, lanes)

    lanes = lanes._replace(
        epoch=jnp.where(epoch_over, lanes.epoch + 1, lanes.epoch),
        offset=jnp.where(epoch_over, lanes.offset - lanes.inputs.permutation_length, lanes.offset),
        permutations=_for_due(
            epoch_over,
            lambda lane: jnp.stack(
                [lane.permutations[1], permutation(task, lane.inputs, lane.epoch + 2)]
            ),
            lanes,
            lanes.permutations,
            shape.lanes_per_rare_step,
        ),
    )
    return _evaluate(task, shape, lanes, due, data)


def _take_and_accumulate(task, shape, lanes, train):
    """Does the first half of a micro-step; returns the lanes and their batch sizes."""
    size = jax.vmap(functools.partial(_batch_size, task))(lanes)

    def one(lane, size):
        return _accumulate(task, shape.microbatch, lane, size, train)

    if len(size) > 1:
        return jax.vmap(one)(lanes, size), size
    # Without an axis of lanes XLA lays out a single lane's products better, which saves 10 %.
    lane = one(*jax.tree.map(lambda a: a[0], (lanes, size)))
    return jax.tree.map(lambda a: a[None], lane), size


def _accumulate(task, microbatch, lane, size, train):
    """Takes the lane's next examples and adds the gradient of their summed loss."""
    inputs = lane.inputs
    # The batch takes what it lacks, but not from the next epoch if the epoch ends it.
    left = inputs.permutation_length - lane.offset
    room = jnp.where(inputs.epoch_ends_batch, jnp.minimum(size - lane.seen, left), size - lane.seen)
    taken = jnp.where(lane.status == TRAINING, jnp.minimum(room, microbatch), 0)
    batch = take(inputs, lane.permutations, lane.epoch, lane.offset, taken, microbatch, train)
    weights = _weights(task, lane, lane.seen + room, batch.mask)

    def summed_loss(params):
        losses, state = task.loss(params, lane.state, batch)
        check_shape(task, "The loss", losses, batch.mask)
        # Not a product: zero times an infinite loss is not zero.
        losses = jnp.where(batch.mask, losses.astype(jnp.float32), 0)
        return jnp.sum(weights * losses), (jnp.sum(losses), state)

    (weighted, (loss, state)), gradients = jax.value_and_grad(summed_loss, has_aux=True)(
        lane.params
    )
    return lane._replace(
        state=combined_state(task, lane.params, lane.state, state),
        offset=lane.offset + taken,
        seen=lane.seen + taken,
        gradients=jax.tree.map(lambda s, g: s + g[None].astype(s.dtype), lane.gradients, gradients),
        batch_loss=lane.batch_loss + weighted,
        loss=lane.loss + loss,
        examples=lane.examples + jnp.sum(batch.mask, dtype=jnp.int32),
        groups=noise.add_microbatch(lane.groups, gradients, weights, batch.mask),
    )


def _weights(task, lane, batch_size, mask):
    """Returns the weights of a microbatch's losses, zero outside the mask."""
    ones = mask.astype(jnp.float32)
    if task.example_weights is None:
        return ones
    positions = lane.seen + local_positions(len(mask) * jax.lax.axis_size("batch"))
    key = jax.random.fold_in(stream(lane.inputs, "weights"), lane.count)
    return ones * task.example_weights(lane.inputs.hparams)(key, positions, batch_size)


def _update(task, due, lanes):
    """Makes one optax update on the whole batch's mean gradient in the lanes that are due."""

    def updated(lane):
        total, value, groups = jax.tree.map(
            lambda s: jax.lax.psum(s[0], "batch"), (lane.gradients, lane.batch_loss, lane.groups)
        )
        seen = lane.seen.astype(jnp.float32)
        mean = jax.tree.map(
            lambda s, p: (s / seen.astype(s.dtype)).astype(p.dtype), total, lane.params
        )
        # The noise is that of the whole batch, so the sums over devices come first.
        extra, running = noise.finish_batch(task, groups, total, lane.seen, lane.noise)
        updates, opt_state = update_optimizer(
            _optimizer(task, lane.inputs), mean, lane.opt_state, lane.params, value / seen, extra
        )
        params = optax.apply_updates(lane.params, updates)
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
            groups=jax.tree.map(jnp.zeros_like, lane.groups),
            noise=running,
        )

    # Every lane computes an update, and lanes that are not due discard it: an update costs little
    # beside the microbatches, and gathering lanes would cost more.
    return _where(due, jax.vmap(updated)(lanes), lanes)


def _evaluate(task, shape, lanes, updated, data):
    """Evaluates the lanes that have just made an update after which their plan evaluates."""
    next_eval = jnp.take_along_axis(lanes.inputs.eval_updates, lanes.evals[:, None], 1)[:, 0]
    due = updated & (lanes.count == next_eval) & (lanes.status == TRAINING)
    last = due & (lanes.count == lanes.inputs.hparams["num_updates"])
    spec = metric_spec(task)

    def metrics_of(splits, lane):
        params, state = eval_params(task, lane.opt_state, lane.params), lane.state
        if task.recompute_state:
            orders = (lane.inputs, lane.permutations)
            state = recomputed_state(task, shape.microbatch, params, orders, data["train"])
        metrics = evaluate_splits(task, splits, shape.eval_batch, params, state, data)
        if "test" in splits:
            metrics |= task.diagnostics(params, state, data["train"])
        return {name: jnp.asarray(value, jnp.float32) for name, value in metrics.items()}

    def record(lane, last, metrics, final):
        examples = jax.lax.psum(lane.examples[0], "batch")
        metrics["train_loss"] = jax.lax.psum(lane.loss[0], "batch") / examples.astype(jnp.float32)
        metrics |= noise.metrics(lane.noise)
        return lane._replace(
            curve={name: lane.curve[name].at[lane.evals].set(metrics[name]) for name in lane.curve},
            evals=lane.evals + 1,
            final=final,
            status=jnp.where(last, FINISHED, TRAINING),
            loss=jnp.zeros_like(lane.loss),
            examples=jnp.zeros_like(lane.examples),
            noise=jax.tree.map(jnp.zeros_like, lane.noise),
        )

    def measured(splits, names, due):
        blank = {name: jnp.zeros(due.shape, jnp.float32) for name in names}
        function = functools.partial(metrics_of, splits)
        return _for_due(due, function, lanes, blank, shape.lanes_per_rare_step)

    names = (*spec.test, *spec.valid, *spec.diagnostics)
    metrics = measured(evaluated_splits(task), names, due)
    final = measured(("train",), spec.train, last) if spec.train else {}
    return _where(due, jax.vmap(record)(lanes, last, metrics, final), lanes)


def _for_due(due, fn, inputs, outputs, count):
    """Returns `outputs`, with `fn(inputs)` in the lanes that are due, `count` lanes at a time.

    A vmapped conditional would do the work of every lane if one lane is due.
    """
    if len(due) <= count:
        # No loop: its body would not depend on the step, so XLA would hoist it and always run it.
        return jax.lax.cond(
            due.any(), lambda: _where(due, jax.vmap(fn)(inputs), outputs), lambda: outputs
        )

    def body(carry):
        due, outputs = carry
        # A stable sort puts the lanes that are due first. The last round may include others, whose
        # outputs `_where` keeps.
        chosen = jnp.argsort(~due, stable=True)[:count]
        old, arguments = jax.tree.map(lambda a: a[chosen], (outputs, inputs))
        new = _where(due[chosen], jax.vmap(fn)(arguments), old)
        outputs = jax.tree.map(lambda a, n: a.at[chosen].set(n), outputs, new)
        return due.at[chosen].set(False), outputs

    return jax.lax.while_loop(lambda carry: carry[0].any(), body, (due, outputs))[1]


def _where(condition, new, old):
    """Returns `new` in the lanes where the condition holds, `old` in the others."""

    def select(new, old):
        # The condition gets axes of length 1 behind that of the lanes.
        return jnp.where(condition.reshape((-1,) + (1,) * (new.ndim - 1)), new, old)

    return jax.tree.map(select, new, old)


def params_of_lane(task: Task, lanes: Lane, index: jax.Array) -> PyTree:
    """Returns the parameters of one lane to evaluate."""
    opt_state, params = jax.tree.map(lambda a: a[index], (lanes.opt_state, lanes.params))
    return eval_params(task, opt_state, params)


def _optimizer(task, inputs):
    return build_optimizer(task, inputs.hparams, stream(inputs, "optimizer"))


def _batch_size(task, lane):
    if task.batch_size is None:
        return lane.inputs.hparams["batch_size"]
    return jnp.asarray(task.batch_size(lane.inputs.hparams)(lane.count), jnp.int32)
