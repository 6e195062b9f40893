"""Runs on sources end as runs on the same arrays held on the device, to the last bit."""

import dataclasses
import pathlib
import resource
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from noisegen import models, tasks, training
from noisegen.training import feed, sources
from noisegen.training.plan import plan

BASE = {"learning_rate": 0.1, "momentum": 0.5, "noise": 0.1, "last_batch": "straddle", "seed": 0}
RUNS = [
    BASE | run | {"num_epochs": 2.5, "eval_every": 0.6}
    for run in [
        {"batch_size": 1, "seed": 1},
        {"batch_size": 45},
        {"batch_size": 60},
        *({"batch_size": 7, "last_batch": mode} for mode in ("straddle", "keep", "drop")),
        {"batch_size": 20, "last_batch": "resample"},
        {"batch_size": 7, "learning_rate": 100.0, "num_epochs": 15},  # diverges
    ]
]
USUAL = {"lanes": 3, "microbatch": 8, "eval_batch": 8, "lanes_per_rare_step": 2}
SLOW = pytest.mark.slow


class Table:
    """A source: rows of arrays. Those in `broken` cannot be read."""

    def __init__(self, arrays, broken=()):
        self.arrays, self.broken, self.reads = arrays, broken, []

    def __len__(self):
        return len(self.arrays["x"])

    def __getitem__(self, indices):
        self.reads.append(indices)
        if set(indices.tolist()) & set(self.broken):
            raise OSError("checksum of page")
        return {name: array[indices] for name, array in self.arrays.items()}


def lines(results):
    """All that the results say, to the last bit, but for the wall time."""
    return sorted(repr(dataclasses.replace(result, seconds=0.0)) for result in results)


def residual(params, batch):
    return batch.data["x"] @ params["hidden"][:, 0] - batch.data["y"]


@pytest.fixture(scope="module")
def linear_task(tanh_task):
    """A linear model with metrics of all splits."""
    return dataclasses.replace(
        tanh_task,
        valid=jax.tree.map(lambda a: a[:11], tanh_task.test),
        loss=lambda params, state, batch: (residual(params, batch) ** 2, state),
        metrics=lambda params, state, batch: {"test_loss": residual(params, batch) ** 2},
        train_metrics=lambda params, state, batch: {"clean_loss": residual(params, batch) ** 2},
    )


def on_sources(task, **broken):
    splits = {name: Table(arrays, broken.get(name, ())) for name, arrays in task.splits.items()}
    return dataclasses.replace(task, **splits)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(USUAL, id="one_device"),
        pytest.param(
            {"lanes": 8, "lane_devices": 4, "batch_devices": 2, "microbatch": 8, "eval_batch": 8},
            marks=SLOW,
            id="eight_devices",
        ),
        pytest.param({"lanes": 1, "microbatch": 64}, marks=SLOW, id="one_lane"),
    ],
)
def test_streamed_runs_equal_resident_ones_to_the_last_bit(linear_task, train, settings):
    resident = train(linear_task, RUNS, **settings)
    assert {result.status for result in resident} == {"finished", "diverged"}
    task = on_sources(linear_task)
    assert lines(train(task, RUNS, **settings, data="host")) == lines(resident)
    # A source that fits is read whole.
    assert lines(train(task, RUNS, **settings)) == lines(resident)


