"""Evaluates a task's metrics over a whole split of its examples."""

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from noisegen import _validate
from noisegen._math import ceil_div
from noisegen.training import noise
from noisegen.training.data_order import first_orders, recomputed_state
from noisegen.training.run_fields import canonical_fields
from noisegen.training.run_id import Value
from noisegen.training.sharding import local_positions, sum_over
from noisegen.training.sources import HostExamples, abstract_examples, gather, num_examples
from noisegen.training.task import (
    NO_HPARAMS,
    Batch,
    Hparams,
    PyTree,
    RunHparams,
    Task,
    abstract_init,
    call_with_hparams,
    lacking_names,
    make_key,
)
from noisegen.training.task_plans import device_fields, plan_runs
from noisegen.training.weighted import Weighted, check_values, dtype_of, example_sums


class MetricSpec(NamedTuple):
    """The names of everything that a pool measures of a task's runs, by source."""

    test: tuple[str, ...]  # `Task.metrics`
    valid: tuple[str, ...]  # the same on `Task.valid`
    train: tuple[str, ...]  # `Task.train_metrics`, at the end of a run only
    diagnostics: tuple[str, ...]  # `Task.diagnostics`
    noise: tuple[str, ...]  # of the gradient, if the task measures it
    weighted: tuple[str, ...] = ()  # those of any split that are `Weighted`

    @property
    def names(self) -> tuple[str, ...]:
        """Every metric of a finished run."""
        return (
            *self.test,
            *self.valid,
            *self.train,
            *self.diagnostics,
            "train_loss",
            *self.noise,
        )

    @property
    def curve(self) -> tuple[str, ...]:
        """The metrics of every evaluation."""
        return (*self.test, *self.valid, *self.diagnostics, "train_loss", *self.noise)

    @property
    def may_be_nan(self) -> tuple[str, ...]:
        """The metrics that need not be finite in a run that has not diverged."""
        # Weights may all be zero, as those of a precision if nothing is found.
        return (*self.diagnostics, *self.noise, *self.weighted)


# Names found so far. Tasks are held weakly, so that their data can be freed.
_specs: weakref.WeakKeyDictionary[Task, MetricSpec] = weakref.WeakKeyDictionary()


def metric_spec(task: Task, hparams: Hparams = NO_HPARAMS) -> MetricSpec:
    """Finds the names of a task's metrics by tracing its functions, once for each task.

    Args:
      task: The task.
      hparams: Hyperparameters of a run. They are needed only if the task's functions read them and
        no runs have been made yet.

    Raises:
      ValueError: If two metrics have one name, a metric has the name of a column of the curve, or
        a function does not return numbers by name. Also if the functions read hyperparameters that
        are not given.
    """
    if task not in _specs:
        with _naming_missing_hparams(task, "metric_spec", hparams) as hparams:
            trace_metrics(task, hparams)
    return _specs[task]


def trace_metrics(task: Task, hparams: Hparams) -> MetricSpec:
    """Finds names as `metric_spec` does, but traces the functions even if they are known."""
    weighted: set[str] = set()
    spec = MetricSpec(
        test=_split_names(task, "test", hparams, weighted),
        valid=() if task.valid is None else _split_names(task, "valid", hparams, weighted),
        train=_split_names(task, "train", hparams, weighted),
        diagnostics=_diagnostic_names(task, hparams),
        noise=noise.METRICS if task.noise_microbatch else (),
    )
    spec = spec._replace(weighted=tuple(sorted(weighted)))
    _check_names_differ(task, spec)
    _specs.setdefault(task, spec)
    return spec


def evaluated_splits(task: Task) -> tuple[str, ...]:
    """Returns the splits of every evaluation: the test set and, if there is one, `Task.valid`."""
    return tuple(split for split in task.splits if split != "train")


