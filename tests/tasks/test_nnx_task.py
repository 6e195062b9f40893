"""Tasks of Flax NNX models: state, modes, random layers, and training them in lanes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from noisegen import tasks, training

RANDOM = np.random.RandomState(0)
X = RANDOM.randn(48, 4).astype(np.float32)
ARRAYS = {"x": X, "y": X @ np.array([1.0, -2.0, 0.5, 0.0], np.float32)}


class Mean(nnx.Variable):
    """A running statistic of our own."""


class Net(nnx.Module):
    """Plain flax layers, and a statistic: the mean input, moved a tenth of the way each time."""

    def __init__(self, rngs):
        self.first = nnx.Linear(4, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, momentum=0.5, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.last = nnx.Linear(8, 1, rngs=rngs)
        self.mean = Mean(jnp.zeros(4))

    def __call__(self, x):
        if not self.drop.deterministic:
            self.mean[...] = 0.9 * self.mean[...] + 0.1 * x.mean(0)
        return self.last(self.drop(nnx.relu(self.norm(self.first(x)))))[:, 0]


def squared_error(model, batch):
    return (model(batch.data["x"]) - batch.data["y"]) ** 2


def make_task(make_model=Net, loss=squared_error, metric=squared_error, **fields):
    return tasks.from_nnx(
        make_model,
        loss=loss,
        metrics=lambda model, batch: {"test_loss": metric(model, batch)},
        name="net",
        train=ARRAYS,
        test=ARRAYS,
        make_optimizer=lambda hparams, key: optax.sgd(hparams["learning_rate"]),
        **fields,
    )


def make_batch(seed=0, size=48):
    keys = jax.random.split(jax.random.key(seed, impl="threefry2x32"), size)
    data = jax.tree.map(lambda a: jnp.asarray(a[:size]), ARRAYS)
    return training.Batch(data, keys, jnp.ones(size, bool))


def test_only_params_are_trained_and_the_rest_is_state():
    params, state = make_task().init(jax.random.key(0))
    assert {type(v) for v in nnx.to_flat_state(params).leaves} == {nnx.Param}
    assert {type(v) for v in nnx.to_flat_state(state).leaves} == {nnx.BatchStat, Mean}


def test_training_updates_the_state_under_grad():
    task = make_task()
    params, state = task.init(jax.random.key(0))

    def total(params):
        losses, new_state = task.loss(params, state, make_batch())
        return losses.sum(), new_state

    gradients, new_state = jax.grad(total, has_aux=True)(params)
    assert jax.tree.structure(gradients) == jax.tree.structure(params)
    np.testing.assert_allclose(new_state["mean"][...], 0.1 * X.mean(0), rtol=1e-5)
    kernel, bias = (np.asarray(params["first"][name][...]) for name in ("kernel", "bias"))
    expected = 0.5 * np.mean(X @ kernel + bias, 0)
    np.testing.assert_allclose(new_state["norm"]["mean"][...], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(state["mean"][...], np.zeros(4))  # what was given is left alone


def test_modes_reach_the_layers():
    seen = []

    def spy(model, batch):
        seen.append((model.drop.deterministic, model.norm.use_running_average))
        return squared_error(model, batch)

    def in_evaluation_mode(rngs):
        model = Net(rngs)
        model.eval()
        return model

    task = make_task(in_evaluation_mode, loss=spy, metric=spy)
    params, state = task.init(jax.random.key(0))
    task.loss(params, state, make_batch())
    first, second = (task.metrics(params, state, make_batch(s))["test_loss"] for s in (0, 1))
    assert seen == [(False, False), (True, True), (True, True)]
    np.testing.assert_array_equal(first, second)


class TwoDropouts(nnx.Module):
    def __init__(self, rngs):
        self.weight = nnx.Param(jnp.zeros(()))
        self.first = nnx.Dropout(0.5, rngs=rngs)
        self.second = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.first(x), self.second(x)


def test_layers_with_random_streams():
    def masks(model, batch):
        ones = jnp.ones((len(batch.mask), 50))
        first, second = model(ones)
        return jnp.sum(first * second, 1) / 4  # places kept by both, of 50

    task = make_task(TwoDropouts, loss=masks)
    params, state = task.init(jax.random.key(0))
    assert not jax.tree.leaves(state)
    both, again, other = (task.loss(params, state, make_batch(s))[0] for s in (0, 0, 1))
    np.testing.assert_array_equal(both, again)
    assert not np.array_equal(both, other)
    # A quarter where the layers draw apart, half if they drew alike.
    error = 5 * (0.25 * 0.75 / (48 * 50)) ** 0.5
    assert abs(np.mean(both) / 50 - 0.25) < error


def test_diagnostics_are_numbers_by_names_of_their_own():
    def names(found):
        return training.metric_names(make_task(diagnostics=found))

    for number in (0.5, np.float32(1), jnp.ones(()), nnx.Param(jnp.ones(()))):
        assert names(lambda *_, n=number: {"mine": n}) == ("test_loss", "mine", "train_loss")
    with pytest.raises(ValueError, match="of task 'net' must be a dictionary .* is a number"):
        names(lambda mean_loss, params, train: mean_loss(params, train))
    with pytest.raises(ValueError, match="'mine' of task 'net' must be a single .* of type dict"):
        names(lambda mean_loss, params, train: {"mine": {"loss": mean_loss(params, train)}})
    with pytest.raises(ValueError, match="'net' has a metric named test_loss in metrics and in d"):
        names(lambda mean_loss, params, train: {"test_loss": mean_loss(params, train)})


def test_trains_in_lanes():
    runs = [
        {"batch_size": size, "learning_rate": 0.05, "num_epochs": 20, "seed": seed}
        for seed, size in ((0, 8), (1, 24))
    ]
    pool = training.Pool(make_task(), training.Settings(lanes=2, microbatch=8))
    beside = {result.run["seed"]: result.metrics for result in pool.train(runs)}
    [alone] = pool.train(runs[1:])
    assert alone.metrics == beside[1]
    assert beside[0] != beside[1]
    assert max(m["test_loss"] for m in beside.values()) < np.mean(ARRAYS["y"] ** 2) / 2
