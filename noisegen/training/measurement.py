"""Measures any parameters of a task, where they come from elsewhere than training."""

import jax
import jax.numpy as jnp

from noisegen.training.evaluation import evaluate
from noisegen.training.lanes import first_orders, recomputed_state
from noisegen.training.task import PyTree, Task, make_key


def measure(
    task: Task,
    params: PyTree,
    examples: PyTree | None = None,
    *,
    microbatch: int = 64,
    eval_batch: int = 500,
) -> dict[str, jax.Array]:
    """The task's metrics at some parameters, such as those between two solutions.

    A state beside the parameters (running statistics) belongs to the parameters that it was
    gathered with, so it is gathered anew: by one pass of the loss over the training set.

    Args:
      task: whose `metrics` are measured.
      params: as `task.init` gives them.
      examples: pytree of arrays `(T, ...)` like `task.test`, which they are by default;
        `task.train` measures how well the training set is fitted.
      microbatch: examples of the pass over the training set that are taken at once, a multiple of
        the ghost size.
      eval_batch: examples evaluated at once.

    Returns:
      Each metric's mean over the examples, `()`. Works under ``jit``, ``vmap`` and
      `noisegen.diagnostics.along_line`.

    Raises:
      ValueError: the microbatch cuts ghost batches, or the parameters are of another network.

    Examples:
      >>> import jax, optax
      >>> from noisegen import data, models, tasks, training
      >>> task = tasks.image_classification(
      ...     data.load("digits"),
      ...     lambda rngs: models.MLP(rngs=rngs),
      ...     lambda hparams, key: optax.sgd(hparams["learning_rate"]),
      ...     name="MLP",
      ... )
      >>> params, _ = task.init(jax.random.key(0))
      >>> sorted(training.measure(task, params))
      ['test_accuracy', 'test_loss']
    """
    if microbatch % task.ghost_size:
        raise ValueError(
            f"microbatch={microbatch} must be a multiple of the ghost size, {task.ghost_size}."
        )
    like, state = jax.eval_shape(task.init, make_key(0))
    if _shapes(like) != _shapes(params):
        raise ValueError(
            f"These are no parameters of task {task.name!r}: give what its `init` gives first, or "
            "what Pool.train or sweeps.load_params gave."
        )
    train, examples = jax.tree.map(
        jnp.asarray, (task.train, task.test if examples is None else examples)
    )

    def on_one_device(_):
        gathered = state
        if jax.tree.leaves(state):
            orders = first_orders(task, seed=0)
            gathered = recomputed_state(task, microbatch, params, orders, train)
        return evaluate(task, "test", eval_batch, params, gathered, examples)

    # What is measured sums over the devices of a batch: here one.
    found = jax.vmap(on_one_device, axis_name="batch")(jnp.zeros(1))
    return {name: values[0] for name, values in found.items()}


def _shapes(tree):
    leaves, structure = jax.tree.flatten(tree)
    return structure, [jnp.shape(leaf) for leaf in leaves]