def evaluate(
    task: Task,
    split: str,
    eval_batch: int,
    params: PyTree,
    state: PyTree,
    examples: PyTree,
    hparams: Hparams,
) -> dict[str, jax.Array]:
    """Returns the mean of every metric of a split over its examples, `eval_batch` at a time."""
    total = num_examples(examples)
    devices = jax.lax.axis_size("batch")
    # No larger than the split, rounded up to whole shares of the devices.
    eval_batch = min(eval_batch, ceil_div(total, devices) * devices)
    # One key for all: evaluation draws nothing, but a batch has keys.
    keys = jnp.broadcast_to(make_key(0), (len(local_positions(eval_batch)),))
    hparams = RunHparams(hparams)
    spec = metric_spec(task, hparams)

    def piece(
        index: jax.Array, sums: dict[str, Weighted], data: PyTree | None = None
    ) -> dict[str, Weighted]:
        positions = index * eval_batch + local_positions(eval_batch)
        # The last piece repeats the last example, outside the mask.
        mask = positions < total
        if data is None:
            data = gather(examples, jnp.minimum(positions, total - 1))
        metrics = _metrics_of(task, split)(params, state, Batch(data, keys, mask, hparams))
        totals = {}
        for name, values in metrics.items():
            added = example_sums(task, f"The metric {name!r}", values, mask)
            totals[name] = jax.tree.map(lambda s, a: s + jnp.sum(a), sums[name], added)
        return totals

    zero = Weighted(jnp.float32(0), jnp.float32(0))
    zeros = dict.fromkeys(getattr(spec, split), zero)
    num_pieces = ceil_div(total, eval_batch)
    if isinstance(examples, HostExamples):
        sums = _fold_blocks(examples, eval_batch, num_pieces, piece, zeros)
    else:
        sums = jax.lax.fori_loop(0, num_pieces, piece, zeros)
    # Sums first, since the devices' shares of the last piece differ.
    sums = sum_over("batch", sums)
    # Not always by the weights: XLA rounds a division by a constant in another way, and the results
    # of tasks without weights must keep their bits.
    return {
        name: each.values / (each.weights if name in spec.weighted else total)
        for name, each in sums.items()
    }


def _fold_blocks(
    examples: HostExamples,
    eval_batch: int,
    num_pieces: int,
    piece: Callable[..., PyTree],
    sums: PyTree,
) -> PyTree:
    """Calls `piece` on the pieces in order, and asks the host for several of them at a time."""
    at_once = examples.pieces_at_once(eval_batch)

    def block(index: jax.Array, sums: PyTree) -> PyTree:
        first = index * at_once
        starts = (first + jnp.arange(at_once)) * eval_batch
        positions = starts[:, None] + local_positions(eval_batch)[None]
        data = gather(examples, jnp.minimum(positions, len(examples) - 1))

        def next_piece(i: jax.Array, sums: PyTree) -> PyTree:
            return piece(first + i, sums, jax.tree.map(lambda a: a[i], data))

        return jax.lax.fori_loop(0, jnp.minimum(at_once, num_pieces - first), next_piece, sums)

    return jax.lax.fori_loop(0, ceil_div(num_pieces, at_once), block, sums)


def evaluate_splits(
    task: Task,
    splits: Sequence[str],
    eval_batch: int,
    params: PyTree,
    state: PyTree,
    data: Mapping[str, PyTree],
    hparams: Hparams,
) -> dict[str, jax.Array]:
    """Returns the metrics of several splits of the data by name, see `evaluate`."""
    metrics = {}
    for split in splits:
        metrics |= evaluate(task, split, eval_batch, params, state, data[split], hparams)
    return metrics


def evaluate_params(
    task: Task,
    params: PyTree,
    examples: PyTree | None = None,
    *,
    hparams: Mapping[str, Value] | None = None,
    microbatch: int = 64,
    eval_batch: int = 500,
) -> PyTree:
    """Evaluates a task's metrics at any parameters, such as those between two solutions.

    A state beside the parameters (running statistics) belongs to the parameters it was computed
    with. It is therefore recomputed, by one pass of the loss over the training set.

    Args:
      task: The task whose `metrics` are evaluated.
      params: Parameters as `task.init` gives them.
      examples: A pytree of arrays `(T, ...)` like those of a split of the task, or any pytree of
        such sets. By default the test set and, if there is one, the validation set.
      hparams: Fields of the run that trained the parameters, such as `Result.hparams`. They are
        needed only if a function of the task reads them. `make_optimizer` does not count.
      microbatch: Examples of the pass over the training set that are taken at once, a multiple of
        the ghost size.
      eval_batch: Examples evaluated at once.

    Returns:
      Each metric's mean over the examples, `()`, by its name. For a pytree of sets of examples, a
      pytree of these. By default the metrics of an evaluation in training. Works under ``jit``,
      ``vmap`` and `noisegen.diagnostics.evaluate_on_line`.

    Raises:
      ValueError: If the microbatch cuts ghost batches, the parameters are those of another
        network, the examples are not like a split of the task, or hyperparameters are missing.

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
      >>> sorted(training.evaluate_params(task, params))
      ['test_accuracy', 'test_loss']
      >>> both = training.evaluate_params(task, params, {"train": task.train, "test": task.test})
      >>> sorted(both["train"])
      ['test_accuracy', 'test_loss']
    """
    if microbatch % task.ghost_size:
        raise ValueError(
            f"microbatch={microbatch} must be a multiple of the ghost size, {task.ghost_size}."
        )
    with _naming_missing_hparams(task, "evaluate_params", _given(task, hparams)) as given:
        return _evaluate_params(task, params, examples, given, microbatch, eval_batch)


