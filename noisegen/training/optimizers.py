"""Optimizers as a pool makes and updates them."""

import inspect
from typing import Any

import jax
import optax

from noisegen.training.task import Hparams, PyTree, Task


def make(task: Task, hparams: Hparams, key: jax.Array) -> optax.GradientTransformation:
    """Makes a run's optimizer; `optax.MultiSteps` becomes the transformation that it is."""
    optimizer = task.make_optimizer(hparams, key)
    if isinstance(optimizer, optax.MultiSteps):
        return optax.GradientTransformationExtraArgs(optimizer.init, optimizer.update)
    return optimizer


def update(
    optimizer: optax.GradientTransformation,
    gradient: PyTree,
    opt_state: optax.OptState,
    params: PyTree,
    value: jax.Array,
    extra: dict[str, Any],
) -> tuple[PyTree, optax.OptState]:
    """Calls an optimizer with everything that a pool knows of the batch.

    Args:
      optimizer: of the run.
      gradient: mean over the batch.
      opt_state: before the update.
      params: likewise.
      value: mean loss of the batch, ().
      extra: further arguments, see `noisegen.training.Task.noise_group`.

    Returns:
      The updates, and the optimizer's next state.
    """
    optimizer = optax.with_extra_args_support(optimizer)
    given = {"value": value, "grad": gradient, **extra}
    try:
        inspect.signature(optimizer.update).bind(gradient, opt_state, params, **given)
    except TypeError:  # It refuses arguments that it does not know, as optax.contrib.sam does.
        given = extra
    return optimizer.update(gradient, opt_state, params, **given)


def eval_params(task: Task, opt_state: optax.OptState, params: PyTree) -> PyTree:
    """Returns the parameters to evaluate."""
    return params if task.eval_params is None else task.eval_params(opt_state, params)
