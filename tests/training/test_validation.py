"""A task with validation data measures its metrics on them too, and trains as it would without."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from noisegen import models, tasks, training
from noisegen.models import _batch_last

RUN = {
    "batch_size": 7,
    "learning_rate": 0.1,
    "momentum": 0.5,
    "noise": 0.0,
    "seed": 0,
    "num_epochs": 2,
    "eval_every": 0.5,
}
SETTINGS = {"lanes": 2, "microbatch": 8, "eval_batch": 4}
NAMES = ("valid_accuracy", "valid_loss")


@pytest.fixture(scope="module")
def task(tanh_task):
    """The small task, with examples unlike those of the test set, and another number of them."""
    return dataclasses.replace(tanh_task, valid=jax.tree.map(lambda a: -a[:11], tanh_task.test))


@pytest.mark.parametrize(
    "settings", [{}, pytest.param({"batch_devices": 2, "eval_batch": 24}, marks=pytest.mark.slow)]
)
def test_every_evaluation_measures_the_validation_set_beside_the_test_set(
    task, train, assert_agrees, settings
):
    [result, _] = train(task, [RUN, RUN | {"seed": 1}], **SETTINGS | settings)
    assert len(result.curve["valid_loss"]) == len(result.curve["test_loss"]) == 4
    for name in NAMES:
        assert result.metrics[name] == result.curve[name][-1]
    assert result.metrics["valid_loss"] != result.metrics["test_loss"]
    assert_agrees(task, result)


@pytest.mark.slow
def test_training_and_test_metrics_are_those_of_the_task_without(task, tanh_task, train):
    [result] = train(task, [RUN], **SETTINGS)
    [without] = train(tanh_task, [RUN], **SETTINGS)
    assert result.curve.keys() - without.curve.keys() == set(NAMES)
    for name, values in without.curve.items():
        np.testing.assert_allclose(result.curve[name], values, rtol=1e-6)


def test_names_have_valid_in_place_of_test_or_in_front(task):
    metrics = dict.fromkeys(("test_loss", "recall", "latest_loss"), 1)

    def ones(params, state, batch):
        return {name: jnp.ones(batch.mask.shape) for name in metrics}

    spec = training.metric_spec(dataclasses.replace(task, metrics=ones))
    assert spec.valid == ("valid_latest_loss", "valid_loss", "valid_recall")
    assert {*spec.test, *spec.valid, "train_loss"} == set(spec.names) == set(spec.curve)


@pytest.mark.parametrize(
    "names, message",
    [
        (("test_loss", "loss"), "get one name on the validation set"),
        (("test_loss", "valid_loss"), "has a metric named valid_loss"),
    ],
)
def test_metrics_that_would_share_a_name_are_refused(task, names, message):
    def ones(params, state, batch):
        return {name: jnp.ones(batch.mask.shape) for name in names}

    with pytest.raises(ValueError, match=message):
        training.metric_spec(dataclasses.replace(task, metrics=ones))


def test_a_task_without_validation_data_has_no_such_metrics(tanh_task):
    assert training.metric_spec(tanh_task).valid == () and "valid" not in tanh_task.splits
    assert (tanh_task.num_test_examples, tanh_task.num_valid_examples) == (23, 0)


def test_validation_data_are_checked_like_the_others(task):
    assert task.num_valid_examples == 11
    with pytest.raises(ValueError, match="the arrays of 'valid' must share one leading axis"):
        dataclasses.replace(task, valid={"x": np.zeros((3, 4)), "y": np.zeros(2)})
    texts = {"x": np.array([["a"] * 4]), "y": np.zeros(1)}
    with pytest.raises(ValueError, match=r"array valid\['x'\] of task 'tanh' is <U1"):
        training.make_runs(dataclasses.replace(task, valid=texts), [RUN])


class Normalized(nnx.Module):
    def __init__(self, rngs):
        self.linear = _batch_last.Linear(3, 1, rngs=rngs)
        self.norm = models.GhostBatchNorm(1, ghost_size=4, momentum=None, rngs=rngs)

    def __call__(self, x, mask=None):
        return self.norm(self.linear(x.T).T, mask=mask)[:, 0]


@pytest.mark.slow
def test_both_sets_are_evaluated_with_the_same_statistics():
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)

    def loss(model, batch):
        return (model(batch.data, mask=batch.mask) - batch.data[:, 0]) ** 2

    task = tasks.from_nnx(
        Normalized,
        loss=loss,
        metrics=lambda model, batch: {"test_loss": loss(model, batch)},
        name="normalized",
        train=x[:24],
        test=x[24:32],
        valid=x[24:32],  # the same, so that only another state could change the metric
        make_optimizer=lambda hparams, key: optax.sgd(hparams["learning_rate"]),
    )
    run = {"batch_size": 8, "learning_rate": 0.1, "num_epochs": 2, "seed": 0}
    pool = training.Pool(task, training.PoolConfig(microbatch=8))
    [result] = pool.train([run])
    assert result.metrics["valid_loss"] == pytest.approx(result.metrics["test_loss"], rel=1e-5)


@pytest.mark.slow
def test_given_parameters_are_evaluated_as_in_training(task):
    pool = training.Pool(task, training.PoolConfig(**SETTINGS))
    [result] = pool.train([RUN], keep_params=True)
    found = training.evaluate_params(task, result.params)
    assert found.keys() == {*NAMES, "test_accuracy", "test_loss"}
    for name, value in found.items():
        assert result.metrics[name] == pytest.approx(float(value), rel=1e-5)
    # Sets that are given keep the names of the task's metrics.
    alone = training.evaluate_params(task, result.params, {"held out": task.valid})
    assert alone["held out"]["test_loss"] == pytest.approx(float(found["valid_loss"]), rel=1e-6)
