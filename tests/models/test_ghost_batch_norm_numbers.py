"""Tests ghost batch normalization of large, few, missing and other numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from noisegen import models


def make_norm(features=1, ghost_size=8, **options):
    return models.GhostBatchNorm(features, ghost_size, rngs=nnx.Rngs(0), **options)


@pytest.mark.parametrize("mean", [1e2, 1e4, -1e5])
@pytest.mark.parametrize("masked", [False, True])
def test_features_far_from_zero_are_normalized_as_exactly_as_others(mean, masked):
    x = np.asarray(mean + np.random.default_rng(0).normal(size=(64, 9, 2)), np.float32)
    groups = x.astype(np.float64).reshape(2, 32, 9, 2)
    var = groups.var((1, 2), keepdims=True)
    expected = (groups - groups.mean((1, 2), keepdims=True)) / np.sqrt(var + 1e-5)
    norm = make_norm(2, 32, momentum=0.0)
    y = norm(x, mask=np.ones(64, bool) if masked else None)
    np.testing.assert_allclose(y, expected.reshape(x.shape), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(norm.var[...], var[1, 0, 0], rtol=1e-3)
    np.testing.assert_allclose(norm.mean[...], groups[1].mean((0, 1)), rtol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("distance", [1e2, 1e5])
def test_an_example_far_from_the_others_costs_few_digits(distance, masked):
    """The first example that counts is the shift. At most log2(G + 1) = 6 of 24 bits are lost."""
    x = np.random.default_rng(0).normal(size=(64, 4, 2)).astype(np.float32)
    x += 1e3
    x[8] += distance
    mask = np.arange(64) >= 8 if masked else None
    if not masked:
        x = np.roll(x, -8, axis=0)
    counted = (x[mask] if masked else x).astype(np.float64)
    var, mean = counted.var((0, 1)), counted.mean((0, 1))
    norm = make_norm(2, 64, momentum=0.0)
    norm(x, mask=mask)
    np.testing.assert_allclose(norm.var[...], var, rtol=1e-4)
    np.testing.assert_array_less(np.abs(norm.mean[...] - mean), 1e-5 * np.sqrt(var))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", [(16, 3), (16, 4, 4, 3)])
def test_a_relu_in_the_layer_is_one_after_it(shape, masked):
    x = jax.random.normal(jax.random.key(0), shape)
    mask = jnp.arange(16) < 13 if masked else None
    graph, params, statistics = nnx.split(make_norm(3, 8), nnx.Param, ...)
    params = jax.tree.map(lambda leaf: leaf + jnp.linspace(-0.5, 0.5, 3), params)

    def loss(inside):
        def of(params, x):
            norm = nnx.merge(graph, params, statistics, copy=True)
            y = norm(x, mask=mask, relu=inside)
            y = y if inside else jax.nn.relu(y)
            return jnp.sin(y).sum(), y

        return jax.grad(of, argnums=(0, 1), has_aux=True)(params, x)

    for a, b in zip(*map(jax.tree.leaves, (loss(True), loss(False))), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, 3e38])
@pytest.mark.parametrize("counted", [12, 8, 5, 0])
@pytest.mark.parametrize("evaluates", [False, True])
def test_examples_outside_the_mask_change_nothing(bad, counted, evaluates):
    x = jax.random.normal(jax.random.key(0), (16, 3))
    mask = jnp.arange(16) < counted

    def found(x):
        norm = make_norm(3, 8)
        graph, params, statistics = nnx.split(norm, nnx.Param, ...)

        def loss(params, x):
            norm = nnx.merge(graph, params, statistics, copy=True)
            y = norm(x, evaluates, mask=mask)
            return jnp.where(mask, jnp.sin(y).sum(1), 0).sum(), (y, nnx.state(norm))

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, x)

    spoilt = found(jnp.where(mask[:, None], x, bad))
    for a, b in zip(*map(jax.tree.leaves, (spoilt, found(x))), strict=True):
        assert np.isfinite(a).all()
        np.testing.assert_array_equal(a, b)
    (_, gradient), (y, _) = spoilt
    assert not np.any(gradient[counted:])
    np.testing.assert_allclose(y[counted:], 0, atol=1e-5)  # the bias


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_the_largest_half_precision_numbers_stay_finite(dtype):
    x = jnp.where(jnp.arange(16)[:, None] % 2, 65504.0, -65504.0).astype(dtype)
    norm = make_norm(momentum=0.0)
    y = norm(x)
    assert y.dtype == dtype
    np.testing.assert_allclose(np.abs(np.asarray(y, np.float32)), 1, rtol=1e-2)
    np.testing.assert_allclose(norm.var[...], float(abs(x[0, 0])) ** 2, rtol=1e-5)
    norm.eval()
    np.testing.assert_allclose(np.abs(np.asarray(norm(x), np.float32)), 1, rtol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("momentum", [0.9, None])
def test_double_precision_is_kept(momentum):
    x = 1e6 + np.random.default_rng(0).normal(size=(16, 3))
    with jax.enable_x64(True):
        norm = make_norm(3, 16, momentum=momentum, epsilon=1e-12)
        kinds = jax.tree.map(lambda leaf: leaf.dtype, nnx.state(norm))
        y = norm(jnp.asarray(x), mask=jnp.ones(16, bool))
        assert y.dtype == jnp.float64
        np.testing.assert_allclose(y, (x - x.mean(0)) / x.std(0), rtol=1e-8)
        norm.combine(jax.tree.map(lambda leaf: leaf[None], norm))
        assert jax.tree.map(lambda leaf: leaf.dtype, nnx.state(norm)) == kinds


@pytest.mark.slow
def test_statistics_keep_their_types_under_strict_promotion():
    with jax.numpy_dtype_promotion("strict"):
        for dtype in (jnp.float32, jnp.bfloat16):
            norm = make_norm(3)
            kinds = jax.tree.map(lambda leaf: leaf.dtype, nnx.state(norm))
            assert norm(jnp.ones((8, 3), dtype), mask=jnp.arange(8) < 5).dtype == dtype
            norm.eval()
            assert norm(jnp.ones((8, 3), dtype)).dtype == dtype
            assert jax.tree.map(lambda leaf: leaf.dtype, nnx.state(norm)) == kinds


def test_no_examples_leave_the_statistics_as_they_are():
    norm = make_norm(3)
    assert norm(jnp.zeros((0, 3))).shape == (0, 3)
    assert norm(jnp.zeros((8, 0, 3))).shape == (8, 0, 3)
    np.testing.assert_array_equal(norm.mean[...], np.zeros(3))
    assert norm.groups[...] == 0


def test_the_count_of_groups_stays_at_its_largest_value():
    norm = make_norm(momentum=None)
    norm.groups[...] = jnp.int32(2**31 - 2)
    norm.mean[...] = jnp.ones(1)
    norm(jnp.ones((32, 1)))
    assert norm.groups[...] == 2**31 - 1
    np.testing.assert_allclose(norm.mean[...], 1, rtol=1e-6)


def test_numbers_of_numpy_are_as_pythons():
    norm = make_norm(np.uint8(3), np.uint8(200), momentum=np.float16(0.5), epsilon=np.float32(1e-3))
    norm(jnp.ones((600, 3)))
    assert norm.groups[...] == 3
    np.testing.assert_allclose(norm.mean[...], 1 - 0.5**3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_norm()(jnp.ones((8, 1), jnp.int32)), "floating-point features, got x of int"),
        (lambda: make_norm()(jnp.ones((8, 1), jnp.complex64)), "got x of complex64"),
        (lambda: make_norm()(jnp.ones((8, 1)), mask=jnp.ones(4, bool)), "mask must be 8 booleans"),
        (lambda: make_norm()(jnp.ones((8, 1)), mask=jnp.ones(8)), "mask must be 8 booleans"),
        (lambda: make_norm(epsilon=1e-50), "epsilon must be a number >= 1.17"),
        (lambda: make_norm(ghost_size=4.5), "ghost_size must be a whole number"),
    ],
)
def test_other_numbers_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()
