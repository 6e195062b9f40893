"""How often the devices that share a batch wait for each other: programs compiled for eight."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from noisegen import training
from noisegen.hardware import hlo

RUN = {"batch_size": 32, "learning_rate": 0.1, "num_epochs": 4, "seed": 0}


@pytest.fixture(scope="module")
def task():
    """A layer that maps its input to itself."""
    x = np.linspace(-1, 1, 64, dtype=np.float32)[:, None] * np.ones(8, np.float32)

    def loss(params, state, batch):
        return jnp.sum((batch.data @ params - batch.data) ** 2, -1), state

    def metrics(params, state, batch):
        return {"error": jnp.sum((batch.data @ params) ** 2, -1)}

    return training.Task(
        name="layer",
        train=x,
        test=x,
        init=lambda key: (jnp.eye(8) / 2, ()),
        loss=loss,
        metrics=metrics,
        train_metrics=lambda *arguments: {"train_error": metrics(*arguments)["error"]},
        make_optimizer=lambda hparams, key: optax.sgd(hparams["learning_rate"]),
    )


def with_state(task):
    """The same task with a state, the sum of the first feature over all examples so far."""

    def init(key):
        return jnp.eye(8) / 2, jnp.float32(0)

    def loss(params, state, batch):
        return task.loss(params, (), batch)[0], state + batch.data[:, 0] @ batch.mask

    return dataclasses.replace(
        task,
        name="layer with state",
        init=init,
        loss=loss,
        combine_state=lambda params, before, parts: before + (parts - before).sum(0),
    )


def compiled(task, **config):
    """Returns the compiled program that trains, and the loop of micro-steps in it."""
    config = training.PoolConfig(microbatch=16, eval_batch=16, **config)
    traced = training.trace_program(task, RUN, config, names=["advance"])["advance"]
    module = hlo.parse(traced.lower().compile().as_text())
    [loop] = [each for each in module.computations[module.entry] if each.op == "while"]
    return module, loop.called[0]


@pytest.mark.parametrize(
    "config",
    [{"batch_devices": 8}, {"lanes": 8, "lane_devices": 2, "batch_devices": 4}],
    ids=["batch", "lanes and batch"],
)
def test_a_micro_step_waits_for_no_other_device(task, config):
    module, step = compiled(task, **config)
    assert module.collectives(step) == {}
    # Gradient, losses and their number; then sums of both sets of metrics, and the training loss.
    assert 1 <= len([each for each in module.reached(step) if each.op == "all-reduce"]) <= 12


def test_a_state_that_devices_combine_is_gathered_once(task):
    module, step = compiled(with_state(task), batch_devices=8)
    assert module.collectives(step) == {"all-gather": 1}
