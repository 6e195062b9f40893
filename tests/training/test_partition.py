"""Parameters that devices share: the same runs as on one device, in smaller pieces."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from jax.sharding import PartitionSpec

import noisegen
from noisegen import data, models, tasks, training
from noisegen.training import partition, sources
from noisegen.training.host_lanes import stack
from noisegen.training.lane_checkpoint import KEPT
from noisegen.training.lane_state import Lane

WIDTH = 16
RUNS = [
    # Batches of unlike sizes end in unlike micro-steps, so the lanes branch apart.
    {"batch_size": size, "learning_rate": 0.05, "num_updates": updates, "seed": size}
    for size, updates in ((8, 7), (16, 4), (24, 3), (12, 5))
]
SLOW = pytest.mark.slow
MESHES = [(2, 2, 2), pytest.param((1, 1, 8), marks=SLOW), pytest.param((4, 1, 2), marks=SLOW)]
SHARED = PartitionSpec(None, "model")


def make_optimizer(hparams, key):
    noise = noisegen.add_gradient_noise(0.01, key)
    return optax.chain(noise, optax.sgd(hparams["learning_rate"], momentum=0.9))


def arrays(size, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(size, 8)).astype(np.float32)
    return {"x": x, "y": np.sin(x.sum(1))}


FIELDS = {
    "train": arrays(32, 0),
    "test": arrays(12, 1),
    "make_optimizer": make_optimizer,
}


def make_plain(**changes):
    """A task of plain arrays, with a parameter that devices do not share."""

    def init(key):
        hidden, out = jax.random.normal(key, (2, 8, WIDTH)) / 3
        return {
            "hidden": hidden,
            "bias": jnp.zeros(WIDTH),
            "out": out[0],
            "shift": jnp.zeros(()),
        }, ()

    def error(params, state, batch):
        hidden = jnp.tanh(batch.data["x"] @ params["hidden"] + params["bias"][None])
        return (hidden @ params["out"] + params["shift"] - batch.data["y"]) ** 2

    specs = {
        "hidden": SHARED,
        "bias": PartitionSpec("model"),
        "out": PartitionSpec(("model",)),
        "shift": None,
    }
    fields = {
        "name": "plain",
        "init": init,
        "loss": lambda params, state, batch: (error(params, state, batch), state),
        "metrics": lambda params, state, batch: {"test_loss": error(params, state, batch)},
        "partition": lambda params: specs,
    }
    return training.Task(**FIELDS | fields | changes)


class LinenNet(linen.Module):
    is_annotated: bool = True

    @linen.compact
    def __call__(self, x):
        init = linen.initializers.lecun_normal()
        if self.is_annotated:
            init = linen.with_partitioning(init, (None, "model"))
        hidden = jnp.tanh(linen.Dense(WIDTH, kernel_init=init)(x))
        return linen.Dense(1)(hidden)[..., 0]


def make_linen(net=None, **changes):
    net = LinenNet() if net is None else net

    def error(params, state, batch):
        return (net.apply(params, batch.data["x"]) - batch.data["y"]) ** 2

    fields = {
        "name": "Linen",
        "init": lambda key: (net.init(key, jnp.zeros((1, 8))), ()),
        "loss": lambda params, state, batch: (error(params, state, batch), state),
        "metrics": lambda params, state, batch: {"test_loss": error(params, state, batch)},
    }
    return training.Task(**FIELDS | fields | changes)


class Net(nnx.Module):
    def __init__(self, rngs, hparams):
        init = nnx.with_partitioning(nnx.initializers.lecun_normal(), (None, "model"))
        self.hidden = nnx.Linear(8, WIDTH, kernel_init=init, rngs=rngs)
        self.out = nnx.Linear(WIDTH, 1, rngs=rngs)
        self.scale = hparams["learning_rate"] * 20

    def __call__(self, x):
        return self.out(jnp.tanh(self.hidden(self.scale * x)))[..., 0]


def make_nnx(**changes):
    def error(model, batch):
        return (model(batch.data["x"]) - batch.data["y"]) ** 2

    return tasks.from_nnx(
        Net,
        loss=error,
        metrics=lambda model, batch: {"test_loss": error(model, batch)},
        name="NNX",
        **FIELDS | changes,
    )


def make_transformer():
    tokens = np.random.default_rng(0).integers(0, 16, 400)
    return tasks.windowed_language_modeling(
        data.text_from_tokens(tokens[:300], tokens[300:], 16, name="random"),
        lambda rngs: models.Transformer(16, 16, 1, 8, mlp_width=24, rngs=rngs),
        make_optimizer,
        name="transformer",
        window=6,
    )


MAKERS = {
    "plain": make_plain,
    "linen": make_linen,
    "nnx": make_nnx,
    "transformer": make_transformer,
}
# A parameter that devices share, of each task.
NAMES = {"plain": "['hidden']", "linen": "['Dense_0']['kernel']", "nnx": "['hidden']['kernel']"}


@functools.cache
def task_of(kind):
    return MAKERS[kind]()


def make_pool(task, mesh=(1, 1, 1), **settings):
    defaults = {"lanes": 4, "microbatch": 4, "eval_batch": 4}
    names = ("lane_devices", "batch_devices", "model_devices")
    return training.Pool(
        task, training.PoolConfig(**defaults | dict(zip(names, mesh, strict=True)) | settings)
    )


@functools.cache
def alone(kind):
    """The results of one device."""
    return in_order(make_pool(task_of(kind)).train(RUNS, keep_params=True))


def in_order(results):
    return sorted(results, key=lambda result: result.hparams["seed"])


def assert_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        for name, values in other.curve.items():
            np.testing.assert_allclose(one.curve[name], values, rtol=2e-5, err_msg=name)


@pytest.mark.parametrize("mesh", MESHES)
@pytest.mark.parametrize(
    "kind", ["nnx", *(pytest.param(each, marks=SLOW) for each in MAKERS if each != "nnx")]
)
def test_devices_that_share_a_model_train_as_one_does(kind, mesh):
    found = in_order(make_pool(task_of(kind), mesh).train(RUNS, keep_params=True))
    assert_close(found, alone(kind))
    for one, other in zip(found, alone(kind), strict=True):
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
            one.params,
            other.params,
        )


def shard_sizes(tree):
    """Returns by path the elements of an array that a device holds of each lane."""
    return {
        jax.tree_util.keystr(path): leaf.addressable_shards[0].data[0].size
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


@pytest.mark.parametrize(
    "kind", ["plain", pytest.param("linen", marks=SLOW), pytest.param("nnx", marks=SLOW)]
)
def test_every_device_holds_its_share_only(kind):
    pool = make_pool(task_of(kind), (1, 1, 8), lanes=2)
    [run] = training.make_runs(pool.task, RUNS[:1])
    pool._prepared([run])
    inputs = stack([pool._slot(run).inputs] * 2)
    program = pool._programs[()]

    def check(lanes):
        for tree in (lanes.params, lanes.gradients, lanes.opt_state):
            shared = [size for path, size in shard_sizes(tree).items() if NAMES[kind] in path]
            assert shared == [8 * WIDTH // 8]
        return lanes

    lanes = check(program.restart(program.empty(inputs), np.ones(2, bool), inputs))
    kept = {
        name: jax.tree.map(lambda leaf: np.asarray(leaf[0]), getattr(lanes, name))
        for name in (*KEPT, "permutations")
    }
    lanes = check(program.insert_lane(lanes, 1, kept))
    check(program.advance(lanes, 3)[0])


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [((1, 2, 2), (1, 1, 1)), ((1, 1, 1), (1, 1, 8))])
def test_a_run_is_resumed_by_other_devices(before, after):
    class LastCheckpoint:
        kept = None

        def due(self):
            return True

        def save(self, runs, counts, arrays):
            if self.kept is None and counts[0] >= 2:
                self.kept = {name: np.array(value)[0] for name, value in arrays.items()}

        def load(self, run):
            return [] if self.kept is None else [dict(self.kept)]

    checkpoint = LastCheckpoint()
    run = RUNS[0]
    first = make_pool(task_of("nnx"), before, lanes=1, host_sync_seconds=1e-9)
    list(first.train([run], checkpoints=checkpoint))
    assert checkpoint.kept["['count']"] < run["num_updates"]
    found = list(make_pool(task_of("nnx"), after, lanes=1).train([run], checkpoints=checkpoint))
    assert_close(found, alone("nnx")[:1])


@pytest.mark.slow
def test_data_of_the_host_diagnostics_and_noise():
    changes = {
        "noise_microbatch": 4,
        "diagnostics": lambda params, state, train: {"norm": optax.tree.norm(params)},
    }
    runs = [run for run in RUNS if run["batch_size"] != 12]
    task = make_plain(**changes)
    expected = in_order(make_pool(task).train(runs))
    assert_close(in_order(make_pool(task, (1, 2, 2), microbatch=8).train(runs)), expected)
    task = make_plain()
    resident = in_order(make_pool(task, (2, 1, 2)).train(RUNS))
    assert_close(in_order(make_pool(task, (2, 1, 2), data="host").train(RUNS)), resident)


def test_annotations_cost_nothing_where_no_model_is_shared():
    texts = []
    for changes in ({}, {"partition": None}):
        task = make_nnx(**changes)
        [run] = training.make_runs(task, RUNS[:1], mixing=False)
        traced = training.trace_program(task, run, training.PoolConfig(), names=["advance"])
        texts.append(traced["advance"].lower().as_text())
    assert texts[0] == texts[1]
    assert "model" not in texts[0]


def test_boxes_of_linen_are_opened():
    for net, axes in (
        (LinenNet(), ("lanes", "batch", "model")),
        (LinenNet(False), ("lanes", "batch")),
    ):
        pool = make_pool(make_linen(net), lanes=1)
        [result] = pool.train(RUNS[:1], keep_params=True)
        assert result.params["params"]["Dense_0"]["kernel"].shape == (8, WIDTH)
        assert pool._programs[()]._mesh.axis_names == axes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"partition": None}, 'none is annotated with the axis "model".*model_devices=8 at 1'),
        ({"partition": lambda p: PartitionSpec()}, "none is annotated"),
        ({"partition": {"hidden": SHARED}}, "must be a function, but it is {'hidden'.*from the pa"),
        ({"partition": lambda p: p | {"hidden": PartitionSpec("data")}}, "PartitionSpec or None"),
        (
            {"partition": lambda p: {"hidden": SHARED}},
            r"must return a tree like .* but it returned PyTreeDef\({'hidden': \*}\)",
        ),
        (
            {"partition": lambda p: dict.fromkeys(p) | {"hidden": PartitionSpec(None, "data")}},
            r"\['hidden'\] .*\(8, 16\).* the only axis for parameters is \"model\": rename 'data'",
        ),
        (
            {"partition": lambda p: dict.fromkeys(p) | {"bias": PartitionSpec(None, "model")}},
            r"\['bias'\] .*has more axes than it",
        ),
        (
            {"partition": lambda p: dict.fromkeys(p) | {"hidden": PartitionSpec("model", "model")}},
            r"\['hidden'\] .*devices can share one axis only",
        ),
    ],
)
def test_annotations_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_pool(make_plain(**changes), (1, 1, 8))


def test_sizes_that_devices_cannot_share_are_refused():
    with pytest.raises(ValueError, match=r"and 16 is not a multiple of model_devices=3"):
        make_pool(make_plain(), (1, 1, 3))
    with pytest.raises(ValueError, match="times model_devices=8 is 16 devices; there are 8"):
        make_pool(make_plain(), (2, 1, 8))
    # The model reads hyperparameters, so its parameters are known with the first run.
    pool = make_pool(make_nnx(), (1, 1, 3))
    with pytest.raises(ValueError, match=r"\['hidden'\]\['kernel'\].*model_devices=3"):
        list(pool.train(RUNS[:1]))


def test_logical_names_of_linen_are_translated():
    class Logical(linen.Module):
        @linen.compact
        def __call__(self, x):
            init = linen.with_logical_partitioning(linen.initializers.ones, ("embed", "mlp"))
            return linen.Dense(WIDTH, kernel_init=init)(x).sum(-1)

    rules = (("embed", None), ("mlp", "model"))
    task = make_linen(
        Logical(),
        partition=lambda params: linen.logical_to_mesh(linen.get_partition_spec(params), rules),
    )
    partitions = partition.param_partitions(task, 8)
    specs = {jax.tree_util.keystr(path): found.spec for path, found in partitions.items()}
    assert specs["['params']['Dense_0']['kernel']"] == SHARED
    with pytest.raises(ValueError, match="rename 'embed', or translate the names"):
        partition.param_partitions(dataclasses.replace(task, partition=None), 8)


@pytest.mark.parametrize(
    ("make", "shared"),
    [
        (lambda: optax.adam(0.1), 2),
        (lambda: optax.masked(optax.trace(0.9), {"hidden": True, "out": False}), 1),
        (lambda: optax.adafactor(0.1, min_dim_size_to_factor=4), 0),  # of rows and of columns
        (lambda: optax.contrib.schedule_free(optax.sgd(0.1), 0.1), 1),
        (lambda: optax.MultiSteps(optax.sgd(0.1, 0.9), 2), 2),
    ],
)
def test_state_of_optimizers_is_shared_as_parameters_are(make, shared):
    task = make_plain(
        init=lambda key: ({"hidden": jnp.zeros((8, WIDTH)), "out": jnp.zeros(WIDTH)}, ()),
        partition=lambda params: {"hidden": SHARED, "out": PartitionSpec()},
    )
    params = jax.tree.map(lambda leaf: jnp.zeros((3, *leaf.shape)), task.init(None)[0])
    lanes = Lane(**dict.fromkeys(Lane._fields))
    lanes = lanes._replace(params=params, opt_state=jax.vmap(make().init)(params))
    specs = partition.lane_specs(partition.param_partitions(task, 8), lanes)
    found = jax.tree.leaves(specs.opt_state)
    assert len(found) == len(jax.tree.leaves(lanes.opt_state))
    assert found.count(PartitionSpec("lanes", None, "model")) == shared
    assert set(found) <= {PartitionSpec("lanes", None, "model"), PartitionSpec("lanes")}


def test_a_model_too_large_for_a_device_is_not_called_there(monkeypatch):
    monkeypatch.setattr(sources, "device_memory", lambda devices: 1000.0)
    task = make_plain(loss=lambda params, state, batch: (jnp.mean(batch.data["x"], 1) * 0, state))
    with pytest.warns(UserWarning, match="take .* GiB, more than half of a device's memory"):
        training.make_runs(task, RUNS[:1])
