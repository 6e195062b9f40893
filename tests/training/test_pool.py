"""The pool trains what a plain loop trains, whatever its settings and its queue."""

import dataclasses
import math
import random
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from noisegen import training

BASE = {"learning_rate": 0.1, "momentum": 0.5, "noise": 0.0, "last_batch": "straddle", "seed": 0}
BATCHES = (1, 3, 7, 20, 45, 60)  # one, less than a microbatch, a prime, not a multiple, 3/4 N, N
SLOW = pytest.mark.slow
USUAL = {"lanes": 4, "microbatch": 8, "eval_batch": 8, "lanes_per_rare_step": 2}

IN_EPOCHS = [
    BASE | run | {"num_epochs": 2.5, "eval_every": 0.6}
    for run in [
        *({"batch_size": size} for size in BATCHES),
        *({"batch_size": 7, "last_batch": mode} for mode in ("keep", "drop")),
        *({"batch_size": 20, "last_batch": mode} for mode in ("keep", "drop")),  # B divides N
        *({"batch_size": size, "last_batch": "resample"} for size in (7, 45)),
        {"batch_size": 45, "last_batch": "keep", "noise": 0.03},
        {"batch_size": 3, "learning_rate": 0.03, "momentum": 0.9, "seed": 1},
        {"batch_size": 20, "noise": 0.1, "momentum": 0.9, "seed": 2},
    ]
]
IN_UPDATES = [
    BASE | {"batch_size": size, "num_updates": updates, "noise": 0.02, "seed": 3}
    for size, updates in [(1, 9), (7, 20), (20, 3), (60, 7)]
]
HUGE = IN_EPOCHS[4] | {"learning_rate": 100.0, "num_epochs": 15, "eval_every": 3}


def lines(results):
    """All that the results say, to the last bit, but for the wall time."""
    return [repr(dataclasses.replace(result, seconds=0.0)) for result in results]


@pytest.mark.parametrize(
    "runs",
    [pytest.param(IN_EPOCHS, id="epochs"), pytest.param(IN_UPDATES, id="updates", marks=SLOW)],
)
def test_every_run_equals_a_plain_optax_loop(tanh_task, train, assert_agrees, runs):
    for result in train(tanh_task, runs, **USUAL):
        assert result.status == "finished"
        assert result.metrics == {name: result.curve[name][-1] for name in result.metrics}
        assert_agrees(tanh_task, result)


def settings(marks=(), **values):
    """Returns settings of a pool as a parameter."""
    name = "-".join(f"{name}={value}" for name, value in values.items())
    return pytest.param(values, id=name, marks=marks)


@pytest.mark.parametrize(
    "settings",
    [
        settings(SLOW, lanes=1, microbatch=1, eval_batch=23),
        settings(lanes=8, lane_devices=4, batch_devices=2, microbatch=8, eval_batch=8),
        settings(SLOW, lanes=5, microbatch=64, eval_batch=5, lanes_per_rare_step=5),
        settings(SLOW, lanes=16, lane_devices=8, microbatch=8, lanes_per_rare_step=2),
        settings(
            SLOW, lanes=3, batch_devices=4, microbatch=16, eval_batch=24, lanes_per_rare_step=2
        ),
    ],
)
def test_settings_change_no_result(tanh_task, train, assert_agrees, settings):
    for result in train(tanh_task, IN_EPOCHS, **settings):
        assert_agrees(tanh_task, result)


def test_runs_that_come_while_others_train_change_no_bit(tanh_task):
    runs = training.make_runs(tanh_task, IN_EPOCHS)
    pool = training.Pool(tanh_task, training.PoolConfig(**USUAL))
    alone = {result.run_id: lines([result]) for result in pool.train(runs)}
    waiting = [runs[2:3], [], runs[3:9], runs[9:]]  # the first leaves lanes idle

    def more():
        return waiting.pop(0) if waiting else []

    together = {result.run_id: lines([result]) for result in pool.train(runs[:2], more=more)}
    assert not waiting
    assert together == alone


@pytest.mark.slow
def test_runs_that_need_another_program_are_left_out(tanh_task):
    pool = training.Pool(tanh_task, training.PoolConfig(**USUAL))
    [first, *others] = training.make_runs(
        tanh_task, [IN_EPOCHS[3], IN_EPOCHS[3] | {"eval_every": 0.1}, IN_EPOCHS[3] | {"seed": 7}]
    )
    waiting = [others]
    results = pool.train([first], more=lambda: waiting.pop() if waiting else [])
    assert {result.run_id for result in results} == {first.id, others[1].id}


