"""The loops of the compiled device program: what devices wait for, and what is copied."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from noisegen import training
from noisegen.hardware import hlo
from noisegen.training.lanes import MICRO_STEPS

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
    """Returns the compiled program that trains."""
    config = training.PoolConfig(microbatch=16, eval_batch=16, **config)
    traced = training.trace_program(task, RUN, config, names=["advance"])["advance"]
    return hlo.parse(traced.lower().compile().as_text())


def collectives(task, **config):
    """Returns the collectives of a micro-step, of an update, and of all that follows it."""
    module = compiled(task, **config)
    step, update = module.loop(MICRO_STEPS)
    of_all = sum(each.op in ("all-reduce", "all-gather") for each in module.reached(update))
    return module.collectives(step), module.collectives(update), of_all


@pytest.mark.parametrize(
    "config",
    [{"batch_devices": 8}, {"lanes": 8, "lane_devices": 2, "batch_devices": 4}],
    ids=["batch", "lanes and batch"],
)
def test_devices_wait_for_each_other_once_an_update(task, config):
    step, update, of_all = collectives(task, **config)
    # XLA adds up gradient, losses and weights at once.
    assert (step, update) == ({}, {"all-reduce": 1})
    # An evaluation adds up the test metrics and, at the end, those of training.
    assert of_all == 1 + 2


def test_a_state_that_devices_combine_is_gathered_in_every_micro_step(task):
    step, update, _ = collectives(with_state(task), batch_devices=8)
    assert (step, update) == ({"all-gather": 1}, {"all-reduce": 1})


def test_what_stays_is_not_copied(task):
    module = compiled(task, lanes=4, lanes_per_rare_step=1)
    of_step, of_update = (
        {each.type.partition("{")[0] for each in module.computations[name] if each.op == "copy"}
        for name in module.loop(MICRO_STEPS)
    )
    # The gradients of all lanes, and their permutations: the smallest of all large arrays.
    assert hlo.num_bytes("f32[4,8,8]") > max(map(hlo.num_bytes, of_step), default=0)
    assert "s32[4,2,64]" not in of_update
