"""A run taken up from what was kept of it ends as it would have ended."""

import dataclasses
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from noisegen import storage, training
from noisegen.training import lane_checkpoint

RUNS = [
    {"batch_size": size, "learning_rate": 0.1, "momentum": 0.5, "noise": 0.05, "seed": size}
    | {"num_epochs": 3, "eval_every": 0.5}
    for size in (3, 7, 20, 45)
]


class Shelf:
    """Keeps every state of every run in memory."""

    def __init__(self):
        self.kept = []

    def due(self):
        return True

    def save(self, runs, counts, arrays):
        self.kept.append((runs, {name: np.array(value) for name, value in arrays.items()}))

    def load(self, run):
        return []

    def of(self, run):
        return [
            {name: value[lane] for name, value in arrays.items()}
            for runs, arrays in self.kept
            for lane, each in enumerate(runs)
            if each is not None and each.hparams == run.hparams
        ]


class Kept:
    """Gives what was kept and keeps no more."""

    def __init__(self, found):
        self.found = found

    def due(self):
        return False

    def load(self, run):
        return [dict(arrays) for arrays in self.found(run)]


def pool(task, **settings):
    defaults = {"lanes": 2, "microbatch": 8, "eval_batch": 8, "host_sync_seconds": 1e-9}
    return training.Pool(task, training.PoolConfig(**defaults | settings))


def lines(results):
    ordered = sorted(results, key=lambda result: result.hparams["batch_size"])
    return [repr(dataclasses.replace(result, seconds=0.0)) for result in ordered]


@pytest.fixture(scope="module")
def whole(tanh_task):
    """All that is kept of some runs, and their results."""
    shelf = Shelf()
    one = pool(tanh_task)
    results = list(one.train(RUNS, None, shelf))
    return one, shelf, results


@pytest.mark.parametrize("part", [0.0, 0.4, 0.99])
def test_a_run_taken_up_ends_as_it_would_have_to_the_last_bit(whole, part):
    one, shelf, results = whole
    loaded, seen = [], {}

    def found(run):
        states = shelf.of(run)
        loaded.append(states[int(part * len(states))])
        return loaded[-1:]

    def look(runs):
        for progress in runs:
            seen.setdefault(progress.run.hparams["batch_size"], progress.examples)

    assert lines(one.train(RUNS, look, Kept(found))) == lines(results)
    for run, arrays in zip(RUNS, loaded, strict=True):
        before = arrays["['epoch']"] * 60 + arrays["['offset']"]
        assert before < seen[run["batch_size"]] <= before + 2 * 8  # not from the beginning
    assert one._programs[()]._advance._cache_size() == 1
    updates = {result.hparams["batch_size"]: result.num_updates for result in results}
    for run, arrays in zip(RUNS, loaded, strict=True):
        assert abs(arrays["['count']"] - part * updates[run["batch_size"]]) < 3
    assert any(arrays["['seen']"] for arrays in loaded)  # in the middle of a batch


def test_a_run_goes_on_with_the_parameters_that_were_kept(whole):
    one, shelf, results = whole

    def changed(run):
        state = shelf.of(run)[-1]
        out = "['params']['out']"
        return [state | {out: 2 * state[out]}]

    for result in one.train(RUNS, None, Kept(changed)):
        [same] = [each for each in results if each.run_id == result.run_id]
        assert result.curve["test_loss"][:-1] == same.curve["test_loss"][:-1]
        assert abs(result.metrics["test_loss"] - same.metrics["test_loss"]) > 0.01


def test_from_the_disk_and_back(tanh_task, tmp_path, whole):
    one, _, results = whole
    with storage.Checkpoints(tmp_path, 1e-9) as store:
        stopped = one.train(RUNS, None, store)
        first = next(stopped)
        stopped.close()
    loaded = []

    class Noted(storage.Checkpoints):
        def load(self, run):
            for arrays in super().load(run):
                loaded.append(int(arrays["['count']"]))
                yield arrays

    rest = [run for run in RUNS if run != first.hparams]
    with Noted(tmp_path, 0) as store, warnings.catch_warnings():
        warnings.simplefilter("error")
        ended = list(one.train(rest, None, store))
    assert lines([first, *ended]) == lines(results)
    assert loaded and all(loaded)


