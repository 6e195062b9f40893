"""Tests layers: convolutions in three ways, initialization, pooling, dropout."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from flax import nnx
from hypothesis import example, given, settings
from hypothesis import strategies as st

from noisegen import _traced_for, training
from noisegen.models import _batch_last


def numpy_convolution(x_CxHxWxN, kernel, bias, padding):
    """Computes the definition in float64."""
    pad = (padding, padding)
    x = np.pad(np.float64(x_CxHxWxN), ((0, 0), pad, pad, (0, 0)))
    size = kernel.shape[2]
    height, width = x.shape[1] - size + 1, x.shape[2] - size + 1
    y = np.zeros((len(kernel), height, width, x.shape[3]))
    for i in range(height):
        for j in range(width):
            window = x[:, i : i + size, j : j + size]
            y[:, i, j] = np.einsum("oiab,iabn->on", kernel, window) + bias[:, None]
    return y


def make_conv(convolution, channels, filters, size, padding, num_lanes=()):
    """Returns a layer's graph and parameters made by NumPy, of one or several lanes."""
    graph, shapes = nnx.split(
        nnx.eval_shape(
            lambda: _batch_last.Conv(
                channels,
                filters,
                size,
                padding=padding,
                convolution=convolution,
                rngs=nnx.Rngs(0),
            )
        )
    )
    draw = np.random.RandomState(1).randn
    return graph, jax.tree.map(lambda p: np.float32(draw(*num_lanes, *p.shape)), shapes)


def output_and_gradients(graph, params, x):
    """Returns gradients of a weighted sum of outputs, for parameters and input."""

    def total(params, x):
        y = nnx.merge(graph, params)(x)
        return jnp.sum(jnp.sin(y)), y

    (_, y), gradients = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(params, x)
    return y, gradients


def assert_close(*trees):
    for leaves in zip(*map(jax.tree.leaves, trees), strict=True):
        np.testing.assert_allclose(*leaves, rtol=1e-4, atol=1e-4)


@st.composite
def convolutions(draw):
    """Draws sizes of a convolution with at least one output position, and of its input."""
    size, padding = draw(st.integers(1, 4)), draw(st.integers(0, 2))
    smallest = max(1, size - 2 * padding)
    sides = st.integers(smallest, smallest + 4)
    few = st.integers(1, 3)
    channels = draw(few)
    return (channels, draw(few), size, padding), (channels, draw(sides), draw(sides), draw(few))


@settings(max_examples=10)  # each is compiled
@given(convolutions())
@example(((2, 3, 5, 2), (2, 4, 6, 3)))
def test_output_and_gradient_agree(sizes_and_shape):
    sizes, shape = sizes_and_shape
    x = np.random.RandomState(0).randn(*shape).astype(np.float32)
    results = []
    for convolution in ("patches", "lax"):
        graph, params = make_conv(convolution, *sizes)
        results.append(jax.jit(functools.partial(output_and_gradients, graph))(params, x))
        expected = numpy_convolution(x, params["kernel"][...], params["bias"][...], sizes[-1])
        assert_close(results[-1][0], expected)
    assert_close(*results)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "padding"), [(5, 2), (3, 0), (1, 0), (2, 0)])
def test_pooled_is_the_convolution_pooled(size, padding):
    sides = [2 * half + size - 1 - 2 * padding for half in (2, 3)]  # that leave even outputs
    x = np.random.RandomState(0).randn(2, *sides, 4).astype(np.float32)
    graph, params = make_conv("patches", 2, 3, size, padding)

    def results(of):
        def total(params, x):
            y = of(nnx.merge(graph, params), x)
            return jnp.sum(jnp.sin(y)), y

        return jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(params, x)

    pooled = results(lambda conv, x: conv.pooled(x))
    assert_close(pooled, results(lambda conv, x: _batch_last.max_pool(conv(x))))
    assert pooled[0][1].shape == (3, 2, 3, 4)


def test_the_gradient_of_equal_maxima_goes_to_the_first():
    graph, params = make_conv("patches", 1, 1, 1, 0)
    gradient = jax.grad(lambda x: nnx.merge(graph, params).pooled(x).sum())(jnp.zeros((1, 2, 2, 1)))
    kernel = params["kernel"][...].item()
    np.testing.assert_allclose(gradient[0, :, :, 0], [[kernel, 0], [0, 0]])


def test_agree_under_vmap_over_weights():
    x = np.random.RandomState(0).randn(2, 6, 5, 4).astype(np.float32)
    results = []
    for convolution in ("patches", "lax"):
        graph, params = make_conv(convolution, 2, 3, 3, 1, num_lanes=(3,))
        one = functools.partial(output_and_gradients, graph)
        results.append(jax.jit(jax.vmap(one, (0, None)))(params, x))
        last = jax.jit(one)(jax.tree.map(lambda p: p[2], params), x)
        assert_close(jax.tree.map(lambda a: a[2], results[-1]), last)
    assert_close(*results)