@pytest.mark.slow
def test_order_kept_and_batch_that_grows(tanh_task, train):
    def batch_size(run):
        return lambda count: run["batch_size"] + 3 * (count // 3)

    runs = [BASE | {"batch_size": size, "num_epochs": 4} for size in (1, 5)]
    for changes in ({"shuffle": False}, {"batch_size": batch_size}):
        task = dataclasses.replace(tanh_task, **changes)
        assert lines(train(task, runs, **USUAL, data="host")) == lines(train(task, runs, **USUAL))


@pytest.mark.slow
def test_recomputed_state_equals_that_of_a_resident_set(tanh_task, train):
    def loss(model, batch):
        return (model(batch.data["x"], batch.mask)[:, 0] - batch.data["y"]) ** 2

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(4, 1, rngs=rngs)
            self.norm = models.GhostBatchNorm(4, 4, momentum=None, rngs=rngs)

        def __call__(self, x, mask):
            return self.linear(self.norm(x, mask=mask))

    task = tasks.from_nnx(
        lambda rngs: Model(rngs=rngs),
        loss=loss,
        metrics=lambda model, batch: {"test_loss": loss(model, batch)},
        name="norm",
        train=tanh_task.train,
        test=tanh_task.test,
        make_optimizer=lambda hparams, key: optax.sgd(hparams["learning_rate"]),
    )
    assert task.recompute_state
    run = {"batch_size": 20, "learning_rate": 0.1, "num_epochs": 3, "eval_every": 1, "seed": 0}
    assert lines(train(task, [run], **USUAL, data="host")) == lines(train(task, [run], **USUAL))


def test_parameters_are_evaluated_on_sources(linear_task):
    params, _ = linear_task.init(jax.random.key(0))
    expected = training.evaluate_params(linear_task, params, eval_batch=8)
    task = on_sources(linear_task)
    assert training.evaluate_params(task, params, eval_batch=8) == expected
    examples = {"all": task.train}
    of_train = training.evaluate_params(task, params, examples)["all"]["test_loss"]
    assert of_train == training.evaluate_params(linear_task, params, linear_task.train)["test_loss"]


class Shelf:
    """Keeps the states of the first run in memory."""

    def __init__(self, found=None):
        self.kept, self.found = [], found

    def due(self):
        return self.found is None

    def save(self, runs, counts, arrays):
        if runs[0] is not None:
            self.kept.append({name: np.array(value[0]) for name, value in arrays.items()})

    def load(self, run):
        return [] if self.found is None else [dict(self.found)]


@pytest.mark.parametrize(
    "places",
    [
        ("device", "host"),
        pytest.param(("host", "device"), marks=SLOW),
        pytest.param(("host", "host"), marks=SLOW),
    ],
)
def test_a_run_may_be_resumed_elsewhere(tanh_task, places):
    run = BASE | {"batch_size": 20, "num_epochs": 3, "eval_every": 0.5}
    config = {"microbatch": 8, "eval_batch": 8, "host_sync_seconds": 1e-9}
    before, after = (
        training.Pool(tanh_task, training.PoolConfig(**config, data=place)) for place in places
    )
    shelf = Shelf()
    whole = lines(before.train([run], checkpoints=shelf))
    middle = shelf.kept[len(shelf.kept) // 2]
    assert middle["['seen']"] > 0  # in the middle of a batch
    assert lines(after.train([run], checkpoints=Shelf(middle))) == whole


def test_an_example_that_cannot_be_read_is_named_and_nothing_finished_is_lost(linear_task, order):
    table = Table(linear_task.train)
    task = dataclasses.replace(linear_task, train=table, train_metrics=lambda *_: {})
    [updates] = np.flatnonzero(order(0, 0, 60) == 17)
    run = BASE | {"batch_size": 1, "num_updates": int(updates)}
    runs = training.make_runs(task, [run, run | {"num_updates": int(updates) + 1}])
    table.broken = [17]
    results = training.Pool(task, training.PoolConfig(**USUAL, data="host")).train(runs)
    assert next(results).num_updates == updates
    with pytest.raises(
        training.SourceError, match="train set .* cannot be read at index 17: OSError: check"
    ):
        next(results)


@pytest.mark.slow
def test_an_evaluation_that_cannot_be_read_stops_training(linear_task):
    task = on_sources(linear_task, test=[22])
    pool = training.Pool(task, training.PoolConfig(**USUAL, data="host"))
    with pytest.raises(
        training.SourceError, match="The test set .* cannot be read at index 22: OSError"
    ):
        list(pool.train(RUNS[1:2]))


def test_plain_source_of_indices():
    table = Table({"x": np.arange(12.0).reshape(6, 2), "y": np.arange(6)})
    examples = sources.HostExamples(table, "The set")
    read = examples[np.array([[4, 1], [4, 4]])]
    assert jax.tree.map(lambda leaf: leaf.dtype, read) == {"x": np.float32, "y": np.int32}
    np.testing.assert_array_equal(read["y"], [[4, 1], [4, 4]])
    assert table.reads[-1].tolist() == [1, 4]  # each once, in the order of the file


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda row: row | {"y": row["y"][:, None]},
            r"\['y'\] has shape \(1,\) and dtype int32, b",
        ),
        (lambda row: row | {"y": row["y"].astype(np.int8)}, "dtype int8, but that of the first"),
        (lambda row: {"x": row["x"]}, r"it lacks \['y'\], unlike the first example"),
        (lambda row: row | {"z": row["x"]}, r"it has \['z'\], unlike the first example"),
        (lambda row: row["x"], r"it lacks \['x'\], \['y'\], unlike the first example"),
        (lambda row: None, "it is None, without an array"),
        (lambda row: row | {"y": row["y"][:0]}, r"has shape \(0,\) for 1 indices"),
        (lambda row: row | {"y": np.array(["a"] * len(row["y"]))}, "is <U1; give numbers or bo"),
    ],
)
def test_rows_unlike_the_first_are_refused_by_their_index(change, message):
    class Changing(Table):
        def __getitem__(self, indices):
            rows = super().__getitem__(indices)
            return change(rows) if indices.max() >= 3 else rows

    arrays = {"x": np.zeros((6, 2), np.float32), "y": np.arange(6, dtype=np.int32)}
    examples = sources.HostExamples(Changing(arrays), "The set")
    with pytest.raises(
        training.SourceError, match=f"The set cannot be read at index 3: .*{message}"
    ):
        examples[np.array([5, 3, 0])]


