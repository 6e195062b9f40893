"""A task from a Flax NNX model."""

import functools
import math
import zlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from noisegen import models
from noisegen.training import Batch, Task
from noisegen.training.task import PyTree, make_key

# (mean loss of parameters and examples, parameters, training set) -> numbers by name.
Diagnostics = Callable[[Callable[..., jax.Array], PyTree, PyTree], dict[str, jax.Array]]

_PARTS = (nnx.Param, nnx.RngState, ...)
_STREAMS = zlib.crc32(b"streams")  # apart from what the loss draws from the same key


def from_nnx(
    make_model: Callable[[nnx.Rngs], nnx.Module],
    *,
    loss: Callable[[nnx.Module, Batch], jax.Array],
    metrics: Callable[[nnx.Module, Batch], dict[str, jax.Array]],
    train_metrics: Callable[[nnx.Module, Batch], dict[str, jax.Array]] = lambda *_: {},
    diagnostics: Diagnostics | None = None,
    evaluation_loss: Callable[[nnx.Module, Batch], jax.Array] | None = None,
    **fields,
) -> Task:
    """Makes a task of a Flax NNX model.

    Args:
      make_model: `rngs -> model`, called while tracing. Its `nnx.Param`s are trained; every other
        variable (running statistics) is carried along as the run's state. The random streams that
        layers keep for themselves (`nnx.Dropout`) begin anew in every microbatch, from the key of
        its first example. `noisegen.models.GhostBatchNorm` sets the task's `ghost_size`, and
        without a momentum its `recompute_state`; any other layer that mixes examples
        (`nnx.BatchNorm`) mixes those of a microbatch, examples outside the mask among them.
      loss: `(model, batch) -> (M,)`, with the model in training mode. What it draws at random, it
        draws from `batch.keys`, so that a result does not depend on the microbatch.
      metrics: `(model, batch) -> {name: (M,)}`, with the model in evaluation mode.
      train_metrics: the same, of the training set, at the end of a run.
      diagnostics: `(mean_loss, params, train) -> {name: ()}`, measured whenever the test set is
        evaluated, where `mean_loss(params, examples)` is the mean loss of some examples in
        evaluation mode, say of `jax.tree.map(lambda a: a[:512], train)`: what the functions of
        `noisegen.diagnostics` take, as `lambda params: mean_loss(params, examples)`.
      evaluation_loss: as `loss`, for `diagnostics`; by default `loss` itself, with the same draws
        at every evaluation.
      **fields: the other fields of `noisegen.training.Task`.

    Returns:
      A `noisegen.training.Task`.

    Examples:
      >>> import jax, numpy as np, optax
      >>> from flax import nnx
      >>> from noisegen import tasks, training
      >>> def squared_error(model, batch):
      ...     return (model(batch.data["x"])[:, 0] - batch.data["y"]) ** 2
      >>> x = np.linspace(-1, 1, 32, dtype=np.float32).reshape(16, 2)
      >>> task = tasks.from_nnx(
      ...     lambda rngs: nnx.Linear(2, 1, rngs=rngs),
      ...     loss=squared_error,
      ...     metrics=lambda model, batch: {"test_loss": squared_error(model, batch)},
      ...     name="line",
      ...     train={"x": x, "y": x[:, 0]},
      ...     test={"x": x, "y": x[:, 0]},
      ...     make_optimizer=lambda hparams, key: optax.sgd(hparams["learning_rate"]),
      ... )
      >>> run = {"batch_size": 4, "learning_rate": 0.5, "num_epochs": 40, "seed": 0}
      >>> [result] = training.Pool(task, training.Settings(microbatch=4)).train([run])
      >>> result.metrics["test_loss"] < 1e-3
      True
    """
    abstract = nnx.eval_shape(lambda: make_model(nnx.Rngs(0)))
    graph, _, streams, _ = nnx.split(abstract, *_PARTS)
    norms = ghost_norms(abstract)

    def init(key):
        _, params, _, state = nnx.split(make_model(nnx.Rngs(key)), *_PARTS)
        return params, state

    def merge(params, state, batch):
        key = jax.random.fold_in(jax.random.clone(batch.keys)[0], _STREAMS)
        random = _begin(streams, key)
        # A copy, since the variables of `state` belong to the trace around the gradient's.
        return nnx.merge(graph, params, random, state, copy=True)

    def training_loss(params, state, batch):
        model = merge(params, state, batch)
        model.train()
        losses = loss(model, batch)
        return losses, nnx.split(model, *_PARTS)[3]

    def diagnose(params, state, train):
        def mean_loss(params, examples):
            count = len(jax.tree.leaves(examples)[0])
            keys = jax.random.split(make_key(0), count)
            batch = Batch(examples, keys, jnp.ones(count, bool))
            return jnp.mean(evaluation(evaluation_loss or loss, params, state, batch))

        return diagnostics(mean_loss, params, train)

    def evaluation(measure, params, state, batch):
        model = merge(params, state, batch)
        model.eval()
        return measure(model, batch)

    def combine_state(params, state, parts):
        random = _begin(streams, make_key(0))
        # Copies, as above.
        model, shares = (nnx.merge(graph, params, random, s, copy=True) for s in (state, parts))
        for norm, share in zip(ghost_norms(model), ghost_norms(shares), strict=True):
            norm.combine(share)
        return nnx.split(model, *_PARTS)[3]

    known = sum(len(jax.tree.leaves(nnx.state(norm, nnx.BatchStat))) for norm in norms)
    combines = bool(norms) and known == len(jax.tree.leaves(nnx.split(abstract, *_PARTS)[3]))
    fields = {
        "combine_state": combine_state if combines else None,
        "ghost_size": math.lcm(*(norm.ghost_size for norm in norms)),
        "recompute_state": any(norm.momentum is None for norm in norms),
        "metrics": functools.partial(evaluation, metrics),
        "train_metrics": functools.partial(evaluation, train_metrics),
        **({"diagnostics": diagnose} if diagnostics else {}),
    } | fields
    return Task(init=init, loss=training_loss, **fields)


def ghost_norms(model: nnx.Module) -> list[models.GhostBatchNorm]:
    """The model's layers that normalise over ghost batches."""
    layers = (layer for _, layer in nnx.iter_graph(model))
    return [layer for layer in layers if isinstance(layer, models.GhostBatchNorm)]


def _begin(streams, key):
    """The random streams of a model's layers, each from a key of its own, at their beginning."""
    leaves, treedef = jax.tree.flatten(streams)
    values = [
        jax.random.fold_in(key, index)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        else jnp.zeros(leaf.shape, leaf.dtype)
        for index, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(treedef, values)
