"""The state of the lanes: one run in training for each.

Functions that take `lanes` see the lanes of one device, with a leading axis of L.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec

from noisegen.diagnostics import RunningNoise
from noisegen.training import noise
from noisegen.training.data_order import RunInputs, first_permutations, stream
from noisegen.training.evaluation import metric_spec
from noisegen.training.rare_work import for_due, select_lanes
from noisegen.training.task import PyTree, Task, build_optimizer, concrete_init

IDLE, TRAINING, FINISHED, DIVERGED = range(4)


class Shape(NamedTuple):
    """The sizes that the program is compiled for."""

    microbatch: int  # examples, over all devices of the batch axis
    eval_batch: int  # likewise
    lanes_per_rare_step: int  # lanes of a device that do rare work together
    is_fed: bool = False  # whether the host feeds the microbatches


class Lane(NamedTuple):
    """The state of one run in training."""

    inputs: RunInputs
    status: jax.Array  # int32: IDLE, TRAINING, FINISHED or DIVERGED
    # Equal on all devices of the batch axis, since all make the same updates.
    params: PyTree
    state: PyTree
    opt_state: optax.OptState
    # The next epoch's too, because a microbatch may reach into it. None if the host feeds.
    permutations: jax.Array | None  # int32 (2, N), of this epoch and the next
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
    batch_weight: jax.Array  # float32, likewise: their weights, the examples if there are none
    loss: jax.Array  # float32, over the examples since the last evaluation
    weight: jax.Array  # float32, likewise
    groups: noise.NoiseSums | None  # over the batch so far; None if no noise is measured
    noise: RunningNoise | None  # over the updates since the last evaluation


# The fields that differ between the devices of the batch axis.
SUMS = ("gradients", "batch_loss", "batch_weight", "loss", "weight", "groups")
LANE_SPEC = Lane(
    **{
        field: PartitionSpec("lanes", "batch") if field in SUMS else PartitionSpec("lanes")
        for field in Lane._fields
    }
)


def empty(task: Task, shape: Shape, inputs: RunInputs) -> Lane:
    """Returns idle lanes, all zeros, one for each entry of the inputs."""
    # Only the shapes of a start are needed, and IDLE is 0.
    shapes = jax.eval_shape(jax.vmap(functools.partial(_start, task, shape)), inputs)
    return jax.tree.map(jnp.zeros_like, shapes)


def restart(task: Task, shape: Shape, lanes: Lane, fresh: jax.Array, inputs: RunInputs) -> Lane:
    """Starts the runs of the inputs in the fresh lanes.

    Args:
      task: The task.
      shape: Sizes of the program.
      lanes: The lanes.
      fresh: Lanes to start, booleans (L,). The others stay as they are.
      inputs: Inputs of the runs, with a leading axis of L.
    """

    def start(inputs: RunInputs, _: Lane) -> Lane:
        return _start(task, shape, inputs)

    return for_due(fresh, start, inputs, lanes, shape.lanes_per_rare_step)


def insert_lane(lanes: Lane, index: jax.Array, fields: dict[str, PyTree]) -> Lane:
    """Replaces some fields of the lane at `index`, which counts the lanes of all devices."""
    count = len(lanes.status)
    # Each device compares the global indices of its own lanes.
    here = jax.lax.axis_index("lanes") * count + jnp.arange(count) == index
    replaced = {}
    for name, value in fields.items():
        # One lane's value, against all lanes of this device.
        value = jax.tree.map(lambda leaf: leaf[None], value)
        replaced[name] = select_lanes(here, value, getattr(lanes, name))
    return lanes._replace(**replaced)


def _start(task: Task, shape: Shape, inputs: RunInputs) -> Lane:
    """Returns a lane at the beginning of its run."""
    spec = metric_spec(task, inputs.hparams)
    params, state = concrete_init(task, stream(inputs, "init"), inputs.hparams)
    optimizer = optimizer_of_run(task, inputs)
    zero = jnp.int32(0)
    # At least float32, so that a large batch of bfloat16 gradients is not rounded at every step.
    zeros = jax.tree.map(
        lambda p: jnp.zeros((1, *p.shape), jnp.promote_types(p.dtype, jnp.float32)), params
    )
    groups, running = noise.begin(task, zeros)
    # NaN until they are measured, so that a run that diverges before shows none.
    final = dict.fromkeys(spec.train, jnp.float32(jnp.nan))
    curve = jnp.full(inputs.eval_updates.shape, jnp.nan, jnp.float32)
    return Lane(
        inputs=inputs,
        # A horizon of zero updates stands for no run.
        status=jnp.where(inputs.hparams["num_updates"] > 0, TRAINING, IDLE).astype(jnp.int32),
        params=params,
        state=state,
        opt_state=optimizer.init(params),
        permutations=None if shape.is_fed else first_permutations(task, inputs),
        count=zero,
        epoch=zero,
        offset=zero,
        seen=zero,
        evals=zero,
        curve=dict.fromkeys(spec.curve, curve),
        final=final,
        gradients=zeros,
        batch_loss=jnp.zeros((1,), jnp.float32),
        batch_weight=jnp.zeros((1,), jnp.float32),
        loss=jnp.zeros((1,), jnp.float32),
        weight=jnp.zeros((1,), jnp.float32),
        groups=groups,
        noise=running,
    )


def optimizer_of_run(task: Task, inputs: RunInputs) -> optax.GradientTransformation:
    """Builds the optimizer of a run from its traced hyperparameters."""
    return build_optimizer(task, inputs.hparams, stream(inputs, "optimizer"))