def test_queue_and_neighbours_change_no_bit(tanh_task, train):
    alone = lines(train(tanh_task, IN_EPOCHS, **USUAL))
    for seed in range(3):
        order = random.Random(seed).sample(range(len(IN_EPOCHS)), len(IN_EPOCHS))
        results = train(tanh_task, [IN_EPOCHS[i] for i in order], **USUAL)
        assert lines(results) == [alone[i] for i in order]
    assert lines(train(tanh_task, IN_EPOCHS[7:9], **USUAL)) == alone[7:9]


@pytest.mark.slow
def test_optimized_program_changes_no_bit_with_the_queue(tanh_task, train, assert_agrees):
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        settings = USUAL | {"lanes": 3}
        results = train(tanh_task, IN_EPOCHS, **settings)
        backwards = train(tanh_task, IN_EPOCHS[::-1], **settings)
    finally:
        jax.config.update("jax_disable_most_optimizations", True)
    assert lines(results) == lines(backwards)[::-1]
    for result in results:
        assert_agrees(tanh_task, result)


@pytest.fixture(scope="module")
def impatient_pool(tanh_task):
    """A pool of its own, whose host looks at the device after every micro-step."""
    return training.Pool(tanh_task, training.PoolConfig(**USUAL, host_sync_seconds=1e-9))


def test_resumed_sweep_equals_an_uninterrupted_one(tanh_task, train, impatient_pool):
    runs = training.make_runs(tanh_task, IN_EPOCHS)
    done, left = [], {run.id: run.hparams for run in runs}
    for result in impatient_pool.train(runs):
        done.append(result)
        del left[result.run_id]
        if len(done) == 6:
            break  # the runs in training are lost
    results = done + train(tanh_task, list(left.values()), **USUAL)
    assert sorted(lines(results)) == sorted(lines(train(tanh_task, IN_EPOCHS, **USUAL)))


@pytest.mark.slow
def test_batch_size_that_grows_with_the_updates(tanh_task, train, assert_agrees):
    task = make_growing(tanh_task)
    runs = [
        BASE | {"batch_size": 4, "growth": growth, "num_epochs": epochs, "eval_every": 0.5}
        for growth, epochs in [(8, 2.5), (8, 1), (0, 1)]
    ]
    plans = [run.plan for run in training.make_runs(task, runs)]
    for result, plan in zip(train(task, runs, **USUAL), plans, strict=True):
        assert_agrees(task, result)
        assert result.num_updates == plan.num_updates
        assert result.num_examples == plan.num_examples
    assert [plan.num_updates for plan in plans] == [10, 6, 15]  # 4 4 4 12 12 12 20 20 20 28


