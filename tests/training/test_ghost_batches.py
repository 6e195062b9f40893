"""Ghost batches in the engine: cut alike whatever the microbatch, and state that is recomputed."""

import dataclasses
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from noisegen import models, tasks, training

GHOST, N = 4, 42  # an epoch ends within a ghost batch
BASE = {
    "learning_rate": 0.02,  # ghost batches of 2 magnify rounding more at a larger one
    "num_epochs": 3.5,
    "eval_every": 0.5,
    "seed": 0,
    "last_batch": "straddle",
}
RUNS = [BASE | {"batch_size": size} for size in (2, 4, 8, 20, 40)] + [
    BASE | {"batch_size": 20, "last_batch": mode} for mode in ("keep", "drop")
]


class Net(nnx.Module):
    def __init__(self, momentum, rngs):
        self.first = nnx.Linear(3, 6, rngs=rngs)
        self.norm = models.GhostBatchNorm(6, GHOST, momentum=momentum, rngs=rngs)
        self.last = nnx.Linear(6, 1, rngs=rngs)

    def __call__(self, x, mask=None):
        return self.last(nnx.tanh(self.norm(self.first(x), mask=mask)))[:, 0]


def make_task(momentum=0.9, **fields):
    x = np.random.RandomState(0).randn(N, 3).astype(np.float32)
    arrays = {"x": x, "y": np.sin(x.sum(1))}

    def error(model, batch, mask=None):
        return (model(batch.data["x"], mask) - batch.data["y"]) ** 2

    return tasks.from_nnx(
        lambda rngs: Net(momentum, rngs),
        loss=lambda model, batch: error(model, batch, batch.mask),
        metrics=lambda model, batch: {
            "test_loss": error(model, batch),
            "running_mean": jnp.broadcast_to(model.norm.mean[...][0], batch.mask.shape),
        },
        name="ghosts",
        train=arrays,
        test=arrays,
        make_optimizer=lambda hparams, key: optax.sgd(hparams["learning_rate"]),
        **fields,
    )


@pytest.fixture(scope="module")
def task():
    return make_task()


@pytest.mark.parametrize(
    "microbatch", [12, *(pytest.param(size, marks=pytest.mark.slow) for size in (4, 40))]
)
def test_the_microbatch_changes_no_result(task, train, assert_agrees, microbatch):
    for result in train(task, RUNS, lanes=3, microbatch=microbatch, eval_batch=6):
        assert_agrees(task, result, tolerance=5e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "momentum, devices",
    [
        (0.9, {"batch_devices": 2, "lane_devices": 2}),
        pytest.param(None, {"batch_devices": 2}, marks=pytest.mark.slow),
    ],
)
def test_devices_that_share_a_batch_change_no_result(train, momentum, devices):
    task = make_task(momentum, recompute_state=False)
    lanes = 2 * devices.get("lane_devices", 1)
    one = train(task, RUNS, lanes=2, microbatch=8, eval_batch=6)
    several = train(task, RUNS, lanes=lanes, microbatch=16, eval_batch=6, **devices)
    by_run = {repr(result.hparams): result for result in one}
    for result in several:
        for name, values in by_run[repr(result.hparams)].curve.items():
            np.testing.assert_allclose(result.curve[name], values, rtol=5e-4, atol=1e-6)


def test_a_state_that_a_model_has_beside_ghost_statistics_cannot_be_spread():
    class Both(Net):
        def __init__(self, momentum, rngs):
            super().__init__(momentum, rngs)
            self.other = nnx.BatchNorm(6, rngs=rngs)

    assert make_task().combine_state is not None
    arrays = {"x": np.zeros((N, 3), np.float32)}
    task = tasks.from_nnx(
        lambda rngs: Both(0.9, rngs),
        loss=lambda model, batch: model(batch.data["x"]),
        metrics=lambda model, batch: {"loss": model(batch.data["x"])},
        name="both",
        train=arrays,
        test=arrays,
        make_optimizer=lambda hparams, key: optax.sgd(0.1),
    )
    with pytest.raises(ValueError, match="batch_devices=2 must be 1"):
        training.Pool(task, training.PoolConfig(batch_devices=2, microbatch=16))


def test_the_ghost_size_of_the_model_is_the_tasks(task):
    assert task.ghost_size == GHOST
    assert make_task(ghost_size=8).ghost_size == 8


def test_sizes_that_cut_a_ghost_batch_are_refused(task):
    with pytest.raises(ValueError, match=r"batch_size=6 must be a multiple of the ghost batches"):
        training.make_runs(task, [BASE | {"batch_size": 6}])
    with pytest.raises(ValueError, match=r"microbatch=6 must be a multiple of the ghost batches"):
        training.Pool(task, training.PoolConfig(microbatch=6))


def test_the_probe_takes_whole_ghost_batches(task):
    task = dataclasses.replace(task, ghost_size=12)
    settings, _ = training.autotune(task, [BASE | {"batch_size": 12}])
    assert settings.microbatch % 12 == 0


@pytest.mark.slow
def test_recomputed_statistics_are_those_of_the_last_parameters(train, order):
    """With no learning the statistics of all ghost batches are known; training's are others."""
    task = make_task(momentum=None)
    assert task.recompute_state
    run = BASE | {"learning_rate": 0.0, "batch_size": 8, "num_epochs": 1}
    curves = [
        train(each, [run], microbatch=12)[0].curve["running_mean"]
        for each in (task, dataclasses.replace(task, recompute_state=False))
    ]
    key = jax.random.key(0, impl="threefry2x32")
    params = task.init(jax.random.fold_in(key, zlib.crc32(b"init") & 0x7FFFFFFF))[0]["first"]
    features = task.train["x"] @ params["kernel"][...][:, 0] + params["bias"][...][0]
    parts = np.split(features[order(0, 0, N)], range(GHOST, N, GHOST))  # the last is half of one
    whole = np.mean([part.mean() for part in parts])
    np.testing.assert_allclose(curves[0], whole, rtol=1e-4)  # at every evaluation the whole set
    assert not np.allclose(curves[1][0], whole, rtol=1e-3)

    moved = BASE | {"batch_size": 8, "num_epochs": 2.0, "eval_every": 0}
    ends = [train(task, [moved], microbatch=size)[0].metrics for size in (12, 20)]
    for name, value in ends[0].items():
        np.testing.assert_allclose(ends[1][name], value, rtol=1e-4, atol=1e-6)
    assert abs(ends[0]["running_mean"] - whole) > 1e-3
