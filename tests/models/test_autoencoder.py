"""Tests the autoencoder: size, sparse initialization, code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from noisegen import models


def test_size_and_sparse_start():
    model = models.Autoencoder(rngs=nnx.Rngs(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))) == 2_837_314
    for layer in model.layers:
        kernel = np.asarray(layer.kernel[...])
        assert ((kernel != 0).sum(0) == 15).all()
        kept = kernel[kernel != 0]
        # The standard errors of mean and variance of a standard normal sample.
        assert abs(kept.mean()) < 5 / len(kept) ** 0.5
        assert abs(kept.var() - 1) < 5 * (2 / len(kept)) ** 0.5
        assert len(np.unique(kernel != 0, axis=1).T) > 10  # not the same inputs for every unit
        assert not layer.bias[...].any()


def test_few_inputs_are_all_connected():
    kernel = models.sparse_normal(15)(jax.random.key(0), (4, 6))
    assert (kernel != 0).all()


def test_reconstruction_goes_through_a_linear_code():
    model = models.Autoencoder((6, 4, 2), incoming=None, rngs=nnx.Rngs(0))
    images = jnp.asarray(np.random.RandomState(0).rand(3, 2, 3, 1), jnp.float32)
    encode, code, decode, pixels = model.layers
    x = jax.nn.sigmoid(encode(images.reshape(3, 6)))
    expected = pixels(jax.nn.sigmoid(decode(code(x))))
    np.testing.assert_allclose(model(images), expected, rtol=1e-5)


def test_a_code_is_needed():
    with pytest.raises(ValueError, match="an input and a code"):
        models.Autoencoder((784,), rngs=nnx.Rngs(0))