def make_growing(task):
    """The task with a batch that grows by `growth` examples every three updates."""
    return dataclasses.replace(
        task, batch_size=lambda run: lambda count: run["batch_size"] + run["growth"] * (count // 3)
    )


@pytest.fixture(scope="module")
def linear_task(tanh_task):
    """A linear model: its runs blow up by a nearly constant factor, not chaotically."""

    def residual(params, batch):
        return batch.data["x"] @ params["hidden"][:, 0] - batch.data["y"]

    return dataclasses.replace(
        tanh_task,
        loss=lambda params, state, batch: (residual(params, batch) ** 2, state),
        metrics=lambda params, state, batch: {"test_loss": residual(params, batch) ** 2},
    )


def test_diverged_run_is_a_result_and_disturbs_no_other(linear_task, train, assert_agrees):
    calm = IN_EPOCHS[:4] + IN_EPOCHS[-2:]
    results = train(linear_task, [*calm[:3], HUGE, *calm[3:]], **USUAL)
    diverged = results.pop(3)
    assert diverged.status == "diverged"
    assert 8 < diverged.diverged_at == diverged.num_updates < 20
    assert all(map(math.isnan, diverged.metrics.values()))
    assert diverged.curve["update"] == [4, 8, 12][: len(diverged.curve["update"])]
    assert 1e6 < diverged.curve["test_loss"][0] < math.inf
    assert_agrees(linear_task, diverged)
    assert all(result.status == "finished" for result in results)
    assert lines(results) == lines(train(linear_task, calm, **USUAL))


def test_all_runs_diverge(linear_task, train, assert_agrees):
    runs = [HUGE | {"seed": seed} for seed in range(6)]
    for result in train(linear_task, runs, **USUAL):
        assert result.status == "diverged"
        assert_agrees(linear_task, result)


def test_infinite_metrics_are_divergence_too():
    x = np.ones((4, 1), np.float32)
    task = training.Task(
        name="far",
        train=x,
        test=x,
        init=lambda key: (jnp.zeros(()), ()),
        loss=lambda w, state, batch: (-w * batch.data[:, 0], state),
        metrics=lambda w, state, batch: {"test_loss": (w * batch.data[:, 0]) ** 2},
        make_optimizer=lambda hparams, key: optax.sgd(hparams["learning_rate"]),
    )
    run = {"batch_size": 4, "learning_rate": 1e30, "num_updates": 1, "seed": 0}
    [result] = training.Pool(task).train([run])
    assert (result.status, result.diverged_at) == ("diverged", 1)


@pytest.fixture
def compiled():
    """Names of the functions that XLA compiles, as it does."""
    names = []

    def listen(event, seconds, fun_name="", **_):
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(fun_name)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.slow
def test_what_is_compiled_side_by_side_is_not_compiled_again(tanh_task, compiled):
    list(training.Pool(tanh_task, training.PoolConfig(lanes=2)).train(IN_EPOCHS[:3]))
    functions = ("jit(empty)", "jit(restart)", "jit(advance)")
    assert [compiled.count(name) for name in functions] == [1, 1, 1]


def test_one_compilation_for_all_batch_sizes_and_horizons(impatient_pool):
    program = impatient_pool._programs[()]
    for runs in ([*IN_EPOCHS, HUGE], [run | {"num_epochs": 1} for run in IN_EPOCHS[-2:]]):
        list(impatient_pool.train(runs))
        for function in (program._empty, program._restart, program._advance):
            assert function._cache_size() == 1


def test_what_has_ended_is_not_lost_when_the_host_is_interrupted(impatient_pool):
    ended = []

    def on_progress(runs):
        ended.append(len(runs))
        if any(progress.examples >= progress.run.plan.num_examples for progress in runs):
            raise KeyboardInterrupt

    results = []
    with pytest.raises(KeyboardInterrupt):
        for result in impatient_pool.train(IN_EPOCHS, on_progress):
            results.append(result)
    assert results and all(result.status == "finished" for result in results)


def test_progress_rises_to_the_end_and_looking_changes_no_bit(tanh_task, train, impatient_pool):
    planned = training.make_runs(tanh_task, IN_EPOCHS)
    seen = {run.id: [0] for run in planned}
    curves = {run.id: [] for run in planned}
    totals = {}

    def on_progress(runs):
        assert 1 <= len(runs) <= USUAL["lanes"]
        for progress in runs:
            seen[progress.run.id].append(progress.examples)
            curves[progress.run.id].append(progress.curve)
            totals[progress.run.id] = progress.run.plan.num_examples

    results = {r.run_id: r for r in impatient_pool.train(planned, on_progress)}
    for run in planned:
        assert seen[run.id] == sorted(seen[run.id])
        assert seen[run.id][-1] == totals[run.id] == results[run.id].num_examples
        # Each look shows the evaluations so far.
        final = results[run.id].curve
        for curve in curves[run.id]:
            assert curve == {name: final[name][: len(curve["update"])] for name in final}
        assert curves[run.id][-1] == final
    assert len({len(curve["update"]) for curve in curves[planned[0].id]}) > 1
    assert len(seen[planned[0].id]) > 100  # batch size 1: a look at each of 150 micro-steps
    in_order = [results[run.id] for run in planned]
    assert lines(in_order) == lines(train(tanh_task, IN_EPOCHS, **USUAL))


def test_time_of_the_host_is_counted(impatient_pool):
    list(impatient_pool.train(IN_EPOCHS[-2:]))  # compiled
    before, started = impatient_pool.host_seconds, time.perf_counter()
    looks = []
    list(impatient_pool.train(IN_EPOCHS[-2:], lambda runs: looks.append(time.sleep(0.01))))
    waited = impatient_pool.host_seconds - before
    assert 0.01 * (len(looks) - 1) < waited < time.perf_counter() - started


def test_no_runs_train_nothing(tanh_task):
    assert list(training.Pool(tanh_task).train([])) == []


@pytest.mark.parametrize(
    "runs, message",
    [
        ([BASE | {"batch_size": 0, "num_epochs": 1}], "batch_size=0 must be between 1 and the 60"),
        (
            [{**BASE, "batch_size": 4, "num_epochs": 1, "noise": math.nan}],
            "noise=nan must be a fin",
        ),
        ([{"batch_size": 4, "num_epochs": 1, "seed": 0}], "reads the number 'noise', which the"),
        (
            [IN_EPOCHS[0], IN_EPOCHS[1] | {"decay": 1}],
            "must have the same fields; not all have decay",
        ),
        (
            [IN_EPOCHS[0] | {"decay": 1}],
            "Nothing reads the run's decay: the optimizer of task 'tanh'",
        ),
        ([IN_EPOCHS[0] | {"seed": 0.5}], "seed=0.5 must be an integer"),
        ([IN_EPOCHS[0] | {"num_examples": 7}], "num_examples, which the pool itself gives"),
        ([{"batch_size": 4, "num_epochs": 1}], "A run needs the field seed"),
        ([IN_EPOCHS[0] | {"noise": 1e39}], "noise=1e[+]39 is beyond the float32 numbers"),
        ([IN_EPOCHS[0] | {"noise": 10**400}], "is beyond the float32 numbers"),
        ([IN_EPOCHS[0] | {"learning_rate": 1e-50}], "learning_rate=1e-50 is beyond the float32"),
    ],
)
def test_bad_runs_are_refused_before_any_is_trained(tanh_task, runs, message):
    with pytest.raises(ValueError, match=message):
        training.Pool(tanh_task).train(runs)  # not iterated


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"batch_devices": 4, "lanes": 3, "eval_batch": 24},
        pytest.param({}, marks=SLOW),
    ],
)
def test_the_training_set_is_measured_once_and_at_the_end(tanh_task, train, settings):
    def train_metrics(*arguments):
        return {f"final_{name}": v for name, v in tanh_task.metrics(*arguments).items()}

    task = dataclasses.replace(tanh_task, test=tanh_task.train, train_metrics=train_metrics)
    runs = [*IN_EPOCHS[:3], IN_EPOCHS[4] | {"learning_rate": 1e30}]
    *results, diverged = train(task, runs, **USUAL | settings)
    for result in results:
        for name in ("test_loss", "test_accuracy"):  # which test set is the training set here
            final = result.metrics[f"final_{name}"]
            np.testing.assert_allclose(final, result.curve[name][-1], rtol=1e-6)
            assert f"final_{name}" not in result.curve
    assert diverged.status == "diverged" and math.isnan(diverged.metrics["final_test_loss"])
    assert training.metric_spec(task).names[2:4] == ("final_test_accuracy", "final_test_loss")


