"""Bad tasks are refused before anything is trained; JAX's global settings are obeyed or refused."""

import dataclasses
import functools
import math
import operator
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from noisegen import data, training

RUN = {
    "batch_size": 12,
    "num_updates": 6,
    "seed": 0,
    "learning_rate": 0.1,
    "momentum": 0.5,
    "noise": 0.0,
}
PLAIN = {name: RUN[name] for name in ("batch_size", "num_updates", "seed", "learning_rate")}


@functools.cache
def pool_of(task, **settings):
    """Returns the pool of a task, one for all tests."""
    return training.Pool(task, training.PoolConfig(microbatch=8, **settings))


def train_one(task, run=RUN, **settings):
    [result] = pool_of(task, **settings).train([run])
    return result


@pytest.fixture(scope="module")
def usual(tanh_task):
    return train_one(tanh_task).metrics


def with_optimizer(task, make_optimizer, **fields):
    return dataclasses.replace(task, make_optimizer=make_optimizer, **fields)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"metrics": lambda p, s, b: b.data["y"]}, "metrics of task 'tanh' must be a dictionary"),
        ({"metrics": lambda p, s, b: None}, "metrics .* returned is a value of type NoneType"),
        ({"metrics": lambda p, s, b: {"a": 1.0}}, r"metric 'a' .* shape \(M,\) .* it is a number"),
        ({"metrics": lambda p, s, b: {"a": b.data["y"] + 0j}}, "metric 'a' .* must be real"),
        ({"train_metrics": lambda p, s, b: b}, "train_metrics of task 'tanh' must be a dictionary"),
        ({"loss": lambda p, s, b: b.data["y"]}, r"loss .* must return \(losses, state\)"),
        ({"loss": lambda p, s, b: ((b.data["y"], {}), s)}, "loss .* it is a value of type tuple"),
        ({"loss": lambda p, s, b: (b.data["y"], {"new": 1.0})}, "must return a state like that of"),
        (
            {"loss": lambda p, s, b: (b.data["y"] + 0j, s)},
            "loss .* must be real, but it is complex",
        ),
        ({"init": lambda key: jnp.zeros(3)}, r"init .* must return \(params, state\)"),
        (
            {"init": lambda key: (jnp.arange(3), ())},
            "is int32, and only real .*keep it in the state",
        ),
        ({"init": lambda key: (jnp.zeros(3) + 0j, ())}, "is complex64, .*real and its imaginary"),
        ({"diagnostics": lambda p, s, t: {"d": jnp.sum(p["out"]) * 1j}}, "diagnostic 'd' .* real"),
        ({"diagnostics": lambda p, s, t: {1: 0.0}}, "diagnostics .* must be a dictionary"),
        ({"partition": {}}, "partition of task 'tanh' must be a function, but it is {}"),
        ({"init": None}, "init of task 'tanh' must be a function, but it is None"),
        ({"partition": {}}, "partition of task 'tanh' must be a function, but it is {}"),
        (
            {"make_optimizer": lambda h, key: None},
            "optax transformation, .*NoneType; is there a ret",
        ),
        ({"make_optimizer": lambda h, key: optax.sgd}, "must return an optax transformation"),
        ({"name": ""}, "name must be text"),
    ],
)
def test_functions_that_return_something_else_are_named(tanh_task, changes, message):
    with pytest.raises(ValueError, match=message):
        training.make_runs(dataclasses.replace(tanh_task, **changes), [RUN])


def test_a_task_without_parameters_is_measured(tanh_task):
    task = dataclasses.replace(
        tanh_task,
        init=lambda key: ({}, ()),
        loss=lambda p, s, batch: (batch.data["y"] ** 2, s),
        metrics=lambda p, s, batch: {"test_loss": batch.data["y"] ** 2},
    )
    expected = np.mean(tanh_task.test["y"] ** 2)
    assert train_one(task).metrics["test_loss"] == pytest.approx(expected, rel=1e-5)