def _given(task: Task, hparams: Mapping[str, Value] | None) -> Hparams:
    """Returns the fields of a run as a pool gives them to the task's functions."""
    if hparams is None:
        return NO_HPARAMS
    fields = canonical_fields(hparams)
    [plan] = plan_runs(task, [fields])
    return device_fields(fields, plan, task.num_examples)


@contextlib.contextmanager
def _naming_missing_hparams(task: Task, function: str, hparams: Hparams) -> Iterator[RunHparams]:
    """Yields hyperparameters for the task's functions, and names those that are missing.

    Raises:
      ValueError: If a function reads a hyperparameter that is not given.
    """
    read: set[str] = set()
    try:
        yield RunHparams(hparams, read)
    except KeyError as error:
        lacking = sorted(lacking_names(error, read, hparams))
        if not lacking:
            raise  # The error is of another mapping, of the user's own.
        raise ValueError(
            f"Task {task.name!r} reads the run's {', '.join(lacking)}: give {function} the "
            "hyperparameters of the run, hparams=result.hparams or hparams=run.hparams."
        ) from error


def _evaluate_params(
    task: Task,
    params: PyTree,
    examples: PyTree | None,
    hparams: Hparams,
    microbatch: int,
    eval_batch: int,
) -> PyTree:
    """Evaluates as `evaluate_params` does, with hyperparameters as a pool gives them."""
    like, state = abstract_init(task, hparams)
    if _shapes(like) != _shapes(params):
        raise ValueError(
            f"These are no parameters of task {task.name!r}: give the first value of its `init`, "
            "or parameters from Pool.train or storage.load_params."
        )
    is_set = _check_examples(task, examples)
    data = task.splits if examples is None else {"train": task.train, "examples": examples}
    data = jax.tree.map(jnp.asarray, data)

    def on_one_device(_):
        recomputed = state  # Shapes only, of which there are none if the task has no state.
        if jax.tree.leaves(state):
            orders = first_orders(task, 0, hparams)
            recomputed = recomputed_state(task, microbatch, params, orders, data["train"])
        if examples is None:
            splits = evaluated_splits(task)
            return evaluate_splits(task, splits, eval_batch, params, recomputed, data, hparams)

        def evaluate_set(examples: PyTree) -> dict[str, jax.Array]:
            return evaluate(task, "test", eval_batch, params, recomputed, examples, hparams)

        return jax.tree.map(evaluate_set, data["examples"], is_leaf=is_set)

    # `evaluate` sums over the devices of a batch. Here a vmapped axis of one stands for them.
    metrics = jax.vmap(on_one_device, axis_name="batch")(jnp.zeros(1))
    return jax.tree.map(lambda values: values[0], metrics)


def _metrics_of(task, split):
    functions = {
        "test": task.metrics,
        "valid": functools.partial(_valid_metrics, task),
        "train": task.train_metrics,
    }
    return functions[split]


def _valid_metrics(task, params, state, batch):
    """Returns the task's metrics, with the names that they have on the validation set."""
    metrics = task.metrics(params, state, batch)
    return {f"valid_{name.removeprefix('test_')}": values for name, values in metrics.items()}


def _check_names_differ(task: Task, spec: MetricSpec) -> None:
    """Checks that no metric has the name of another or of the pool's own columns."""
    if task.valid is not None and len(spec.valid) < len(spec.test):
        raise ValueError(
            f"Two metrics of task {task.name!r} get one name on the validation set, as test_loss "
            f"and loss both become valid_loss; rename one of {', '.join(spec.test)}."
        )
    sources = {
        "metrics": spec.test,
        "metrics of the validation set": spec.valid,
        "train_metrics": spec.train,
        "diagnostics": spec.diagnostics,
        "the pool's own curves": ("epoch", "update", "train_loss", *spec.noise),
    }
    for name in (*spec.test, *spec.valid, *spec.train, *spec.diagnostics):
        among = [source for source, names in sources.items() if name in names]
        if len(among) > 1:
            raise ValueError(
                f"Task {task.name!r} has a metric named {name} in {' and in '.join(among)}; give "
                "one of them another name."
            )