@pytest.mark.parametrize("name", ["train_loss", "epoch", "update", "test_loss"])
def test_a_metric_may_not_take_another_name_of_the_pools(linear_task, name):
    def metrics(params, state, batch):
        return {name: batch.mask.astype(jnp.float32)}

    task = dataclasses.replace(linear_task, train_metrics=metrics)
    for each in (
        [task] if name == "test_loss" else [task, dataclasses.replace(task, metrics=metrics)]
    ):
        with pytest.raises(ValueError, match=f"has a metric named {name}"):
            list(training.Pool(each).train(IN_EPOCHS[:1]))


@pytest.mark.parametrize(
    "reduce, remedy",
    [
        (jnp.mean, "do not average"),
        (lambda losses: losses[:, None] + losses[None], "drop the last axis"),
    ],
)
def test_losses_and_metrics_are_one_an_example(linear_task, reduce, remedy):
    def loss(params, state, batch):
        losses, state = linear_task.loss(params, state, batch)
        return reduce(losses), state

    def metrics(params, state, batch):
        return jax.tree.map(reduce, linear_task.metrics(params, state, batch))

    for changes, message in (
        ({"loss": loss}, r"The loss of task 'tanh' must be one number per example.* \(64,\)"),
        ({"metrics": metrics}, "The metric 'test_loss' of task 'tanh' must be one number"),
    ):
        task = dataclasses.replace(linear_task, **changes)
        with pytest.raises(ValueError, match=f"{message}.*{remedy}"):
            list(training.Pool(task).train(IN_EPOCHS[:1]))


@pytest.mark.slow
def test_metrics_of_half_precision_are_summed_in_full(linear_task):
    half = dataclasses.replace(
        linear_task,
        metrics=lambda params, state, batch: {"m": jnp.full(batch.mask.shape, 0.7, jnp.bfloat16)},
    )
    [result] = training.Pool(half, training.PoolConfig(eval_batch=1)).train(IN_EPOCHS[:1])
    assert abs(result.metrics["m"] - float(jnp.bfloat16(0.7))) < 1e-6


def test_optimizers_may_take_their_numbers_as_keywords(tanh_task, train):
    def make_optimizer(hparams, key):
        return tanh_task.make_optimizer(dict(**hparams), key)

    [plain] = train(tanh_task, IN_EPOCHS[:1], **USUAL)
    task = dataclasses.replace(tanh_task, make_optimizer=make_optimizer)
    [keywords] = train(task, IN_EPOCHS[:1], **USUAL)
    assert lines([plain]) == lines([keywords])
