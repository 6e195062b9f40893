"""A task from a Flax NNX model."""

import functools
import math
import zlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from noisegen import _validate, models
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
        variable (running statistics) and every array is carried along as the run's state.
        Activations that a call sows are dropped. Layers that draw at random from streams of their
        own (`nnx.Dropout`) draw for every example from its own key. If the model has a state
        besides, they draw for a microbatch at once, from the key of its first example.
        `noisegen.models.GhostBatchNorm` sets the task's `ghost_size`, and without a momentum its
        `recompute_state`. A pool refuses other layers that mix examples, such as `nnx.BatchNorm`,
        unless `ghost_size` and `only_batch_size` say that every microbatch is a whole batch.
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
      >>> [result] = training.Pool(task, training.PoolConfig(microbatch=4)).train([run])
      >>> result.metrics["test_loss"] < 1e-3
      True
    """
    _validate_functions(make_model, loss, metrics, train_metrics)
    graph, streams, abstract_state, norms = _parts(make_model)
    # A layer that draws at random draws for one example at a time, from that example's own key,
    # unless the model has a state: that is the state of all examples together.
    stateless = not any(
        isinstance(leaf, nnx.Variable) for _, leaf in nnx.to_flat_state(abstract_state)
    )
    one_by_one = bool(jax.tree.leaves(streams)) and stateless

    def init(key):
        _, params, _, state = nnx.split(_made(make_model, nnx.Rngs(key)), *_PARTS)
        return params, state

    def merge(params, state, batch):
        key = jax.random.fold_in(jax.random.clone(batch.keys)[0], _STREAMS)
        random = _begin(streams, key)
        # A copy, since the variables of `state` belong to the trace around the gradient's.
        return nnx.merge(graph, params, random, state, copy=True)

    def joint_loss(params, state, batch):
        model = merge(params, state, batch)
        model.train()
        losses = loss(model, batch)
        _remove_new(model, state, params)
        return losses, nnx.split(model, *_PARTS)[3]

    def loss_one_by_one(params, state, batch):
        def of_one(example):
            losses, _ = joint_loss(params, state, jax.tree.map(lambda a: a[None], example))
            return losses[0]

        return jax.vmap(of_one)(batch), state

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

    known = sum(norm.num_statistics for norm in norms)
    combines = bool(norms) and known == len(jax.tree.leaves(abstract_state))
    fields = {
        "combine_state": combine_state if combines else None,
        "ghost_size": math.lcm(*(norm.ghost_size for norm in norms)),
        "recompute_state": any(norm.momentum is None for norm in norms),
        "metrics": functools.partial(evaluation, metrics),
        "train_metrics": functools.partial(evaluation, train_metrics),
        **({"diagnostics": diagnose} if diagnostics else {}),
    } | fields
    if one_by_one:
        return Task(init=init, loss=loss_one_by_one, joint_loss=joint_loss, **fields)
    return Task(init=init, loss=joint_loss, **fields)


class _Norm(NamedTuple):
    """Facts about a layer that normalizes over ghost batches."""

    ghost_size: int
    momentum: float | None
    num_statistics: int


def _validate_functions(make_model, *functions):
    """Refuses a model or a result that was passed in place of a function."""
    if isinstance(make_model, nnx.Module):
        raise ValueError(
            "make_model must be a function from nnx.Rngs to a model, but it is a "
            f"{type(make_model).__name__}; write lambda rngs: {type(make_model).__name__}(..., "
            "rngs=rngs)."
        )
    for value in (make_model, *functions):
        if not callable(value):
            raise ValueError(f"from_nnx needs a function, but got {value!r:.80}.")


def _made(make_model, rngs):
    """Calls `make_model`, and checks what it made."""
    with nnx.use_eager_sharding(False):  # annotations are refused below
        model = make_model(rngs)
    if not isinstance(model, nnx.Module):
        hint = (
            " A Flax Linen module takes noisegen.training.Task instead."
            if hasattr(model, "apply") and hasattr(model, "init")
            else ""
        )
        raise ValueError(
            f"make_model must return an nnx.Module, but it returned {_validate.kind(model)}.{hint}"
        )
    _find_arrays(model)
    return model


def _find_arrays(model):
    """Has Flax find the arrays that are attributes, which it takes for constants while JAX traces.

    Raises:
      ValueError: If an attribute is a Python container of arrays.
    """
    found = [path for path, _ in nnx.to_flat_state(nnx.state(model))]
    for path, module in nnx.iter_modules(model):
        for name, value in list(vars(module).items()):
            contained = isinstance(value, list | tuple | dict)
            arrays = jax.tree.leaves(value) if contained else [value]
            if not any(isinstance(array, jax.Array) for array in arrays):
                continue
            place = (*path, name)
            if any(other[: len(place)] == place for other in found):
                continue
            if contained:
                raise ValueError(
                    f"Attribute {name} of {type(module).__name__} holds arrays in a "
                    f"{type(value).__name__}: use nnx.List, nnx.Dict or nnx.data, so that Flax "
                    "finds them."
                )
            setattr(module, name, nnx.data(value))


def _parts(make_model):
    """Returns a model's graph, random streams, state and ghost norms, without computing any."""
    found = {}

    def split():
        model = _made(make_model, nnx.Rngs(0))
        _check_annotations(model)
        found["norms"] = [
            _Norm(n.ghost_size, n.momentum, len(jax.tree.leaves(nnx.state(n, nnx.BatchStat))))
            for n in ghost_norms(model)
        ]
        found["graph"], _, streams, state = nnx.split(model, *_PARTS)
        return streams, state

    streams, state = jax.eval_shape(split)
    return found["graph"], streams, state, found["norms"]


