"""Finds losses and metrics whose values depend on how a batch is cut into microbatches.

A microbatch is a matter of speed. It holds a part of a batch, or a batch and examples outside the
mask. The value for one example must therefore not depend on examples outside the mask, on those of
another ghost group, or on their number. The state must not depend on the number of calls. A plain
batch normalization breaks these rules.

The check calls each function on a few examples: in one call, in two calls, and with other examples
in the second half.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from noisegen._math import ceil_div
from noisegen.training import sources
from noisegen.training.evaluation import metric_spec
from noisegen.training.task import (
    Batch,
    PyTree,
    RunHparams,
    Task,
    abstract_init,
    call_with_hparams,
    make_key,
    without_annotations,
)
from noisegen.training.weighted import Weighted

_HALF = 16  # examples of each half, at least

# Two results of one program differ by less than these if they are equal up to rounding, and by
# far more if batch statistics enter.
_RTOL = 1e-3
_ATOL = 1e-6

# Results of two programs are compared with the distance that they moved: rounding differs by a
# smaller part of it than this, also in bfloat16.
_APART = 0.2


def check_mixing(task: Task, hparams: RunHparams) -> None:
    """Checks that the value for an example does not depend on unrelated examples.

    Args:
      task: The task.
      hparams: Hyperparameters of a run, which the functions get.

    Raises:
      ValueError: If the loss or a metric of an example depends on unrelated examples. A state that
        depends on the number of calls is a warning, and so is a model too large for the check.
    """
    size = _model_size(task, hparams)
    if size > sources.device_memory(jax.local_devices()) / 2:
        warnings.warn(
            f"The parameters of task {task.name!r} take {size / 2**30:.3g} GiB, more than half of "
            "a device's memory, so it is not checked that the loss and the metrics keep examples "
            "apart.",
            stacklevel=2,
        )
        return
    # Sent explicitly, because a user may forbid implicit transfers.
    hparams = hparams.on_device()
    init = _compiled(
        lambda: without_annotations(call_with_hparams(task.init, make_key(0), hparams=hparams))
    )
    params, state = init()
    model = (_moved(jax.device_get(params)), state)

    # Metrics change no state. With the state beside them they have the form of a loss.
    def metrics(params: PyTree, state: PyTree, batch: Batch) -> tuple[PyTree, PyTree]:
        return task.metrics(params, state, batch), state

    def train_metrics(params: PyTree, state: PyTree, batch: Batch) -> tuple[PyTree, PyTree]:
        return task.train_metrics(params, state, batch), state

    # A loss that sees whole batches only may mix their examples.
    if not task.takes_whole_batches:
        loss = task.joint_loss or task.loss
        _check(task, "loss", loss, model, task.train, hparams, task.ghost_size)
    _check(task, "metrics", metrics, model, task.test, hparams, 1)
    if metric_spec(task).train:
        _check(task, "train_metrics", train_metrics, model, task.train, hparams, 1)


def _model_size(task: Task, hparams: RunHparams) -> int:
    """Returns the bytes of a task's parameters and state."""
    initial = jax.tree.leaves(abstract_init(task, hparams))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in initial)


