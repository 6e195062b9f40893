"""Tasks from Flax NNX models."""

import collections
import functools
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from noisegen import _validate, models
from noisegen.training import Batch, Task, Weighted
from noisegen.training.schedule_check import needs_value
from noisegen.training.task import (
    NO_HPARAMS,
    Hparams,
    PyTree,
    call_with_hparams,
    make_key,
    takes_hparams,
)
from noisegen.training.task_check import first_line
from noisegen.training.task_plans import device_type

# (mean loss of parameters and examples, parameters, training set) -> numbers by name.
Diagnostics = Callable[[Callable[..., jax.Array], PyTree, PyTree], dict[str, jax.Array]]

_PARTS = (nnx.Param, nnx.RngState, ...)  # Parameters, random streams, and the remaining state.
_STREAMS = zlib.crc32(b"streams")  # Separates random streams from draws of the loss.


def from_nnx(
    make_model: Callable[..., nnx.Module],
    *,
    loss: Callable[[nnx.Module, Batch], jax.Array],
    metrics: Callable[[nnx.Module, Batch], dict[str, jax.Array]],
    train_metrics: Callable[[nnx.Module, Batch], dict[str, jax.Array]] = lambda *_: {},
    diagnostics: Diagnostics | None = None,
    evaluation_loss: Callable[[nnx.Module, Batch], jax.Array] | None = None,
    **fields,
) -> Task:
    """Makes a task from a Flax NNX model.

    **State.** Each `nnx.Param` is trained. All other variables (such as running statistics) and
    arrays are the state of the run. Activations that a call sows are dropped.

    **Randomness.** Layers with their own random streams (`nnx.Dropout`) draw for each example from
    the key of that example. If the model has state besides, they draw once per microbatch, from the
    key of its first example.

    **Normalization.** `noisegen.models.GhostBatchNorm` sets the task's `ghost_size`, and
    `recompute_state` if it has no momentum. A pool refuses other layers that mix examples, such as
    `nnx.BatchNorm`, unless `ghost_size` and `only_batch_size` make every microbatch a whole batch.

    **Devices.** The devices of `PoolConfig.model_devices` share the parameters that are annotated
    with the axis "model", as by `nnx.with_partitioning(init, (None, "model"))`. Let the call of the
    model neither reshard nor take an `out_sharding`.

    **Hyperparameters.** The functions find those of the run in `batch.hparams`. If `make_model`
    takes them, it may scale the initial weights, and the model may keep a number as an attribute,
    such as the rate of a `noisegen.models.Dropout`.

    Args:
      make_model: Function `rngs -> model` or `(rngs, hparams) -> model`, called while tracing.
        It may read only the numbers in `hparams`, and no shape may depend on them.
      loss: Function `(model, batch) -> (M,)` of the model in training mode, or one that returns
        `noisegen.training.Weighted`. It must take all randomness from `batch.keys`, so that
        results do not depend on the microbatch.
      metrics: Function `(model, batch) -> {name: (M,)}` of the model in evaluation mode. Each
        value may be `noisegen.training.Weighted`.
      train_metrics: Like `metrics`, for the training set at the end of a run.
      diagnostics: Function `(mean_loss, params, train) -> {name: ()}`, called at every evaluation
        of the test set. `mean_loss(params, examples)` is the mean loss in evaluation mode, for
        example of `jax.tree.map(lambda a: a[:512], train)`. The functions of `noisegen.diagnostics`
        take it as `lambda params: mean_loss(params, examples)`. An argument named `hparams` gets
        the run's hyperparameters.
      evaluation_loss: Like `loss`, used by `diagnostics`. The default is `loss`, with the same
        draws at every evaluation.
      **fields: Other fields of `noisegen.training.Task`.

    Returns:
      A `noisegen.training.Task`.

    Raises:
      ValueError: If an argument is no function, or the model does not fit a pool, for example
        because it has no parameters.

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
    _check_functions(make_model, loss, metrics, train_metrics)
    model = _NnxModel(make_model, loss)
    defaults = {
        "init": model.init if model.takes_hparams else lambda key: model.init(key, NO_HPARAMS),
        "loss": model.loss,
        "metrics": functools.partial(model.evaluate, metrics),
        "train_metrics": functools.partial(model.evaluate, train_metrics),
        # Whole groups of this size are whole groups for every layer. It is 1 without layers.
        "ghost_size": math.lcm(*(norm.ghost_size for norm in model.norms)),
        "recompute_state": any(norm.momentum is None for norm in model.norms),
        "combine_state": model.combine_state if model.can_combine_state else None,
        "partition": nnx.get_partition_spec,
    }
    if diagnostics is not None:
        defaults["diagnostics"] = functools.partial(
            model.diagnose, diagnostics, evaluation_loss or loss
        )
    if model.draws_for_each_example:
        defaults["loss"] = model.loss_of_each_example
        defaults["joint_loss"] = model.loss
    return Task(**{**defaults, **fields})  # The user's own fields win.


class _NnxModel:
    """The functions of a Task, of parameters, state and batch, for an NNX model.

    The graph of the model and its random streams are constant. Parameters and state are arguments.
    """

    def __init__(
        self,
        make_model: Callable[[nnx.Rngs], nnx.Module],
        loss: Callable[[nnx.Module, Batch], jax.Array],
    ):
        self._make_model = make_model
        self._loss = loss
        self.takes_hparams = takes_hparams(make_model)
        self._graph, self._streams, state, self.norms = _abstract_parts(make_model)
        # Layers that draw at random draw for one example at a time, from the key of that example.
        # With state that is impossible, since all examples share it.
        variables = [v for _, v in nnx.to_flat_state(state) if isinstance(v, nnx.Variable)]
        has_streams = bool(jax.tree.leaves(self._streams))
        self.draws_for_each_example = has_streams and not variables
        # Devices can agree on ghost statistics, but on no other state (see `Task.combine_state`).
        # In a model made from hyperparameters, attributes that are plain arrays are constant.
        num_statistics = sum(norm.num_statistics for norm in self.norms)
        changing = variables if self.takes_hparams else jax.tree.leaves(state)
        only_statistics = num_statistics == len(jax.tree.leaves(changing))
        has_combinable = bool(self.norms) or bool(jax.tree.leaves(state))
        self.can_combine_state = has_combinable and only_statistics

    def init(self, key: jax.Array, hparams: Hparams) -> tuple[PyTree, PyTree]:
        """Returns first parameters and state."""
        model = _make_and_check(self._make_model, nnx.Rngs(key), _Arrays(hparams))
        _, params, _, state = nnx.split(model, *_PARTS)
        return params, state

    def loss(self, params: PyTree, state: PyTree, batch: Batch) -> tuple[jax.Array, PyTree]:
        """Returns the losses of examples, computed together, and the new state."""
        model = self._merge(params, state, batch)
        model.train()
        losses = self._loss(model, batch)
        _remove_new(model, state, params)
        _, _, _, new_state = nnx.split(model, *_PARTS)
        if self.takes_hparams:
            _check_arrays_are_kept(state, new_state)
        return losses, new_state

    def loss_of_each_example(
        self, params: PyTree, state: PyTree, batch: Batch
    ) -> tuple[jax.Array, PyTree]:
        """Returns the losses of examples, computed one by one, and the unchanged state."""

        def loss_of_example(*example: PyTree) -> jax.Array:
            # A batch of one, whose first key is the example's own.
            one = Batch(*jax.tree.map(lambda a: a[None], example), batch.hparams)
            return jax.tree.map(lambda a: a[0], self.loss(params, state, one)[0])

        return jax.vmap(loss_of_example)(batch.data, batch.keys, batch.mask), state

    def evaluate(
        self,
        measure: Callable[[nnx.Module, Batch], Any],
        params: PyTree,
        state: PyTree,
        batch: Batch,
    ) -> Any:
        """Returns `measure(model, batch)` of the model in evaluation mode."""
        model = self._merge(params, state, batch)
        model.eval()
        return measure(model, batch)

    def diagnose(
        self,
        diagnostics: Diagnostics,
        loss: Callable[[nnx.Module, Batch], jax.Array],
        params: PyTree,
        state: PyTree,
        train: PyTree,
        hparams: Hparams = NO_HPARAMS,
    ) -> dict[str, jax.Array]:
        """Returns the diagnostics, for which it makes the mean loss of examples."""

        def mean_loss(params: PyTree, examples: PyTree) -> jax.Array:
            count = len(jax.tree.leaves(examples)[0])
            # The same keys at every call, so that the loss is one function of the parameters.
            keys = jax.random.split(make_key(0), count)
            batch = Batch(examples, keys, jnp.ones(count, bool), hparams)
            losses = self.evaluate(loss, params, state, batch)
            if isinstance(losses, Weighted):
                return jnp.average(losses.values, weights=losses.weights)
            return jnp.mean(losses)

        return call_with_hparams(diagnostics, mean_loss, params, train, hparams=hparams)

    def combine_state(self, params: PyTree, state: PyTree, parts: PyTree) -> PyTree:
        """Returns the state after a batch, from those after parts of it."""
        streams = _begin(self._streams, make_key(0))  # Needed to make a model, but not used.
        # Copies, as in `_merge`.
        model = nnx.merge(self._graph, params, streams, state, copy=True)
        part_models = nnx.merge(self._graph, params, streams, parts, copy=True)
        for norm, part in zip(ghost_norms(model), ghost_norms(part_models), strict=True):
            norm.combine(part)
        _, _, _, new_state = nnx.split(model, *_PARTS)
        return new_state

    def _merge(self, params: PyTree, state: PyTree, batch: Batch) -> nnx.Module:
        """Returns the model, with random streams that begin at the key of the first example."""
        # A clone, since the loss may use the same key.
        key = jax.random.fold_in(jax.random.clone(batch.keys)[0], _STREAMS)
        streams = _begin(self._streams, key)
        # A copy, since the variables of `state` belong to the trace outside the gradient.
        return nnx.merge(self._graph, params, streams, state, copy=True)


class _Norm(NamedTuple):
    """Facts about a ghost batch normalization layer."""

    ghost_size: int
    momentum: float | None
    num_statistics: int


def ghost_norms(model: nnx.Module) -> list[models.GhostBatchNorm]:
    """Returns the model's ghost batch normalization layers."""
    layers = (layer for _, layer in nnx.iter_graph(model))
    return [layer for layer in layers if isinstance(layer, models.GhostBatchNorm)]


