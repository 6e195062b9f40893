"""A task from a Flax NNX model."""

from collections.abc import Callable

import jax
from flax import nnx

from noisegen.training import Batch, Task


def from_nnx(
    make_model: Callable[[nnx.Rngs], nnx.Module],
    *,
    loss: Callable[[nnx.Module, Batch], jax.Array],
    metrics: Callable[[nnx.Module, Batch], dict[str, jax.Array]],
    **fields,
) -> Task:
    """Makes a task of a Flax NNX model.

    Args:
      make_model: `rngs -> model`, called while tracing. Its `nnx.Param`s are trained; every other
        variable (running statistics) is carried along as the run's state.
      loss: `(model, batch) -> (M,)`, with the model in training mode. What it draws at random, it
        draws from `batch.keys`, so that a result does not depend on the microbatch.
      metrics: `(model, batch) -> {name: (M,)}`, with the model in evaluation mode.
      **fields: the other fields of `noisegen.training.Task`.

    Returns:
      A `noisegen.training.Task`.
    """
    abstract = nnx.eval_shape(lambda: make_model(nnx.Rngs(0)))
    graph = nnx.split(abstract, nnx.Param, ...)[0]

    def init(key):
        return nnx.split(make_model(nnx.Rngs(key)), nnx.Param, ...)[1:]

    def training_loss(params, state, batch):
        model = nnx.merge(graph, params, state)
        model.train()
        losses = loss(model, batch)
        return losses, nnx.split(model, nnx.Param, ...)[2]

    def evaluation(params, state, batch):
        model = nnx.merge(graph, params, state)
        model.eval()
        return metrics(model, batch)

    return Task(init=init, loss=training_loss, metrics=evaluation, **fields)
