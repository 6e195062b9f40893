"""Measuring given parameters agrees with what training measures of its own."""

import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from noisegen import diagnostics, models, tasks, training
from noisegen.models import _batch_last

RUN = {"batch_size": 8, "learning_rate": 0.1, "num_epochs": 2, "seed": 0}


class Normalised(nnx.Module):
    def __init__(self, momentum, rngs):
        self.linear = _batch_last.Linear(3, 4, rngs=rngs)
        self.norm = models.GhostBatchNorm(4, ghost_size=4, momentum=momentum, rngs=rngs)

    def __call__(self, x, mask=None):
        return self.norm(self.linear(x.T).T, mask=mask)[:, 0]


@functools.cache
def make_task(momentum):
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32) + 2

    def loss(model, batch):
        return (model(batch.data, mask=batch.mask) - batch.data[:, 0]) ** 2

    return tasks.from_nnx(
        lambda rngs: Normalised(momentum, rngs),
        loss=loss,
        metrics=lambda model, batch: {"test_loss": loss(model, batch)},
        name="normalised",
        train=x[:32],
        test=x[32:],
        make_optimizer=lambda hparams, key: optax.sgd(hparams["learning_rate"]),
        diagnostics=lambda mean_loss, params, train: {
            "clean_loss": mean_loss(params, train[:16]),
            "curvature": diagnostics.hessian_eigenvalues(
                lambda p: mean_loss(p, train[:16]), params, jax.random.key(0), num_iterations=4
            ).values[0],
        },
    )


@functools.cache
def make_pool(momentum):
    return training.Pool(make_task(momentum), training.PoolConfig(microbatch=8, eval_batch=4))


@pytest.mark.parametrize("momentum", [None, pytest.param(0.9, marks=pytest.mark.slow)])
def test_kept_parameters_measure_as_in_training(momentum):
    task = make_task(momentum)
    [result] = make_pool(momentum).train([RUN], keep_params=True)
    found = jax.jit(lambda params: training.evaluate_params(task, params, microbatch=8))(
        result.params
    )
    # The order of the examples is another one, so the ghost batches are; or gathered in training.
    tolerance = 0.01 if momentum is None else 0.2
    np.testing.assert_allclose(found["test_loss"], result.metrics["test_loss"], rtol=tolerance)


@pytest.mark.slow
def test_diagnostics_get_the_loss_in_evaluation_mode():
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)

    class Dropping(nnx.Module):
        def __init__(self, rngs):
            self.linear = _batch_last.Linear(3, 1, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            return self.linear(self.dropout(x).T).T[:, 0]

    def found(mean_loss, params, train):
        key = jax.random.key(0)
        [largest], _ = diagnostics.hessian_eigenvalues(lambda p: mean_loss(p, train), params, key)
        return {"clean_loss": mean_loss(params, train), "curvature": largest}

    task = tasks.from_nnx(
        Dropping,
        loss=lambda model, batch: model(batch.data) ** 2 / 2,
        metrics=lambda model, batch: {"test_loss": model(batch.data) ** 2 / 2},
        name="dropping",
        train=x,
        test=x,
        make_optimizer=lambda hparams, key: optax.sgd(hparams["learning_rate"]),
        diagnostics=found,
    )
    [result] = training.Pool(task, training.PoolConfig(microbatch=8)).train([RUN])
    np.testing.assert_allclose(result.metrics["clean_loss"], result.metrics["test_loss"], rtol=1e-5)
    with_bias = np.concatenate([x, np.ones((40, 1))], 1)  # the Hessian is the mean of x x^T
    largest = np.linalg.eigvalsh(with_bias.T @ with_bias / 40)[-1]
    np.testing.assert_allclose(result.metrics["curvature"], largest, rtol=1e-3)


def test_statistics_are_recomputed_along_a_line():
    task = make_task(None)
    first, _ = task.init(training.task.make_key(0))
    # Normalisation takes this factor back, if its statistics belong to these weights.
    second = jax.tree.map_with_path(
        lambda path, leaf: 100 * leaf if "linear" in jax.tree_util.keystr(path) else leaf, first
    )
    found = diagnostics.evaluate_on_line(
        lambda params: training.evaluate_params(task, params, microbatch=8)["test_loss"],
        first,
        second,
        np.linspace(0, 1, 3),
    )
    np.testing.assert_allclose(found, found[0], rtol=1e-3)


@pytest.mark.slow
def test_statistics_are_gathered_once_for_any_number_of_sets():
    task, calls = make_task(None), []
    counted = dataclasses.replace(task, loss=lambda *given: calls.append(1) or task.loss(*given))
    params, _ = task.init(training.task.make_key(0))

    def measured(examples):
        calls.clear()
        found = training.evaluate_params(counted, params, examples, microbatch=8, eval_batch=4)
        return found, len(calls)

    sets = (task.train, task.test, task.test[:3])
    alone, counts = zip(*map(measured, sets), strict=True)
    together, count = measured({"splits": sets[:2], "few": sets[2]})
    assert count == counts[0] > 0
    assert together == {"splits": alone[:2], "few": alone[2]}
    assert len({float(found["test_loss"]) for found in alone}) == 3


def test_results_have_no_parameters_unless_asked():
    [result] = make_pool(None).train([RUN])
    assert result.params is None


def test_parameters_of_another_network_are_refused():
    task = make_task(None)
    with pytest.raises(ValueError, match="no parameters of task 'normalised'"):
        training.evaluate_params(task, {"w": np.ones(3)})


def test_examples_of_another_kind_are_refused():
    task = make_task(None)
    params, x = task.init(jax.random.key(0))[0], task.test
    task = dataclasses.replace(task, train={"x": x}, test={"x": x, "y": x})
    for examples in (x, {"y": x}, [task.test, {"y": x}]):
        with pytest.raises(ValueError, match="like a split of task 'normalised'"):
            training.evaluate_params(task, params, examples)


def test_a_microbatch_that_cuts_ghost_batches_is_refused():
    task = make_task(None)
    with pytest.raises(ValueError, match="multiple of the ghost size"):
        training.evaluate_params(task, task.init(jax.random.key(0))[0], microbatch=6)
