"""Tests image classification: loss and metrics against NumPy, augmentation, identity."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from noisegen import data, tasks, training
from noisegen.models import _batch_last

MEAN, STD = (0.3, 0.6), (0.2, 0.4)


def make_dataset(fingerprint="00ff"):
    random = np.random.RandomState(0)

    def split(size):
        images = random.randint(0, 256, (size, 4, 4, 2)).astype(np.uint8)
        return {"image": images, "label": random.randint(0, 3, size).astype(np.int32)}

    return data.Dataset("tiny", split(24), split(10), 3, MEAN, STD, fingerprint, "made up")


def make_task(num_classes=3, calls=None, dataset=None, name="linear", **options):
    """Makes the task of a linear model that records its calls."""

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.linear = _batch_last.Linear(32, num_classes, rngs=rngs)

        def __call__(self, images, keys=None):
            if calls is not None:
                calls.append((images, keys))
            return self.linear(images.reshape(len(images), -1).T).T

    return tasks.image_classification(
        dataset or make_dataset(),
        Model,
        lambda hparams, key: optax.sgd(hparams["learning_rate"]),
        name=name,
        **options,
    )


def make_batch(arrays):
    size = len(arrays["label"])
    keys = jax.random.split(jax.random.key(0, impl="threefry2x32"), size)
    return training.Batch(jax.tree.map(jnp.asarray, arrays), keys, jnp.ones(size, bool))


def normalized(images):
    return (images / 255 - np.array(MEAN)) / np.array(STD)


def losses_and_hits(params, arrays):
    """Computes losses and hits in float64, from their definitions."""
    kernel, bias = (np.float64(params["linear"][name][...]) for name in ("kernel", "bias"))
    logits = normalized(arrays["image"]).reshape(-1, 32) @ kernel.T + bias
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = arrays["label"]
    return -np.log(probabilities[np.arange(len(labels)), labels]), logits.argmax(1) == labels


def test_loss_and_metrics_are_the_definitions():
    task = make_task()
    params, state = task.init(jax.random.key(0))
    losses, _ = task.loss(params, state, make_batch(task.train))
    np.testing.assert_allclose(losses, losses_and_hits(params, task.train)[0], rtol=1e-4)
    metrics = task.metrics(params, state, make_batch(task.test))
    losses, hits = losses_and_hits(params, task.test)
    assert metrics.keys() == {"test_accuracy", "test_loss"}
    np.testing.assert_allclose(metrics["test_loss"], losses, rtol=1e-4)
    np.testing.assert_array_equal(metrics["test_accuracy"], hits)
    assert 0 < hits.mean() < 1


def test_the_clean_training_loss_and_the_squared_norm():
    task = make_task(clean_train_loss=True, augment=lambda key, image: 255 - image)
    params, state = task.init(jax.random.key(0))
    metrics = task.train_metrics(params, state, make_batch(task.train))
    losses, hits = losses_and_hits(params, task.train)
    np.testing.assert_allclose(metrics["clean_train_loss"], losses, rtol=1e-4)
    np.testing.assert_array_equal(metrics["clean_train_accuracy"], hits)
    weights = [np.float64(w) for w in jax.tree.leaves(params)]
    np.testing.assert_allclose(
        metrics["squared_norm"], sum((w**2).sum() for w in weights), rtol=1e-5
    )
    assert make_task().train_metrics(params, state, make_batch(task.train)) == {}


@pytest.mark.slow
def test_the_training_accuracy_is_measured_at_every_evaluation():
    task = make_task(train_accuracy_curve=True, clean_train_loss=True)
    run = {"batch_size": 4, "learning_rate": 0.5, "num_epochs": 6, "eval_every": 2, "seed": 0}
    config = training.PoolConfig(lanes=1, microbatch=4, eval_batch=10)
    [result] = training.Pool(task, config).train([run], keep_params=True)
    measured = result.curve["clean_train_accuracy"]
    assert len(measured) == 3 and measured[-1] == result.metrics["clean_train_accuracy"]
    _, hits = losses_and_hits(result.params, task.train)
    assert measured[-1] == pytest.approx(hits.mean())


def test_the_curve_of_the_training_accuracy_takes_the_place_of_diagnostics():
    with pytest.raises(ValueError, match="train_accuracy_curve or diagnostics"):
        make_task(train_accuracy_curve=True, diagnostics=lambda loss, params, train: {})


def test_images_are_normalized_and_keys_given_in_training_only():
    calls = []
    task = make_task(calls=calls)
    params, state = task.init(jax.random.key(0))
    batch = make_batch(task.train)
    task.loss(params, state, batch)
    task.metrics(params, state, batch)
    (images, keys), (same_images, no_keys) = calls
    np.testing.assert_allclose(images, normalized(task.train["image"]), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(images, same_images)
    assert images.dtype == jnp.float32
    assert keys is batch.keys
    assert no_keys is None


def test_augmentation_is_of_raw_images_in_training_only():
    calls = []

    def invert(key, image):
        assert image.shape == (4, 4, 2)
        assert image.dtype == jnp.uint8
        return 255 - image

    task = make_task(calls=calls, augment=invert)
    params, state = task.init(jax.random.key(0))
    batch = make_batch(task.train)
    task.loss(params, state, batch)
    task.metrics(params, state, batch)
    (trained, _), (evaluated, _) = calls
    expected = normalized(255.0 - task.train["image"])
    np.testing.assert_allclose(trained, expected, rtol=1e-4, atol=1e-5)
    expected = normalized(task.train["image"])
    np.testing.assert_allclose(evaluated, expected, rtol=1e-4, atol=1e-5)


def drawn(batch, draw):
    """Returns the draws of an augmentation for the examples of a batch."""
    calls = []

    def augment(key, image):
        return jnp.broadcast_to(draw(key), image.shape)

    task = make_task(calls=calls, augment=augment)
    task.loss(*task.init(jax.random.key(0)), batch)
    return np.asarray(calls[-1][0][:, 0, 0, 0])


def test_augmentation_is_keyed_by_example():
    batch = make_batch(make_dataset().train)
    draws = drawn(batch, jax.random.uniform)
    assert len(np.unique(draws)) == len(draws)
    part = jax.tree.map(lambda a: a[5:8], batch)
    np.testing.assert_array_equal(drawn(part, jax.random.uniform), draws[5:8])


def test_augmentation_and_dropout_draw_apart():
    # split(key) and fold_in(key, 0), fold_in(key, 1) are the same keys.
    batch = make_batch(make_dataset().train)
    draws = drawn(batch, lambda key: jax.random.uniform(jax.random.split(key)[0]))
    keys = jax.vmap(jax.random.fold_in, (0, None))(batch.keys, 0)
    dropout = normalized(255 * np.asarray(jax.vmap(jax.random.uniform)(keys))[:, None])[:, 0]
    assert not np.isclose(draws, dropout).any()


def test_identity():
    name = make_task().name
    assert "linear" in name
    assert "tiny" in name
    assert "00ff" in name
    assert name == make_task().name
    assert name != make_task(dataset=make_dataset(fingerprint="11ff")).name
    assert name != make_task(name="other").name


def test_model_with_other_classes():
    task = make_task(num_classes=5)
    message = r"logits of shape \(24, 5\) for 24 images of tiny, which has 3 classes"
    with pytest.raises(ValueError, match=message):
        task.loss(*task.init(jax.random.key(0)), make_batch(task.train))


def test_a_model_that_takes_images_alone_is_given_no_keys():
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(32, 3, rngs=rngs)

        def __call__(self, images):
            return self.linear(images.reshape(len(images), -1))

    task = tasks.image_classification(
        make_dataset(), Model, lambda hparams, key: optax.sgd(0.1), name="plain"
    )
    params, state = task.init(jax.random.key(0))
    losses, _ = task.loss(params, state, make_batch(task.train))
    assert losses.shape == (24,)


def test_bare_images_are_no_data_set():
    with pytest.raises(ValueError, match="dataset must be a data.Dataset, but it is an array"):
        tasks.image_classification(np.zeros((2, 4, 4, 1)), None, None, name="bare")
