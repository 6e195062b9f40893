"""Targets, and what a compiled program says about itself."""

import importlib.util
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from noisegen import hardware, training
from noisegen.hardware import targets


@pytest.mark.parametrize(
    ("name", "num_devices"), [("h100", 1), ("h200:8", 8), ("v5e:2x4", 8), ("v6e:1", 1)]
)
def test_a_name_has_a_chip_and_a_number(name, num_devices):
    target = hardware.find_target(name)
    assert target.num_devices == num_devices and name.startswith(target.chip)


@pytest.mark.parametrize("name", ["b200", "h100:0", "h100:2x2", "v5e:2x", "", "h100:-1"])
def test_an_unknown_target_is_refused(name):
    with pytest.raises(ValueError, match="There is no target.*h100:8"):
        hardware.find_target(name)


def test_a_kernel_takes_the_time_of_its_products_or_of_its_traffic():
    target = hardware.find_target("h100")
    assert target.seconds(989 * 10**9, "bf16", 1) == pytest.approx(1e-3)
    assert target.seconds(494 * 10**9, "f32", 1) == pytest.approx(1e-3)
    assert target.seconds(1, "bf16", 335 * 10**7) == pytest.approx(1e-3)


def make_task():
    x = np.linspace(-1, 1, 64, dtype=np.float32)[:, None]

    def loss(params, state, batch):
        return jnp.sum((batch.data["x"] @ params - batch.data["x"]) ** 2, -1), state

    return training.Task(
        name="line",
        train={"x": x},
        test={"x": x},
        init=lambda key: (jax.random.normal(key, (1, 1)), ()),
        loss=loss,
        metrics=lambda params, state, batch: {"size": jnp.abs(params).sum() + batch.mask * 0.0},
        make_optimizer=lambda hparams, key: optax.sgd(hparams["learning_rate"]),
    )


RUN = {"batch_size": 16, "learning_rate": 0.1, "num_epochs": 1, "seed": 0}


@pytest.mark.parametrize(
    ("num_devices", "fixed", "expected"),
    [
        (1, {}, (1, 16, 1, 1)),
        (4, {}, (1, 16, 1, 4)),
        (4, {"lane_devices": 4, "lanes": 8}, (8, 16, 4, 1)),
        (2, {"microbatch": 8}, (1, 8, 1, 2)),
    ],
)
def test_devices_share_the_batch_unless_told_otherwise(num_devices, fixed, expected):
    task = make_task()
    [run] = training.make_runs(task, [RUN])
    config = hardware.default_config(task, run, num_devices, fixed)
    found = (config.lanes, config.microbatch, config.lane_devices, config.batch_devices)
    assert found == expected


def test_every_device_must_be_used():
    task = make_task()
    [run] = training.make_runs(task, [RUN])
    with pytest.raises(ValueError, match="must be 4, the devices"):
        hardware.default_config(task, run, 4, {"lane_devices": 3})
    with pytest.raises(ValueError, match="model_devices=0 must be"):
        hardware.default_config(task, run, 4, {"model_devices": 0})


def test_a_traced_program_is_lowered_for_other_platforms():
    task = make_task()
    traced = training.trace_program(task, RUN, training.PoolConfig(lanes=2, microbatch=8))
    for name in ("restart", "advance", "accumulate"):
        text = traced[name].lower(lowering_platforms=("cuda", "tpu")).as_text()
        assert "f64>" not in text and "callback" not in text


@pytest.mark.parametrize(("package", "target"), [("jax_cuda12_plugin", "h100"), ("libtpu", "v5e")])
def test_without_its_compiler_the_remedy_is_named(package, target):
    if importlib.util.find_spec(package):
        pytest.skip(f"{package} is installed")
    with pytest.raises(ValueError, match=r"pip install '\.\[aot-"):
        hardware.find_target(target).devices()


def test_a_tpu_of_more_chips_needs_its_topology(monkeypatch):
    four = types.SimpleNamespace(devices=[None] * 4)
    monkeypatch.setattr(targets, "_check_installed", lambda target: None)
    monkeypatch.setattr(targets.topologies, "get_topology_desc", lambda **_: four)
    assert len(hardware.find_target("v5e:4").devices()) == 4
    with pytest.raises(ValueError, match="v5e:8 has no topology of 8 chips; .* such as v5e:2x4"):
        hardware.find_target("v5e:8").devices()


@pytest.mark.slow
@pytest.mark.parametrize(("package", "target"), [("jax_cuda12_plugin", "h100"), ("libtpu", "v5e")])
def test_a_program_is_compiled_for_hardware_that_is_not_there(package, target):
    pytest.importorskip(package)
    config = training.PoolConfig(microbatch=16)
    found = hardware.compile_program(make_task(), RUN, config, hardware.find_target(target))
    assert found.callbacks == 0 and found.wide_types == ()
    assert 0 < found.memory < 1e8 and found.bound > 1e6
