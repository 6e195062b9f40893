"""Programs and their products bound the speed on an accelerator."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from noisegen import hardware, training
from noisegen.hardware import compilation, speed_bound


@pytest.fixture
def linear():
    """A task of a matrix of 64 x 10, and a run of it."""
    x, y = np.zeros((96, 64), np.float32), np.zeros((96, 10), np.float32)

    def loss(w, state, batch):
        return ((batch.data["x"] @ w - batch.data["y"]) ** 2).sum(1), state

    task = training.Task(
        name="linear",
        train={"x": x, "y": y},
        test={"x": x, "y": y},
        init=lambda key: (jnp.zeros((64, 10)), ()),
        loss=loss,
        metrics=lambda *arguments: {"test_loss": loss(*arguments)[0]},
        make_optimizer=lambda hparams, key: optax.sgd(hparams["learning_rate"]),
    )
    run = {"batch_size": 32, "learning_rate": 0.1, "num_updates": 3, "seed": 0}
    return task, training.make_runs(task, [run], mixing=False)[0]


def test_without_a_compiler_the_products_bound_the_speed(linear, monkeypatch):
    monkeypatch.setattr(speed_bound, "is_installed", lambda target: False)
    for name, fixed in (("h100", {}), ("h100:2", {}), ("h100", {"lanes": 3})):
        target = hardware.find_target(name)
        found = hardware.bound_speed(*linear, target, fixed)
        # The logits and the gradient of the matrix, in float32.
        assert found == pytest.approx(target.num_devices * 494e12 / (2 * 2 * 64 * 10))


def compiled_in_a_millisecond(task, run, config, target, names):
    """Takes the place of `compile_program`: a device needs 1 ms for its micro-step."""
    share = compilation.share_of_device(config)
    step = hardware.MicroStep(
        examples=share.lanes * share.microbatch,
        seconds=1e-3,
        estimated_seconds=None,
        bytes=0,
        flops=0,
        products={},
        kernels=0,
        contributions={},
        collectives={},
    )
    return hardware.Compilation(
        target=target,
        config=config,
        seconds={},
        memory=0,
        micro_step=step,
        update=hardware.Update(seconds=0.0, bytes=0, kernels=0, collectives={}, summed_bytes=0),
        expected_flops=0,
        callbacks=0,
        wide_types=(),
    )


# A micro-step has 32 examples. Devices that share a model work on the same of them.
@pytest.mark.parametrize("name, fixed", [("h100:2", {}), ("h100:4", {"model_devices": 2})])
def test_with_a_compiler_the_kernels_bound_the_speed(linear, monkeypatch, name, fixed):
    monkeypatch.setattr(speed_bound, "is_installed", lambda target: True)
    monkeypatch.setattr(speed_bound, "compile_program", compiled_in_a_millisecond)
    target = hardware.find_target(name)
    found = hardware.bound_speed(*linear, target, {"microbatch": 32, **fixed})
    assert found == pytest.approx(32 / 1e-3)


def test_a_task_without_products_has_no_bound(linear, monkeypatch):
    monkeypatch.setattr(speed_bound, "is_installed", lambda target: False)
    monkeypatch.setattr(speed_bound, "count_products", lambda traced: {})
    assert hardware.bound_speed(*linear, hardware.find_target("a100"), {}) == float("inf")