def _check_functions(make_model: Any, *functions: Any) -> None:
    """Raises ValueError for a model or a result in place of a function."""
    if isinstance(make_model, nnx.Module):
        kind = type(make_model).__name__
        raise ValueError(
            f"make_model must be a function from nnx.Rngs to a model, but it is a {kind}; write "
            f"lambda rngs: {kind}(..., rngs=rngs)."
        )
    for value in (make_model, *functions):
        if not callable(value):
            raise ValueError(f"from_nnx needs a function, but got {value!r:.80}.")


def _make_and_check(
    make_model: Callable[..., nnx.Module], rngs: nnx.Rngs, hparams: Hparams
) -> nnx.Module:
    """Calls `make_model`, and raises ValueError unless it returns an NNX model."""
    with nnx.use_eager_sharding(False):  # The pool shares parameters, and has its own mesh.
        model = call_with_hparams(make_model, rngs, hparams=hparams)
    if not isinstance(model, nnx.Module):
        is_linen = hasattr(model, "apply") and hasattr(model, "init")
        hint = " For a Flax Linen module use noisegen.training.Task." if is_linen else ""
        raise ValueError(
            f"make_model must return an nnx.Module, but it returned {_validate.kind(model)}.{hint}"
        )
    _mark_arrays_as_data(model)
    return model


