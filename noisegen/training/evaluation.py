"""What is measured: the metrics of a task over a whole split of its examples."""

import functools
import itertools
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from noisegen import _validate
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
    """Checks that there is one number an example; a mean would count those outside the mask."""
    if not hasattr(values, "shape"):
        raise ValueError(
            f"{what} of task {task.name!r} must be one number an example, of shape (M,) = "
            f"{mask.shape}, but it is {_validate.kind(values)}."
        )
    if values.shape != mask.shape:
        raise ValueError(
            f"{what} of task {task.name!r} must be one number an example, of shape (M,) = "
            f"{mask.shape}, got shape {values.shape}; do not average over the batch."
        )


def metric_names(task: Task) -> tuple[str, ...]:
    """What is measured at the end of a run: the task's metrics, and `train_loss`.

    Raises:
      ValueError: two of them have one name, or that of one of a curve's own columns; or the
        diagnostics are no numbers by name.
    """
    sources = {
        "metrics": names(task, "test"),
        "train_metrics": names(task, "train"),
        "diagnostics": diagnostic_names(task),
    }
    found = [*itertools.chain(*sources.values())]
    own = ("train_loss", *noise.metric_names(task))
    sources["the pool's own curves"] = ("epoch", "update", *own)
    for name in found:
        among = [source for source, its in sources.items() if name in its]
        if len(among) > 1:
            raise ValueError(
                f"Task {task.name!r} has a metric named {name} in {' and in '.join(among)}; name "
                "one of them otherwise."
            )
    return (*found, *own)


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
        # Checked in here, since JAX would refuse what is no array in words of its own.
        return _checked(task, task.diagnostics(*task.init(make_key(0)), train))

    return tuple(sorted(jax.eval_shape(found, task.train)))


def _checked(task, diagnostics):
    """The diagnostics, refused unless they are numbers by name."""
    if not isinstance(diagnostics, Mapping) or not all(isinstance(n, str) for n in diagnostics):
        raise ValueError(
            f"The diagnostics of task {task.name!r} must be a dictionary of numbers by name, but "
            f"what the function returned is {_validate.kind(diagnostics)}."
        )
    for name, value in diagnostics.items():
        if _validate.kind(value) != "a number":
            raise ValueError(
                f"The diagnostic {name!r} of task {task.name!r} must be a single number, but it is "
                f"{_validate.kind(value)}; give each number in it a name of its own."
            )
        if jnp.iscomplexobj(value):
            raise ValueError(
                f"The diagnostic {name!r} of task {task.name!r} must be real, but it is complex."
            )
    return diagnostics


@functools.lru_cache(maxsize=2)
def names(task: Task, split: str) -> tuple[str, ...]:
    """The names of a split's metrics."""

    def metrics(data):
        mask = jnp.ones((2,), bool)
        params, state = task.init(make_key(0))
        keys = jax.random.split(make_key(0), 2)
        found = _measures(task, split)(params, state, Batch(data, keys, mask))
        if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
            raise ValueError(
                f"The {'metrics' if split == 'test' else 'train_metrics'} of task {task.name!r} "
                "must be a dictionary of numbers an example by name (text), but what the function "
                f"returned is {_validate.kind(found)}."
            )
        for name, values in found.items():
            check_shape(task, f"The metric {name!r}", values, mask)
            if jnp.issubdtype(values.dtype, jnp.complexfloating):
                raise ValueError(f"The metric {name!r} of task {task.name!r} must be real.")
        return dict(found)

    return tuple(sorted(jax.eval_shape(metrics, abstract_examples(getattr(task, split), 2))))


def abstract_examples(examples: PyTree, size: int) -> PyTree:
    """Returns the shapes and dtypes of `size` examples of a split."""

    def abstract(array):
        dtype = jax.dtypes.canonicalize_dtype(array.dtype)
        return jax.ShapeDtypeStruct((size, *array.shape[1:]), dtype)

    return jax.tree.map(abstract, examples)


def _measures(task, split):
    return {"test": task.metrics, "train": task.train_metrics}[split]


def local_positions(size: int) -> jax.Array:
    """This device's places in a piece of `size` examples that is spread over the batch axis."""
    share = size // jax.lax.axis_size("batch")
    return jax.lax.axis_index("batch") * share + jnp.arange(share)
