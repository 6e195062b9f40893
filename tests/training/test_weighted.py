"""Losses and metrics with weights: their means are those of one plain full batch."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from noisegen import training

N, T, TEST = 12, 4, 7
RUNS = [{"batch_size": size, "num_updates": 5, "num_evals": 5, "seed": 0} for size in (5, 12)]


def make_data(seed, size):
    """Texts of 0 to T tokens, padded with numbers that would spoil every mean."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, size, T)).astype(np.float32)
    weights = np.arange(T) < rng.integers(0, T + 1, size=(size, 1))
    return {"x": np.where(weights, x, 1e6).astype(np.float32), "y": y, "weights": weights}


def negative(name):
    """Data in which an array has a negative number."""
    data = make_data(0, N)
    changed = data[name].astype(np.float32)
    changed[3, 1] = -0.5
    return {**data, name: changed}


def squared_error(w, data):
    return (w * data["x"] - data["y"]) ** 2


def make_task(**changes):
    def loss(w, state, batch):
        return training.Weighted(squared_error(w, batch.data), batch.data["weights"]), state

    def metrics(w, state, batch):
        error = squared_error(w, batch.data)
        return {
            "test_loss": training.Weighted(error, batch.data["weights"]),
            "test_length": jnp.sum(batch.data["weights"], axis=1),
            "test_nothing": training.Weighted(error, jnp.zeros_like(error)),
        }

    fields = {
        "name": "padded",
        "train": make_data(0, N),
        "test": make_data(1, TEST),
        "init": lambda key: (jnp.float32(0.5), ()),
        "loss": loss,
        "metrics": metrics,
        "make_optimizer": lambda hparams, key: optax.sgd(0.3),
        "shuffle": False,
    }
    return training.Task(**fields | changes)


def train_plainly(task, batch_size, num_updates):
    """Test and training losses of plain gradient descent on whole batches."""
    w, tests, losses = 0.5, [], []

    def mean(values, data):
        return np.sum(values[data["weights"]]) / np.sum(data["weights"])

    for update in range(num_updates):
        taken = np.arange(update * batch_size, (update + 1) * batch_size) % N
        data = {name: array[taken] for name, array in task.train.items()}
        losses.append(mean(squared_error(w, data), data))
        w -= 0.3 * mean(2 * (w * data["x"] - data["y"]) * data["x"], data)
        tests.append(mean(squared_error(w, task.test), task.test))
    return tests, losses


@pytest.mark.parametrize("config", [{"microbatch": 4, "batch_devices": 2}, {"microbatch": 16}])
def test_training_and_evaluation_are_those_of_plain_full_batches(config, train):
    task = make_task()
    results = train(task, RUNS, lanes=2, eval_batch=4, **config)
    for run, result in zip(RUNS, results, strict=True):
        tests, losses = train_plainly(task, run["batch_size"], run["num_updates"])
        np.testing.assert_allclose(result.curve["test_loss"], tests, rtol=1e-5)
        np.testing.assert_allclose(result.curve["train_loss"], losses, rtol=1e-5)
        lengths = task.test["weights"].sum(1)
        np.testing.assert_allclose(result.metrics["test_length"], lengths.mean(), rtol=1e-6)
        assert np.isnan(result.metrics["test_nothing"]) and result.status == "finished"


def test_a_batch_without_weights_changes_nothing(train):
    data = make_data(0, N)
    empty = {**data, "weights": np.zeros_like(data["weights"])}
    empty["weights"][0] = True  # The last evaluation has a training loss.
    run = {"batch_size": 6, "num_updates": 2, "num_evals": 1, "seed": 0}
    [result] = train(make_task(train=empty), [run], lanes=1, microbatch=4, eval_batch=4)
    once, _ = train_plainly(make_task(train=empty), 6, 1)
    assert result.status == "finished"
    np.testing.assert_allclose(result.metrics["test_loss"], once[0], rtol=1e-5)


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"loss": lambda w, state, b: (training.Weighted(w * b.data["x"], b.mask), state)},
            r"values and weights of one shape that begins with \(M,\)",
        ),
        ({"train": negative("weights")}, "The loss of task 'padded' has the weight -0.5, and weig"),
        ({"test": negative("weights")}, "The metric 'test_loss' of task 'padded' has the weight -"),
        ({"noise_microbatch": 4, "shuffle": True}, "need a loss of one number per example"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        training.make_runs(make_task(**changes), RUNS)
