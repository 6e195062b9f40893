"""Defines a task: the functions and arrays that the pool compiles.

A ``Task`` is plain functions over pytrees. Nothing here knows of Flax, of a data set's name or of a
file. ``noisegen.tasks`` builds tasks from Flax NNX models.
"""

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from noisegen.training import sources
from noisegen.training.plan import Plan
from noisegen.training.run_id import Value

PyTree = Any
# The run's fields: numbers as traced scalars, booleans and words as they are.
Hparams = Mapping[str, jax.Array | bool | str]


def make_key(seed: jax.typing.ArrayLike) -> jax.Array:
    """Returns the key of a seed, equal on every platform, whatever JAX's default."""
    # Of JAX's generators this one draws the same numbers under `vmap` and for every sharding.
    return jax.random.key(seed, impl="threefry2x32")


@jax.tree_util.register_static
class RunHparams(Mapping):
    """The hyperparameters of one run, as a task's functions read them.

    It is a pytree without leaves, so a function can be mapped over the examples of a `Batch`.

    Args:
      values: Numbers, traced or not, booleans and words by field.
      read: Set that collects the names that are read, whether they are present or not.
    """

    def __init__(self, values: Mapping[str, Any], read: set[str] | None = None):
        self._values = values
        self._read = set() if read is None else read

    def __getitem__(self, name: str) -> Any:
        self._read.add(name)
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def on_device(self) -> "RunHparams":
        """Returns the same hyperparameters, with the numbers sent to the device."""
        sent = {
            name: value if isinstance(value, bool | str) else jax.device_put(value)
            for name, value in self._values.items()
        }
        return RunHparams(sent, self._read)

    # Compared by identity, because traced values can be neither compared nor hashed.
    __eq__ = object.__eq__
    __hash__ = object.__hash__


def lacking_names(error: KeyError, read: Collection[str], given: Collection[str]) -> set[str]:
    """Returns the hyperparameter that an error is about; none if it is about another mapping.

    Args:
      error: Raised by a function of a task.
      read: Names that the function has read, those included that it asked for with a default.
      given: Names of the run.
    """
    return {name for name in read if name not in given and name in error.args}


NO_HPARAMS = RunHparams({})


def takes_hparams(function: Callable[..., Any]) -> bool:
    """Returns whether a function or a class has an argument named `hparams`."""
    if isinstance(function, type):
        function = function.__init__  # The metaclass of Flax hides the arguments.
    try:
        return "hparams" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # Some built-in functions have no signature.
        return False


def call_with_hparams(function: Callable[..., Any], *arguments: Any, hparams: Hparams) -> Any:
    """Calls a function, with the run's hyperparameters if it has an argument of that name."""
    if takes_hparams(function):
        return function(*arguments, hparams=hparams)
    return function(*arguments)


def concrete_init(task: "Task", key: jax.Array, hparams: Hparams) -> tuple[PyTree, PyTree]:
    """Returns a run's first parameters and state, with Python numbers made into arrays."""

    def array(leaf: Any) -> Any:
        if hasattr(leaf, "dtype"):
            return leaf
        # With an explicit type the array is strongly typed, as it is after an update.
        return jnp.asarray(leaf, jnp.result_type(leaf))

    initial = call_with_hparams(task.init, key, hparams=hparams)
    return jax.tree.map(array, without_annotations(initial))


def abstract_init(task: "Task", hparams: Hparams = NO_HPARAMS) -> tuple[PyTree, PyTree]:
    """Returns the shapes and dtypes of a task's parameters and state.

    Args:
      task: The task.
      hparams: Hyperparameters of a run, needed only if `init` takes them.
    """
    return without_annotations(annotated_init(task, hparams))


def annotated_init(task: "Task", hparams: Hparams = NO_HPARAMS) -> tuple[PyTree, PyTree]:
    """Returns the shapes and dtypes as `abstract_init` does, with the annotations of Flax Linen."""
    if not takes_hparams(task.init):
        return _annotated_init(task)
    return jax.eval_shape(lambda: task.init(make_key(0), hparams=hparams))


