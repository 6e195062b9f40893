"""A small task, and the plain training loop that the pool has to agree with.

The loop takes from the package the task's functions only. Streams, permutations, batches, updates
and evaluations are written out again, in Python, one run and one whole batch at a time: they are
what a run's numbers promise, so a change of the engine that moves them must change this file.
"""

import functools
import inspect
import math
import zlib
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import noisegen
from noisegen import training

NUM_EXAMPLES = 60  # 45 of 60 is the 45,000 of 60,000 of the papers
NUM_TEST = 23


@pytest.fixture(scope="session")
def tanh_task():
    """A task with two layers, dropout drawn from the keys, noise and momentum."""
    return make_tanh_task()


@pytest.fixture(scope="session")
def train():
    """Returns train(task, runs, **settings) -> results in the order of the runs.

    Pools are kept, so that tests with equal settings share their compiled programs.
    """
    return _train


@pytest.fixture(scope="session")
def order():
    """Returns order(seed, epoch, n) -> the order of the examples in an epoch of a run."""
    return permutation


@pytest.fixture(scope="session")
def reference():
    """Returns reference(task, run) -> what a plain loop gives: a dictionary of curves."""
    return functools.cache(lambda task, items: train_plainly(task, dict(items)))


@pytest.fixture(scope="session")
def assert_agrees(reference):
    """Returns a check that a result is the plain loop's, up to the order of summation."""

    def check(task, result, tolerance=2e-5):
        expected = reference(task, tuple(result.hparams.items()))
        assert result.curve.keys() == expected["curve"].keys()
        assert result.curve["update"] == expected["curve"]["update"]
        # On the way to infinity every rounding grows; the update at which it ends does not move.
        curve = expected["curve"] if expected["diverged_at"] is None else {}
        for name, values in curve.items():
            np.testing.assert_allclose(
                result.curve[name],
                values,
                rtol=tolerance,
                atol=1e-6,
                err_msg=f"{name} {result.hparams}",
            )
        assert result.diverged_at == expected["diverged_at"]
        assert result.num_updates == expected["num_updates"]
        assert result.num_examples == expected["num_examples"]

    return check


def make_tanh_task(**changes):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(NUM_EXAMPLES + NUM_TEST, 4)).astype(np.float32)
    y = np.sin(x @ rng.normal(size=4)).astype(np.float32)
    x_train, x_test = np.split(x, [NUM_EXAMPLES])
    y_train, y_test = np.split(y, [NUM_EXAMPLES])

    def init(key):
        values = jax.random.normal(key, (40,)) / 2
        return {"hidden": values[:32].reshape(4, 8), "out": values[32:]}, ()

    def predict(params, hidden):
        return jnp.tanh(hidden) @ params["out"]

    def loss(params, state, batch):
        keep = jax.vmap(lambda key: jax.random.bernoulli(key, 0.8, (8,)))(batch.keys)
        hidden = batch.data["x"] @ params["hidden"]
        prediction = predict(params, jnp.where(keep, hidden / 0.8, 0))
        return (prediction - batch.data["y"]) ** 2, state

    def metrics(params, state, batch):
        error = predict(params, batch.data["x"] @ params["hidden"]) - batch.data["y"]
        return {"test_loss": error**2, "test_accuracy": (abs(error) < 0.3).astype(jnp.float32)}

    def make_optimizer(hparams, key):
        return optax.chain(
            noisegen.add_gradient_noise(hparams["noise"], key),
            optax.sgd(hparams["learning_rate"], hparams["momentum"]),
        )

    fields = {
        "name": "tanh",
        "train": {"x": x_train, "y": y_train},
        "test": {"x": x_test, "y": y_test},
        "init": init,
        "loss": loss,
        "metrics": metrics,
        "make_optimizer": make_optimizer,
    }
    return training.Task(**fields | changes)


@functools.cache
def _pool(task, **settings):
    return training.Pool(task, training.PoolConfig(**settings))


def _train(task, runs, **settings):
    runs = training.make_runs(task, runs)
    results = {id(result.hparams): result for result in _pool(task, **settings).train(runs)}
    assert len(results) == len(runs)
    return [results[id(run.hparams)] for run in runs]


