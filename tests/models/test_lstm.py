"""Tests the LSTM against NumPy, and its carry across windows."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from noisegen import models

TOKENS = jnp.asarray(np.random.RandomState(0).randint(0, 11, (3, 12)))


def make_model(**options):
    return models.LSTM(11, hidden=4, scale=0.8, rngs=nnx.Rngs(0), **options)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_lstm(model, tokens):
    """Computes the definition, token by token and layer by layer."""
    hidden = model.hidden
    logits = np.zeros((*tokens.shape, 11))
    cell, output = np.zeros((2, len(model.kernels), len(tokens), hidden))
    for t in range(tokens.shape[1]):
        x = np.asarray(model.embedding[...], np.float64)[tokens[:, t]]
        for i, (kernel, bias) in enumerate(zip(model.kernels, model.biases, strict=True)):
            gates = np.concatenate([x, output[i]], 1) @ np.float64(kernel[...]) + np.float64(
                bias[...]
            )
            into, forget, new, out = np.split(gates, 4, 1)
            cell[i] = sigmoid(forget) * cell[i] + sigmoid(into) * np.tanh(new)
            x = output[i] = sigmoid(out) * np.tanh(cell[i])
        logits[:, t] = x @ np.float64(model.head[...]) + np.float64(model.head_bias[...])
    return logits


def test_is_numpys():
    model = make_model(dropout=0.0)
    logits, _ = model(TOKENS, model.initial_carry(3))
    np.testing.assert_allclose(logits, numpy_lstm(model, np.asarray(TOKENS)), rtol=1e-4, atol=1e-5)


def test_windows_with_carried_state_equal_one_long_window():
    model = make_model()
    long, last = model(TOKENS, model.initial_carry(3))
    carry, parts = model.initial_carry(3), []
    for start in (0, 4, 8):
        logits, carry = model(TOKENS[:, start : start + 4], carry)
        parts.append(logits)
    np.testing.assert_allclose(jnp.concatenate(parts, 1), long, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(carry, last, rtol=1e-5, atol=1e-6)


def test_dropout_never_touches_recurrent_connections():
    """Drops at one time, which must change its logits and the carry of upper layers only."""
    model = make_model(dropout=0.5)
    keys = jax.random.split(jax.random.key(0), 3)
    begun = model.initial_carry(3)
    plain, carry = model(TOKENS, begun)
    dropped, _ = model(TOKENS, begun, keys)
    assert not np.allclose(plain, dropped)
    alone, _ = model(TOKENS[1:2], begun[:, :, 1:2], keys[1:2])
    np.testing.assert_allclose(alone[0], dropped[1], rtol=1e-5, atol=1e-6)
    model.embedding[...] = jnp.zeros_like(model.embedding[...])
    assert np.array_equal(model(TOKENS, carry, keys)[1][0], model(TOKENS, carry)[1][0])


def test_medium_size_and_start():
    params = nnx.state(nnx.eval_shape(lambda: models.LSTM(rngs=nnx.Rngs(0))), nnx.Param)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 19_775_200
    values = np.concatenate([v.ravel() for v in jax.tree.leaves(nnx.state(make_model()))])
    assert abs(values).max() < 0.8
    assert abs(abs(values).mean() - 0.4) < 5 * 0.8 / (12 * len(values)) ** 0.5