def test_optimizers_get_the_loss_and_the_gradient_of_the_batch(tanh_task):
    seen = optax.GradientTransformationExtraArgs(
        lambda params: {"value": jnp.float32(0), "same": jnp.bool_(True)},
        lambda updates, state, params=None, *, value, grad, **others: (
            jax.tree.map(jnp.zeros_like, updates),
            {
                "value": value,
                "same": state["same"] & jnp.all(updates["out"] == grad["out"]) & (value > 0),
            },
        ),
    )
    task = with_optimizer(
        tanh_task,
        lambda h, key: optax.chain(optax.scale(h["learning_rate"] * 0 + 1), seen),
        diagnostics=lambda params, state, train: {},
    )
    pool = training.Pool(task, training.PoolConfig(microbatch=8))
    kept = []
    [result] = pool.train([PLAIN | {"num_updates": 1}], checkpoints=Keeper(kept))
    state = {name: array for name, array in kept[-1].items() if "opt_state" in name}
    value = next(array for name, array in state.items() if "value" in name)
    same = next(array for name, array in state.items() if "same" in name)
    assert same.all()
    assert value[0] == pytest.approx(result.metrics["train_loss"], rel=1e-5)


class Keeper:
    """Keeps what a pool would write to a checkpoint."""

    def __init__(self, kept):
        self.kept = kept

    def due(self):
        return True

    def save(self, runs, counts, arrays):
        self.kept.append(jax.device_get(dict(arrays)))

    def load(self, run):
        return ()