def train_plainly(task, run):
    """One run, with explicit whole batches and optax: no lanes, masks or microbatches."""
    n = len(jax.tree.leaves(task.train)[0])
    epoch_length = n // run["batch_size"] * run["batch_size"] if is_dropped(run) else n
    params, state = first_values(task, run)
    init, gradient_of_mean, optimize, measure = _compiled(task, run)
    opt_state = init(params)
    order_length = run["batch_size"] if run.get("last_batch") == "resample" else epoch_length
    point = run.get("eval_every", 0) * epoch_length
    next_eval, taken, losses, diverged_at = point, 0, [], None
    schedule = batches(task, run, n)
    curve = {name: [] for name in ("epoch", "update", *measure(params, state), "train_loss")}
    for update, (epochs, places) in enumerate(schedule, start=1):
        epochs, places = np.array(epochs), np.array(places)
        orders = np.stack([permutation(run["seed"], epoch, n) for epoch in epochs])
        examples = orders[np.arange(len(places)), places]
        keys = jax.vmap(jax.random.fold_in, (None, 0))(
            stream(run["seed"], "example"), epochs * order_length + places
        )
        gradient, (batch_losses, state) = gradient_of_mean(params, state, examples, keys)
        params, opt_state = optimize(gradient, opt_state, params)
        losses += batch_losses.tolist()
        taken += len(examples)
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params)):
            diverged_at = update
            break
        last = update == len(schedule)
        if last or (point and taken >= next_eval - 1e-9):
            while point and next_eval <= taken:
                next_eval += point
            found = {"epoch": taken / epoch_length, "update": update}
            found |= measure(params, state) | {"train_loss": np.mean(losses)}
            losses = []
            for name, value in found.items():
                curve[name].append(float(value))
    return {
        "curve": curve,
        "diverged_at": diverged_at,
        "num_updates": update,
        "num_examples": taken,
        "params": params,
    }


def batches(task, run, n):
    """The (epochs, places in the epoch) of the examples of every batch, from the definitions."""
    size = run["batch_size"]
    if run.get("last_batch") == "resample":
        total = run.get("num_updates") or int(Fraction(str(run["num_epochs"])) * n / size)
        return [([update] * size, list(range(size))) for update in range(total)]
    if run.get("last_batch", "straddle") == "straddle":
        sizes = (lambda count: size) if task.batch_size is None else task.batch_size(run)
        budget = math.inf if "num_updates" in run else Fraction(str(run["num_epochs"])) * n
        found, taken = [], 0
        while len(found) < run.get("num_updates", math.inf):
            places = range(taken, taken + int(sizes(len(found))))
            taken = places.stop
            if taken > budget:
                break
            found.append(([p // n for p in places], [p % n for p in places]))
        return found
    per_epoch = [range(n)[i : i + size] for i in range(0, n, size)]
    if is_dropped(run):
        per_epoch = [places for places in per_epoch if len(places) == size]
    total = run.get("num_updates") or int(Fraction(str(run["num_epochs"])) * len(per_epoch))
    every = [([u // len(per_epoch)], per_epoch[u % len(per_epoch)]) for u in range(total)]
    return [(epoch * len(places), list(places)) for epoch, places in every]


def first_values(task, run):
    """The parameters and the state at the beginning of a run."""
    key = stream(run["seed"], "init")
    if "hparams" in inspect.signature(task.init).parameters:
        return task.init(key, hparams=numbers_of(run))
    return task.init(key)


def numbers_of(run):
    return {name: jnp.float32(run[name]) for name in run if name != "last_batch"}


def is_dropped(run):
    return run.get("last_batch") == "drop"


def stream(seed, name):
    """The named stream of a run."""
    key = jax.random.key(int(seed), impl="threefry2x32")
    return jax.random.fold_in(key, zlib.crc32(name.encode()) & 0x7FFFFFFF)


@functools.cache
def permutation(seed, epoch, n):
    key = jax.random.fold_in(stream(seed, "permutation"), epoch)
    return np.asarray(jax.random.permutation(key, n))


def _compiled(task, run):
    """A run's compiled functions; only the gradient knows the batch size."""
    values = numbers_of(run)
    key = stream(run["seed"], "optimizer")
    init, gradient, update, measure = _functions(task)
    return (
        functools.partial(init, values, key),
        functools.partial(gradient, values),
        functools.partial(update, values, key),
        functools.partial(measure, values),
    )


@functools.cache
def _functions(task):
    def init(values, key, params):
        return task.make_optimizer(values, key).init(params)

    def gradient(values, params, state, examples, keys):
        data = jax.tree.map(lambda a: jnp.asarray(a)[examples], task.train)
        batch = training.Batch(data, keys, jnp.ones(keys.shape, bool), values)

        def mean_loss(params):
            losses, new_state = task.loss(params, state, batch)
            return jnp.mean(losses), (losses, new_state)

        return jax.grad(mean_loss, has_aux=True)(params)

    def update(values, key, gradient, opt_state, params):
        updates, opt_state = task.make_optimizer(values, key).update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    def measure(values, params, state):
        found = means(values, params, state, task.test)
        if task.valid is not None:
            on_valid = means(values, params, state, task.valid)
            found |= {name.replace("test_", "valid_"): v for name, v in on_valid.items()}
        return found

    def means(values, params, state, examples):
        total = len(jax.tree.leaves(examples)[0])
        keys = jax.random.split(stream(0, "nothing is drawn from these"), total)
        batch = training.Batch(examples, keys, jnp.ones((total,), bool), values)
        return {name: jnp.mean(v) for name, v in task.metrics(params, state, batch).items()}

    return jax.jit(init), jax.jit(gradient), jax.jit(update), jax.jit(measure)