def test_unknown_convolution():
    with pytest.raises(ValueError, match="'fft' must be one of auto, patches, lax"):
        _batch_last.Conv(1, 1, 3, convolution="fft", rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("make", "fan_in"),
    [
        (lambda rngs: _batch_last.Conv(4, 2000, 5, rngs=rngs), 100),
        (lambda rngs: _batch_last.Linear(100, 2000, rngs=rngs), 100),
    ],
    ids=["conv", "linear"],
)
def test_initial_distribution(make, fan_in):
    layer = make(nnx.Rngs(0))
    bound = fan_in**-0.5
    uniform = scipy.stats.uniform(-bound, 2 * bound).cdf
    for drawn, wrong in ((layer.kernel, 1.01), (layer.bias, 1.1)):
        values = np.ravel(drawn[...])
        assert np.abs(values).max() <= bound
        assert scipy.stats.kstest(values, uniform).pvalue > 1e-3
        # A width that is this much off shows at this number of draws: the control.
        assert scipy.stats.kstest(values * wrong, uniform).pvalue < 1e-3
    correlation = np.corrcoef(np.reshape(layer.kernel[...], (2000, -1))[:, 0], layer.bias[...])[
        0, 1
    ]
    assert abs(correlation) < 4 / 2000**0.5


def test_max_pool():
    x = np.random.RandomState(0).randn(3, 4, 6, 5).astype(np.float32)
    expected = x.reshape(3, 2, 2, 3, 2, 5).max((2, 4))
    np.testing.assert_array_equal(_batch_last.max_pool(x), expected)


@pytest.mark.parametrize("shape", [(1, 5, 4, 2), (1, 4, 5, 2)])
def test_max_pool_of_odd_size(shape):
    with pytest.raises(ValueError, match="must be even"):
        _batch_last.max_pool(jnp.zeros(shape))


def test_linear_of_other_size():
    with pytest.raises(ValueError, match="takes 3 features an example, got 4"):
        _batch_last.Linear(3, 2, rngs=nnx.Rngs(0))(jnp.zeros((4, 1)))


def keys(number, seed=0):
    return jax.random.split(jax.random.key(seed), number)


def test_dropout_rate_and_scale():
    y = np.asarray(_batch_last.dropout(jnp.full((50, 400), 3.0), keys(400), 0.3, stream=0))
    np.testing.assert_allclose(np.unique(y), [0, 3 / 0.7], rtol=1e-6)
    error = 5 * (0.3 * 0.7 / y.size) ** 0.5
    assert abs(np.mean(y == 0) - 0.3) < error
    # As often for every example, and at every place.
    for axis in (0, 1):
        assert np.std(np.mean(y == 0, axis)) < 1.3 * (0.3 * 0.7 / y.shape[axis]) ** 0.5


def test_dropout_of_whole_channels():
    x = jnp.ones((20, 3, 4, 50))
    y = _batch_last.dropout(x, keys(50), 0.5, stream=0, whole_channels=True)
    np.testing.assert_array_equal(y, jnp.broadcast_to(y[:, :1, :1], y.shape))
    kept = np.mean(y[:, 0, 0] > 0)
    assert abs(kept - 0.5) < 5 * 0.5 / 1000**0.5


def test_dropout_is_keyed_by_example():
    x, k = jnp.ones((30, 8)), keys(8)
    together = _batch_last.dropout(x, k, 0.5, stream=0)
    apart = [
        _batch_last.dropout(x[:, part], k[part], 0.5, stream=0)
        for part in (slice(0, 3), slice(3, 8))
    ]
    np.testing.assert_array_equal(together, jnp.concatenate(apart, 1))
    assert len(np.unique(together, axis=1).T) == 8


def test_dropout_streams_differ():
    x = jnp.ones((40, 50))
    first, second = (np.asarray(_batch_last.dropout(x, keys(50), 0.5, stream=s)) for s in (0, 1))
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 5 / x.size**0.5


def test_dropout_without_keys_or_rate():
    x = jnp.ones((3, 2))
    assert _batch_last.dropout(x, None, 0.5, stream=0) is x
    assert _batch_last.dropout(x, keys(2), 0.0, stream=0) is x


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_dropout_rate_out_of_range(rate):
    with pytest.raises(ValueError, match=r"rate must be a number in \[0, 1\)"):
        _batch_last.dropout(jnp.ones((3, 2)), None, rate, stream=0)


@pytest.mark.parametrize(
    ("platform", "num_networks", "channels", "has_patches"),
    [
        ("cpu", 1, 6, True),
        ("cpu", 1, 64, False),
        ("gpu", 1, 6, False),
        ("tpu", 1, 6, False),
        ("tpu", 16, 6, True),
        ("gpu", 16, 64, False),
    ],
)
def test_auto_depends_on_what_it_is_traced_for(platform, num_networks, channels, has_patches):
    graph, params = make_conv("auto", channels, 2, 3, 1)
    x = jnp.ones((channels, 4, 4, 2))
    with _traced_for.devices(platform, num_networks):
        text = str(jax.make_jaxpr(lambda params, x: nnx.merge(graph, params)(x))(params, x))
    assert ("conv_general_dilated" not in text) == has_patches


def test_a_program_says_what_it_is_traced_for():
    seen = []

    def init(key):
        seen.append(_traced_for.current())
        return jnp.zeros(1), ()

    def loss(params, state, batch):
        seen.append(_traced_for.current())
        return batch.data * params, state

    task = training.Task(
        name="tracing",
        train=np.ones(4, np.float32),
        test=np.ones(4, np.float32),
        init=init,
        loss=loss,
        metrics=lambda params, state, batch: {"size": batch.data * params},
        make_optimizer=lambda hparams, key: optax.sgd(0.1),
    )
    run = {"batch_size": 2, "num_epochs": 1, "seed": 0}
    config = training.PoolConfig(lanes=6, lane_devices=2, microbatch=2)
    training.trace_program(task, run, config, names=["advance"])
    assert seen[0] == ("cpu", 1)  # The task is checked first.
    assert ("cpu", 3) in seen and _traced_for.current() == ("cpu", 1)
