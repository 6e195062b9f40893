"""Checks a task and the configuration of JAX before anything is trained.

Most checks only trace the task's functions. `noisegen.training.mixing` runs them on a few examples.
"""

import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from noisegen import _validate
from noisegen._math import ceil_div
from noisegen.diagnostics import GradientNoise
from noisegen.training.evaluation import metric_spec, trace_metrics
from noisegen.training.mixing import check_mixing
from noisegen.training.run_id import Value
from noisegen.training.schedule_check import explain_schedule, needs_value
from noisegen.training.sources import abstract_examples
from noisegen.training.task import (
    NO_HPARAMS,
    Batch,
    Hparams,
    PyTree,
    RunHparams,
    Task,
    abstract_init,
    lacking_names,
    make_key,
    update_optimizer,
)
from noisegen.training.task_plans import device_values
from noisegen.training.weighted import Weighted, check_values, dtype_of

# States of optimizers that train other parameters than those to evaluate, and the `eval_params`
# that finds them.
_EVALUATED_ELSEWHERE = {
    optax.contrib.ScheduleFreeState: "optax.contrib.schedule_free_eval_params(opt_state, params)",
    optax.contrib.SAMState: (
        "jax.tree.map(lambda cached, p: jnp.where(opt_state.steps_since_sync == 0, p, cached), "
        "opt_state.cache, params)"
    ),
}


class _Checked(NamedTuple):
    """A check that a task has passed."""

    names: frozenset[str]  # of the fields that its functions read, present or not
    kinds: dict[str, tuple]  # of these fields, see `_kinds_of_fields`
    mixing: bool  # whether its functions were called, too


# The checks that each task has passed. Tasks are held weakly, so that their data can be freed.
_checked: weakref.WeakKeyDictionary[Task, list[_Checked]] = weakref.WeakKeyDictionary()

# The fields of a task that are functions.
_NEEDED = ("init", "loss", "metrics", "make_optimizer", "train_metrics", "diagnostics")
_OPTIONAL = (
    "eval_params",
    "example_weights",
    "batch_size",
    "check_run",
    "combine_state",
    "joint_loss",
    "partition",
)


def check_task(
    task: Task, fields: Mapping[str, Value] | None, *, mixing: bool = True
) -> frozenset[str]:
    """Checks that a pool can train a task.

    The check is made once for each task and each set of booleans and words that it reads.

    Args:
      task: The task.
      fields: Fields of a run, which the functions get, or None if there is no run.
      mixing: Whether to call the functions on a few examples to see whether they mix any, which
        takes minutes for a large network on a CPU.

    Returns:
      The fields that `init`, the loss, the metrics and the diagnostics read.

    Raises:
      ValueError: If a function returns a value that a pool cannot use, or the loss or a metric
        mixes examples that a pool must keep apart. Also if a function needs the value of a number
        or reads a field that the run lacks, or if JAX is configured so that runs would differ.
    """
    # Always, because the user may have changed the configuration since the last check.
    check_jax_config()
    passed = _checked.setdefault(task, [])
    for checked in passed:
        if mixing and not checked.mixing:
            continue
        if fields is None or _kinds_of_fields(checked.names, fields) == checked.kinds:
            return checked.names
    # First kinds, then shapes, then values, because each check relies on those before it.
    if not passed:
        _check_functions(task)
        _check_arrays(task)
    values = _example_values(task, fields or {})
    read: set[str] = set()
    try:
        for name, check in _TRACED.items():
            _check_traced(task, name, check, values, read)
        if mixing:
            check_mixing(task, RunHparams(values, read))
    except jax.errors.UnexpectedTracerError as error:
        raise ValueError(
            f"Task {task.name!r} uses a traced number of another call, such as a hyperparameter in "
            "a function that is part of the model. Make it an attribute of the model, as in "
            "self.rate = hparams['rate'], or read it from batch.hparams."
        ) from error
    except KeyError as error:
        lacking = lacking_names(error, read, values)
        if not lacking:
            _explain_lacking_key(task, error)
            raise  # The error is of another mapping, of the user's own.
        if fields is None:
            return frozenset()  # There is nothing to check the task with.
        raise ValueError(lacking_message(task, lacking, fields)) from error
    names = frozenset(read)
    passed.append(_Checked(names, _kinds_of_fields(names, fields or {}), mixing))
    return names