def _mark_arrays_as_data(model: nnx.Module) -> None:
    """Marks attributes that are arrays as data, because Flax takes them for constants in a trace.

    Raises:
      ValueError: If an attribute is a Python container of arrays.
    """
    known = [path for path, _ in nnx.to_flat_state(nnx.state(model))]
    # A list of the attributes, because they change in the loop.
    for path, module in nnx.iter_modules(model):
        for name, value in list(vars(module).items()):
            is_container = isinstance(value, list | tuple | dict)
            arrays = jax.tree.leaves(value) if is_container else [value]
            if not any(isinstance(array, jax.Array) for array in arrays):
                continue
            attribute = (*path, name)
            # The attribute itself, or something within it, is known to Flax already.
            if any(other[: len(attribute)] == attribute for other in known):
                continue
            if is_container:
                raise ValueError(
                    f"Attribute {name} of {type(module).__name__} holds arrays in a "
                    f"{type(value).__name__}: use nnx.List, nnx.Dict or nnx.data, so that Flax "
                    "finds them."
                )
            if isinstance(module, nnx.Dropout) and name == "rate":
                raise ValueError(
                    "The rate of nnx.Dropout must be a Python number, but it is traced, as all "
                    "numbers of runs are: use noisegen.models.Dropout(rate, rngs=rngs)."
                )
            setattr(module, name, nnx.data(value))


