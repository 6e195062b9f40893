"""The device program: many runs trained at once, each in a lane of its own.

``advance`` is written for one device of a mesh with the axes ``lanes`` (runs spread over devices)
and ``batch`` (a run's batch spread over devices), and runs under ``jax.shard_map``. Everything that
tells one run from another is an array with one entry a lane, so batch sizes, horizons and optimizer
settings mix freely and one compilation serves all. The micro-step:

1. every lane takes its next examples; a mask ends the batch exactly at its size;
2. the gradient of the masked SUM of the losses is added to the lane's accumulator;
3. lanes whose batch is complete call the run's optax chain once, on the mean gradient.

Rare work (start of a run, new permutation, evaluation) is done for the lanes that are due, a few at
a time.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec

from noisegen.diagnostics import RunningNoise
from noisegen.training import noise, optimizers
from noisegen.training.evaluation import (
    check_shape,
    curve_names,
    diagnostic_names,
    evaluate,
    local_positions,
    names,
)
from noisegen.training.examples import (
    Numbers,
    combined_state,
    first_permutations,
    permutation,
    recomputed_state,
    stream,
    take,
)
from noisegen.training.task import PyTree, Task, begun

IDLE, TRAINING, FINISHED, DIVERGED = range(4)


class Shape(NamedTuple):
    """Sizes that the program is compiled for."""

    microbatch: int  # examples, over all devices of the batch axis
    eval_batch: int  # likewise
    group: int  # lanes that do rare work together


class Lane(NamedTuple):
    """State of one run in training."""

    numbers: Numbers
    status: jax.Array  # int32: IDLE, TRAINING, FINISHED or DIVERGED
    params: PyTree
    state: PyTree
    opt_state: optax.OptState
    permutations: jax.Array  # int32 (2, N), of this epoch and of the next
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
    groups: noise.NoiseSums | tuple[()]  # over the batch so far; () where no noise is measured
    noise: RunningNoise | tuple[()]  # over the updates since the last evaluation


SUMS = ("gradients", "batch_loss", "loss", "examples", "groups")
LANE_SPEC = Lane(
    **{
        field: PartitionSpec("lanes", "batch") if field in SUMS else PartitionSpec("lanes")
        for field in Lane._fields
    }
)


def empty(task: Task, numbers: Numbers) -> Lane:
    """Idle lanes, one for each of `numbers`: all zeros."""
    shapes = jax.eval_shape(jax.vmap(functools.partial(_start, task)), numbers)
    return jax.tree.map(jnp.zeros_like, shapes)


def restart(task: Task, shape: Shape, lanes: Lane, fresh: jax.Array, numbers: Numbers) -> Lane:
    """Starts the runs of `numbers` in the lanes that are fresh."""
    return _for_due(fresh, functools.partial(_start, task), numbers, lanes, shape.group)


def place(lanes: Lane, index: jax.Array, fields: dict[str, PyTree]) -> Lane:
    """Gives the lane at `index`, counted over all devices, the values of some fields."""
    count = len(lanes.status)
    here = jax.lax.axis_index("lanes") * count + jnp.arange(count) == index
    fields = jax.tree.map(lambda value: value[None], fields)
    return lanes._replace(
        **{name: _where(here, value, getattr(lanes, name)) for name, value in fields.items()}
    )


def _start(task, numbers):
    """A lane at the beginning of its run."""
    params, state = begun(task, stream(numbers, "init"))
    optimizer = _optimizer(task, numbers)
    zero = jnp.int32(0)
    zeros = jax.tree.map(
        lambda p: jnp.zeros((1, *p.shape), jnp.promote_types(p.dtype, jnp.float32)), params
    )
    groups, running = noise.begin(task, zeros)
    final = dict.fromkeys(names(task, "train"), jnp.float32(jnp.nan))
    curve = jnp.full(numbers.eval_updates.shape, jnp.nan, jnp.float32)
    return Lane(
        numbers=numbers,
        status=jnp.where(numbers.hparams["num_updates"] > 0, TRAINING, IDLE).astype(jnp.int32),
        params=params,
        state=state,
        opt_state=optimizer.init(params),
        permutations=first_permutations(task, numbers),
        count=zero,
        epoch=zero,
        offset=zero,
        seen=zero,
        evals=zero,
        curve=dict.fromkeys(curve_names(task), curve),
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

    def go_on(carry):
        step, lanes = carry
        ended = (lanes.status == FINISHED) | (lanes.status == DIVERGED)
        return (step < num_steps) & ~ended.any() & (lanes.status == TRAINING).any()

    def body(carry):
        step, lanes = carry
        return step + 1, micro_step(task, shape, lanes, data)

    steps, lanes = jax.lax.while_loop(go_on, body, (jnp.int32(0), lanes))
    return lanes, steps[None]


def accumulate(
    task: Task, shape: Shape, lanes: Lane, data: dict[str, PyTree], num_steps: jax.Array
) -> Lane:
    """Only takes microbatches and their gradients: what `advance` spends nearly all its time on."""

    def body(_, lanes):
        return _take_and_accumulate(task, shape, lanes, data["train"])[0]

    return jax.lax.fori_loop(0, num_steps, body, lanes)


def micro_step(task: Task, shape: Shape, lanes: Lane, data: dict[str, PyTree]) -> Lane:
    """One microbatch in every lane, and whatever it makes due."""
    lanes, size = _take_and_accumulate(task, shape, lanes, data["train"])
    training = lanes.status == TRAINING
    epoch_over = training & (lanes.offset >= lanes.numbers.order_length)
    due = (lanes.seen == size) | (epoch_over & lanes.numbers.cut & (lanes.seen > 0))
    due &= training
    lanes = jax.lax.cond(due.any(), functools.partial(_update, task, due), lambda same: same, lanes)

    lanes = lanes._replace(
        epoch=jnp.where(epoch_over, lanes.epoch + 1, lanes.epoch),
        offset=jnp.where(epoch_over, lanes.offset - lanes.numbers.order_length, lanes.offset),
        permutations=_for_due(
            epoch_over,
            lambda lane: jnp.stack(
                [lane.permutations[1], permutation(task, lane.numbers, lane.epoch + 2)]
            ),
            lanes,
            lanes.permutations,
            shape.group,
        ),
    )
    return _evaluate(task, shape, lanes, due, data)


def _take_and_accumulate(task, shape, lanes, train):
    """The first half of a micro-step; returns the lanes, and their batch sizes."""
    size = jax.vmap(functools.partial(_batch_size, task))(lanes)

    def one(lane, size):
        return _accumulate(task, shape.microbatch, lane, size, train)

    if len(size) > 1:
        return jax.vmap(one)(lanes, size), size
    # XLA lays out the products of a single lane better without the lanes' axis: 10 % of the time.
    lane = one(*jax.tree.map(lambda a: a[0], (lanes, size)))
    return jax.tree.map(lambda a: a[None], lane), size


def _accumulate(task, microbatch, lane, size, train):
    """Takes the lane's next examples and adds the gradient of their summed loss."""
    numbers = lane.numbers
    left = numbers.order_length - lane.offset
    room = jnp.where(numbers.cut, jnp.minimum(size - lane.seen, left), size - lane.seen)
    taken = jnp.where(lane.status == TRAINING, jnp.minimum(room, microbatch), 0)
    batch = take(numbers, lane.permutations, lane.epoch, lane.offset, taken, microbatch, train)
    weights = _weights(task, lane, lane.seen + room, batch.mask)

    def summed_loss(params):
        losses, state = task.loss(params, lane.state, batch)
        check_shape(task, "The loss", losses, batch.mask)
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
        groups=noise.add_group(lane.groups, gradients, weights, batch.mask),
    )