@functools.lru_cache(maxsize=2)
def _annotated_init(task: "Task") -> tuple[PyTree, PyTree]:
    """Returns the shapes and dtypes that `init` returns for every run."""
    # The key is made while tracing: outside, it would be sent to the device.
    return jax.eval_shape(lambda: task.init(make_key(0)))


def is_annotated(node: Any) -> bool:
    """Returns whether a node of a tree is an array in a box with annotations, as in Flax Linen."""
    return hasattr(node, "unbox") and hasattr(node, "get_partition_spec")


def without_annotations(tree: PyTree) -> PyTree:
    """Returns a tree with the arrays in place of the boxes around them."""

    def unboxed(node: Any) -> Any:
        # Not by `unbox`, which would look for the axes in the mesh.
        return jax.tree.leaves(node)[0] if is_annotated(node) else node

    return jax.tree.map(unboxed, tree, is_leaf=is_annotated)


class Batch(NamedTuple):
    """One microbatch, as the functions of a task see it.

    Attributes:
      data: The task's arrays, each ``(M, ...)``.
      keys: ``(M,)`` PRNG keys, one per example. A key depends only on the run and on the example's
        position in its stream. Random draws from it (augmentation, dropout) therefore do not change
        with the microbatch.
      mask: ``(M,)`` booleans. The loss of an example outside the mask is not counted. A function
        that mixes examples (normalization) must leave those out itself.
      hparams: The run's hyperparameters, in training and in evaluation, as ``make_optimizer`` gets
        them.

    Examples:
      >>> def loss(params, state, batch):
      ...     targets = jax.nn.one_hot(batch.data["label"], 10)
      ...     targets = optax.smooth_labels(targets, batch.hparams["label_smoothing"])
      ...     return optax.softmax_cross_entropy(batch.data["x"] @ params, targets), state
    """

    data: PyTree
    keys: jax.Array
    mask: jax.Array
    hparams: Hparams = NO_HPARAMS


