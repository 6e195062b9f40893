"""Tests tasks from Flax NNX models: state, modes, random layers, training in lanes."""

import dataclasses
import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from noisegen import tasks, training

RANDOM = np.random.RandomState(0)
X = RANDOM.randn(48, 4).astype(np.float32)
ARRAYS = {"x": X, "y": X @ np.array([1.0, -2.0, 0.5, 0.0], np.float32)}


class Mean(nnx.Variable):
    """Running statistic that Flax does not know."""


class Net(nnx.Module):
    """Plain Flax layers and a statistic, the exponential average of the input."""

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


class Plain(nnx.Module):
    """Layers that do not mix examples, one of them random."""

    def __init__(self, rngs):
        self.first, self.last = nnx.Linear(4, 8, rngs=rngs), nnx.Linear(8, 1, rngs=rngs)
        self.drop = nnx.Dropout(0.1, rngs=rngs)

    def __call__(self, x):
        return self.last(self.drop(nnx.relu(self.first(x))))[:, 0]


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
        return training.metric_spec(make_task(diagnostics=found)).names

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
    pool = training.Pool(make_task(Plain), training.PoolConfig(lanes=2, microbatch=8))
    beside = {result.hparams["seed"]: result.metrics for result in pool.train(runs)}
    [alone] = pool.train(runs[1:])
    assert alone.metrics == beside[1]
    assert beside[0] != beside[1]
    assert max(m["test_loss"] for m in beside.values()) < np.mean(ARRAYS["y"] ** 2) / 2


@functools.cache
def train_net(make_model, size=8, microbatch=8, **fields):
    run = {"batch_size": size, "learning_rate": 0.05, "num_updates": 12, "seed": 0}
    pool = training.Pool(
        make_task(make_model, **fields), training.PoolConfig(microbatch=microbatch)
    )
    [result] = pool.train([run])
    assert result.status == "finished"
    return result.metrics["test_loss"]


@pytest.mark.slow
def test_layers_draw_alike_whatever_the_microbatch():
    losses = [train_net(Plain, microbatch=size) for size in (3, 8)]
    np.testing.assert_allclose(losses, losses[0], rtol=1e-4)


def test_layers_that_mix_examples_are_refused_with_the_remedy():
    class Masked(Net):
        def __call__(self, x, mask=None):
            mask = None if mask is None else mask[:, None]
            return self.last(nnx.relu(self.norm(self.first(x), mask=mask)))[:, 0]

    class Centered(Plain):
        def __call__(self, x):
            return super().__call__(x - x.mean(0, keepdims=True))

    def masked_error(model, batch):
        return (model(batch.data["x"], batch.mask) - batch.data["y"]) ** 2

    with pytest.raises(ValueError, match="depends on examples outside batch.mask.*GhostBatchNorm"):
        train_net(Net)
    with pytest.raises(ValueError, match="depends on examples outside batch.mask"):
        train_net(Centered)
    with pytest.raises(ValueError, match="depends on other examples.*GhostBatchNorm"):
        train_net(Masked, loss=masked_error, metric=squared_error)
    with pytest.raises(ValueError, match="depends on other groups of 4 examples"):
        train_net(Masked, loss=masked_error, metric=squared_error, ghost_size=4)
    with pytest.raises(ValueError, match="metrics of task 'net' for an example depend on examples"):
        train_net(Plain, metric=lambda m, b: squared_error(m, b) - squared_error(m, b).mean())