def _weights(task, lane, batch_size, mask):
    """The weights of a microbatch's losses; zero outside the mask."""
    ones = mask.astype(jnp.float32)
    if task.example_weights is None:
        return ones
    places = lane.seen + local_positions(len(mask) * jax.lax.axis_size("batch"))
    key = jax.random.fold_in(stream(lane.numbers, "weights"), lane.count)
    return ones * task.example_weights(lane.numbers.hparams)(key, places, batch_size)


def _update(task, due, lanes):
    """One optax update, on the whole batch's mean gradient, in the lanes that are due."""

    def updated(lane):
        total, value, groups = jax.tree.map(
            lambda s: jax.lax.psum(s[0], "batch"), (lane.gradients, lane.batch_loss, lane.groups)
        )
        seen = lane.seen.astype(jnp.float32)
        mean = jax.tree.map(
            lambda s, p: (s / seen.astype(s.dtype)).astype(p.dtype), total, lane.params
        )
        extra, running = noise.measure(task, groups, total, lane.seen, lane.noise)
        updates, opt_state = optimizers.update(
            _optimizer(task, lane.numbers), mean, lane.opt_state, lane.params, value / seen, extra
        )
        params = optax.apply_updates(lane.params, updates)
        finite = [jnp.isfinite(p).all() for p in jax.tree.leaves(params)]
        finite = jnp.all(jnp.array(finite, bool))
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

    return _where(due, jax.vmap(updated)(lanes), lanes)


