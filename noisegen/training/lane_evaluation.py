"""Evaluates the lanes whose plan asks for it after an update, as rare work.

Functions that take `lanes` see the lanes of one device, with a leading axis of L. Functions that
take a `lane` see one of them without that axis, under ``jax.vmap``.
"""

import jax
import jax.numpy as jnp

from noisegen.training import noise
from noisegen.training.data_order import permutation, recomputed_state
from noisegen.training.evaluation import evaluate_splits, evaluated_splits, metric_spec
from noisegen.training.lane_state import FINISHED, TRAINING, Lane, Shape
from noisegen.training.rare_work import for_due, select_lanes
from noisegen.training.sharding import sum_over
from noisegen.training.task import PyTree, Task, call_with_hparams, eval_params


def evaluate_due(
    task: Task, shape: Shape, lanes: Lane, has_updated: jax.Array, data: dict[str, PyTree]
) -> Lane:
    """Evaluates the lanes that have just made an update after which their plan evaluates."""
    next_eval = jnp.take_along_axis(lanes.inputs.eval_updates, lanes.evals[:, None], 1)[:, 0]
    # A lane whose update diverged is not evaluated.
    due = has_updated & (lanes.count == next_eval) & (lanes.status == TRAINING)
    # Every plan evaluates after its last update, so no run ends without an evaluation.
    last = due & (lanes.count == lanes.inputs.hparams["num_updates"])

    metrics, final = _measure(task, shape, lanes, due, last, data)
    # Not under a conditional: XLA then adds up the losses over devices together with the gradients,
    # and jaxlib 0.10.2 crashes on CPUs if they are added up in a branch with loops.
    return select_lanes(due, jax.vmap(_write_evaluation)(lanes, last, metrics, final), lanes)


def _measure(
    task: Task,
    shape: Shape,
    lanes: Lane,
    due: jax.Array,
    last: jax.Array,
    data: dict[str, PyTree],
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Returns metrics of the lanes that are due, and the last metrics of those that end."""
    spec = metric_spec(task)  # Found when the lanes were made.

    def measure(
        splits: tuple[str, ...], names: tuple[str, ...], due: jax.Array
    ) -> dict[str, jax.Array]:
        blank = {name: jnp.zeros(due.shape, jnp.float32) for name in names}

        def function(lane: Lane, _: PyTree) -> dict[str, jax.Array]:
            return _metrics_of_lane(task, shape, data, splits, lane)

        return for_due(due, function, lanes, blank, shape.lanes_per_rare_step)

    metrics = measure(evaluated_splits(task), (*spec.test, *spec.valid, *spec.diagnostics), due)
    return metrics, measure(("train",), spec.train, last) if spec.train else {}


def _metrics_of_lane(
    task: Task, shape: Shape, data: dict[str, PyTree], splits: tuple[str, ...], lane: Lane
) -> dict[str, jax.Array]:
    """Returns the metrics of some splits, and the diagnostics if the test set is among them."""
    params, state = eval_params(task, lane.opt_state, lane.params), lane.state
    if task.recompute_state:
        orders = (lane.inputs, lane.permutations)
        if shape.is_fed:
            orders = (lane.inputs, permutation(task, lane.inputs, lane.epoch)[None])
        state = recomputed_state(task, shape.microbatch, params, orders, data["train"])
    hparams = lane.inputs.hparams
    metrics = evaluate_splits(task, splits, shape.eval_batch, params, state, data, hparams)
    if "test" in splits and metric_spec(task).diagnostics:
        train = data["train"]
        if shape.is_fed:
            raise ValueError(
                f"The diagnostics of task {task.name!r} take the whole training set, but it "
                "stays on the host: hold it on the device (PoolConfig(data='device')), or "
                "leave them out."
            )
        metrics |= call_with_hparams(task.diagnostics, params, state, train, hparams=hparams)
    return {name: jnp.asarray(value, jnp.float32) for name, value in metrics.items()}


def _write_evaluation(
    lane: Lane, last: jax.Array, metrics: dict[str, jax.Array], final: dict[str, jax.Array]
) -> Lane:
    """Writes the metrics of an evaluation into the lane's curve."""
    loss, weight = sum_over("batch", (lane.loss[0], lane.weight[0]))
    metrics = metrics | {"train_loss": loss / weight} | noise.metrics(lane.noise)
    return lane._replace(
        curve={name: lane.curve[name].at[lane.evals].set(metrics[name]) for name in lane.curve},
        evals=lane.evals + 1,
        final=final,
        status=jnp.where(last, FINISHED, TRAINING),
        # The means of the next evaluation begin anew.
        loss=jnp.zeros_like(lane.loss),
        weight=jnp.zeros_like(lane.weight),
        noise=jax.tree.map(jnp.zeros_like, lane.noise),
    )


def params_of_lane(task: Task, lanes: Lane, index: jax.Array) -> PyTree:
    """Returns the parameters of one lane to evaluate."""
    opt_state, params = jax.tree.map(lambda a: a[index], (lanes.opt_state, lanes.params))
    return eval_params(task, opt_state, params)
