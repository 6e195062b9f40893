"""Noise that the engine measures and matches, against plain loops over whole batches."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

import noisegen
from noisegen import diagnostics, tasks, training
from noisegen.diagnostics import init_running_noise
from noisegen.training import noise

N, GROUP = 60, 4


def make_task(covariance="diagonal", **changes):
    """Mean estimation: the loss |w - x|^2 / 2 has the gradient w - x, of the covariance of x."""
    x = np.random.default_rng(0).normal(size=(N, 2)).astype(np.float32) * [1, 3] + [2, 1]

    def losses(w, state, batch):
        return jnp.sum((w[None] - batch.data) ** 2, -1) / 2, state

    def make_optimizer(hparams, key):
        reference = hparams["reference_batch_size"]
        noise = noisegen.matched_noise(reference, key, covariance=covariance)
        return optax.chain(noise, optax.sgd(hparams["learning_rate"]))

    fields = {
        "name": "mean",
        "train": x.astype(np.float32),
        "test": x[:5].astype(np.float32),
        "init": lambda key: (jnp.zeros(2), ()),
        "loss": losses,
        "metrics": lambda w, state, batch: {
            "test_loss": losses(w, state, batch)[0],
            "w": jnp.full(batch.mask.shape, w[0]),
        },
        "make_optimizer": make_optimizer,
        "noise_microbatch": GROUP,
        "check_run": tasks.check_matched_noise,
    }
    return training.Task(**fields | changes)


def plain_sgd(hparams, key):
    return optax.sgd(hparams["learning_rate"])


def weights(hparams):
    return lambda key, places, size: noisegen.matched_weights(
        key, places, size, hparams["reference_batch_size"]
    )


MATCHED = make_task()
WEIGHTED = make_task(
    name="weighted", make_optimizer=plain_sgd, noise_microbatch=None, example_weights=weights
)


def make_run(batch_size=12, seed=0, **changes):
    fields = {"learning_rate": 0.5, "reference_batch_size": 3, "num_epochs": 2, "eval_every": 1}
    return {"batch_size": batch_size, "seed": seed} | fields | changes


@pytest.fixture(scope="module")
def batches(order):
    """Returns batches(run) -> the examples of every batch."""

    def found(run):
        stream = np.concatenate([order(run["seed"], epoch, N) for epoch in range(2)])
        return MATCHED.train[stream].reshape(-1, run["batch_size"], 2)

    return found


def stream(seed, name):
    return training.data_order.stream(
        training.data_order.RunInputs({"seed": jnp.int32(seed)}, 0, 0, 0), name
    )


def test_measured_noise_is_that_of_the_microbatches(train, batches):
    runs = [make_run(size, learning_rate=0.0) for size in (12, 20, 60)]
    for run, result in zip(runs, train(MATCHED, runs, lanes=2, microbatch=GROUP), strict=True):
        groups = batches(run).reshape(2, N // run["batch_size"], -1, GROUP, 2).mean(3)
        noises = jax.vmap(jax.vmap(lambda g: diagnostics.estimate_gradient_noise(g, GROUP, N)))(
            -groups
        )
        trace, norm = noises.trace.mean(1), noises.squared_norm.mean(1)
        np.testing.assert_allclose(result.curve["gradient_variance"], trace, rtol=1e-4)
        np.testing.assert_allclose(result.curve["gradient_squared_norm"], norm, rtol=1e-4)
        np.testing.assert_allclose(result.curve["gradient_noise_scale"], trace / norm, rtol=1e-4)


def test_matched_noise_is_that_of_a_plain_loop(train, batches):
    runs = [make_run(12), make_run(20, seed=1, reference_batch_size=2.5)]
    for run, result in zip(runs, train(MATCHED, runs, lanes=2, microbatch=GROUP), strict=True):
        tx = MATCHED.make_optimizer(run, stream(run["seed"], "optimizer"))
        w = jnp.zeros(2)
        state = tx.init(w)
        for batch in batches(run):
            groups = w[None] - batch.reshape(-1, GROUP, 2).mean(1)
            updates, state = tx.update(
                groups.mean(0),
                state,
                batch_size=len(batch),
                gradient_noise=diagnostics.estimate_gradient_noise(groups, GROUP),
            )
            w = w + updates
        np.testing.assert_allclose(result.metrics["w"], w[0], rtol=1e-4)


CUTS = [
    {"lanes": 2, "microbatch": 5},
    {"lanes": 1, "microbatch": 8, "eval_batch": 4, "batch_devices": 2},
    *(
        pytest.param(settings, marks=pytest.mark.slow)
        for settings in (
            {"lanes": 1, "microbatch": 4},
            {"lanes": 1, "microbatch": 4, "eval_batch": 4, "batch_devices": 2},
        )
    ),
]


@pytest.mark.parametrize("settings", CUTS)
def test_weighted_losses_are_those_of_a_plain_loop(train, batches, settings):
    run = make_run(12)
    [result] = train(WEIGHTED, [run], **settings)
    w, losses = jnp.zeros(2), []
    for update, batch in enumerate(batches(run)):
        key = jax.random.fold_in(stream(run["seed"], "weights"), update)
        weights = noisegen.matched_weights(key, jnp.arange(12), 12, run["reference_batch_size"])
        losses.append(np.mean(np.sum((w[None] - batch) ** 2, 1) / 2))
        w = w - 0.5 * weights @ (w[None] - batch) / 12
    np.testing.assert_allclose(result.metrics["w"], w[0], rtol=1e-4)
    np.testing.assert_allclose(result.curve["train_loss"][-1], np.mean(losses[-5:]), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("last_batch", ["keep", pytest.param("straddle", marks=pytest.mark.slow)])
def test_more_devices_measure_and_match_alike(train, last_batch):
    task = make_task(name="all of it", example_weights=weights)
    run = make_run(25, last_batch=last_batch)  # of 60: straddles, or leaves 10
    [one] = train(task, [run], lanes=1, microbatch=GROUP)
    [two] = train(task, [run], lanes=1, microbatch=2 * GROUP, batch_devices=2, eval_batch=4)
    for name, values in one.curve.items():
        np.testing.assert_allclose(two.curve[name], values, rtol=2e-5, err_msg=name)


@pytest.mark.slow
def test_a_growing_batch_is_measured(train):
    grown = make_task(
        name="grown",
        make_optimizer=plain_sgd,
        batch_size=lambda hparams: lambda count: hparams["batch_size"] + 4 * (count >= 2),
    )
    run = {name: v for name, v in make_run(12).items() if name != "reference_batch_size"}
    [result] = train(grown, [run], lanes=1, microbatch=GROUP)
    assert np.isfinite(result.curve["gradient_variance"]).all()


def test_full_batches_of_many_examples_have_no_noise():
    batch_size = jnp.int32(60_000)  # whose square is beyond int32
    n = float(batch_size)
    sums = noise.NoiseSums(jnp.float32(2 * n), jnp.float32(n / GROUP), jnp.float32(n))
    task = make_task()
    object.__setattr__(task, "train", np.zeros((60_000, 1), np.float32))
    told, _ = noise.finish_batch(task, sums, jnp.float32(n), batch_size, noise.begin(task, ())[1])
    np.testing.assert_allclose(told["gradient_noise"].squared_norm, 1, rtol=1e-6)


def test_noise_of_bf16_gradients_is_summed_in_float32():
    gradient = jnp.full(3, 2.33, jnp.bfloat16)
    sums, _ = noise.begin(make_task(), jnp.zeros((1, 3)))
    ones = jnp.ones(GROUP)
    sums = noise.add_microbatch(sums, gradient, ones, ones > 0)
    exact = np.float32(gradient[0]) ** 2 / GROUP
    np.testing.assert_allclose(sums.squares, np.full((1, 3), exact), rtol=1e-6)


@pytest.mark.slow
def test_noise_is_measured_without_that_of_the_weights(train):
    task = make_task(name="both", make_optimizer=plain_sgd, example_weights=weights)
    runs = [make_run(20, seed, learning_rate=0.0) for seed in range(200)]
    results = train(task, runs, lanes=50, microbatch=GROUP)
    values = np.array([result.metrics["gradient_variance"] for result in results])
    expected = np.trace(np.cov(MATCHED.train, rowvar=False))
    assert abs(values.mean() - expected) < 4 * values.std() / np.sqrt(len(values))


@pytest.mark.slow
def test_matched_training_ends_where_small_batches_do(train):
    """In law: 400 runs of each, told apart by a Kolmogorov-Smirnov test."""

    def ends(task, batch_size, reference, **settings):
        runs = [
            make_run(batch_size, seed, reference_batch_size=reference, num_epochs=None)
            | {"num_updates": 6, "last_batch": "resample", "eval_every": 0}
            for seed in range(400)
        ]
        runs = [{name: v for name, v in run.items() if v is not None} for run in runs]
        return [result.metrics["w"] for result in train(task, runs, lanes=100, **settings)]

    small = ends(WEIGHTED, 3, 3, microbatch=4)
    for task in (WEIGHTED, MATCHED):
        matched = ends(task, 24, 3, microbatch=4)
        assert scipy.stats.ks_2samp(small, matched).pvalue > 0.01
    # What the noise makes up for; and noise of equal size in both coordinates, of which one varies
    # three times as much as the other.
    for task, reference in ((WEIGHTED, 24), (make_task("isotropic"), 3)):
        other = ends(task, 24, reference, microbatch=4)
        assert scipy.stats.ks_2samp(small, other).pvalue < 1e-6


def test_diagnostics_are_measured_at_every_evaluation(train):
    def found(w, state, data):
        return {"distance": jnp.linalg.norm(w - data.mean(0)), "hopeless": jnp.nan}

    task = make_task(name="diagnosed", diagnostics=found)
    [result] = train(task, [make_run(12)], lanes=1, microbatch=GROUP)
    assert result.status == "finished"  # what is not finite there has not diverged
    assert np.isnan(result.curve["hopeless"]).all() and len(result.curve["distance"]) == 2
    assert np.isfinite(result.metrics["distance"])


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (jnp.ones(2), r"diagnostics of task 'mean' must be .* is an array of shape \(2,\)"),
        (0.5, "diagnostics of task 'mean' must be a dictionary of numbers .* is a number"),
        (None, "diagnostics of task 'mean' must be .* is a value of type NoneType"),
        ([("a", 0.5)], "diagnostics of task 'mean' must be .* is a value of type list"),
        ({"a": jnp.ones(1)}, r"'a' of task 'mean' must be a single number, .* of shape \(1,\)"),
        ({"a": init_running_noise()}, "'a' of task 'mean' must be .* of type RunningNoise"),
        ({"a": None}, "'a' of task 'mean' must be a single number, .* of type NoneType"),
        ({"a": "0.5"}, "'a' of task 'mean' must be a single number, .* of type str"),
        ({"w": 0.5}, "'mean' has a metric named w in metrics and in diagnostics; give"),
        ({"end": 0.5}, "metric named end in train_metrics and in diagnostics"),
        ({"epoch": 0.5}, "metric named epoch in diagnostics and in the pool's own curves"),
        ({"gradient_variance": 0.5}, "gradient_variance in diagnostics and in the pool's own"),
    ],
)
def test_diagnostics_that_are_no_numbers_by_names_of_their_own_are_refused(train, found, message):
    task = make_task(
        diagnostics=lambda w, state, data: found,
        train_metrics=lambda w, state, batch: {"end": jnp.ones(batch.mask.shape)},
    )
    with pytest.raises(ValueError, match=message):
        train(task, [make_run()], lanes=1, microbatch=GROUP)


def test_bad_input_is_refused(train):
    def refused(message, task=MATCHED, microbatch=GROUP, **changes):
        with pytest.raises(ValueError, match=message):
            train(task, [make_run(**changes)], lanes=1, microbatch=microbatch)

    refused("one group says nothing about noise", batch_size=4)
    refused("one group says nothing", batch_size=28, last_batch="keep")  # leaves 4 examples
    refused("cannot be taken away", reference_batch_size=13)
    refused("cannot be taken away", reference_batch_size=0)
    refused("microbatch=8 must be 4", microbatch=8)
    with pytest.raises(ValueError, match="multiple of 2"):
        make_task(noise_microbatch=3, example_weights=weights)
    with pytest.raises(ValueError, match="multiple of 8"):
        make_task(noise_microbatch=4, ghost_size=8)
    scalar = make_task(name="scalar", example_weights=lambda hparams: lambda *_: jnp.float32(1))
    refused("one number per example", scalar)
    with pytest.raises(ValueError, match="shuffle must be True"):
        make_task(shuffle=False)