def _explain_lacking_key(task: Task, error: KeyError) -> None:
    """Raises ValueError if the key is one of the data that a split lacks and another one has."""
    keys = {split: _keys(examples) for split, examples in task.splits.items()}
    [key] = error.args[:1] or [None]
    having = [split for split in keys if key in keys[split]]
    lacking = [split for split in keys if key not in keys[split]]
    if having and lacking:
        raise ValueError(
            f"The {lacking[0]} set of task {task.name!r} has no {key!r}, which its functions read "
            f"and the {having[0]} set has: give it, or let the functions for the {lacking[0]} set "
            "do without."
        ) from error


def _keys(examples: PyTree) -> set[Any]:
    """Returns the keys of a split that is a dict."""
    example = abstract_examples(examples, 1)
    return set(example) if isinstance(example, Mapping) else set()


def lacking_message(task: Task, lacking: Iterable[str], names: Iterable[str]) -> str:
    """Returns the message for numbers that a task reads and its runs lack."""
    return (
        f"Task {task.name!r} reads the number {', '.join(map(repr, sorted(lacking)))}, which "
        f"the runs lack; they name {', '.join(sorted(names))}."
    )


def _example_values(task: Task, fields: Mapping[str, Value]) -> dict[str, Any]:
    """Returns the values of a run as a task's functions get them, with a placeholder horizon."""
    # The plan has the horizon, and is made after the task is checked.
    planned = {"num_updates": 1, "updates_per_epoch": 1, "num_examples": task.num_examples}
    return device_values({**planned, **fields})


def _kinds_of_fields(names: frozenset[str], fields: Mapping[str, Value]) -> dict[str, tuple]:
    """Returns whether each field is present, and its value if that is constant in a program."""
    kinds = {}
    for name in names:
        value = fields.get(name)
        kinds[name] = (name in fields, value if isinstance(value, bool | str) else None)
    return kinds


def _check_traced(
    task: Task,
    name: str,
    check: Callable[[Task, RunHparams], None],
    values: Mapping[str, Any],
    read: set[str],
) -> None:
    """Checks a function of the task by tracing it. The numbers of the run are traced, too.

    Args:
      task: The task.
      name: Name of the function, for the message.
      check: Function `(task, hparams) -> None` that checks it.
      values: Values of a run.
      read: Set that collects the names that the function reads.

    Raises:
      ValueError: As `check_task` does.
    """
    constants = {name: value for name, value in values.items() if isinstance(value, bool | str)}
    numbers = {name: value for name, value in values.items() if name not in constants}
    read_here: set[str] = set()

    def traced(numbers: Mapping[str, Any]) -> None:
        check(task, RunHparams({**numbers, **constants}, read_here))

    try:
        jax.eval_shape(traced, numbers)
    except TypeError as error:
        suspects = sorted(read_here & numbers.keys())
        # A check also calls functions that have passed. The names that they read are no suspects.
        suspects = [name for name in suspects if name not in read] or suspects
        # If the check fails with Python numbers as well, the user's mistake is another one, and the
        # original error explains it best.
        if not needs_value(error) or not suspects or _fails(traced, numbers):
            raise
        raise ValueError(
            f"{name} of task {task.name!r} needs the value of a number of the run "
            f"({', '.join(suspects)}), but the numbers of runs are traced. Compute with jnp.where, "
            "or make it a boolean or a word in the runs; if it sets a shape, make a task for each "
            f"of its values: {first_line(error)}"
        ) from error
    finally:
        read |= read_here


