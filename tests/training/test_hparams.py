"""Losses, metrics, initialization and diagnostics read the hyperparameters of their own run."""

import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from noisegen import storage, training

SLOW = pytest.mark.slow
NUM_CLASSES = 3
FIELDS = ("init_scale", "dropout", "input_noise", "label_smoothing")
CELLS = [
    (1, (1.0, 0.0, 0.0, 0.0)),
    (7, (0.3, 0.2, 0.5, 0.1)),
    (20, (3.0, 0.6, 0.1, 0.3)),
    (60, (1.0, 0.2, 0.0, 0.5)),
]
RUNS = [
    dict(zip(FIELDS, values, strict=True))
    | {"batch_size": size, "learning_rate": 0.1, "seed": size, "num_epochs": 2, "eval_every": 0.5}
    for size, values in CELLS
]


def init(key, hparams):
    return {"w": hparams["init_scale"] * jax.random.normal(key, (4, NUM_CLASSES))}, jnp.float32(0)


def cross_entropy(params, x, batch):
    targets = jax.nn.one_hot(batch.data["label"], NUM_CLASSES)
    targets = optax.smooth_labels(targets, batch.hparams["label_smoothing"])
    return optax.softmax_cross_entropy(x @ params["w"], targets)


def loss(params, state, batch):
    noise = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, 1), (4,)))(batch.keys)
    x = batch.data["x"] + batch.hparams["input_noise"] * noise
    kept = 1 - batch.hparams["dropout"]
    keep = jax.vmap(lambda key: jax.random.bernoulli(jax.random.fold_in(key, 2), kept, (4,)))
    x = jnp.where(keep(batch.keys), x / kept, 0)
    # A state that adds up a number of the run over the examples.
    state = state + batch.hparams["dropout"] * jnp.sum(batch.mask.astype(jnp.float32))
    return cross_entropy(params, x, batch), state


def metrics(params, state, batch):
    losses = cross_entropy(params, batch.data["x"], batch)
    return {"test_smoothed_loss": losses, "test_state": jnp.broadcast_to(state, losses.shape)}


@functools.cache
def make_task(**changes):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(83, 4)).astype(np.float32)
    label = (x @ rng.normal(size=(4, NUM_CLASSES))).argmax(1).astype(np.int32)
    fields = {
        "name": "softmax",
        "train": {"x": x[:60], "label": label[:60]},
        "test": {"x": x[60:], "label": label[60:]},
        "init": init,
        "loss": loss,
        "metrics": metrics,
        "make_optimizer": lambda hparams, key: optax.sgd(hparams["learning_rate"]),
        "combine_state": lambda params, state, parts: state + (parts - state[None]).sum(0),
    }
    return training.Task(**fields | changes)


def lines(results):
    """All that the results say, to the last bit, but for the wall time."""
    return sorted(repr(dataclasses.replace(result, seconds=0.0)) for result in results)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"lanes": 2}, id="lanes"),
        pytest.param({"lanes": 4, "lane_devices": 2, "batch_devices": 2}, id="mesh", marks=SLOW),
        pytest.param({"lanes": 1, "batch_devices": 4}, id="batch", marks=SLOW),
    ],
)
def test_every_run_of_one_program_equals_a_plain_loop(assert_agrees, settings):
    task = make_task()
    pool = training.Pool(task, training.PoolConfig(microbatch=8, eval_batch=8, **settings))
    for result in pool.train(RUNS):
        assert result.status == "finished"
        assert_agrees(task, result)
    [program] = pool._programs.values()
    assert program._advance._cache_size() == 1


def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path):
    task = make_task()
    config = training.PoolConfig(lanes=2, microbatch=8, eval_batch=8, host_sync_seconds=1e-9)
    pool = training.Pool(task, config)
    whole = list(pool.train(RUNS))
    with storage.Checkpoints(tmp_path, 1e-9) as store:
        stopped = pool.train(RUNS, None, store)
        first = next(stopped)
        stopped.close()
    resumed = []

    class Noted(storage.Checkpoints):
        def load(self, run):
            for arrays in super().load(run):
                resumed.append(int(arrays["['count']"]))
                yield arrays

    with Noted(tmp_path, 0) as store:
        rest = [run for run in RUNS if run != first.hparams]
        ended = list(pool.train(rest, None, store))
    assert lines([first, *ended]) == lines(whole)
    assert resumed and all(resumed)