def _evaluate(task, shape, lanes, updated, data):
    """Evaluates the lanes that have just made an update at which their plan says so."""
    next_eval = jnp.take_along_axis(lanes.numbers.eval_updates, lanes.evals[:, None], 1)[:, 0]
    due = updated & (lanes.count == next_eval) & (lanes.status == TRAINING)
    last = due & (lanes.count == lanes.numbers.hparams["num_updates"])

    def measure(split, lane):
        params, state = optimizers.eval_params(task, lane.opt_state, lane.params), lane.state
        if task.recompute_state:
            orders = (lane.numbers, lane.permutations)
            state = recomputed_state(task, shape.microbatch, params, orders, data["train"])
        found = evaluate(task, split, shape.eval_batch, params, state, data[split])
        if split == "test":
            found |= task.diagnostics(params, state, data["train"])
        return {name: jnp.asarray(value, jnp.float32) for name, value in found.items()}

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

    def measured(split, names, due):
        blank = {name: jnp.zeros(due.shape, jnp.float32) for name in names}
        return _for_due(due, functools.partial(measure, split), lanes, blank, shape.group)

    metrics = measured("test", (*names(task, "test"), *diagnostic_names(task)), due)
    final = measured("train", names(task, "train"), last) if names(task, "train") else {}
    return _where(due, jax.vmap(record)(lanes, last, metrics, final), lanes)


def _for_due(due, fn, inputs, outputs, group):
    """`outputs`, with `fn(inputs)` in the lanes that are due, `group` lanes at a time.

    A vmapped conditional would do the work of every lane whenever one is due.
    """
    if len(due) <= group:  # no loop: its body would not depend on the step, and XLA would hoist it
        return jax.lax.cond(
            due.any(), lambda: _where(due, jax.vmap(fn)(inputs), outputs), lambda: outputs
        )

    def body(carry):
        due, outputs = carry
        chosen = jnp.argsort(~due, stable=True)[:group]
        old, arguments = jax.tree.map(lambda a: a[chosen], (outputs, inputs))
        new = _where(due[chosen], jax.vmap(fn)(arguments), old)
        outputs = jax.tree.map(lambda a, n: a.at[chosen].set(n), outputs, new)
        return due.at[chosen].set(False), outputs

    return jax.lax.while_loop(lambda carry: carry[0].any(), body, (due, outputs))[1]


def _where(condition, new, old):
    """Per lane, `new` or `old`."""
    return jax.tree.map(
        lambda n, o: jnp.where(condition.reshape((-1,) + (1,) * (n.ndim - 1)), n, o), new, old
    )


def params_of_lane(task: Task, lanes: Lane, index: jax.Array) -> PyTree:
    """Returns the parameters of one lane to evaluate."""
    opt_state, params = jax.tree.map(lambda a: a[index], (lanes.opt_state, lanes.params))
    return optimizers.eval_params(task, opt_state, params)


def _optimizer(task, numbers):
    return optimizers.make(task, numbers.hparams, stream(numbers, "optimizer"))


def _batch_size(task, lane):
    if task.batch_size is None:
        return lane.numbers.hparams["batch_size"]
    return jnp.asarray(task.batch_size(lane.numbers.hparams)(lane.count), jnp.int32)