def test_time_in_training_goes_on(whole):
    one, shelf, results = whole
    kept = Kept(lambda run: [shelf.of(run)[-1] | {"seconds": 1000.0}])
    assert all(1000 < result.seconds < 1100 for result in one.train(RUNS, None, kept))


def test_what_ended_is_not_kept(whole):
    _, shelf, results = whole
    last = {result.hparams["batch_size"]: result.num_updates for result in results}
    for runs, arrays in shelf.kept:
        for run, count in zip(runs, arrays["['count']"], strict=True):
            assert run is None or count < last[run.hparams["batch_size"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"lanes": 4, "lane_devices": 2, "batch_devices": 4, "microbatch": 8},
        pytest.param({"lanes": 3, "microbatch": 16}, marks=pytest.mark.slow),
    ],
)
def test_a_run_is_taken_up_under_other_settings(tanh_task, whole, settings, assert_agrees):
    _, shelf, _ = whole
    kept = Kept(lambda run: [shelf.of(run)[len(shelf.of(run)) // 2]])
    longer = RUNS[0] | {"seed": 99, "eval_every": 0.1}  # whose curve is longer: there is more room
    for result in pool(tanh_task, **settings).train([*RUNS, longer], None, kept_of(kept, RUNS)):
        assert_agrees(tanh_task, result)


def kept_of(kept, runs):
    return Kept(lambda run: kept.found(run) if run.hparams in runs else [])


@pytest.mark.slow
def test_batch_devices_are_summed_for_fewer(tanh_task, whole, assert_agrees):
    shelf = Shelf()
    list(pool(tanh_task, batch_devices=4).train(RUNS, None, shelf))
    kept = Kept(lambda run: [shelf.of(run)[len(shelf.of(run)) // 2]])
    one, _, _ = whole
    for result in one.train(RUNS, None, kept):
        assert_agrees(tanh_task, result)


@pytest.mark.slow
def test_random_keys_in_the_optimizer_are_kept(tanh_task):
    def make_optimizer(hparams, key):
        noise = optax.add_noise(hparams["noise"], 0.55, key)
        return optax.chain(noise, optax.sgd(hparams["learning_rate"], hparams["momentum"]))

    task = dataclasses.replace(tanh_task, name="keys", make_optimizer=make_optimizer)
    shelf, one = Shelf(), pool(task)
    with jax.debug_key_reuse(False):  # which takes the lanes' `where` of keys for a use
        results = list(one.train(RUNS[1:3], None, shelf))
    state = jax.eval_shape(lambda: make_optimizer(RUNS[0], jax.random.key(0)).init(jnp.zeros(2)))
    assert any(lane_checkpoint._is_key(leaf) for leaf in jax.tree.leaves(state))
    kept = Kept(lambda run: [shelf.of(run)[5]])
    with jax.debug_key_reuse(False):
        assert lines(one.train(RUNS[1:3], None, kept)) == lines(results)


def test_what_does_not_fit_is_a_warning_and_an_older_one_is_taken(tanh_task, whole):
    one, shelf, results = whole
    good = shelf.of(training.make_runs(tanh_task, RUNS)[1])[9]
    odd = [
        {name: value for name, value in good.items() if name != "['params']['out']"},
        good | {"['params']['out']": np.zeros(9, np.float32)},
        good | {"momentum": np.zeros(3)},
        good,
    ]
    with pytest.warns(UserWarning) as warned:
        [result] = one.train(RUNS[1:2], None, Kept(lambda run: odd))
    texts = [str(warning.message) for warning in warned]
    assert [text.split(";")[0] for text in texts] == [
        "skipped a checkpoint of another version: it differs in ['params']['out']",
        "skipped a checkpoint of another version: its ['params']['out'] has shape (9,), not (8,)",
        "skipped a checkpoint of another version: it differs in momentum",
    ]
    assert lines([result]) == lines([r for r in results if r.hparams == RUNS[1]])
