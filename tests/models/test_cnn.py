"""Tests small networks: sizes, both convolutions, dropout, precision, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from noisegen import models
from noisegen.models import cnn

NETWORKS = {
    "MLP": (models.MLP, (8, 8, 1), 65 * 64 + 65 * 64 + 65 * 10),
    "LeNet5": (models.LeNet5, (28, 28, 1), 61_706),
    "MnistCNN": (models.MnistCNN, (28, 28, 1), 431_080),
    "SmallCNN": (models.SmallCNN, (8, 8, 1), 10 * 16 + 257 * 64 + 65 * 10),
}
every_network = pytest.mark.parametrize(
    ("network", "shape", "size"), NETWORKS.values(), ids=NETWORKS
)


def abstract(network, **options):
    return nnx.eval_shape(lambda: network(rngs=nnx.Rngs(0), **options))


def make(network, **options):
    """Makes a network with parameters from NumPy, which saves compiling its initialization."""
    graph, shapes = nnx.split(abstract(network, **options))
    draw = np.random.RandomState(0).uniform
    return nnx.merge(
        graph, jax.tree.map(lambda p: jnp.asarray(draw(-0.1, 0.1, p.shape), p.dtype), shapes)
    )


def images(shape, number=3):
    return np.random.RandomState(0).randn(number, *shape).astype(np.float32)


def num_parameters(model):
    return sum(p.size for p in jax.tree.leaves(nnx.state(model, nnx.Param)))


@every_network
def test_sizes(network, shape, size):
    assert num_parameters(abstract(network)) == size
    logits = jax.eval_shape(make(network).__call__, jnp.zeros((3, *shape)))
    assert (logits.shape, logits.dtype) == ((3, 10), jnp.float32)


def test_sizes_are_options():
    # The first version of PyTorch's example.
    assert num_parameters(abstract(models.MnistCNN, sizes=(10, 20, 50))) == 21_840
    assert num_parameters(abstract(models.MLP, in_features=3, hidden=(), num_classes=2)) == 8
    assert num_parameters(abstract(models.SmallCNN, filters=2, hidden=3)) == 20 + 33 * 3 + 40
    assert num_parameters(abstract(models.LeNet5, num_classes=100)) == 61_706 + 90 * 85


@pytest.mark.parametrize("network", [models.LeNet5, models.MnistCNN, models.SmallCNN])
def test_convolutions_agree(network):
    x = images(NETWORKS[network.__name__][1])
    patches, lax = (make(network, convolution=name) for name in ("patches", "lax"))
    assert nnx.graphdef(patches) != nnx.graphdef(lax)  # the switch arrives
    logits = [jax.jit(model.__call__)(x) for model in (patches, lax)]
    np.testing.assert_allclose(*logits, rtol=1e-4, atol=1e-5)


def test_mlp_is_the_formula():
    model = make(models.MLP, in_features=6, hidden=(5,), num_classes=3)
    x = images((3, 2, 1), 7)
    w, v = (np.float64(layer.kernel[...]).T for layer in model.layers)
    a, b = (np.float64(layer.bias[...]) for layer in model.layers)
    expected = np.maximum(x.reshape(7, 6) @ w + a, 0) @ v + b
    np.testing.assert_allclose(jax.jit(model.__call__)(x), expected, rtol=1e-4, atol=1e-6)


def test_examples_do_not_mix():
    forward, x = jax.jit(make(models.SmallCNN).__call__), images((8, 8, 1), 5)
    np.testing.assert_allclose(forward(x)[2:3], forward(x[2:3]), rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def dropping():
    """Returns a network with dropout, under jit."""
    graph, params = nnx.split(make(models.MnistCNN, sizes=(3, 4, 50), dropout=0.5))
    return jax.jit(lambda x, keys: nnx.merge(graph, params)(x, keys))


def test_dropout_is_keyed_by_example(dropping):
    x = np.repeat(images((28, 28, 1), 1), 4, 0)
    keys = jax.random.split(jax.random.key(0), 4)
    logits = dropping(x, keys)
    assert len(np.unique(logits, axis=0)) == 4
    order = np.array([2, 0, 3, 1])
    np.testing.assert_allclose(dropping(x, keys[order]), logits[order], rtol=1e-5, atol=1e-6)


def test_dropout_is_on_channels_and_hidden_units_and_draws_apart(monkeypatch):
    calls = []

    def spy(x, keys, rate, stream, *, whole_channels=False):
        calls.append((x.shape, rate, stream, whole_channels))
        return x

    monkeypatch.setattr(cnn, "dropout", spy)
    model = make(models.MnistCNN, sizes=(3, 4, 50), dropout=0.5)
    jax.eval_shape(model.__call__, jnp.zeros((2, 28, 28, 1)))
    assert calls == [((4, 4, 4, 2), 0.5, 0, True), ((50, 2), 0.5, 1, False)]


def test_evaluation_is_deterministic(dropping):
    x = np.repeat(images((28, 28, 1), 1), 4, 0)
    logits = dropping(x, None)
    np.testing.assert_allclose(logits, jnp.broadcast_to(logits[:1], logits.shape), rtol=1e-5)


def test_bfloat16():
    graph, params = nnx.split(make(models.SmallCNN))
    x = images((8, 8, 1))

    @jax.jit
    @jax.value_and_grad
    def loss_and_gradients(params, x):
        logits = nnx.merge(graph, params)(x)
        assert logits.dtype == x.dtype
        return jnp.mean(jax.nn.logsumexp(logits, 1))

    loss, _ = loss_and_gradients(params, x)
    params, x = jax.tree.map(lambda a: jnp.asarray(a, jnp.bfloat16), (params, x))
    half_loss, gradients = loss_and_gradients(params, x)
    assert {g.dtype for g in jax.tree.leaves(gradients)} == {jnp.dtype(jnp.bfloat16)}
    np.testing.assert_allclose(float(half_loss), float(loss), rtol=0.02)


@pytest.mark.parametrize("network", [models.LeNet5, models.MnistCNN, models.SmallCNN])
@pytest.mark.parametrize("shape", [(32, 32, 3), (30, 30, 1), (28, 28)])
def test_images_of_another_size(network, shape):
    expected = "8, 8, 1" if network is models.SmallCNN else "28, 28, 1"
    message = rf"{network.__name__} takes images \(N, {expected}\), got \(2, {shape[0]}"
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(make(network).__call__, jnp.zeros((2, *shape)))


def test_mlp_of_another_size():
    with pytest.raises(ValueError, match="takes 64 features an example, got 784"):
        jax.eval_shape(make(models.MLP).__call__, jnp.zeros((2, 28, 28, 1)))


def test_unknown_convolution():
    with pytest.raises(ValueError, match="'fft' must be one of auto, patches, lax"):
        make(models.LeNet5, convolution="fft")
