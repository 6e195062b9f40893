"""What is trained: the functions and arrays that the pool compiles.

A ``Task`` is plain functions over pytrees: nothing here knows of Flax, of a data set's name or of a
file. ``noisegen.tasks`` builds tasks from Flax NNX models.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

PyTree = Any
# The run's fields: numbers as traced scalars, booleans and words as they are.
Hparams = Mapping[str, jax.Array | bool | str]


def make_key(seed: jax.typing.ArrayLike) -> jax.Array:
    """The key of a seed: equal on every platform, whatever JAX's default."""
    return jax.random.key(seed, impl="threefry2x32")


def begun(task: "Task", key: jax.Array) -> tuple[PyTree, PyTree]:
    """Returns a run's first parameters and state, with arrays in the place of Python numbers."""

    def array(leaf):
        return leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf, jnp.result_type(leaf))

    return jax.tree.map(array, task.init(key))


@functools.lru_cache(maxsize=2)
def abstract_init(task: "Task") -> tuple[PyTree, PyTree]:
    """Returns the shapes and dtypes of a task's parameters and state."""
    # The key is made while tracing: outside, it would be sent to the device.
    return jax.eval_shape(lambda: task.init(make_key(0)))


class Batch(NamedTuple):
    """One microbatch, as the functions of a task see it.

    Attributes:
      data: the task's arrays, each ``(M, ...)``.
      keys: ``(M,)`` PRNG keys, one an example. A key depends on the run and on the example's place
        in its stream alone, so whatever is drawn from it (augmentation, dropout) does not change
        with the microbatch.
      mask: ``(M,)`` booleans. The loss of an example outside the mask is not counted; a function
        that mixes examples (normalisation) must leave those out itself.
    """

    data: PyTree
    keys: jax.Array
    mask: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """Model, loss, data and optimizer: everything about training that is compiled.

    Attributes:
      name: identity of the task. It enters the hash of every run, so two tasks that train
        differently must have different names.
      train: pytree of arrays ``(N, ...)``, held whole on the device.
      test: pytree of arrays ``(T, ...)``, as ``metrics`` takes them.
      init: ``key -> (params, state)``. ``state`` is what training changes without a gradient
        (running statistics); ``()`` where there is none.
      loss: ``(params, state, Batch) -> (losses (M,), state)``, one loss an example. The gradient of
        an update is that of the mean loss over exactly ``batch_size`` examples.
      metrics: ``(params, state, Batch) -> {name: (M,)}``, averaged over the test set.
      train_metrics: the same, of the training set as ``loss`` gets it, measured once, at the end of
        a run.
      diagnostics: ``(params, state, train) -> {name: ()}``, whatever else is to be measured
        whenever the test set is evaluated, of the training set or of the parameters alone, such as
        the functions of `noisegen.diagnostics`, under names that no metric has. A value that is not
        finite is recorded as such.
      make_optimizer: ``(hparams, key) -> optax.GradientTransformation``, called while tracing.
        ``hparams`` holds the run's numbers as traced scalars, its booleans and words as Python
        values, and ``num_updates`` (the horizon), ``updates_per_epoch`` and ``num_examples`` (of
        the training set). ``key`` is the run's own. The optimizer's ``update`` gets ``value`` (the
        mean loss of the batch) and ``grad`` (its mean gradient) as extra arguments. An optimizer
        that needs more, such as the loss function itself, is refused.
      eval_params: ``(opt_state, params) -> params``, the parameters at which metrics and
        diagnostics are evaluated, and which a run keeps; by default the trained ones. An optimizer
        that averages its iterates needs it, for instance
        ``optax.contrib.schedule_free_eval_params``.
      noise_group: measures the noise of the gradient, from the gradients of groups of this many
        examples: a microbatch is one such group, and every batch must have two or more. Update
        functions that take them get ``batch_size`` and ``gradient_noise`` (see
        `noisegen.diagnostics.estimate_gradient_noise_from_sums`) of the batch, as
        `noisegen.matched_noise` needs them;
        and the run's curve has ``gradient_noise_scale``, ``gradient_variance`` (trace of the
        covariance, an example's) and ``gradient_squared_norm``, from the means of the last two over
        the updates since the evaluation before. The trace is unbiased; the squared norm where
        batches are drawn without replacement (``last_batch`` other than ``straddle``, of which a
        batch over two epochs is a little noisier: by up to trace / 2N) and not augmented.
      example_weights: ``hparams -> ((key, places (M,), batch size) -> (M,))``, weights of the
        examples' losses, of mean 1 over a batch. ``key`` is one of the update, ``places`` those in
        the batch, such as `noisegen.matched_weights` takes them. The recorded `train_loss` is
        without weights.
      batch_size: ``hparams -> (update count -> batch size)``, for a batch that grows; by default
        the run's constant ``batch_size``. Must accept NumPy arrays of counts as well as tracers,
        and may read the run's own numbers and ``num_examples`` only: the horizon follows from it.
      ghost_size: examples whose order and company matter to the model (ghost batch normalization).
        Batches are cut into whole groups of this size, in the order of the run's stream: a
        microbatch is a multiple of it, and so is a batch size, unless it is smaller. Then the
        result does not depend on the microbatch.
      only_batch_size: the batch size that the task is made for, if its data or its state depend
        on it. If it equals ``ghost_size``, every microbatch is one whole batch. Then a layer may
        mix the examples of the batch without looking at the mask, as plain batch normalization
        does.
      shuffle: whether an epoch visits the examples in an order of its own; if not, in theirs.
      recompute_state: evaluate with the state that one pass of `loss` over the training set leaves,
        from `init`'s on, at the parameters in question, instead of the one that training left. It
        costs a third of an epoch at every evaluation, and again for `train_metrics`.
      combine_state: ``(params, state, parts) -> state``, the state after a microbatch that was
        spread over devices, from the states that its parts left, in order: on a leading axis of
        ``parts``, each having begun with ``state``. Without it the batch of a task with a state
        cannot be spread. `noisegen.tasks.from_nnx` knows how for ghost batch normalisation.
      joint_loss: as ``loss``, of a task whose ``loss`` takes one example at a time. A pool does not
        train with it, but checks with it that the model keeps examples apart.
      source: one line on where the data come from, for the report.
    """

    name: str
    train: PyTree
    test: PyTree
    init: Callable[[jax.Array], tuple[PyTree, PyTree]]
    loss: Callable[[PyTree, PyTree, Batch], tuple[jax.Array, PyTree]]
    metrics: Callable[[PyTree, PyTree, Batch], dict[str, jax.Array]]
    make_optimizer: Callable[[Hparams, jax.Array], optax.GradientTransformation]
    train_metrics: Callable[[PyTree, PyTree, Batch], dict[str, jax.Array]] = lambda *_: {}
    diagnostics: Callable[[PyTree, PyTree, PyTree], dict[str, jax.Array]] = lambda *_: {}
    noise_group: int | None = None
    eval_params: Callable[[optax.OptState, PyTree], PyTree] | None = None
    example_weights: Callable[[Hparams], Callable[..., jax.Array]] | None = None
    batch_size: Callable[[Hparams], Callable[[Any], Any]] | None = None
    ghost_size: int = 1
    only_batch_size: int | None = None
    shuffle: bool = True
    recompute_state: bool = False
    combine_state: Callable[[PyTree, PyTree, PyTree], PyTree] | None = None
    joint_loss: Callable[[PyTree, PyTree, Batch], tuple[jax.Array, PyTree]] | None = None
    source: str = ""

    def __post_init__(self):
        if self.ghost_size < 1:
            raise ValueError(
                f"Task {self.name!r}: ghost_size={self.ghost_size} must be at least 1."
            )
        self._check_noise()
        for split in ("train", "test"):
            lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(getattr(self, split))}
            if len(lengths) != 1 or lengths & {(), (0,)}:
                raise ValueError(
                    f"Task {self.name!r}: the arrays of {split!r} must share one leading axis of "
                    f"at least 1 example, got lengths {sorted(sum(lengths, ()))}."
                )

    def _check_noise(self):
        if self.noise_group is None and self.example_weights is None:
            return
        if not self.shuffle:
            raise ValueError(
                f"Task {self.name!r}: shuffle must be True, since noise is measured of examples, "
                "and weights are drawn for examples, that chance has put together."
            )
        # Pairs of weights must not be cut, and neither must ghost batches.
        unit = math.lcm(self.ghost_size, 2 if self.example_weights else 1)
        if self.noise_group is not None and (self.noise_group < 1 or self.noise_group % unit):
            raise ValueError(
                f"Task {self.name!r}: noise_group={self.noise_group} must be at least 1 and a "
                f"multiple of {unit}: of the ghost size and, where examples have weights, of 2."
            )

    @property
    def takes_whole_batches(self) -> bool:
        """Says that every microbatch is one whole batch."""
        return self.only_batch_size is not None and self.only_batch_size == self.ghost_size > 1

    @property
    def num_examples(self) -> int:
        """Examples of the training set, N."""
        return len(jax.tree.leaves(self.train)[0])