def test_a_source_that_shrinks_is_refused():
    table = Table({"x": np.zeros((6, 2), np.float32)})
    examples = sources.HostExamples(table, "The set")
    table.arrays = {"x": np.zeros((4, 2), np.float32)}
    with pytest.raises(
        training.SourceError, match="at index 3: there were 6 .* and there are 4 now"
    ):
        examples[np.array([3])]


def test_integers_beyond_those_of_the_device_are_refused():
    table = Table({"x": np.array([1, 2**40])})
    examples = sources.HostExamples(table, "The set")
    with pytest.raises(training.SourceError, match="at index 1: .* holds integers beyond int32"):
        examples[np.array([0, 1])]


def test_what_does_not_fit_stays_on_the_host(tanh_task, monkeypatch):
    splits = tanh_task.splits  # 60 and 23 examples of 20 bytes
    for room, on_host in ((4000, []), (2000, ["train"]), (800, ["test", "train"])):
        monkeypatch.setattr(sources, "device_memory", lambda devices, room=room: room)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            placed = sources.place(splits, "tanh", None, jax.devices())
        host = [name for name, each in placed.items() if isinstance(each, sources.HostExamples)]
        assert sorted(host) == on_host
        assert len(caught) == len(on_host)
        assert all("stays on the host" in str(each.message) for each in caught)


@pytest.mark.parametrize("last_batch", ["straddle", "keep", "drop"])
@pytest.mark.parametrize("start", [0, 13, 59])
def test_microbatches_cut_batches_as_the_device_does(last_batch, start):
    planned = plan({"batch_size": 7, "num_epochs": 3, "seed": 0, "last_batch": last_batch}, 30)
    expected, at = [], start
    for end in planned.examples_seen:
        while at < end:
            expected.append((at, min(3, end - at)))
            at += expected[-1][1]
    for most in (1, 4, 1000):
        starts, sizes = feed.microbatches(planned, 3, start, most)
        assert list(zip(starts.tolist(), sizes.tolist(), strict=True)) == expected[:most]


def test_diagnostics_need_the_training_set_on_the_device(tanh_task):
    task = dataclasses.replace(tanh_task, diagnostics=lambda *_: {"zero": np.float32(0)})
    pool = training.Pool(task, training.PoolConfig(data="host"))
    with pytest.raises(ValueError, match="diagnostics of task 'tanh' take the whole training set"):
        list(pool.train(RUNS[:1]))


def test_a_source_without_arrays_or_length_is_refused():
    class NoArrays:
        def __init__(self, size):
            self.size = size

        def __len__(self):
            return self.size

        def __getitem__(self, indices):
            return None

    with pytest.raises(training.SourceError, match="at index 0: it is None, without an array"):
        sources.HostExamples(NoArrays(2), "The set")
    with pytest.raises(ValueError, match="The set has no length: 'float' object"):
        sources.HostExamples(NoArrays(2.5), "The set")


def test_what_is_neither_arrays_nor_a_source_is_refused(tanh_task):
    with pytest.raises(ValueError, match=r"'train' has no arrays. Give a dict of arrays, or an"):
        dataclasses.replace(tanh_task, train={})


class Growing:
    """A source of 1 GiB that is made when it is read, and notes how much memory the process has."""

    def __init__(self, count):
        self.count, self.held = count, []

    def __len__(self):
        return self.count

    def __getitem__(self, indices):
        pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
        self.held.append(pages * resource.getpagesize() / 2**20)
        x = np.ones((len(indices), 4096), np.float32)
        return {"x": x * indices[:, None] % 7, "y": x[:, 0]}


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/statm").exists(), reason="memory is read on Linux")
def test_an_epoch_of_a_large_source_takes_no_more_memory_than_a_part_of_it():
    source, test = Growing(2**16), {"x": np.ones((4, 4096), np.float32), "y": np.ones(4)}

    def loss(params, state, batch):
        return (batch.data["x"] @ params - batch.data["y"]) ** 2, state

    task = training.Task(
        name="large",
        train=source,
        test=test,
        init=lambda key: (jnp.zeros(4096), None),
        loss=loss,
        metrics=lambda params, state, batch: {"test_loss": loss(params, state, batch)[0]},
        make_optimizer=lambda hparams, key: optax.sgd(hparams["learning_rate"]),
    )
    pool = training.Pool(task, training.PoolConfig(microbatch=512, eval_batch=4, data="host"))
    run = {"batch_size": 512, "learning_rate": 1e-6, "seed": 0}
    held = []
    for num_epochs in (0.25, 1):
        source.held.clear()
        list(pool.train([run | {"num_epochs": num_epochs}]))
        held.append(max(source.held))
    # A quarter of the source is 256 MiB, and three windows of 64 MiB are held at most.
    assert held[1] - held[0] < 192