def test_evaluation_at_kept_parameters_knows_the_run():
    task = make_task(
        recompute_state=True,
        train_metrics=lambda params, state, batch: {
            "clean_loss": cross_entropy(params, batch.data["x"], batch)
        },
        diagnostics=lambda params, state, train, hparams: {"scale": hparams["init_scale"]},
    )
    pool = training.Pool(task, training.PoolConfig(lanes=2, microbatch=8, eval_batch=8))
    for result in pool.train(RUNS[1:3], keep_params=True):
        measure = functools.partial(training.evaluate_params, task, result.params, microbatch=8)
        found = jax.jit(functools.partial(measure, hparams=result.hparams))()
        assert found["test_smoothed_loss"] == pytest.approx(
            result.metrics["test_smoothed_loss"], rel=1e-5
        )
        # One pass over the training set adds the rate of dropout once for every example.
        state = 60 * result.hparams["dropout"]
        assert float(found["test_state"]) == pytest.approx(state, rel=1e-5)
        assert result.metrics["test_state"] == pytest.approx(state, rel=1e-5)
        assert result.metrics["scale"] == pytest.approx(result.hparams["init_scale"])
        on_train = measure(task.train, hparams=result.hparams)["test_smoothed_loss"]
        assert result.metrics["clean_loss"] == pytest.approx(float(on_train), rel=1e-5)
        other = measure(hparams=result.hparams | {"label_smoothing": 0.9})
        assert abs(other["test_smoothed_loss"] - found["test_smoothed_loss"]) > 0.01
    with pytest.raises(ValueError, match="reads the run's init_scale: give evaluate_params"):
        measure()


def test_example_weights_and_noise_are_measured_beside(train):
    plain = make_task(combine_state=None)
    run = RUNS[1] | {"batch_size": 16, "num_epochs": 1, "eval_every": 1}
    [expected] = train(plain, [run], microbatch=8)
    measured = dataclasses.replace(
        plain,
        noise_microbatch=8,
        example_weights=lambda hparams: lambda key, positions, size: jnp.ones(positions.shape),
    )
    [found] = train(measured, [run], microbatch=8)
    assert found.metrics["test_smoothed_loss"] == pytest.approx(
        expected.metrics["test_smoothed_loss"], rel=1e-5
    )
    assert found.metrics["gradient_variance"] > 0
    config, _ = training.autotune(plain, [run], microbatch=8, lanes=1)
    assert config.microbatch == 8


def by_kind(params, state, batch):
    losses, state = loss(params, state, batch)
    if batch.hparams["squared"]:
        losses = losses**2
    if batch.hparams["kind"] == "mixed":
        losses = losses - losses.mean()
    return losses, state


@pytest.mark.slow
def test_booleans_and_words_are_constants_of_a_program(train, assert_agrees):
    task = make_task(loss=by_kind)
    runs = [
        RUNS[1] | {"squared": squared, "kind": kind}
        for squared in (True, False)
        for kind in ("a", "b")
    ]
    squares = make_task(
        loss=lambda *given: (lambda losses, state: (losses**2, state))(*loss(*given))
    )
    for result in train(task, runs, lanes=2, microbatch=8, eval_batch=8):
        same = squares if result.hparams["squared"] else make_task()
        assert_agrees(same, dataclasses.replace(result, hparams=RUNS[1]))


def test_each_word_that_the_loss_reads_is_checked():
    task = make_task(loss=by_kind)
    runs = [RUNS[1] | {"squared": True, "kind": kind} for kind in ("a", "mixed")]
    training.make_runs(task, runs[:1])
    with pytest.raises(ValueError, match="loss of task 'softmax' .* depends on"):
        training.make_runs(task, runs)


def test_words_of_the_optimizer_check_the_task_once(monkeypatch):
    from noisegen.training import task_check

    checked = []
    monkeypatch.setattr(task_check, "check_mixing", lambda *given: checked.append(1))
    task = make_task(
        name="two optimizers",
        make_optimizer=lambda hparams, key: optax.sgd(
            hparams["learning_rate"], 0.9, nesterov=hparams["nesterov"]
        ),
    )
    runs = [RUNS[1] | {"nesterov": value} for value in (True, False)]
    training.make_runs(task, runs)
    training.make_runs(task, runs[::-1])
    assert len(checked) == 1


def test_a_task_is_traced_once_and_called_only_when_asked_for(monkeypatch):
    from noisegen.training import task_check

    traced, called = [], []
    checks = {"loss": lambda task, hparams: traced.append(1)}
    monkeypatch.setattr(task_check, "_TRACED", checks)
    monkeypatch.setattr(task_check, "check_mixing", lambda *given: called.append(1))
    task = make_task(name="checked in parts")
    for mixing, counts in ((False, (1, 0)), (False, (1, 0)), (True, (2, 1)), (False, (2, 1))):
        task_check.check_task(task, RUNS[1], mixing=mixing)
        assert (len(traced), len(called)) == counts


