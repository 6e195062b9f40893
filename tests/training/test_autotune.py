"""Autotuning offers configs that work and leaves alone what is fixed."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from noisegen import training
from noisegen.training.autotune import _candidates

RUN = {"learning_rate": 0.1, "momentum": 0.5, "noise": 0.0, "seed": 0, "num_epochs": 2}


def test_one_run_takes_one_lane(tanh_task):
    settings, seconds = training.autotune(tanh_task, [RUN | {"batch_size": 4}])
    assert settings.lanes == settings.lane_devices == settings.batch_devices == 1
    assert settings.microbatch == 16  # more would stay empty
    assert 0 < seconds < 60


def test_fixed_settings_stay(tanh_task):
    runs = [RUN | {"batch_size": size} for size in (1, 20, 60)]
    fixed = {"lanes": 4, "lane_devices": 2, "microbatch": 6, "precision": "highest"}
    settings, seconds = training.autotune(tanh_task, runs, **fixed)
    assert {name: getattr(settings, name) for name in fixed} == fixed
    assert seconds > 0


def test_fixed_lanes_need_no_fixed_devices(tanh_task):
    runs = [RUN | {"batch_size": 4, "seed": seed} for seed in range(8)]
    settings, _ = training.autotune(tanh_task, runs, lanes=3, microbatch=8)
    assert (settings.lanes, settings.lane_devices) == (3, 3)


def layer(width):
    """A task whose gradient takes 4 width^2 operations of products an example."""
    return training.Task(
        name="layer",
        train=np.ones((64, width), np.float32),
        test=np.ones((2, width), np.float32),
        init=lambda key: (jnp.zeros((width, width)), ()),
        loss=lambda params, state, batch: (((batch.data @ params) ** 2).sum(1), state),
        metrics=lambda params, state, batch: {"error": (batch.data @ params).sum(1)},
        make_optimizer=lambda hparams, key: optax.sgd(hparams["learning_rate"]),
    )


def instant_pools():
    """Returns a list of the configs that are measured, and a function that makes pools for it."""
    pools = []

    def make_pool(task, config, devices):
        pools.append(config)
        return types.SimpleNamespace(seconds_per_step=lambda run: 1e-9)

    return pools, make_pool


@pytest.mark.parametrize("seconds, measured", [(50, 0), (70, 1)])
def test_short_runs_are_not_measured(seconds, measured):
    """All products take so many seconds at 20 GFLOP/s on each of two cores, one lane a core."""
    task = layer(256)
    epochs = seconds * 2 * 20e9 / (4 * 256**2) / 64 / 10
    runs = [
        {"batch_size": 64, "learning_rate": 0.1, "num_epochs": epochs, "seed": seed}
        for seed in range(10)
    ]
    pools, make_pool = instant_pools()
    devices = jax.devices()[:2]
    config = training.choose_config(task, runs, devices, make_pool, precision="highest")
    assert (config.lanes, config.microbatch, config.precision) == (2, 32, "highest")
    assert len(pools) == measured


@pytest.mark.parametrize("updates, measured", [(400_000, 0), (800_000, 1)])
def test_a_micro_step_of_few_operations_takes_a_tenth_of_a_millisecond(updates, measured):
    pools, make_pool = instant_pools()
    run = {"batch_size": 4, "learning_rate": 0.1, "num_updates": updates, "seed": 0}
    training.choose_config(layer(2), [run], None, make_pool)
    assert len(pools) == measured


def test_short_runs_keep_what_is_fixed():
    runs = [
        {"batch_size": 64, "learning_rate": 0.1, "num_epochs": 1, "seed": seed} for seed in range(8)
    ]
    fixed = {"lanes": 6, "lane_devices": 2, "microbatch": 24}
    config = training.choose_config(layer(4), runs, jax.devices()[:2], None, **fixed)
    assert {name: getattr(config, name) for name in fixed} == fixed


def test_on_an_accelerator_short_runs_are_measured_too(tanh_task):
    pools, make_pool = instant_pools()
    device = types.SimpleNamespace(platform="gpu")
    training.choose_config(tanh_task, [RUN | {"batch_size": 4}], [device], make_pool)
    assert pools


def test_bad_runs_and_settings_are_refused_without_a_measurement():
    run = {"batch_size": 4, "learning_rate": 0.1, "num_epochs": 1, "seed": 0}
    with pytest.raises(ValueError, match="batch_size=0 must be"):
        training.choose_config(layer(4), [run | {"batch_size": 0}])
    with pytest.raises(ValueError, match="at least one run"):
        training.choose_config(layer(4), [])
    with pytest.raises(ValueError, match="lanes=0 must be"):
        training.choose_config(layer(4), [run], lanes=0)


def test_bad_runs_are_refused(tanh_task):
    with pytest.raises(ValueError, match="batch_size=0 must be"):
        training.autotune(tanh_task, [RUN | {"batch_size": 0}])
    with pytest.raises(ValueError, match="at least one run"):
        training.autotune(tanh_task, [])


def test_fixed_settings_leave_nothing_to_chance(tanh_task):
    # What is not measured follows from what is used, so that equal programs are compiled once.
    plans = {training.plan({"batch_size": 512, "num_epochs": 1, "seed": 0}, 1024): 1000}
    for platform, derived in (("cpu", (8, 16)), ("gpu", (8, 2000))):
        device = types.SimpleNamespace(platform=platform)
        candidates = set(_candidates([device], plans, tanh_task, lanes=64, microbatch=64))
        assert {(c.lanes_per_rare_step, c.eval_batch) for c in candidates} == {derived}
        assert len(candidates) == 1
    with pytest.raises(ValueError, match="batch_devices=0 must be a whole number"):
        training.autotune(None, [RUN], batch_devices=0)


def search(task, platform, seconds_per_step):
    """Returns the chosen lanes on a made-up device, and those of all configs that were measured."""
    measured = []

    def make_pool(task, config, devices):
        measured.append(config.lanes)
        step = seconds_per_step(config.lanes)
        if step is None:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: made up")
        return types.SimpleNamespace(seconds_per_step=lambda run: step)

    runs = [RUN | {"batch_size": 60, "seed": seed} for seed in range(1000)]
    device = types.SimpleNamespace(platform=platform)
    return training.autotune(task, runs, [device], make_pool)[0].lanes, measured


@pytest.mark.parametrize(
    ("platform", "lanes"), [("gpu", [1, 4, 16, 64, 256]), ("tpu", [1, 16, 256])]
)
def test_an_accelerator_compiles_one_program_for_each_number_of_lanes(tanh_task, platform, lanes):
    # A small network: many lanes take hardly longer than few.
    assert search(tanh_task, platform, lambda lanes: 50 + lanes) == (256, lanes)


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_an_accelerator_is_done_when_more_lanes_are_no_faster(tanh_task, platform):
    # A large network, which fills the device alone.
    chosen, measured = search(tanh_task, platform, lambda lanes: lanes * (1 + 0.1 * (lanes > 1)))
    assert chosen == 1 and len(measured) == 2


def test_an_accelerator_is_done_when_more_lanes_do_not_fit(tanh_task):
    found = search(tanh_task, "gpu", lambda lanes: 1 if lanes < 16 else None)
    assert found == (4, [1, 4, 16])
    with pytest.raises(ValueError, match="No config fits this device.*made up"):
        search(tanh_task, "gpu", lambda lanes: None)


@pytest.mark.parametrize(
    ("batch_size", "num_runs", "expected"),
    [
        # Smaller microbatches follow, for a network that does not fit the memory.
        (8192, 1, [(1, 1024), (1, 256), (1, 64)]),
        (512, 15, [(1, 256), (1, 64), (16, 256)]),
        # More examples at once would save nothing.
        (8192, 1000, [(1, 1024), (1, 256), (1, 64), (16, 1024), (256, 64)]),
    ],
)
def test_a_large_microbatch_is_preferred_if_batches_fill_it(
    tanh_task, batch_size, num_runs, expected
):
    fields = {"batch_size": batch_size, "num_epochs": 1, "seed": 0}
    plans = {training.plan(fields, 50_000): num_runs}
    candidates = _candidates([types.SimpleNamespace(platform="tpu")], plans, tanh_task)
    assert [(c.lanes, c.microbatch) for c in dict.fromkeys(candidates)] == expected
