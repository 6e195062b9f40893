"""What a lane does with its examples, keys, noise and state, seen through tasks that report it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import noisegen
from noisegen import training
from noisegen.training import data_order, lane_state
from noisegen.training import lanes as lanes_lib
from noisegen.training import run as run_lib

# The task of this file counts its microbatches.
pytestmark = pytest.mark.filterwarnings("ignore:The state of task 'counting' changes once a call")

N = 12
RUN = {"batch_size": 1, "num_epochs": 3, "seed": 0, "eval_every": 1 / N, "last_batch": "straddle"}


@pytest.fixture(scope="module")
def counting_task():
    """Counts how often each example was taken, sums what its keys drew, counts microbatches."""

    def init(key):
        params = {"count": jnp.zeros(N), "draw": jnp.zeros(N)}
        return params, {"microbatches": jnp.int32(0), "examples": jnp.int32(0)}

    def loss(params, state, batch):
        draws = jax.vmap(jax.random.uniform)(batch.keys)
        state = {
            "microbatches": state["microbatches"] + 1,
            "examples": state["examples"] + batch.mask.sum(),
        }
        return -params["count"][batch.data] - draws * params["draw"][batch.data], state

    def metrics(params, state, batch):
        found = {f"{name}_{i}": leaf[i] for name, leaf in params.items() for i in range(N)} | state
        return {name: jnp.broadcast_to(value, batch.mask.shape) for name, value in found.items()}

    return training.Task(
        name="counting",
        train=np.arange(N),
        test=np.arange(2),
        init=init,
        loss=loss,
        metrics=metrics,
        # The mean gradient times the batch size: each taken example counts one.
        make_optimizer=lambda run, key: optax.sgd(run["batch_size"].astype(jnp.float32)),
    )


def counts(result, name="count"):
    """An array (evaluations, examples)."""
    return np.stack([result.curve[f"{name}_{i}"] for i in range(N)], axis=1)


def orders(result):
    """The examples in the order in which a run of batch size 1 took them, epoch by epoch."""
    taken = np.diff(counts(result), axis=0, prepend=0)
    assert (taken.sum(axis=1) == 1).all()
    return taken.argmax(axis=1).reshape(-1, N)


COUNTED = {
    "single": RUN,
    "other seed": RUN | {"seed": 1},
    "single again": dict(RUN),
    "straddling": RUN | {"batch_size": 8, "num_epochs": 4},
    "dropping": RUN | {"batch_size": 5, "last_batch": "drop", "num_epochs": 30, "eval_every": 1},
    "four": RUN | {"batch_size": 4},
    "full": RUN | {"batch_size": N},
}
SIZES = {"usual": {"microbatch": 8}, "one": {"microbatch": 1, "lanes_per_rare_step": 2}}


@pytest.fixture(scope="module")
def counted(counting_task, train):
    """Returns counted(size) -> {name: result}, trained with microbatches of that size."""
    return functools.cache(
        lambda size: dict(
            zip(
                COUNTED,
                train(counting_task, list(COUNTED.values()), lanes=2, **SIZES[size]),
                strict=True,
            )
        )
    )


def test_every_epoch_takes_every_example_once(counted):
    results = counted("usual")
    assert (counts(results["single"])[N - 1 :: N] == [[1], [2], [3]]).all()
    straddling = results["straddling"]
    for count, epoch in zip(counts(straddling), straddling.curve["epoch"], strict=True):
        assert set(count) <= {np.floor(epoch), np.ceil(epoch)}
        assert count.sum() == round(epoch * N)


@pytest.mark.slow
def test_unshuffled_epochs_take_the_examples_in_their_order(counting_task, train):
    task = dataclasses.replace(counting_task, shuffle=False)
    [result] = train(task, [RUN], microbatch=8)
    assert (orders(result) == np.arange(N)).all()


def test_dropped_examples_change_from_epoch_to_epoch(counted):
    taken = np.diff(counts(counted("usual")["dropping"]), axis=0, prepend=0)
    assert set(taken.flat) == {0, 1} and (taken.sum(axis=1) == 10).all()
    assert (taken.sum(axis=0) < 30).all()


def test_permutations_follow_seed_and_epoch(counted):
    results = counted("usual")
    first, again, other = (orders(results[n]) for n in ("single", "single again", "other seed"))
    assert (first == again).all()
    every = np.concatenate([first, other])
    assert len(np.unique(every, axis=0)) == len(every)


@pytest.mark.parametrize("size", SIZES)
def test_keys_follow_the_place_in_the_stream_not_the_microbatch(counted, size):
    results = counted(size)
    for name, usual in counted("usual").items():
        np.testing.assert_allclose(counts(results[name], "draw"), counts(usual, "draw"), rtol=1e-6)
    drawn = {name: counts(results[name], "draw")[-1] for name in ("single", "four", "full")}
    np.testing.assert_allclose(drawn["four"], drawn["single"], rtol=1e-6)
    np.testing.assert_allclose(drawn["full"], drawn["single"], rtol=1e-6)
    steps = np.diff(counts(results["single"], "draw"), axis=0, prepend=0).sum(axis=1)
    assert len(np.unique(steps.round(5))) == 3 * N  # all different, over all epochs


@pytest.mark.parametrize("size", SIZES)
def test_state_is_carried_in_every_lane(counting_task, counted, size):
    runs = training.make_runs(counting_task, COUNTED.values())
    for result, run in zip(counted(size).values(), runs, strict=True):
        plan = run.plan
        steps = plan.micro_steps(SIZES[size]["microbatch"])
        assert result.curve["microbatches"][-1] == steps
        assert result.curve["examples"] == [plan.examples_seen[u - 1] for u in plan.eval_updates]


def noise_task(stddev):
    """Parameters that only noise moves: drawn by the optimizer, or (None) by every example."""
    dimension = 1000

    def loss(params, state, batch):
        if stddev is not None:
            return jnp.zeros(batch.mask.shape) * params[0], state
        noise = jax.vmap(lambda key: jax.random.normal(key, (dimension,)))(batch.keys)
        return noise @ params, state

    def make_optimizer(run, key):
        noise = noisegen.add_gradient_noise(0.0 if stddev is None else stddev, key)
        return optax.chain(noise, optax.sgd(1.0))

    return training.Task(
        name="noise",
        train=np.arange(48),
        test=np.arange(8),
        init=lambda key: (jnp.zeros(dimension), ()),
        loss=loss,
        metrics=lambda params, state, batch: {
            "variance": jnp.broadcast_to(jnp.mean(params**2), batch.mask.shape),
            "first": jnp.broadcast_to(params[0], batch.mask.shape),
        },
        make_optimizer=make_optimizer,
    )


SPREAD = [{"microbatch": 4}, {"microbatch": 16, "batch_devices": 4, "eval_batch": 8}]


@pytest.mark.slow
def test_noise_is_drawn_once_per_update_and_alike_on_all_devices(train):
    # 4 seeds of 1000 coordinates: the standard error of the variance is sqrt(2 / 4000) = 2.2 %.
    runs = [{"batch_size": 24, "num_updates": 3, "seed": seed} for seed in range(4)]

    def measure(task, settings):
        results = train(task, runs, lanes=4, **settings)
        return np.mean([r.metrics["variance"] for r in results]), results

    task = noise_task(stddev=2.0)
    measured = [measure(task, settings) for settings in SPREAD]
    for variance, results in measured:
        assert abs(variance / (3 * 2.0**2) - 1) < 5 * 0.022
        firsts = [result.metrics["first"] for result in results]
        assert len(set(firsts)) == len(runs)
        expected = [result.metrics["first"] for result in measured[0][1]]
        np.testing.assert_allclose(firsts, expected, rtol=1e-6)
    # Noise that IS averaged over the batch is told apart: 1 / 24 of the variance.
    variance, _ = measure(noise_task(stddev=None), SPREAD[0])
    assert abs(variance * 24 / 3 - 1) < 5 * 0.022


def test_examples_outside_the_batch_cannot_spoil_it(train):
    """The root of 0 has an infinite slope, which a mask of the loss alone would turn into NaN."""
    task = training.Task(
        name="roots",
        train=np.arange(8.0, dtype=np.float32),
        test=np.ones(3, np.float32),
        init=lambda key: (jnp.ones(()), ()),
        loss=lambda w, state, batch: (jnp.sqrt(w * batch.data), state),
        metrics=lambda w, state, batch: {"w": w * batch.data},
        make_optimizer=lambda run, key: optax.sgd(0.1),
    )
    runs = [{"batch_size": 2, "num_updates": 1, "seed": seed} for seed in range(16)]
    results = train(task, runs, lanes=2, microbatch=8)
    made = training.make_runs(task, runs)
    numbers = [run_lib.run_inputs(run, 8, 1) for run in made]
    taken = np.stack([data_order.permutation(task, each, 0)[:2] for each in numbers])
    spoilt = (taken == 0).any(axis=1).tolist()
    assert [result.status == "diverged" for result in results] == spoilt
    assert 0 < sum(spoilt) < 16


@pytest.mark.slow
def test_device_step_runs_under_pmap(tanh_task, train, assert_agrees):
    base = {"batch_size": 20, "num_epochs": 1, "momentum": 0.5, "noise": 0.1, "seed": 1}
    runs = [base | {"learning_rate": rate} for rate in (0.1, 0.2)]
    made = training.make_runs(tanh_task, runs)
    numbers = [run_lib.run_inputs(run, 60, 1) for run in made]
    numbers = jax.tree.map(lambda *leaves: np.stack(leaves), *numbers)
    shape = lane_state.Shape(microbatch=8, eval_batch=8, lanes_per_rare_step=2)
    data = jax.tree.map(jnp.asarray, {"train": tanh_task.train, "test": tanh_task.test})

    @functools.partial(jax.pmap, axis_name="batch")
    def trained(numbers):
        lanes = lane_state.empty(tanh_task, shape, numbers)
        lanes = lane_state.restart(tanh_task, shape, lanes, jnp.ones(2, bool), numbers)
        return lanes_lib.advance(tanh_task, shape, lanes, data, jnp.int32(1000))

    lanes, steps = trained(jax.tree.map(lambda a: np.stack([a] * 4), numbers))
    assert steps.tolist() == [[made[0].plan.micro_steps(8)]] * 4
    assert (lanes.status == lane_state.FINISHED).all()
    for i, result in enumerate(train(tanh_task, runs, lanes=2, microbatch=8)):
        for name, values in lanes.curve.items():
            np.testing.assert_allclose(
                values[:, i], np.broadcast_to(result.curve[name], (4, 1)), rtol=1e-5
            )