# Compared by identity, so that a task can be the key of a cache. Comparing its arrays is slow.
@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """Model, loss, data and optimizer: everything about training that is compiled.

    Every function may read the run's hyperparameters. ``loss``, ``metrics`` and ``train_metrics``
    find them in `Batch.hparams`. ``init`` and ``diagnostics`` get them if they have an argument
    named ``hparams``. Numbers are traced, so one program trains runs that differ in them. No
    function may therefore need their value (``if hparams["x"] > 0``) or set a shape with them.
    Booleans and words are Python values.

    Attributes:
      name: Identity of the task. It enters the id of every run, so two tasks that train differently
        must have different names.
      train: Pytree of arrays ``(N, ...)``, held whole on the device if they fit (see
        `PoolConfig.data`). Or a source: any object with ``len(source)`` and ``source[indices]``, a
        pytree of NumPy arrays ``(n, ...)`` for indices ``(n,)``, such as what
        `noisegen.data.token_windows` and `noisegen.data.one_by_one` return.
      test: Pytree of arrays ``(T, ...)`` or a source, as ``metrics`` takes them.
      valid: Like ``test``, but to choose hyperparameters on, or None. If given, every evaluation
        measures ``metrics`` on it as well, under names with ``valid_`` in place of ``test_``:
        ``valid_accuracy`` beside ``test_accuracy``. A name that does not begin with ``test_`` gets
        ``valid_`` in front.
      init: ``key -> (params, state)``, or ``(key, hparams) -> ...``. The shapes must not depend on
        a number of ``hparams``. Training changes ``state`` without a gradient (running
        statistics). It is ``()`` if there is none.
      loss: ``(params, state, Batch) -> (losses (M,), state)``, one loss per example. An update uses
        the gradient of the mean loss over exactly ``batch_size`` examples. Losses with weights,
        such as those of the tokens of padded text, are `noisegen.training.Weighted`.
      metrics: ``(params, state, Batch) -> {name: (M,)}``, averaged over the test set. Each may be
        `noisegen.training.Weighted`, too.
      train_metrics: The same for the training set as ``loss`` gets it, evaluated once, at the end
        of a run.
      diagnostics: ``(params, state, train) -> {name: ()}``, or ``(params, state, train, hparams)
        -> ...``, evaluated with the test set, for instance the functions of `noisegen.diagnostics`.
        They take the whole training set, which must then be held on the device.
        The names must differ from those of the metrics. A value that is not finite is recorded as
        such.
      make_optimizer: ``(hparams, key) -> optax.GradientTransformation``, called while tracing.
        ``hparams`` holds the run's numbers as traced scalars, and its booleans and words as Python
        values. It also holds ``num_updates`` (the horizon), ``updates_per_epoch`` and
        ``num_examples`` (of the training set). The schedules of ``noisegen`` take traced numbers,
        and most of optax's do not. ``key`` is the run's own. The optimizer's ``update``
        gets ``value`` (the mean loss of the batch) and ``grad`` (its mean gradient) as extra
        arguments. An optimizer that needs more, such as the loss function itself, is refused.
      eval_params: ``(opt_state, params) -> params``, the parameters to evaluate and to keep, by
        default the trained ones. An optimizer that averages its iterates needs it, for instance
        ``optax.contrib.schedule_free_eval_params``.
      noise_microbatch: Measures the noise of the gradient from the gradients of microbatches of
        this many examples. Every batch must have two or more of them. The optimizer's ``update``
        then gets ``batch_size`` and ``gradient_noise`` (see
        `noisegen.diagnostics.estimate_gradient_noise_from_sums`) as extra arguments, as
        `noisegen.matched_noise` needs them. The run's curve has
        ``gradient_noise_scale``, ``gradient_variance`` (trace of the covariance of an example's
        gradient) and ``gradient_squared_norm``, from the means of the last two over the updates
        since the evaluation before. The trace is unbiased. The squared norm is unbiased if batches
        are drawn without replacement and not augmented. With ``last_batch='straddle'`` a batch over
        two epochs is noisier, by up to trace / 2N.
      example_weights: ``hparams -> ((key, positions (M,), batch size) -> (M,))``, weights of the
        examples' losses, of mean 1 over a batch. ``key`` is one of the update, ``positions`` count
        the examples of the batch, as `noisegen.matched_weights` takes them. The recorded
        `train_loss` is without weights.
      batch_size: ``hparams -> (update count -> batch size)``, for a batch that grows, by default
        the run's constant ``batch_size``. It must accept NumPy arrays of counts as well as tracers.
        It may read the run's own fields and ``num_examples`` only, because the horizon follows
        from it.
      check_run: ``(hparams, Plan) -> None``, called with each run before it is trained. It raises
        ValueError for a run that this task cannot train. An example is
        `noisegen.tasks.check_matched_noise`.
      ghost_size: Examples whose order and company matter to the model (ghost batch normalization).
        Batches are cut into whole groups of this size, in the order of the run's stream. A
        microbatch is a multiple of it, and so is a batch size, unless it is smaller. Then the
        result does not depend on the microbatch.
      only_batch_size: The batch size that the task is made for, if its data or its state depend on
        it. If it equals ``ghost_size``, every microbatch is one whole batch. Then a layer may mix
        the examples of the batch without looking at the mask, as plain batch normalization does.
      static: Fields of the runs that the task is made for, with their values, such as a width that
        sets shapes. Runs have these fields, and a run with another value is refused. A
        `noisegen.sweeps.Sweep` with static fields adds them by itself.
      shuffle: Whether an epoch visits the examples in an order of its own, or in theirs.
      recompute_state: Whether to evaluate with the state after one pass of `loss` over the training
        set at the evaluated parameters, in place of the state that training left. It costs a third
        of an epoch at every evaluation, and again for `train_metrics`.
      combine_state: ``(params, state, parts) -> state``, the state after a microbatch that devices
        shared. ``parts`` holds the states that its shares left, in order, on a leading axis, each
        begun with ``state``. Without it the batch of a task with a state cannot be shared.
        `noisegen.tasks.from_nnx` supplies it for ghost batch normalization.
      partition: ``params -> specs``, a `jax.sharding.PartitionSpec` over the axis "model" for each
        parameter, which says what the devices of `PoolConfig.model_devices` share. It is called
        with shapes and types as ``init`` returns them. None in place of a spec, or a spec without
        the axis, leaves a copy on each of them. The state of the optimizer follows the parameters.
        Without this function, the annotations of Flax Linen in ``init`` count
        (``flax.linen.with_partitioning``). `noisegen.tasks.from_nnx` reads those of NNX.
      joint_loss: The same as ``loss``, if ``loss`` takes one example at a time. A pool does not
        train with it, but checks with it that the model keeps examples apart.
      data_description: The data in one line, for the report.

    Examples:
      Two runs with a small initial weight, which differ in a penalty in the loss:

      >>> from noisegen import training
      >>> x = np.linspace(-1, 1, 16, dtype=np.float32)
      >>> def squared_error(w, batch):
      ...     return (w * batch.data["x"] - batch.data["y"]) ** 2
      >>> task = training.Task(
      ...     name="slope",
      ...     train={"x": x, "y": 3 * x},
      ...     test={"x": x, "y": 3 * x},
      ...     init=lambda key, hparams: (hparams["init_scale"] * jax.random.normal(key), ()),
      ...     loss=lambda w, state, batch: (
      ...         squared_error(w, batch) + batch.hparams["penalty"] * w**2, state
      ...     ),
      ...     metrics=lambda w, state, batch: {"test_loss": squared_error(w, batch)},
      ...     make_optimizer=lambda hparams, key: optax.sgd(hparams["learning_rate"]),
      ... )
      >>> run = dict(batch_size=16, num_updates=99, seed=0, learning_rate=0.5, init_scale=0.1)
      >>> runs = [run | {"penalty": penalty} for penalty in (0.0, 0.1)]
      >>> results = training.Pool(task, training.PoolConfig(lanes=2)).train(runs)
      >>> sorted(result.metrics["test_loss"] < 0.01 for result in results)
      [False, True]
    """

    name: str
    train: PyTree
    test: PyTree
    init: Callable[[jax.Array], tuple[PyTree, PyTree]]
    loss: Callable[[PyTree, PyTree, Batch], tuple[jax.Array, PyTree]]
    metrics: Callable[[PyTree, PyTree, Batch], dict[str, jax.Array]]
    make_optimizer: Callable[[Hparams, jax.Array], optax.GradientTransformation]
    valid: PyTree | None = None
    train_metrics: Callable[[PyTree, PyTree, Batch], dict[str, jax.Array]] = lambda *_: {}
    diagnostics: Callable[[PyTree, PyTree, PyTree], dict[str, jax.Array]] = lambda *_: {}
    noise_microbatch: int | None = None
    eval_params: Callable[[optax.OptState, PyTree], PyTree] | None = None
    example_weights: Callable[[Hparams], Callable[..., jax.Array]] | None = None
    batch_size: Callable[[Hparams], Callable[[Any], Any]] | None = None
    check_run: Callable[[Mapping[str, Any], Plan], None] | None = None
    ghost_size: int = 1
    only_batch_size: int | None = None
    static: Mapping[str, Value] = dataclasses.field(default_factory=dict)
    shuffle: bool = True
    recompute_state: bool = False
    combine_state: Callable[[PyTree, PyTree, PyTree], PyTree] | None = None
    partition: Callable[[PyTree], PyTree] | None = None
    joint_loss: Callable[[PyTree, PyTree, Batch], tuple[jax.Array, PyTree]] | None = None
    data_description: str = ""

    def __post_init__(self):
        if self.ghost_size < 1:
            raise ValueError(
                f"Task {self.name!r}: ghost_size={self.ghost_size} must be at least 1."
            )
        self._check_noise()
        for split, examples in self.splits.items():
            if sources.is_source(examples):
                where = f"The {split} set of task {self.name!r}"
                object.__setattr__(self, split, sources.HostExamples(examples, where))
                continue
            lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(examples)}
            if not lengths:
                raise ValueError(
                    f"Task {self.name!r}: {split!r} has no arrays. Give a dict of arrays, or an "
                    "object with len(source) and source[indices]."
                )
            if len(lengths) != 1 or lengths & {(), (0,)}:
                raise ValueError(
                    f"Task {self.name!r}: the arrays of {split!r} must share one leading axis of "
                    f"at least 1 example, got lengths {sorted(sum(lengths, ()))}."
                )

    def _check_noise(self) -> None:
        """Checks the fields of gradient noise and example weights."""
        if self.noise_microbatch is None and self.example_weights is None:
            return
        # Neighbors in a fixed order may be alike, and their gradients correlated.
        if not self.shuffle:
            raise ValueError(
                f"Task {self.name!r}: shuffle must be True, because the noise of gradients and "
                "the weights of examples need batches of random examples."
            )
        # Pairs of weights must not be cut, and neither must ghost batches.
        unit = math.lcm(self.ghost_size, 2 if self.example_weights else 1)
        if self.noise_microbatch is None:
            return
        if self.noise_microbatch < 1 or self.noise_microbatch % unit:
            raise ValueError(
                f"Task {self.name!r}: noise_microbatch={self.noise_microbatch} must be at least 1 "
                f"and a multiple of {unit}: of the ghost size and, if examples have weights, of 2."
            )

    @property
    def takes_whole_batches(self) -> bool:
        """Whether every microbatch is one whole batch."""
        # With a ghost size of 1 no examples mix, and a batch may be cut.
        return self.only_batch_size is not None and self.only_batch_size == self.ghost_size > 1

    @property
    def splits(self) -> dict[str, PyTree]:
        """The examples of every split by name: 'train', 'test' and, if there is one, 'valid'."""
        splits = {"train": self.train, "test": self.test}
        if self.valid is not None:
            splits["valid"] = self.valid
        return splits

    @property
    def num_examples(self) -> int:
        """Examples of the training set, N."""
        return sources.num_examples(self.train)

    @property
    def num_test_examples(self) -> int:
        """Examples of the test set, T."""
        return sources.num_examples(self.test)

    @property
    def num_valid_examples(self) -> int:
        """Examples of the validation set, V; 0 if there is none."""
        return 0 if self.valid is None else sources.num_examples(self.valid)