def _fails(traced: Callable[[Mapping[str, Any]], None], numbers: Mapping[str, Any]) -> bool:
    """Returns whether a check fails even with Python numbers."""
    plain = {name: value.item() for name, value in numbers.items()}
    # Whole numbers become integers, which may set a shape.
    plain = {name: int(value) if value % 1 == 0 else value for name, value in plain.items()}
    try:
        traced(plain)
    except Exception:  # The functions are the user's, so they may raise anything.
        return True
    return False


def _check_metrics(task: Task, hparams: RunHparams) -> None:
    """Checks the metrics and diagnostics."""
    spec = trace_metrics(task, hparams)
    known = metric_spec(task)
    if spec != known:
        odd = set(spec.names) ^ set(known.names) or set(spec.weighted) ^ set(known.weighted)
        raise ValueError(
            f"Task {task.name!r} measures {', '.join(sorted(odd))} with some booleans or words of "
            "the runs and not with others, or with other weights: make a task for each."
        )


def check_jax_config() -> None:
    """Checks that no setting of JAX changes the results of runs.

    Raises:
      ValueError: If a setting changes JAX's random numbers, or its search for NaN is on.
    """
    if not jax.config.jax_threefry_partitionable:
        raise ValueError(
            "jax_threefry_partitionable=False changes every random number, so that a run would not "
            "be the run of its name: leave JAX_THREEFRY_PARTITIONABLE at its default."
        )
    if jax.config.jax_default_prng_impl != "threefry2x32":
        raise ValueError(
            f"jax_default_prng_impl={jax.config.jax_default_prng_impl!r} changes random numbers "
            "that a task's functions draw from keys of their own, so that a run would not be the "
            "run of its name: leave JAX_DEFAULT_PRNG_IMPL at its default."
        )
    if jax.config.jax_random_seed_offset:
        raise ValueError(
            f"jax_random_seed_offset={jax.config.jax_random_seed_offset} changes every random "
            "number, so that a run would not be the run of its name: leave JAX_RANDOM_SEED_OFFSET "
            "at 0, and give the runs other seeds."
        )
    if jax.config.jax_debug_nans or jax.config.jax_debug_infs:
        name = "jax_debug_nans" if jax.config.jax_debug_nans else "jax_debug_infs"
        raise ValueError(
            f"{name} stops at the first number that is not finite, but in a pool a run that "
            f"diverges is a result and its neighbors go on: leave {name.upper()} off, and read "
            "`diverged_at` of the result."
        )


def check_optimizer(task: Task, optimizer: Any, hparams: Hparams = NO_HPARAMS) -> None:
    """Checks that a pool can update an optimizer of the task; called while tracing.

    Args:
      task: The task.
      optimizer: The optimizer of a run.
      hparams: Hyperparameters of that run.

    Raises:
      ValueError: If `optimizer` is not an optax transformation, needs arguments that a pool lacks,
        changes the structure of its state, or evaluates at parameters that the task does not
        declare.
    """
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise ValueError(
            f"make_optimizer of task {task.name!r} must return an optax transformation, but it "
            f"returned {_validate.kind(optimizer)}; is there a return?"
        )
    params = jax.tree.map(jnp.zeros_like, abstract_init(task, hparams)[0])
    # The arguments that a pool gives. Only their shapes and types matter while tracing.
    extra = {}
    if task.noise_microbatch:
        noise = GradientNoise(trace=jnp.float32(0), squared_norm=jnp.float32(0), diagonal=params)
        extra = {"batch_size": jnp.int32(1), "gradient_noise": noise}
    try:
        before = optimizer.init(params)
        updates, after = update_optimizer(optimizer, params, before, params, jnp.float32(0), extra)
        optax.apply_updates(params, updates)
    except Exception as error:  # The optimizer is the user's, so it may raise anything.
        explained = explain_schedule(error)
        if explained:
            raise ValueError(f"The optimizer of task {task.name!r} {explained}") from None
        raise ValueError(
            f"The optimizer of task {task.name!r} cannot be updated in a pool, which gives it the "
            f"mean gradient, the parameters and {', '.join(['value', 'grad', *extra])}: "
            f"{type(error).__name__}: {first_line(error)}"
        ) from error
    # The state is the carry of a loop on the device, which keeps its types.
    if _kinds(before) != _kinds(after):
        raise ValueError(
            f"The optimizer of task {task.name!r} changes the structure, shapes or dtypes of its "
            "state when it is updated; a pool needs a state that keeps them."
        )
    _check_eval_params(task, before, params)


