"""Tests the transformer against NumPy, its causality, and its positions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from noisegen import models
from noisegen.models.transformer import rotary

TOKENS = np.random.RandomState(0).randint(0, 7, (2, 5))


call = nnx.jit(lambda model, tokens: model(tokens))  # Quicker to compile than its parts.


def make_model(vocabulary=7, width=8, layers=1, heads=2, **options):
    return models.Transformer(vocabulary, width, layers, heads, rngs=nnx.Rngs(0), **options)


def count(**options):
    """The number of parameters, without computing any."""
    params = nnx.state(nnx.eval_shape(lambda: make_model(**options)), nnx.Param)
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def norm(x, layer):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * np.float64(layer.scale[...])


def turned(x_D, position):
    """Turns the pairs of features as complex numbers."""
    half = len(x_D) // 2
    pairs = x_D[:half] + 1j * x_D[half:]
    pairs = pairs * np.exp(1j * position * 10_000.0 ** (-np.arange(half) / half))
    return np.concatenate([pairs.real, pairs.imag])


def attention(layer, x_TxF):
    """Computes attention for each head and each token by itself."""
    q, k, v = (
        np.einsum("tf,fhd->thd", x_TxF, np.float64(part.kernel[...]))
        for part in (layer.query, layer.key, layer.value)
    )
    result = np.zeros_like(v)
    for head in range(v.shape[1]):
        for t in range(len(x_TxF)):
            own = turned(q[t, head], t)
            scores = [own @ turned(k[s, head], s) / v.shape[2] ** 0.5 for s in range(t + 1)]
            weights = np.exp(scores) / np.exp(scores).sum()
            result[t, head] = weights @ v[: t + 1, head]
    return np.einsum("thd,hdf->tf", result, np.float64(layer.out.kernel[...]))


def numpy_transformer(model, tokens):
    """Computes the definition of the docstring in float64, with SwiGLU."""
    embedding = np.float64(model.embedding.embedding[...])
    x = embedding.shape[1] ** 0.5 * embedding[tokens]
    for block in model.blocks:
        x = x + attention(block.attention, norm(x, block.attention_norm))
        a, b = np.split(norm(x, block.mlp_norm) @ np.float64(block.up.kernel[...]), 2, axis=1)
        x = x + a / (1 + np.exp(-a)) * b @ np.float64(block.down.kernel[...])
    head = embedding.T if model.head is None else np.float64(model.head.kernel[...])
    return norm(x, model.norm) @ head


@pytest.mark.parametrize("tied", [True, False])
def test_is_numpys(tied):
    model = make_model(layers=2, tied=tied)
    for _, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        if leaf.ndim == 1:  # Gains of 1 would hide that one is missing.
            leaf[...] = 1 + jnp.arange(leaf.size) / leaf.size
    expected = [numpy_transformer(model, row) for row in TOKENS]
    np.testing.assert_allclose(call(model, TOKENS), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mlp", ["swiglu", "gelu"])
def test_a_later_token_changes_no_earlier_logit(mlp):
    model = make_model(mlp=mlp)
    changed = np.where(np.arange(5) == 3, (TOKENS + 1) % 7, TOKENS)
    before, after = call(model, TOKENS), call(model, changed)
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert (before[:, 3:] != after[:, 3:]).any(-1).all()


def test_rotary_positions_are_relative():
    q, k = jax.random.normal(jax.random.key(0), (2, 4))
    scores = jnp.einsum("thd,shd->ts", *(rotary(jnp.tile(x, (1, 9, 1, 1)))[0] for x in (q, k)))
    for distance in range(-8, 9):
        np.testing.assert_allclose(np.ptp(np.diagonal(scores, distance)), 0, atol=1e-5)
    assert np.ptp(scores[0]) > 0.1
    np.testing.assert_allclose(scores[0, 0], q @ k, rtol=1e-5)


def test_parameters():
    attention_and_gains = 4 * 8 * 8 + 3 * 8
    assert count() == 7 * 8 + attention_and_gains + 3 * 8 * 22
    assert count(tied=False) == count() + 7 * 8
    assert count(mlp="gelu") == 7 * 8 + attention_and_gains + 2 * 8 * 32
    assert count(mlp_width=5) == 7 * 8 + attention_and_gains + 3 * 8 * 5


def test_it_is_annotated_and_needs_no_mesh():
    model = make_model(tied=False)
    specs = nnx.get_partition_spec(nnx.state(model, nnx.Param))
    assert specs["embedding"]["embedding"].get_value() == P("model", None)
    assert specs["head"]["kernel"].get_value() == P(None, "model")
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)
    tokens = jnp.zeros((2, 3), jnp.int32)

    @nnx.jit
    def step(model, optimizer):
        optimizer.update(model, nnx.grad(lambda model: (model(tokens) ** 2).mean())(model))

    before = model(tokens)
    step(model, optimizer)
    assert not np.array_equal(model(tokens), before)


def test_logits_begin_near_unit_variance_at_any_depth():
    model = make_model(vocabulary=50, width=64, layers=6)
    x = model.embedding(TOKENS) * 8
    step = nnx.jit(lambda block, x: block(x, lambda x: x))
    for block in model.blocks:
        x = step(block, x)
    assert 0.7 < x.std() < 1.8 and 0.6 < call(model, TOKENS).std() < 1.5


def test_dropout_is_for_training_and_has_streams_only_then():
    assert not nnx.to_flat_state(nnx.state(make_model(), nnx.RngState))
    model = make_model(dropout=0.5)
    assert not np.array_equal(call(model, TOKENS), call(model, TOKENS))
    model.eval()
    np.testing.assert_array_equal(call(model, TOKENS), call(make_model(), TOKENS))


def test_half_precision_is_close_and_its_logits_are_float32():
    half = call(make_model(dtype=jnp.bfloat16), TOKENS)
    assert half.dtype == jnp.float32
    np.testing.assert_allclose(half, call(make_model(), TOKENS), atol=0.1)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"width": 6}, "width=6 must be a multiple of 4"),
        ({"mlp": "relu"}, "mlp must be 'swiglu' or 'gelu'"),
        ({"layers": 0}, "layers must be a whole number >= 1"),
        ({"mlp_width": 0}, "mlp_width must be a whole number >= 1"),
        ({"dropout": 1.0}, r"in \[0, 1\)"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_model(**options)