class _Arrays(Mapping):
    """The numbers of a run as arrays, so that Flax treats one that a model keeps as data.

    Reading a boolean or a word raises ValueError. It might choose a layer, but the layers of a task
    are fixed when it is made, before there are runs.
    """

    def __init__(self, values: Hparams):
        self._values = values

    def __getitem__(self, name: str) -> jax.Array:
        value = self._values[name]
        if isinstance(value, bool | str):
            raise ValueError(
                f"make_model reads the run's {name}={value!r}, but gets numbers only: read it from "
                "batch.hparams when the model is called, or make a task for each of its values."
            )
        return jnp.asarray(value, device_type(name))

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class _AnyNumbers(collections.defaultdict):
    """The numbers of a run that is not known yet. Every field has the same traced value.

    Args:
      traced: A traced number.
    """

    def __init__(self, traced: jax.Array):
        super().__init__()
        self._traced = traced

    def __missing__(self, name: str) -> jax.Array:
        return self._traced.astype(device_type(name))


def _abstract_parts(make_model: Callable[..., nnx.Module]) -> tuple[Any, Any, Any, list]:
    """Returns graph, random streams, state and ghost norms of a model, without computing any."""
    static = {}  # Values that are not arrays cannot be returned through eval_shape.

    # Under eval_shape no parameter is initialized, which takes seconds for a large network.
    def split(traced: jax.Array) -> tuple[Any, Any]:
        model = _make_and_check(make_model, nnx.Rngs(0), _AnyNumbers(traced))
        static["norms"] = [
            _Norm(
                norm.ghost_size,
                norm.momentum,
                num_statistics=len(jax.tree.leaves(nnx.state(norm, nnx.BatchStat))),
            )
            for norm in ghost_norms(model)
        ]
        static["graph"], params, streams, state = nnx.split(model, *_PARTS)
        if not jax.tree.leaves(params):
            raise ValueError(
                f"The {type(model).__name__} has no nnx.Param to train: make its layers in "
                "__init__. A Linen module in nnx.bridge.ToNNX makes its own in lazy_init(example)."
            )
        return streams, state

    try:
        streams, state = jax.eval_shape(split, jax.ShapeDtypeStruct((), jnp.float32))
    except TypeError as error:
        if not takes_hparams(make_model) or not needs_value(error):
            raise
        raise ValueError(
            "make_model needs the value of a hyperparameter, but it gets numbers only, and they "
            "are traced. If it sets a shape or the kind of a layer, make a task for each of its "
            f"values, as a sweep does with a static field: {first_line(error)}"
        ) from error
    return static["graph"], streams, state, static["norms"]


def _check_arrays_are_kept(before: Any, after: Any) -> None:
    """Raises ValueError if a call changed an array that is not a variable."""
    kept = dict(nnx.to_flat_state(before))
    for path, leaf in nnx.to_flat_state(after):
        if not isinstance(leaf, nnx.Variable) and leaf is not kept[path]:
            raise ValueError(
                f"The model changes {'.'.join(map(str, path))} while it is called: make it an "
                "nnx.Variable. Other arrays are constant in a model made from hyperparameters."
            )


def _remove_new(model: nnx.Module, state: Any, params: Any) -> None:
    """Removes variables that a call added to a model, such as sown activations.

    Raises:
      ValueError: If the call made a parameter or a variable that would be forgotten.
    """
    known = {path for tree in (state, params) for path, _ in nnx.to_flat_state(tree)}
    has_new = False
    for path, variable in nnx.to_flat_state(nnx.state(model)):
        if path in known or isinstance(variable, nnx.RngState):
            continue
        has_new = True
        if not _is_sown(variable):
            raise ValueError(
                f"The model makes {'.'.join(map(str, path))} "
                f"({type(variable).__name__}) while it is called, too late to be kept or trained: "
                "make it in __init__."
            )
    if has_new:
        nnx.pop(model, lambda path, _: path not in known)


def _is_sown(variable: Any) -> bool:
    """Returns whether `sow` made a variable: it collects values in tuples."""
    if isinstance(variable, nnx.Intermediate):
        return True
    is_other = isinstance(variable, nnx.Variable) and not isinstance(variable, nnx.Param)
    return is_other and isinstance(variable.get_value(), tuple)


def _begin(streams: Any, key: jax.Array) -> Any:
    """Returns the random streams of a model's layers at their start, each with its own key."""
    leaves, treedef = jax.tree.flatten(streams)

    def begin(index: int, leaf: Any) -> jax.Array:
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jnp.zeros(leaf.shape, leaf.dtype)  # The count of draws.
        own_key = jax.random.fold_in(key, index)
        # Stacked layers have an array of keys.
        return jax.random.split(own_key, leaf.shape) if leaf.shape else own_key

    return treedef.unflatten([begin(index, leaf) for index, leaf in enumerate(leaves)])