def sam_eval_params(opt_state, params):
    return jax.tree.map(
        lambda cached, p: jnp.where(opt_state.steps_since_sync == 0, p, cached),
        opt_state.cache,
        params,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "make_optimizer, eval_params",
    [
        pytest.param(
            lambda h, key: optax.contrib.sam(optax.sgd(h["learning_rate"]), optax.sgd(0.05)),
            sam_eval_params,
            id="SAM",
        ),
        pytest.param(
            lambda h, key: optax.MultiSteps(optax.polyak_sgd(h["learning_rate"]), 2),
            None,
            id="every other step of Polyak",
        ),
        pytest.param(
            lambda h, key: optax.polyak_sgd(h["learning_rate"]),
            None,
            id="Polyak",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda h, key: optax.chain(
                optax.sgd(h["learning_rate"]), optax.contrib.reduce_on_plateau(patience=1)
            ),
            None,
            id="plateau",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_optimizers_with_updates_of_their_own_train(tanh_task, make_optimizer, eval_params):
    task = with_optimizer(tanh_task, make_optimizer, eval_params=eval_params)
    assert train_one(task, PLAIN).status == "finished"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "make, message",
    [
        (lambda h, key: optax.lbfgs(h["learning_rate"]), "'tanh' cannot be updated .*'value_fn'"),
        (
            lambda h, key: optax.lookahead(optax.sgd(h["learning_rate"]), 2, 0.5),
            "cannot be updated",
        ),
        (
            lambda h, key: optax.contrib.schedule_free_sgd(h["learning_rate"]),
            "in its ScheduleFreeState.*eval_params",
        ),
    ],
)
def test_optimizers_that_a_pool_cannot_serve_are_refused(tanh_task, make, message):
    with pytest.raises(ValueError, match=message):
        training.make_runs(with_optimizer(tanh_task, make), [PLAIN])


@pytest.mark.parametrize(
    "name, function",
    [
        ("make_optimizer", lambda h, key: optax.sgd(0.1 if h["learning_rate"] else 1)),
        # A traced factor is compared with 0, and a traced boundary is hashed.
        (
            "make_optimizer",
            lambda h, key: optax.sgd(
                optax.piecewise_constant_schedule(0.1, {5: h["learning_rate"]})
            ),
        ),
        (
            "make_optimizer",
            lambda h, key: optax.sgd(
                optax.piecewise_constant_schedule(h["learning_rate"], {h["num_updates"] // 2: 0.1})
            ),
        ),
        ("batch_size", lambda h: lambda count: h["batch_size"] if np.all(count < 2) else 4),
        ("example_weights", lambda h: lambda key, positions, size: np.ones(int(size))),
    ],
)
def test_functions_that_need_the_value_of_a_number_are_refused(tanh_task, name, function):
    task = dataclasses.replace(tanh_task, **{name: function})
    with pytest.raises(ValueError, match=f"^{name} of task .* needs the value of a number") as info:
        training.make_runs(task, [RUN])
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    "name, schedule, remedy",
    [
        (
            "cosine_decay_schedule",
            lambda h: optax.cosine_decay_schedule(h["learning_rate"], h["num_updates"]),
            "noisegen.cosine_decay_schedule, which has the same arguments",
        ),
        (
            "linear_schedule",  # which calls the polynomial one
            lambda h: optax.linear_schedule(h["learning_rate"], 0.0, h["num_updates"]),
            "noisegen.linear_schedule, which has the same arguments",
        ),
        (
            "warmup_cosine_decay_schedule",
            lambda h: optax.warmup_cosine_decay_schedule(0, h["learning_rate"], 2, 6),
            "noisegen.warmup_cosine_decay_schedule, which has the same arguments",
        ),
        (
            "linear_onecycle_schedule",
            lambda h: optax.linear_onecycle_schedule(h["num_updates"], h["learning_rate"]),
            "noisegen.linear_onecycle_schedule, which has the same arguments",
        ),
        (
            "piecewise_constant_schedule",
            lambda h: optax.piecewise_constant_schedule(0.1, {5: h["learning_rate"]}),
            "noisegen.piecewise_constant_schedule, which also takes pairs (boundary, scale)",
        ),
        (
            "sgdr_schedule",
            lambda h: optax.sgdr_schedule(
                [
                    {
                        "init_value": 0,
                        "peak_value": h["learning_rate"],
                        "warmup_steps": 1,
                        "decay_steps": 3,
                    }
                ]
            ),
            "noisegen.join_schedules of noisegen.warmup_cosine_decay_schedule",
        ),
        (
            "exponential_decay",  # made at each update, inside another schedule
            lambda h: optax.join_schedules(
                [lambda t: optax.exponential_decay(h["learning_rate"], h["num_updates"], 0.5)(t)],
                [],
            ),
            "noisegen.exponential_decay, which has the same arguments",
        ),
    ],
)
def test_optax_schedules_that_cannot_be_traced_are_refused_by_name(
    tanh_task, name, schedule, remedy
):
    task = with_optimizer(tanh_task, lambda h, key: optax.sgd(schedule(h)))
    with pytest.raises(ValueError, match="^(make_|The )optimizer of task 'tanh' calls") as info:
        training.make_runs(task, [PLAIN])
    _, _, explained = str(info.value).partition("calls ")
    assert explained == (
        f"optax.{name}, which needs the value of a number, but the numbers of runs are traced: "
        f"use {remedy}."
    )


def test_a_function_that_an_optax_schedule_calls_is_not_taken_for_it(tanh_task):
    def branching(h):
        return optax.join_schedules([lambda count: 0.1 if h["learning_rate"] > 0 else 0.2], [])

    task = with_optimizer(tanh_task, lambda h, key: optax.sgd(branching(h)))
    with pytest.raises(ValueError, match="cannot be updated in a pool.*TracerBool"):
        training.make_runs(task, [PLAIN])
    keyed = with_optimizer(tanh_task, lambda h, key: optax.sgd({h["learning_rate"]: 0.1}[0.1]))
    with pytest.raises(ValueError, match="needs the value .* does with pairs .*: unhashable"):
        training.make_runs(keyed, [PLAIN])


def test_a_mistake_in_a_function_of_the_task_shows_as_it_is(tanh_task):
    task = with_optimizer(tanh_task, lambda hparams, key: optax.sgd("fast" + 1))
    with pytest.raises(TypeError, match="concatenate"):
        training.make_runs(task, [PLAIN])


@pytest.mark.slow
def test_weights_that_are_not_the_trained_ones_are_evaluated(tanh_task):
    def average():
        """Keeps the mean of all parameters that were updated."""
        return optax.GradientTransformation(
            lambda params: (jnp.int32(0), params),
            lambda updates, state, params: (
                updates,
                (
                    state[0] + 1,
                    jax.tree.map(
                        lambda mean, p, u: mean + (p + u - mean) / (state[0] + 1).astype(p.dtype),
                        state[1],
                        params,
                        updates,
                    ),
                ),
            ),
        )

    def make_optimizer(h, key):
        return optax.chain(optax.sgd(h["learning_rate"]), average())

    plain = with_optimizer(tanh_task, make_optimizer)
    averaged = dataclasses.replace(plain, eval_params=lambda opt_state, params: opt_state[1][1])

    def kept(task, updates):
        [result] = pool_of(task).train([PLAIN | {"num_updates": updates}], keep_params=True)
        return result

    steps = [kept(plain, updates).params for updates in (1, 2, 3)]
    expected = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *steps)
    found = kept(averaged, 3)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found.params, expected)
    measured = training.evaluate_params(tanh_task, expected)
    assert found.metrics["test_loss"] == pytest.approx(float(measured["test_loss"]), rel=1e-5)
    assert found.metrics["test_loss"] != kept(plain, 3).metrics["test_loss"]

    wrong = dataclasses.replace(plain, eval_params=lambda opt_state, params: opt_state)
    with pytest.raises(ValueError, match="eval_params of task 'tanh' must return parameters like"):
        training.make_runs(wrong, [PLAIN])


@pytest.mark.slow
def test_booleans_and_words_reach_the_optimizer_as_they_are(tanh_task, train):
    def make_optimizer(h, key):
        assert isinstance(h["nesterov"], bool) and isinstance(h["kind"], str)
        if h["kind"] == "adam":
            return optax.adam(h["learning_rate"])
        return optax.sgd(h["learning_rate"], 0.9, nesterov=h["nesterov"])

    task = with_optimizer(tanh_task, make_optimizer)
    runs = [
        PLAIN | {"nesterov": nesterov, "kind": kind}
        for nesterov, kind in ((np.True_, "sgd"), (False, "sgd"), (np.True_, "adam"))
    ]
    losses = [r.metrics["test_loss"] for r in train(task, runs[::-1], lanes=2, microbatch=8)][::-1]
    chains = (
        lambda h, key: optax.sgd(h["learning_rate"], 0.9, nesterov=True),
        lambda h, key: optax.sgd(h["learning_rate"], 0.9),
        lambda h, key: optax.adam(h["learning_rate"]),
    )
    alone = [train_one(with_optimizer(tanh_task, make), PLAIN, lanes=2) for make in chains]
    expected = [result.metrics["test_loss"] for result in alone]
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    with pytest.raises(ValueError, match="nesterov must hold values of one kind"):
        training.make_runs(task, [runs[0], runs[0] | {"nesterov": 1}])
    with pytest.raises(ValueError, match="seed=True must be a number"):
        training.make_runs(task, [runs[0] | {"seed": True}])
    with pytest.raises(ValueError, match="batch_size='12' must be a finite number"):
        training.make_runs(task, [runs[0] | {"batch_size": "12"}])


@pytest.mark.slow
def test_two_iterators_of_one_pool_keep_to_their_programs(tanh_task):
    task = with_optimizer(
        tanh_task, lambda h, key: optax.sgd(h["learning_rate"], 0.9, nesterov=h["nesterov"])
    )
    pool = training.Pool(task, training.PoolConfig(microbatch=8))
    runs = {
        value: [PLAIN | {"nesterov": value, "seed": seed} for seed in range(4)]
        for value in (True, False)
    }

    def losses(results):
        return [result.metrics["test_loss"] for result in results]

    alone = {value: losses(pool.train(those)) for value, those in runs.items()}
    pairs = zip(pool.train(runs[True]), pool.train(runs[False]), strict=True)
    assert list(map(losses, zip(*pairs, strict=True))) == [alone[True], alone[False]]


def test_words_may_be_infinite_but_no_numbers_in_quotes():
    run = {"batch_size": 4, "num_updates": 1, "seed": 0}
    assert training.plan(run | {"norm": "inf"}, 8).num_updates == 1
    with pytest.raises(ValueError, match="norm='0.5' must be a finite number; write it without"):
        training.plan(run | {"norm": "0.5"}, 8)
    with pytest.raises(ValueError, match="norm=1000.* is beyond the float32 numbers"):
        training.plan(run | {"norm": 10**400}, 8)


def test_numbers_of_any_kind_make_the_same_run(tanh_task, usual):
    for kind in (np.float32, np.float64, jnp.float32, lambda v: np.array(v, np.float32)):
        run = RUN | {name: kind(RUN[name]) for name in ("learning_rate", "momentum", "noise")}
        run |= {"batch_size": np.uint8(12), "num_updates": np.int16(6), "seed": jnp.int32(0)}
        assert train_one(tanh_task, run).metrics == usual


def test_examples_between_evaluations_are_counted_or_refused():
    with pytest.raises(ValueError, match="between two evaluations are more than the device counts"):
        training.plan({"batch_size": 50_000, "num_updates": 50_000, "seed": 0}, 50_000)
    run = {"batch_size": 50_000, "num_updates": 50_000, "num_evals": 2, "seed": 0}
    assert training.plan(run, 50_000).num_examples == 2_500_000_000


@pytest.mark.slow
def test_precision_that_the_user_asks_for_is_used(tanh_task):
    seen = []

    def loss(params, state, batch):
        seen.append(jax.config.jax_default_matmul_precision)
        return tanh_task.loss(params, state, batch)

    task = dataclasses.replace(tanh_task, loss=loss)
    with jax.default_matmul_precision("highest"):
        pool = training.Pool(task, training.PoolConfig(microbatch=8))
        list(pool.train([RUN]))
        assert set(seen) == {"highest"}
        seen.clear()
        pool.seconds_per_step(RUN, seconds=0.001)
        assert set(seen) <= {"highest"}
        train_one(task, precision="high")
    assert "high" in seen


@pytest.mark.slow
@pytest.mark.parametrize(
    "setting",
    [
        lambda: jax.numpy_dtype_promotion("strict"),
        lambda: jax.transfer_guard("disallow"),
        lambda: jax.set_mesh(jax.make_mesh((2, 2), ("x", "y"), devices=jax.devices()[:4])),
        lambda: jax.default_device(jax.devices()[1]),
    ],
    ids=["promotion", "transfers", "mesh", "device"],
)
def test_settings_of_jax_that_are_obeyed(tanh_task, usual, setting):
    task = dataclasses.replace(tanh_task)  # not checked, traced or compiled before
    with setting():
        found = train_one(task, lanes=2, lane_devices=2).metrics
    assert found == pytest.approx(usual, rel=1e-5)


@pytest.mark.slow
def test_64_bit_numbers_are_used_where_they_are_asked_for(tanh_task):
    def double(key):
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float64), tanh_task.init(key)[0]), ()

    with jax.enable_x64(True):
        pool = training.Pool(
            dataclasses.replace(tanh_task, init=double), training.PoolConfig(microbatch=8)
        )
        [result] = pool.train([RUN], keep_params=True)
    assert result.status == "finished"
    assert result.params["out"].dtype == np.float64


