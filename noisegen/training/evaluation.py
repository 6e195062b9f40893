"""What is measured: the metrics of a task over a whole split of its examples."""

import functools

import jax
import jax.numpy as jnp

from noisegen.training import noise
from noisegen.training.task import Batch, PyTree, Task, make_key


def evaluate(
    task: Task, split: str, eval_batch: int, params: PyTree, state: PyTree, examples: PyTree
) -> dict[str, jax.Array]:
    """Mean of every metric of a split over its examples, in pieces of `eval_batch`."""
    total, devices = len(jax.tree.leaves(examples)[0]), jax.lax.axis_size("batch")
    eval_batch = min(eval_batch, -(-total // devices) * devices)
    keys = jnp.broadcast_to(make_key(0), (len(local_positions(eval_batch)),))

    def piece(index, sums):
        places = index * eval_batch + local_positions(eval_batch)
        mask = places < total
        data = jax.tree.map(lambda a: a[jnp.minimum(places, total - 1)], examples)
        metrics = _measures(task, split)(params, state, Batch(data, keys, mask))
        for name, values in metrics.items():
            check_shape(task, f"The metric {name!r}", values, mask)
        return {
            name: sums[name] + jnp.sum(jnp.where(mask, values.astype(jnp.float32), 0))
            for name, values in metrics.items()
        }

    zeros = dict.fromkeys(names(task, split), jnp.float32(0))
    sums = jax.lax.fori_loop(0, -(-total // eval_batch), piece, zeros)
    return {name: jax.lax.psum(value, "batch") / total for name, value in sums.items()}


def check_shape(task: Task, what: str, values: jax.Array, mask: jax.Array) -> None:
    """Refuses a mean over the batch, which would count examples outside the mask."""
    if jnp.shape(values) != mask.shape:
        raise ValueError(
            f"{what} of task {task.name!r} must be one number an example, of shape (M,) = "
            f"{mask.shape}, got shape {jnp.shape(values)}; do not average over the batch."
        )


def metric_names(task: Task) -> tuple[str, ...]:
    """What is measured at the end of a run: the task's metrics, and `train_loss`.

    Raises:
      ValueError: two of them have one name, or that of one of a curve's own columns.
    """
    found = [*names(task, "test"), *names(task, "train"), *diagnostic_names(task)]
    own = {"train_loss", "epoch", "update", *noise.metric_names(task)}
    taken = own & {*found} | {n for n in found if found.count(n) > 1}
    if taken:
        raise ValueError(
            f"Task {task.name!r} has a metric named {', '.join(sorted(taken))}, as another one or "
            "one of the pool's own curves is; name the metric otherwise."
        )
    return (*found, "train_loss", *noise.metric_names(task))


def curve_names(task: Task) -> tuple[str, ...]:
    """What is measured at every evaluation."""
    return tuple(name for name in metric_names(task) if name not in names(task, "train"))


def may_be_nan(task: Task) -> tuple[str, ...]:
    """What need not be finite in a run that has not diverged."""
    return (*diagnostic_names(task), *noise.metric_names(task))


@functools.lru_cache(maxsize=2)
def diagnostic_names(task: Task) -> tuple[str, ...]:
    """The names of the task's diagnostics."""

    def found(train):
        return task.diagnostics(*task.init(make_key(0)), train)

    shapes = jax.eval_shape(found, task.train)
    for name, value in shapes.items():
        if value.shape:
            raise ValueError(
                f"The diagnostic {name!r} of task {task.name!r} must be a single number, but its "
                f"shape is {value.shape}."
            )
    return tuple(sorted(shapes))


@functools.lru_cache(maxsize=2)
def names(task: Task, split: str) -> tuple[str, ...]:
    """The names of a split's metrics."""

    def metrics(one):
        key = make_key(0)
        params, state = task.init(key)
        return _measures(task, split)(params, state, Batch(one, key[None], jnp.ones((1,), bool)))

    one = jax.tree.map(lambda a: a[:1], getattr(task, split))
    return tuple(sorted(jax.eval_shape(metrics, one)))


def _measures(task, split):
    return {"test": task.metrics, "train": task.train_metrics}[split]


def local_positions(size: int) -> jax.Array:
    """This device's places in a piece of `size` examples that is spread over the batch axis."""
    share = size // jax.lax.axis_size("batch")
    return jax.lax.axis_index("batch") * share + jnp.arange(share)