def build_optimizer(task: Task, hparams: Hparams, key: jax.Array) -> optax.GradientTransformation:
    """Builds a run's optimizer; `optax.MultiSteps` becomes a gradient transformation."""
    optimizer = task.make_optimizer(hparams, key)
    # It has `init` and `update`, but is no transformation that optax can wrap.
    if isinstance(optimizer, optax.MultiSteps):
        return optax.GradientTransformationExtraArgs(optimizer.init, optimizer.update)
    return optimizer


def update_optimizer(
    optimizer: optax.GradientTransformation,
    gradient: PyTree,
    opt_state: optax.OptState,
    params: PyTree,
    value: jax.Array,
    extra: dict[str, Any],
) -> tuple[PyTree, optax.OptState]:
    """Calls an optimizer with all that a pool knows of the batch.

    Args:
      optimizer: Optimizer of the run.
      gradient: Mean gradient of the batch.
      opt_state: State of the optimizer before the update.
      params: Parameters before the update.
      value: Mean loss of the batch, ().
      extra: Further arguments, see `noisegen.training.Task.noise_microbatch`.

    Returns:
      The updates, and the optimizer's next state.
    """
    optimizer = optax.with_extra_args_support(optimizer)
    given = {"value": value, "grad": gradient, **extra}
    # Binding checks the names of the arguments without a call, which might raise TypeError itself.
    try:
        inspect.signature(optimizer.update).bind(gradient, opt_state, params, **given)
    except TypeError:  # Some optimizers, such as optax.contrib.sam, refuse unknown arguments.
        given = extra
    return optimizer.update(gradient, opt_state, params, **given)


def eval_params(task: Task, opt_state: optax.OptState, params: PyTree) -> PyTree:
    """Returns the parameters to evaluate."""
    return params if task.eval_params is None else task.eval_params(opt_state, params)