def test_settings_of_jax_that_would_change_a_run_are_refused(tanh_task, monkeypatch):
    with jax.threefry_partitionable(False), pytest.raises(ValueError, match="THREEFRY_PARTITION"):
        training.make_runs(tanh_task, [RUN])
    with jax.debug_nans(True), pytest.raises(ValueError, match="jax_debug_nans .*diverged_at"):
        train_one(tanh_task)
    with jax.default_prng_impl("rbg"), pytest.raises(ValueError, match="JAX_DEFAULT_PRNG_IMPL"):
        train_one(tanh_task)
    jax.config.update("jax_random_seed_offset", 5)
    try:
        with pytest.raises(ValueError, match="jax_random_seed_offset=5 .*other seeds"):
            train_one(tanh_task)
    finally:
        jax.config.update("jax_random_seed_offset", 0)


def test_draws_shared_by_a_microbatch_are_a_warning(tanh_task):
    def loss(params, state, batch):
        losses, state = tanh_task.loss(params, state, batch)
        return losses * jax.random.uniform(batch.keys[0], losses.shape), state

    jax.config.update("jax_debug_key_reuse", False)
    try:
        with pytest.warns(UserWarning, match="draws random numbers for several examples from one"):
            training.make_runs(dataclasses.replace(tanh_task, loss=loss), [RUN])
    finally:
        jax.config.update("jax_debug_key_reuse", True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        training.make_runs(dataclasses.replace(tanh_task), [RUN])


def test_the_context_in_which_training_was_asked_for_holds_until_its_end(tanh_task):
    seen = []

    def loss(params, state, batch):
        seen.append((jax.config.jax_default_matmul_precision, jax.config.jax_enable_x64))
        return tanh_task.loss(params, state, batch)

    pool = training.Pool(
        dataclasses.replace(tanh_task, loss=loss), training.PoolConfig(microbatch=8)
    )
    with jax.default_matmul_precision("highest"):
        results = pool.train([RUN])
    seen.clear()
    list(results)
    assert set(seen) == {("highest", False)}


def test_the_default_device_of_the_user_trains(tanh_task):
    chosen = jax.devices()[3]
    with jax.default_device(chosen):
        pool = training.Pool(tanh_task, training.PoolConfig(microbatch=8))
    assert {d for leaf in jax.tree.leaves(pool._programs[()].data) for d in leaf.devices()} == {
        chosen
    }


@pytest.mark.parametrize(
    "values, message",
    [
        (np.full(60, 4e9, np.int64), r"train\['t'\] of task 'tanh' holds numbers beyond int32"),
        (np.full(60, 1e300), r"train\['t'\] .* holds numbers beyond float32"),
        (np.zeros(60, ">f4"), r"train\['t'\] .* byte order of another machine"),
        (np.array(["a"] * 60), r"train\['t'\] .* is <U1; give numbers or booleans"),
    ],
)
def test_data_that_the_device_would_change_are_refused(tanh_task, values, message):
    task = dataclasses.replace(tanh_task, train=tanh_task.train | {"t": values})
    with pytest.raises(ValueError, match=message):
        training.make_runs(task, [RUN])


@pytest.mark.parametrize("make", [np.array, jnp.array])
def test_data_with_nan_are_named_in_a_warning(tanh_task, make):
    values = np.zeros((60, 2), np.float32)
    task = dataclasses.replace(tanh_task, train=tanh_task.train | {"t": make(values)})
    assert training.make_runs(task, [RUN])  # without a warning, which would be an error here
    values[3] = math.nan, -math.inf
    task = dataclasses.replace(tanh_task, train=tanh_task.train | {"t": make(values)})
    with pytest.warns(UserWarning, match=r"train\['t'\] of task 'tanh' .*\(2 of 120 numbers\)"):
        assert training.make_runs(task, [RUN])


def test_numbers_of_python_may_be_parameters(tanh_task):
    task = dataclasses.replace(
        tanh_task,
        init=lambda key: ({"slope": 0.0}, 0),
        loss=lambda p, s, batch: ((p["slope"] - batch.data["y"]) ** 2, s),
        metrics=lambda p, s, batch: {"test_loss": (p["slope"] - batch.data["y"]) ** 2},
    )
    assert train_one(task).status == "finished"


def squares(params, batch):
    return (batch.data["x"] @ params["hidden"] @ params["out"] - batch.data["y"]) ** 2


def top_eight(params, batch):
    losses = squares(params, batch)
    return jnp.where(losses >= jax.lax.top_k(losses, min(8, len(losses)))[0][-1], losses, 0)


@pytest.mark.parametrize(
    "loss, message",
    [
        (lambda p, s, b: (squares(p, b) * b.mask / b.mask.sum(), s), "depends on other examples"),
        (lambda p, s, b: (squares(p, b) / len(b.mask), s), "on the number of examples in a call"),
        (lambda p, s, b: (top_eight(p, b), s), "for an example depends on"),
    ],
    ids=["divided by the mask", "divided by the size", "hard examples"],
)
def test_losses_that_depend_on_the_microbatch_are_refused(tanh_task, loss, message):
    task = dataclasses.replace(
        tanh_task,
        init=lambda key: (tanh_task.init(key)[0], jnp.float32(0)),
        loss=loss,
        metrics=lambda p, s, batch: {"test_loss": squares(p, batch)},
    )
    with pytest.raises(ValueError, match=message):
        training.make_runs(task, [RUN])


def test_a_state_that_changes_once_a_call_is_a_warning(tanh_task):
    task = dataclasses.replace(
        tanh_task,
        init=lambda key: (tanh_task.init(key)[0], jnp.float32(0)),
        loss=lambda p, s, b: (squares(p, b), 0.9 * s + 1),
        metrics=lambda p, s, b: {"test_loss": squares(p, b)},
    )
    with pytest.warns(UserWarning, match="state of task 'tanh' changes once a call"):
        training.make_runs(task, [RUN])
    by_example = dataclasses.replace(task, loss=lambda p, s, b: (squares(p, b), s + b.mask.sum()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        training.make_runs(by_example, [RUN])


def test_metrics_of_the_training_set_are_checked_too(tanh_task):
    def centered(params, state, batch):
        losses = squares(params, batch)
        return {"spread": (losses - losses.mean()) ** 2}

    task = dataclasses.replace(tanh_task, train_metrics=centered)
    with pytest.raises(ValueError, match="train_metrics of task 'tanh' .* depend on examples"):
        training.make_runs(task, [RUN])


def test_whole_batches_are_never_ragged(tanh_task):
    task = dataclasses.replace(tanh_task, ghost_size=24, only_batch_size=24)
    run = RUN | {"batch_size": 24}
    assert training.make_runs(task, [run])
    with pytest.raises(ValueError, match="made for batch_size=24, got a run of batch_size=12"):
        training.make_runs(task, [run | {"last_batch": "keep"}])


def test_zero_weights_do_not_hide_layers_that_mix_examples(tanh_task):
    def loss(params, state, batch):
        x = batch.data["x"]
        centered = (x - x.mean(0, keepdims=True)) @ params["hidden"]
        return (centered @ params["out"] - batch.data["y"]) ** 2, state

    zeros = {"hidden": jnp.zeros((4, 8)), "out": jnp.zeros(8)}
    task = dataclasses.replace(tanh_task, loss=loss, init=lambda key: (zeros, ()))
    with pytest.raises(ValueError, match="loss .* depends on examples outside batch.mask"):
        training.make_runs(task, [RUN])


@pytest.mark.slow
def test_a_run_that_diverges_beside_others_is_a_result(tanh_task, train, usual):
    runs = [RUN, RUN | {"learning_rate": 1e30}]
    results = train(tanh_task, runs, lanes=2, microbatch=8)
    assert [result.status for result in results] == ["finished", "diverged"]
    assert results[0].metrics == pytest.approx(usual, rel=1e-5)
    assert math.isnan(results[1].metrics["test_loss"])


@pytest.mark.parametrize("as_source", [False, True])
def test_a_key_that_a_split_lacks_is_named_with_the_split(tanh_task, as_source):
    test = {"x": tanh_task.test["x"]}
    if as_source:
        test = data.one_by_one([{"x": x} for x in test["x"]])
    with pytest.raises(
        ValueError, match="test set of task 'tanh' has no 'y', .* and the train set has: give it"
    ):
        training.make_runs(dataclasses.replace(tanh_task, test=test), [RUN])


def test_a_key_that_no_split_has_is_an_error_of_the_function(tanh_task):
    task = dataclasses.replace(tanh_task, metrics=lambda p, s, b: {"test_loss": b.data["z"]})
    with pytest.raises(KeyError, match="z"):
        training.make_runs(task, [RUN])


# Optimizers of optax with the numbers of theirs that a sweep may want to tune.
OPTIMIZERS = {
    "adabelief": ("b1", "b2", "eps"),
    "adadelta": ("rho", "eps", "weight_decay"),
    "adagrad": ("eps",),
    "adam": ("b1", "b2", "eps"),
    "adamax": ("b1", "b2", "eps"),
    "adamw": ("b1", "b2", "eps", "weight_decay"),
    "adan": ("b1", "b2", "b3", "eps", "weight_decay"),
    "amsgrad": ("b1", "b2", "eps"),
    "fromage": ("min_norm",),
    "lamb": ("b1", "b2", "eps", "weight_decay"),
    "lars": ("weight_decay", "trust_coefficient", "eps", "momentum"),
    "lion": ("b1", "b2", "weight_decay"),
    "nadamw": ("b1", "b2", "eps", "weight_decay"),
    "novograd": ("b1", "b2", "eps", "weight_decay"),
    "radam": ("b1", "b2", "eps", "threshold"),
    "rmsprop": ("decay", "eps", "initial_scale"),
    "sgd": ("momentum",),
    "sm3": ("momentum",),
    "yogi": ("b1", "b2", "eps"),
    "contrib.muon": ("beta", "eps", "weight_decay"),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_number_of_an_optimizer_may_be_traced(tanh_task, name):
    numbers = dict.fromkeys(OPTIMIZERS[name], 0.5)

    def make_optimizer(hparams, key):
        make = operator.attrgetter(name)(optax)
        return make(hparams["learning_rate"], **{each: hparams[each] for each in numbers})

    [run] = training.make_runs(with_optimizer(tanh_task, make_optimizer), [PLAIN | numbers])
    assert run.hparams.items() >= numbers.items()