def _check_annotations(model):
    """Refuses parameters that are to be spread over a mesh, which is not a pool's."""
    for path, variable in nnx.to_flat_state(nnx.state(model, nnx.Variable)):
        names = variable.get_metadata().get("out_sharding")
        if names is not None and any(name is not None for name in names):
            raise ValueError(
                f"{'.'.join(map(str, path))} of the model is annotated with axes of a mesh, "
                f"{names}, but a pool spreads runs and batches over devices, and no parameters: "
                "make the model without the annotation."
            )


def _remove_new(model, state, params):
    """Removes what a call noted in a model, such as activations that it sowed.

    Raises:
      ValueError: If the call made a parameter or a variable that would be forgotten.
    """
    known = {path for tree in (state, params) for path, _ in nnx.to_flat_state(tree)}
    new = [
        (path, variable)
        for path, variable in nnx.to_flat_state(nnx.state(model))
        if path not in known and not isinstance(variable, nnx.RngState)
    ]
    for path, variable in new:
        sown = isinstance(variable, nnx.Intermediate) or (
            isinstance(variable, nnx.Variable)
            and not isinstance(variable, nnx.Param)
            and isinstance(variable.get_value(), tuple)
        )
        if not sown:
            raise ValueError(
                f"The model makes {'.'.join(map(str, path))} "
                f"({type(variable).__name__}) while it is called, too late to be kept or trained: "
                "make it in __init__."
            )
    if new:
        nnx.pop(model, lambda path, _: path not in known)


def ghost_norms(model: nnx.Module) -> list[models.GhostBatchNorm]:
    """The model's layers that normalise over ghost batches."""
    layers = (layer for _, layer in nnx.iter_graph(model))
    return [layer for layer in layers if isinstance(layer, models.GhostBatchNorm)]


def _begin(streams, key):
    """The random streams of a model's layers, each from a key of its own, at their beginning."""
    leaves, treedef = jax.tree.flatten(streams)

    def begun(index, leaf):
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jnp.zeros(leaf.shape, leaf.dtype)
        own = jax.random.fold_in(key, index)
        return jax.random.split(own, leaf.shape) if leaf.shape else own  # of stacked layers

    return treedef.unflatten([begun(index, leaf) for index, leaf in enumerate(leaves)])