@pytest.mark.slow
def test_batch_normalization_over_whole_batches_is_that_of_flax():
    class Normed(nnx.Module):
        def __init__(self, rngs):
            self.norm, self.last = nnx.BatchNorm(4, rngs=rngs), nnx.Linear(4, 1, rngs=rngs)

        def __call__(self, x):
            return self.last(self.norm(x))[:, 0]

    fields = {"ghost_size": 8, "only_batch_size": 8}
    found = train_net(Normed, **fields)
    with pytest.raises(ValueError, match="microbatch=16 must be 8"):
        train_net(Normed, microbatch=16, **fields)
    with pytest.raises(ValueError, match="was made for batch_size=8, got a run of batch_size=4"):
        train_net(Normed, size=4, **fields)

    # The same run, written out with Flax and optax.
    task = make_task(Normed, **fields)
    params, state = task.init(stream(0, "init"))
    graph = nnx.graphdef(Normed(nnx.Rngs(0)))
    tx = optax.sgd(0.05)
    opt_state = tx.init(params)
    order = np.concatenate([permutation(0, epoch, 48) for epoch in range(2)])
    for rows in order[: 12 * 8].reshape(12, 8):

        def mean_loss(params, state=state, rows=rows):
            model = nnx.merge(graph, params, state, copy=True)
            losses = (model(X[rows]) - ARRAYS["y"][rows]) ** 2
            return losses.mean(), nnx.split(model, nnx.Param, ...)[2]

        gradient, state = jax.grad(mean_loss, has_aux=True)(params)
        updates, opt_state = tx.update(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
    model = nnx.merge(graph, params, state)
    model.eval()
    expected = np.mean((model(X) - ARRAYS["y"]) ** 2)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def stream(seed, name):
    key = jax.random.key(seed, impl="threefry2x32")
    return jax.random.fold_in(key, zlib.crc32(name.encode()) & 0x7FFFFFFF)


def permutation(seed, epoch, n):
    return jax.random.permutation(jax.random.fold_in(stream(seed, "permutation"), epoch), n)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Using 'Module.sow")
def test_activations_that_a_call_notes_are_dropped():
    class Sows(Plain):
        def __call__(self, x):
            self.sow(nnx.Intermediate, "inputs", x)
            self.kept = nnx.Intermediate(x)
            return super().__call__(x)

    assert train_net(Sows) == train_net(Plain)


def test_variables_made_too_late_are_refused():
    class LateParam(Plain):
        def __call__(self, x):
            if not hasattr(self, "late"):
                self.late = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
            return super().__call__(self.late(x))

    class LateStatistic(Plain):
        def __call__(self, x):
            self.calls = Mean(jnp.zeros(()))
            return super().__call__(x)

    with pytest.raises(ValueError, match=r"makes late.bias \(Param\) while it is called"):
        train_net(LateParam)
    with pytest.raises(ValueError, match=r"makes calls \(Mean\) while it is called.*in __init__"):
        train_net(LateStatistic)


@pytest.mark.slow
def test_arrays_of_a_model_are_its_state():
    class Tables(Plain):
        def __init__(self, rngs):
            super().__init__(rngs)
            self.ones = np.ones((1, 4), np.float32)
            self.random = jax.random.normal(rngs.params(), (1, 4))

        def __call__(self, x):
            return super().__call__(x * self.ones * self.random)

    class Listed(Plain):
        def __init__(self, rngs):
            super().__init__(rngs)
            self.tables = [jnp.ones(4)]

    class Kept(Plain):
        def __init__(self, rngs):
            super().__init__(rngs)
            self.tables = nnx.data([jnp.ones((1, 4))])
            self.normed = nnx.WeightNorm(nnx.Linear(4, 4, rngs=rngs), rngs=rngs)

        def __call__(self, x):
            return super().__call__(self.normed(x * self.tables[0]))

    assert train_net(Kept) > 0
    state = make_task(Tables).init(jax.random.key(0))[1]
    assert state["random"].shape == (1, 4)
    assert train_net(Tables) == pytest.approx(train_net(Tables, microbatch=3), rel=1e-4)
    with pytest.raises(ValueError, match="tables of Listed holds arrays in a list: use nnx.List"):
        make_task(Listed)


def test_stacked_layers_draw_apart():
    class Block(nnx.Module):
        def __init__(self, rngs):
            self.drop = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            return self.drop(x)

    class Deep(nnx.Module):
        def __init__(self, rngs):
            self.weight = nnx.Param(jnp.zeros(()))
            self.blocks = nnx.split_rngs(splits=2)(nnx.vmap(Block, in_axes=0, out_axes=0))(rngs)

        def __call__(self, x):
            step = nnx.scan(lambda x, b: (x, b(jnp.ones_like(x))), in_axes=(nnx.Carry, 0))
            return step(x, self.blocks)[1]

    def both(model, batch):
        first, second = model(jnp.ones((len(batch.mask), 100)))
        return (first * second).mean(1)  # 1 where the layers draw apart, 2 if they drew alike

    params, state = make_task(Deep, loss=both).init(jax.random.key(0))
    losses, _ = make_task(Deep, loss=both).loss(params, state, make_batch())
    assert abs(losses.mean() - 1) < 0.15


class Wrapped(nnx.Module):
    """A Linen module, whose parameters are made by a first call."""

    def __init__(self, rngs, is_made=True):
        net = nnx.bridge.ToNNX(linen.Dense(1), rngs=rngs)
        self.net = net.lazy_init(jnp.ones((1, 4))) if is_made else net

    def __call__(self, x):
        return self.net(x)[:, 0]


class Scanned(nnx.Module):
    """Three layers with dropout, stacked and scanned."""

    def __init__(self, rngs):
        self.layers = nnx.split_rngs(splits=3)(nnx.vmap(Residual, in_axes=0, out_axes=0))(rngs)
        self.last = nnx.Linear(4, 1, rngs=rngs)

    def __call__(self, x):
        step = nnx.scan(lambda x, layer: layer(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        return self.last(step(x, self.layers))[:, 0]


class Residual(nnx.Module):
    def __init__(self, rngs):
        self.linear, self.drop = nnx.Linear(4, 4, rngs=rngs), nnx.Dropout(0.1, rngs=rngs)

    def __call__(self, x):
        return x + self.drop(nnx.relu(self.linear(x)))


@pytest.mark.slow
@pytest.mark.parametrize("make_model", [Wrapped, Scanned])
def test_layers_of_other_makes_train_alike_whatever_the_microbatch(make_model):
    found = train_net(make_model)
    assert found < np.mean(ARRAYS["y"] ** 2)
    np.testing.assert_allclose(train_net(make_model, microbatch=3), found, rtol=1e-4)


def test_a_model_without_parameters_is_refused():
    with pytest.raises(ValueError, match="The Wrapped has no nnx.Param to train.*lazy_init"):
        make_task(functools.partial(Wrapped, is_made=False))


def test_other_objects_than_nnx_models_are_refused():
    for wrong, message in (
        (Plain(nnx.Rngs(0)), "make_model must be a function .* but it is a Plain; write lambda"),
        (lambda rngs: linen.Dense(1), "must return an nnx.Module.* Linen module use .*Task"),
        (lambda rngs: None, "must return an nnx.Module, but it returned a value of type NoneType"),
    ):
        with pytest.raises(ValueError, match=message):
            make_task(wrong)


def test_pretrained_layers_may_be_frozen():
    pretrained = Plain(nnx.Rngs(3))
    before = nnx.state(pretrained, nnx.Param)

    def make_model(rngs):
        model = Plain(rngs)
        nnx.update(model, before)
        return model

    def make_optimizer(hparams, key):
        def labels(params):
            return jax.tree.map_with_path(lambda path, _: jax.tree_util.keystr(path[:1]), params)

        trained = optax.sgd(hparams["learning_rate"])
        return optax.partition({"['first']": optax.set_to_zero(), "['last']": trained}, labels)

    task = dataclasses.replace(make_task(make_model), make_optimizer=make_optimizer)
    run = {"batch_size": 8, "learning_rate": 0.05, "num_updates": 12, "seed": 0}
    [result] = training.Pool(task, training.PoolConfig(microbatch=8)).train([run], keep_params=True)
    for layer, is_frozen in (("first", True), ("last", False)):
        kernels = [state[layer]["kernel"][...] for state in (before, result.params)]
        assert np.array_equal(*kernels) == is_frozen