def changed_loss(change):
    def changed(params, state, batch):
        losses, state = loss(params, state, batch)
        return losses + change(batch), state

    return {"loss": changed}


def test_a_key_that_the_data_lack_is_not_taken_for_a_number_with_a_default():
    def penalty(batch):
        return batch.hparams.get("penalty", 0.0) * batch.data["wieght"]

    task = dataclasses.replace(make_task(), **changed_loss(penalty))
    with pytest.raises(KeyError, match="wieght"):
        training.make_runs(task, [RUNS[1]])


@pytest.mark.parametrize(
    "changes, run, message",
    [
        (
            changed_loss(lambda batch: 0.0 if batch.hparams["penalty"] > 0 else 1.0),
            {"penalty": 0.5},
            r"^loss of task 'softmax' needs the value of a number of the run \(.*penalty\)",
        ),
        (
            changed_loss(lambda batch: jnp.zeros(batch.hparams["width"]).sum()),
            {"width": 3},
            r"^loss of task .* \(.*width\), .* if it sets a shape, make a task for each of its",
        ),
        (
            {"init": lambda key, hparams: init(key, {"init_scale": float(hparams["init_scale"])})},
            {},
            r"^init of task 'softmax' needs the value of a number of the run \(init_scale\)",
        ),
        (
            changed_loss(lambda batch: batch.hparams["label_smoothin"]),
            {},
            "^Task 'softmax' reads the number 'label_smoothin', which the runs lack; they name",
        ),
        (
            {},
            {"label_smoothin": 0.1},
            "^Nothing reads the run's label_smoothin: the optimizer of task 'softmax' reads "
            "learning_rate, and its other functions read dropout, init_scale, input_noise, label_",
        ),
        (
            {"metrics": lambda p, s, b: {b.hparams["named"]: metrics(p, s, b)["test_state"]}},
            {"named": "b"},
            "measures a, b with some booleans or words of the runs and not with others, or with ",
        ),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(changes, run, message):
    task = dataclasses.replace(make_task(), **changes)
    if "named" in run:
        training.make_runs(task, [RUNS[1] | {"named": "a"}])
    with pytest.raises(ValueError, match=message) as info:
        training.make_runs(task, [RUNS[1] | run])
    assert "\n" not in str(info.value)


def test_a_mistake_beside_the_hyperparameters_shows_as_it_is():
    task = make_task(
        **changed_loss(lambda batch: batch.hparams["penalty"] if batch.mask.all() else 0.0)
    )
    with pytest.raises(jax.errors.TracerBoolConversionError):
        training.make_runs(task, [RUNS[1] | {"penalty": 0.5}])


def test_metrics_are_named_before_there_are_runs_if_they_are_told():
    task = dataclasses.replace(make_task())
    with pytest.raises(ValueError, match="reads the run's init_scale: give metric_spec"):
        training.metric_spec(task)
    names = training.metric_spec(task, RUNS[1]).test
    assert names == ("test_smoothed_loss", "test_state") == training.metric_spec(task).test
    assert training.make_runs(dataclasses.replace(task), []) == []


def test_devices_cannot_share_a_batch_whose_state_they_cannot_combine():
    task = make_task(combine_state=None)
    pool = training.Pool(task, training.PoolConfig(microbatch=8, batch_devices=2))
    with pytest.raises(ValueError, match="has a state .* batch_devices=2 must be 1"):
        list(pool.train(RUNS[1:2]))


def test_functions_that_read_nothing_get_what_they_got(tanh_task, train):
    """A loss may be mapped over the examples of its batch, and a new field changes nothing."""

    def of_example(params, batch):
        one = jax.tree.map(lambda leaf: leaf[None], batch)
        return tanh_task.loss(params, (), one)[0][0]

    def mapped(params, state, batch):
        return jax.vmap(of_example, (None, 0))(params, batch), state

    run = {"batch_size": 7, "learning_rate": 0.1, "momentum": 0.5, "noise": 0.0, "seed": 0}
    run |= {"num_epochs": 1}
    expected, found = (
        train(task, [run], lanes=2, microbatch=8)[0].metrics
        for task in (tanh_task, dataclasses.replace(tanh_task, loss=mapped))
    )
    assert found == pytest.approx(expected, rel=1e-5)
    assert "hparams" not in inspect.signature(tanh_task.init).parameters
    batch = training.Batch(tanh_task.train, None, None)
    assert jax.tree.leaves(batch.hparams) == [] and len(batch.hparams) == 0
