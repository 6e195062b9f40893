"""Measures any parameters of a task, where they come from elsewhere than training."""

import functools

import jax
import jax.numpy as jnp

from noisegen.training.evaluation import evaluate
from noisegen.training.examples import first_orders, recomputed_state
from noisegen.training.task import PyTree, Task, abstract_init


def measure(
    task: Task,
    params: PyTree,
    examples: PyTree | None = None,
    *,
    microbatch: int = 64,
    eval_batch: int = 500,
) -> PyTree:
    """The task's metrics at some parameters, such as those between two solutions.

    A state beside the parameters (running statistics) belongs to the parameters that it was
    gathered with, so it is gathered anew: by one pass of the loss over the training set, however
    many sets of examples are measured.

    Args:
      task: whose `metrics` are measured.
      params: as `task.init` gives them.
      examples: a pytree of arrays `(T, ...)` like `task.test`, which it is by default, or like
        `task.train`, which measures how well the training set is fitted; or any pytree of such.
      microbatch: examples of the pass over the training set that are taken at once, a multiple of
        the ghost size.
      eval_batch: examples evaluated at once.

    Returns:
      Each metric's mean over the examples, `()`, by its name; of a pytree of sets of examples, the
      pytree of this. Works under ``jit``, ``vmap`` and `noisegen.diagnostics.evaluate_on_line`.

    Raises:
      ValueError: the microbatch cuts ghost batches, the parameters are of another network, or the
        examples are like neither of the task's splits.

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
      >>> both = training.measure(task, params, {"train": task.train, "test": task.test})
      >>> sorted(both["train"])
      ['test_accuracy', 'test_loss']
    """
    if microbatch % task.ghost_size:
        raise ValueError(
            f"microbatch={microbatch} must be a multiple of the ghost size, {task.ghost_size}."
        )
    like, state = abstract_init(task)
    if _shapes(like) != _shapes(params):
        raise ValueError(
            f"These are no parameters of task {task.name!r}: give what its `init` gives first, or "
            "what Pool.train or sweeps.load_params gave."
        )
    examples = task.test if examples is None else examples
    structures = [jax.tree.structure(split) for split in (task.test, task.train)]

    def is_set(tree):
        return jax.tree.structure(tree) in structures

    if not all(map(is_set, jax.tree.leaves(examples, is_leaf=is_set))):
        raise ValueError(
            f"examples must be like the test or training set of task {task.name!r}, "
            f"{structures[0]} or {structures[1]}, or a pytree of such, but they are "
            f"{jax.tree.structure(examples)}."
        )
    train, examples = jax.tree.map(jnp.asarray, (task.train, examples))

    def on_one_device(_):
        gathered = state
        if jax.tree.leaves(state):
            orders = first_orders(task, seed=0)
            gathered = recomputed_state(task, microbatch, params, orders, train)
        measured = functools.partial(evaluate, task, "test", eval_batch, params, gathered)
        return jax.tree.map(measured, examples, is_leaf=is_set)

    # What is measured sums over the devices of a batch: here one.
    found = jax.vmap(on_one_device, axis_name="batch")(jnp.zeros(1))
    return jax.tree.map(lambda values: values[0], found)


def _shapes(tree):
    leaves, structure = jax.tree.flatten(tree)
    return structure, [jnp.shape(leaf) for leaf in leaves]