def _check(
    task: Task,
    name: str,
    function: Callable[..., tuple[PyTree, PyTree]],
    model: tuple[PyTree, PyTree],
    examples: PyTree,
    hparams: RunHparams,
    group: int,
) -> None:
    """Checks one function of the task.

    Args:
      task: The task.
      name: Name of the function, for the message.
      function: Function `(params, state, batch) -> (values, state)`.
      model: Parameters and state.
      examples: Split of the data that the function gets.
      hparams: Hyperparameters that the function gets.
      group: Number of consecutive examples that may mix.
    """
    total = sources.num_examples(examples)
    # The halves are whole groups of several examples, because two examples may be alike.
    half = group * ceil_div(_HALF, group)
    if task.only_batch_size and name == "loss":
        # More examples would be those of the next batch.
        half = min(half, task.only_batch_size // 2 // group * group)
    if total == 1 or half == 0:
        return  # There is no other example to exchange.
    trial = _Trial(function, model, examples, hparams, half, task.shuffle)
    _check_weights(trial, task, name)
    # Each check relies on those before: once the mask works, a half can be called within a whole.
    if _mask_is_ignored(trial):
        raise ValueError(_message(task, name, "examples outside batch.mask", group))
    if _halves_mix(trial):
        what = "other examples" if group == 1 else f"other groups of {group} examples"
        raise ValueError(_message(task, name, what, group))
    # A joint loss draws for all examples at once. The pool trains with `loss` in its place.
    if function is task.loss and _draws_are_shared(trial):
        warnings.warn(
            f"The loss of task {task.name!r} draws random numbers for several examples from "
            "one of batch.keys, so that results depend on the microbatch: draw those of every "
            "example from its own key, or give the microbatch.",
            stacklevel=2,
        )
        return  # The draws differ from call to call, so the state cannot be compared.
    _check_calls(trial, task, name, group)


class _Trial:
    """Calls a function with two halves of examples, or with other examples in place of some.

    Attributes:
      half: Number of examples in each half, H.
      seeds: A seed for each example, `(2 H,)`.
      first: Indices of the examples, `(2 H,)`.
      second: Indices of other examples, to be exchanged, `(2 H,)`.
      whole: A mask of all examples, `(2 H,)`.
      state: The state before a call.
    """

    def __init__(
        self,
        function: Callable[..., tuple[PyTree, PyTree]],
        model: tuple[PyTree, PyTree],
        examples: PyTree,
        hparams: RunHparams,
        half: int,
        shuffle: bool,
    ):
        self.half = half
        self.seeds = np.arange(2 * half)
        self.whole = np.ones(2 * half, bool)
        self.state = jax.device_get(jax.tree.map(_comparable, model[1]))
        self._model = model
        self._examples = examples
        total = sources.num_examples(examples)
        random = np.random.RandomState(0)  # Its stream is equal in all versions of NumPy.
        if shuffle:
            self.first = random.randint(total, size=2 * half)
        else:
            # Examples with a fixed order may depend on it, as windows of a text do.
            self.first = self.seeds % total
        # A shift of 1 to total - 1 gives another example in every place.
        self.second = (self.first + random.randint(1, total, size=2 * half)) % total

        @_compiled
        def compiled(
            model: tuple[PyTree, PyTree], data: PyTree, seeds: jax.Array, mask: jax.Array
        ) -> tuple[PyTree, PyTree]:
            keys = jax.vmap(make_key)(seeds)
            batch = Batch(data, keys, mask, hparams)
            return jax.tree.map(_comparable, function(*model, batch))

        self._function = compiled

    @functools.cached_property
    def of_all(self) -> tuple[PyTree, PyTree]:
        """Values and state of a call with all examples."""
        return self.call(self.first, self.whole)

    def call(
        self,
        indices: np.ndarray,
        mask: np.ndarray,
        seeds: np.ndarray | None = None,
        state: PyTree = None,
    ) -> tuple[PyTree, PyTree]:
        """Returns the values of the examples, and the state after the call.

        Args:
          indices: Indices of the examples.
          mask: Mask of the examples.
          seeds: Seeds of their keys, by default `self.seeds`.
          state: State before the call, by default that of the model.
        """
        seeds = self.seeds if seeds is None else seeds
        model = self._model if state is None else (self._model[0], state)
        data = sources.read(self._examples, indices)
        # Sent explicitly, because a user may forbid implicit transfers.
        return jax.device_get(self._function(*jax.device_put((model, data, seeds, mask))))


def _check_weights(trial: _Trial, task: Task, name: str) -> None:
    """Checks that no weight of an example is negative."""
    values, _ = trial.of_all
    named = values if isinstance(values, dict) else {"": values}
    for metric, each in named.items():
        if isinstance(each, Weighted) and (each.weights < 0).any():
            what = f"The metric {metric!r}" if metric else f"The {name}"
            raise ValueError(
                f"{what} of task {task.name!r} has the weight {each.weights.min():g}, and weights "
                "must be at least 0: give the sign to the values of training.Weighted."
            )


def _mask_is_ignored(trial: _Trial) -> bool:
    """Returns whether values or state depend on examples outside the mask."""
    # The mask ends within the first half, so that it cuts a group if there are groups.
    kept = trial.seeds <= trial.half // 2
    values, state = trial.call(trial.first, kept)
    other, other_state = trial.call(np.where(kept, trial.first, trial.second), kept)
    return _differs(values, other, kept) or _differs(state, other_state)


def _halves_mix(trial: _Trial) -> bool:
    """Returns whether values of the first half depend on the second half."""
    in_first_half = trial.seeds < trial.half
    values, _ = trial.of_all
    # The second half is exchanged and masked out, so neither its values nor its number may count.
    exchanged = np.where(in_first_half, trial.first, trial.second)
    other, _ = trial.call(exchanged, in_first_half)
    return _differs(values, other, in_first_half)


def _draws_are_shared(trial: _Trial) -> bool:
    """Returns whether values of the second half depend on the keys of the first half."""
    in_first_half = trial.seeds < trial.half
    values, _ = trial.of_all
    # The second half is compared, because a shared draw usually takes the first key of all.
    seeds = np.where(in_first_half, trial.seeds + 2 * trial.half, trial.seeds)
    other, _ = trial.call(trial.first, trial.whole, seeds)
    return _differs(values, other, ~in_first_half)


def _check_calls(trial: _Trial, task: Task, name: str, group: int) -> None:
    """Checks that two calls with a half each agree with one call with both halves.

    Raises:
      ValueError: If values depend on the number of examples. For a state it is a warning, because
        its effect may be small, and a given microbatch fixes it.
    """
    half = slice(trial.half)
    rest = slice(trial.half, None)
    values, state = trial.of_all
    # Another number of examples is another program. Its rounding differs, in bfloat16 by much.
    other, after = trial.call(trial.first[half], trial.whole[half], trial.seeds[half])
    zeros = jax.tree.map(np.zeros_like, other)
    if _moves_apart(zeros, jax.tree.map(lambda a: a[half], values), other):
        raise ValueError(_message(task, name, "the number of examples in a call", group))
    # The second call continues with the state that the first one left, as micro-steps do.
    _, after = trial.call(trial.first[rest], trial.whole[rest], trial.seeds[rest], after)
    if _moves_apart(trial.state, state, after):
        warnings.warn(
            f"The state of task {task.name!r} changes once a call, not example by example, so that "
            "results depend on the microbatch. Update it as noisegen.models.GhostBatchNorm does, "
            "group by group, or give the microbatch.",
            stacklevel=2,
        )


def _differs(these: PyTree, those: PyTree, where: Any = ...) -> bool:
    """Returns whether two trees of one program differ by more than rounding.

    Args:
      these: Arrays.
      those: Arrays of the same shapes.
      where: Mask of the examples to compare. By default everything is compared.
    """
    for this, that in zip(jax.tree.leaves(these), jax.tree.leaves(those), strict=True):
        if not np.allclose(this[where], that[where], _RTOL, _ATOL, equal_nan=True):
            return True
    return False


def _moves_apart(start: PyTree, these: PyTree, those: PyTree) -> bool:
    """Returns whether two trees differ by a good part of their distance from the start."""

    def apart(start: np.ndarray, this: np.ndarray, that: np.ndarray) -> bool:
        start, this, that = (np.asarray(a, float) for a in (start, this, that))
        difference = np.abs(this - that)
        known = np.isfinite(difference)
        moved = np.abs(this - start)
        other = np.abs(that - start)
        # Elements that hardly move themselves take their rounding from those that move most.
        largest = np.max(moved, where=known, initial=0)
        rounding = _ATOL + _RTOL * np.abs(that)
        allowed = rounding + _APART * np.maximum(moved, other) + _APART / 4 * largest
        return bool((difference > allowed)[known].any())

    return any(jax.tree.leaves(jax.tree.map(apart, start, these, those)))


def _message(task: Task, name: str, what: str, group: int) -> str:
    """Returns the message for a function whose values depend on `what`."""
    if name == "loss":
        verb = "depends"
        remedy = (
            "In NNX use noisegen.models.GhostBatchNorm and give it mask=batch.mask; elsewhere take "
            "statistics over consecutive groups of examples within batch.mask, and give the task "
            "their ghost_size. Or train a single batch size in whole batches, with ghost_size and "
            "only_batch_size of that size. A frozen layer needs use_running_average=True in its "
            "call."
        )
    else:
        verb = "depend"
        remedy = "Evaluate with running statistics."
    return (
        f"The {name} of task {task.name!r} for an example {verb} on {what}, as with batch "
        f"normalization: the result would change with the microbatch. {remedy}"
    )


def _comparable(leaf: Any) -> jax.Array:
    """Returns an array that NumPy can compare: random keys as their data, floats as float32."""
    leaf = jnp.asarray(leaf)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.key_data(leaf)
    if jnp.issubdtype(leaf.dtype, jnp.floating):
        return leaf.astype(jnp.float32)
    return leaf


def _moved(params: PyTree) -> PyTree:
    """Returns parameters nearby, because layers that begin with zeros hide what they mix."""
    random = np.random.RandomState(1)

    def move(leaf: np.ndarray) -> np.ndarray:
        return (leaf + 0.1 * random.normal(size=np.shape(leaf))).astype(leaf.dtype)

    return jax.tree.map(move, params)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles a function with few optimizations, because it runs a few times only."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})