def _check_eval_params(task: Task, opt_state: optax.OptState, params: PyTree) -> None:
    """Checks that the parameters to evaluate are declared, and like those that are trained."""
    if task.eval_params is None:
        for kind, remedy in _EVALUATED_ELSEWHERE.items():
            if _holds(opt_state, kind):
                raise ValueError(
                    f"The optimizer of task {task.name!r} keeps the parameters to evaluate in its "
                    f"{kind.__name__}. Give the task eval_params=lambda opt_state, params: "
                    f"{remedy}, where opt_state is the state of the whole chain."
                )
        return
    evaluated = task.eval_params(opt_state, params)
    if _kinds(evaluated) != _kinds(params):
        raise ValueError(
            f"eval_params of task {task.name!r} must return parameters like those it was given, "
            f"but it returned {jax.tree.structure(evaluated)}."
        )


def _holds(tree: PyTree, kind: type) -> bool:
    """Returns whether a tree has a node of a kind, at any depth."""

    def is_kind(node: Any) -> bool:
        return isinstance(node, kind)

    return any(is_kind(leaf) for leaf in jax.tree.leaves(tree, is_leaf=is_kind))


def _check_functions(task: Task) -> None:
    """Checks that the task has a name, and functions where it must."""
    if not isinstance(task.name, str) or not task.name:
        raise ValueError(f"A task's name must be text, but it is {task.name!r}.")
    for name in (*_NEEDED, *_OPTIONAL):
        value = getattr(task, name)
        if value is None and name in _OPTIONAL:
            continue
        if not callable(value):
            raise ValueError(
                f"{name} of task {task.name!r} must be a function, but it is {value!r:.80}."
            )


def _check_arrays(task: Task) -> None:
    """Checks that the device can hold the data unchanged, and warns of NaN in them.

    A source has no leaves. It is checked whenever it is read.
    """
    for split, examples in task.splits.items():
        for path, leaf in jax.tree.leaves_with_path(examples):
            where = f"The array {split}{jax.tree_util.keystr(path)} of task {task.name!r}"
            if isinstance(leaf, jax.Array):
                if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                    raise ValueError(f"{where} holds random keys; give seeds, which are numbers.")
                # It is on a device already, perhaps partly on one of another process.
                if leaf.is_fully_addressable and jnp.issubdtype(leaf.dtype, jnp.inexact):
                    _warn_of_nan(where, np.asarray(leaf))
                continue
            if not jnp.issubdtype(leaf.dtype, jnp.number) and leaf.dtype != bool:
                raise ValueError(f"{where} is {leaf.dtype}; give numbers or booleans.")
            if not leaf.dtype.isnative:
                raise ValueError(
                    f"{where} is {leaf.dtype.str}, in the byte order of another machine; give "
                    "array.astype(array.dtype.newbyteorder('='))."
                )
            if not _is_held(leaf):
                raise ValueError(
                    f"{where} holds numbers beyond {jax.dtypes.canonicalize_dtype(leaf.dtype)}, "
                    "which the device would change; scale them, or enable jax_enable_x64."
                )
            _warn_of_nan(where, leaf)


def _warn_of_nan(where: str, array: np.ndarray) -> None:
    """Warns if an array holds NaN or infinities, which make every run diverge that uses them."""
    if not jnp.issubdtype(array.dtype, jnp.inexact):
        return
    num_bad = array.size - np.count_nonzero(np.isfinite(array))
    if num_bad:
        warnings.warn(
            f"{where} holds NaN or infinities ({num_bad:,} of {array.size:,} numbers). A run whose "
            "loss or metrics use them counts as diverged: remove or replace them.",
            stacklevel=2,
        )


