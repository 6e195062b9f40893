"""Tests ghost batch normalization against NumPy, group by group."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from noisegen import models

X = np.random.RandomState(0).randn(24, 3, 2, 5).astype(np.float32) * 2 + 1


def make_norm(features=5, ghost_size=4, **options):
    """Makes a layer with nontrivial scale and bias."""
    norm = models.GhostBatchNorm(features, ghost_size, rngs=nnx.Rngs(0), **options)
    norm.scale[...], norm.bias[...] = jnp.arange(1.0, features + 1), jnp.arange(features) / 10
    return norm


def numpy_norm(x, scale, bias, ghost_size, mask=None, momentum=0.9, epsilon=1e-5):
    """Computes outputs and running statistics from the definition, group by group."""
    mask = np.ones(len(x), bool) if mask is None else mask
    mean, var, outputs, seen = np.zeros(x.shape[-1]), np.ones(x.shape[-1]), [], 0
    for start in range(0, len(x), ghost_size):
        group = np.float64(x[start : start + ghost_size])
        counted = group[mask[start : start + ghost_size]]
        if len(counted):
            axes = tuple(range(x.ndim - 1))
            mu, sigma2 = counted.mean(axes), counted.var(axes)
            seen += 1
            keep = 1 - 1 / seen if momentum is None else momentum
            mean, var = keep * mean + (1 - keep) * mu, keep * var + (1 - keep) * sigma2
            group = (group - mu) / np.sqrt(sigma2 + epsilon) * scale + bias
        outputs.append(group)
    return np.concatenate(outputs), mean, var


def assert_is_numpys(norm, x, mask=None):
    """Compares outputs inside the mask, running statistics, and evaluation."""
    inside = np.ones(len(x), bool) if mask is None else mask
    scale, bias = np.asarray(norm.scale[...]), np.asarray(norm.bias[...])
    size = min(norm.ghost_size, len(x))
    expected, mean, var = numpy_norm(x, scale, bias, size, mask, norm.momentum)
    y = norm(jnp.asarray(x), mask=None if mask is None else jnp.asarray(mask))
    np.testing.assert_allclose(y[inside], expected[inside], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(norm.mean[...], mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm.var[...], var, rtol=1e-4, atol=1e-5)
    norm.eval()
    by_running = (x - mean) / np.sqrt(var + 1e-5) * scale + bias
    np.testing.assert_allclose(norm(jnp.asarray(x)), by_running, rtol=1e-4, atol=1e-4)
    assert np.isfinite(y).all()


@pytest.mark.parametrize("momentum", [0.9, 0.0, None])
@pytest.mark.parametrize("ghost_size", [1, 4, 24, 64])
def test_groups_are_numpys(ghost_size, momentum):
    assert_is_numpys(make_norm(ghost_size=ghost_size, momentum=momentum), X)


@pytest.mark.parametrize("counted", [24, 9, 8, 1, 0])
def test_examples_outside_the_mask_do_not_count(counted):
    mask = np.arange(24) < counted
    assert_is_numpys(make_norm(), X, mask)
    spoilt = np.where(mask[:, None, None, None], X, 1e6)
    inside, beside = (make_norm()(x, mask=mask)[:counted] for x in (X, spoilt))
    np.testing.assert_array_equal(inside, beside)


@pytest.mark.parametrize("counted", [24, 9, 0])
def test_other_axes(counted):
    """Puts features first and examples last, as batch-last networks do."""
    mask = jnp.arange(24) < counted
    norm, usual = make_norm(axis=0, batch_axis=-1), make_norm()
    y = norm(X.transpose(3, 1, 2, 0), mask=mask)
    np.testing.assert_allclose(y.transpose(3, 1, 2, 0), usual(X, mask=mask), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm.var[...], usual.var[...], rtol=1e-5)
    y = norm(X.transpose(3, 1, 2, 0), use_running_average=True)
    usual.eval()
    np.testing.assert_allclose(y.transpose(3, 1, 2, 0), usual(X), rtol=1e-4, atol=1e-5)


def test_features_without_positions():
    assert_is_numpys(make_norm(), X[:, 0, 0], np.arange(24) < 13)


def test_pieces_of_whole_groups_give_what_the_whole_gives():
    whole, pieces = make_norm(), make_norm()
    y = whole(jnp.asarray(X))
    parts = [pieces(jnp.asarray(X[start : start + 8])) for start in (0, 8, 16)]
    np.testing.assert_allclose(jnp.concatenate(parts), y, rtol=1e-5, atol=1e-5)
    for name in ("mean", "var"):
        np.testing.assert_allclose(getattr(pieces, name)[...], getattr(whole, name)[...], rtol=1e-5)


def test_gradients_are_those_of_the_definition():
    def by_layer(x):
        return jnp.sum(jnp.sin(make_norm()(x)))

    def by_hand(x):
        groups = x.reshape(6, 4, 3, 2, 5)
        mean, var = (f(groups, (1, 2, 3), keepdims=True) for f in (jnp.mean, jnp.var))
        scale, bias = (a.reshape(1, 1, 1, 1, 5) for a in (jnp.arange(1.0, 6), jnp.arange(5) / 10))
        y = (groups - mean) / jnp.sqrt(var + 1e-5) * scale + bias
        return jnp.sum(jnp.sin(y))

    gradient, expected = (jax.grad(f)(jnp.asarray(X)) for f in (by_layer, by_hand))
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-4)


def test_bfloat16_keeps_statistics_in_float32():
    norm = make_norm()
    y = norm(jnp.asarray(X, jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    assert {v.dtype for v in (norm.mean[...], norm.var[...], norm.scale[...])} == {
        jnp.dtype(jnp.float32)
    }
    expected = make_norm()(jnp.asarray(X, jnp.bfloat16).astype(jnp.float32))
    np.testing.assert_allclose(y.astype(jnp.float32), expected, rtol=0.01, atol=0.02)


def test_groups_of_one_whole_batch_are_flaxs_batch_norm():
    ours, flaxs = make_norm(ghost_size=24), nnx.BatchNorm(5, momentum=0.9, rngs=nnx.Rngs(0))
    flaxs.scale[...], flaxs.bias[...] = ours.scale[...], ours.bias[...]
    np.testing.assert_allclose(ours(X), flaxs(jnp.asarray(X)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(ours.var[...], flaxs.var[...], rtol=1e-4)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: make_norm()(jnp.ones((6, 5))), "not whole ghost batches of 4"),
        (lambda: make_norm()(jnp.ones((8, 3))), "normalizes 5 features"),
        (lambda: make_norm(ghost_size=0), "ghost_size must be"),
        (lambda: make_norm(momentum=1.0), "momentum must be"),
    ],
)
def test_invalid_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