def _split_names(task: Task, split: str, hparams: Hparams, weighted: set[str]) -> tuple[str, ...]:
    """Returns the names of a split's metrics, and adds those that are `Weighted` to a set."""

    # Two examples, so that a metric that averages over them has another shape.
    def metrics(data: PyTree) -> dict[str, jax.Array]:
        mask = jnp.ones((2,), bool)
        params, state = call_with_hparams(task.init, make_key(0), hparams=hparams)
        batch = Batch(data, jax.random.split(make_key(0), 2), mask, RunHparams(hparams))
        values_by_name = _metrics_of(task, split)(params, state, batch)
        _check_split(task, split, values_by_name, mask)
        weighted.update(n for n, values in values_by_name.items() if isinstance(values, Weighted))
        return dict(values_by_name)

    return tuple(sorted(jax.eval_shape(metrics, abstract_examples(getattr(task, split), 2))))


def _check_split(task: Task, split: str, metrics: object, mask: jax.Array) -> None:
    """Checks the metrics that a task's function returned."""
    if not _is_by_name(metrics):
        raise ValueError(
            f"The {'train_metrics' if split == 'train' else 'metrics'} of task {task.name!r} "
            "must be a dictionary of numbers an example by name (text), but what the function "
            f"returned is {_validate.kind(metrics)}."
        )
    for name, values in metrics.items():
        check_values(task, f"The metric {name!r}", values, mask)
        if jnp.issubdtype(dtype_of(values), jnp.complexfloating):
            raise ValueError(f"The metric {name!r} of task {task.name!r} must be real.")


def _diagnostic_names(task: Task, hparams: Hparams) -> tuple[str, ...]:
    """Returns the names of the task's diagnostics."""

    def diagnostics(train: PyTree) -> dict[str, jax.Array]:
        params, state = call_with_hparams(task.init, make_key(0), hparams=hparams)
        values_by_name = call_with_hparams(task.diagnostics, params, state, train, hparams=hparams)
        # Checked inside the trace, because JAX refuses non-arrays in words of its own.
        _check_diagnostics(task, values_by_name)
        return values_by_name

    train = task.train
    if isinstance(train, HostExamples):
        train = abstract_examples(train, len(train))
    return tuple(sorted(jax.eval_shape(diagnostics, train)))


def _check_diagnostics(task: Task, diagnostics: object) -> None:
    """Checks that the diagnostics are real numbers by name."""
    if not _is_by_name(diagnostics):
        raise ValueError(
            f"The diagnostics of task {task.name!r} must be a dictionary of numbers by name, but "
            f"what the function returned is {_validate.kind(diagnostics)}."
        )
    for name, value in diagnostics.items():
        if _validate.kind(value) != "a number":
            raise ValueError(
                f"The diagnostic {name!r} of task {task.name!r} must be a single number, but it is "
                f"{_validate.kind(value)}; give each number in it a name of its own."
            )
        if jnp.iscomplexobj(value):
            raise ValueError(
                f"The diagnostic {name!r} of task {task.name!r} must be real, but it is complex."
            )


def _is_by_name(values: object) -> bool:
    """Returns whether a value is a mapping from text."""
    return isinstance(values, Mapping) and all(isinstance(name, str) for name in values)


def _check_examples(task, examples):
    """Checks the examples of `evaluate_params`; returns a test for one set among them."""
    structures = [jax.tree.structure(split) for split in task.splits.values()]

    def is_set(tree):
        return jax.tree.structure(tree) in structures

    if not all(map(is_set, jax.tree.leaves(examples, is_leaf=is_set))):
        raise ValueError(
            f"examples must be like a split of task {task.name!r}, "
            f"{' or '.join(map(str, dict.fromkeys(structures)))}, or a pytree of such, but they "
            f"are {jax.tree.structure(examples)}."
        )
    return is_set


def _shapes(tree: PyTree) -> tuple[Any, list[tuple[int, ...]]]:
    """Returns structure and shapes, in which parameters of different networks differ."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, [jnp.shape(leaf) for leaf in leaves]