def _is_held(array: np.ndarray) -> bool:
    """Returns whether the dtype on the device holds every number."""
    dtype = jax.dtypes.canonicalize_dtype(array.dtype)
    # Complex numbers only lose digits, as do floats, and neither is refused for that.
    if dtype == array.dtype or not array.size or np.iscomplexobj(array):
        return True
    if jnp.issubdtype(dtype, jnp.integer):
        # An integer out of range would wrap around silently.
        limits = jnp.iinfo(dtype)
        return limits.min <= array.min() and array.max() <= limits.max
    # Infinities and NaN stay what they are. A finite number must not become infinite.
    finite = array[np.isfinite(array)]
    return not finite.size or np.abs(finite).max() <= jnp.finfo(dtype).max


def _check_init(task: Task, hparams: RunHparams) -> None:
    """Checks that `init` returns parameters that can be trained, and a state."""
    initial = abstract_init(task, hparams)
    if not isinstance(initial, tuple) or len(initial) != 2:
        raise ValueError(
            f"init of task {task.name!r} must return (params, state), with () for no state, but it "
            f"returned {_validate.kind(initial)}."
        )
    params = initial[0]
    for path, leaf in jax.tree.leaves_with_path(params):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            continue
        remedy = "keep it in the state (in NNX, as an nnx.Variable)"
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            remedy = "train its real and its imaginary part"
        raise ValueError(
            f"Parameter {jax.tree_util.keystr(path)} of task {task.name!r} is {leaf.dtype}, "
            f"and only real floating-point numbers are trained: {remedy}."
        )


def _check_loss(task: Task, hparams: RunHparams) -> None:
    """Checks that the loss returns one real number per example, and a state like the first."""
    params, state = abstract_init(task, hparams)
    size = task.ghost_size * ceil_div(64, task.ghost_size)  # about a microbatch
    data = abstract_examples(task.train, size)
    # `loss` takes one example at a time if there is a joint loss, and computes the same.
    function: Callable[..., Any] = task.joint_loss or task.loss

    def loss(params: PyTree, state: PyTree, data: PyTree) -> tuple[jax.Array, PyTree]:
        mask = jnp.ones(size, bool)
        keys = jax.random.split(make_key(0), size)
        returned = function(params, state, Batch(data, keys, mask, hparams))
        if not isinstance(returned, tuple) or len(returned) != 2:
            raise ValueError(
                f"The loss of task {task.name!r} must return (losses, state), but it returned "
                f"{_validate.kind(returned)}."
            )
        check_values(task, "The loss", returned[0], mask)
        return returned

    losses, after = jax.eval_shape(loss, params, state, data)
    dtype = dtype_of(losses)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"The loss of task {task.name!r} must be real, but it is {dtype}.")
    # Both are defined for means over examples.
    if isinstance(losses, Weighted) and (task.noise_microbatch or task.example_weights):
        raise ValueError(
            f"Task {task.name!r}: noise_microbatch and example_weights need a loss of one number "
            "per example, but it is Weighted; leave them out, or return one number per example."
        )
    if _kinds(state) != _kinds(after):
        raise ValueError(
            f"The loss of task {task.name!r} must return a state like that of init, but it "
            f"returned {jax.tree.structure(after)} instead of {jax.tree.structure(state)}, or "
            "other shapes or dtypes."
        )


def _kinds(tree: PyTree) -> tuple[Any, list[tuple]]:
    """Returns structure, shapes and dtypes."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, [(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves]


def first_line(error: Exception) -> str:
    """Returns the first line of an error's message. JAX adds many that explain its own terms."""
    return str(error).strip().split("\n")[0]


# Checks that trace a function of a task, by its name. Each check relies on those before it.
_TRACED = {"init": _check_init, "loss": _check_loss, "metrics": _check_metrics}
