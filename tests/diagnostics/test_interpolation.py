"""Tests lines and planes through checkpoints: closed forms, exact ends, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from noisegen.diagnostics.interpolation import evaluate_on_line, evaluate_on_plane, interpolate


class Net(nnx.Module):
    def __init__(self, width, rngs):
        self.hidden = nnx.Linear(3, width, rngs=rngs)
        self.norm = nnx.BatchNorm(width, momentum=0.0, rngs=rngs)

    def __call__(self, x):
        return self.norm(self.hidden(x))


def params_of(seed, width=4):
    return nnx.split(Net(width, nnx.Rngs(seed)), nnx.Param, ...)[1]


def assert_trees_equal(first, second):
    assert jax.tree.structure(first) == jax.tree.structure(second)
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.parametrize("alpha", [-1.0, 0.25, 1, 2.0])
def test_interpolation_is_the_line(alpha):
    first, second = params_of(0), params_of(1)
    expected = jax.tree.map(lambda x, y: np.float64(x) + alpha * (np.float64(y) - x), first, second)
    for function in (interpolate, jax.jit(interpolate)):
        found = function(first, second, alpha)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), found, expected)


def test_the_ends_are_the_checkpoints_to_the_last_bit():
    first, second = params_of(0), params_of(1)
    assert_trees_equal(interpolate(first, second, 0.0), first)
    assert_trees_equal(interpolate(first, second, 1.0), second)


def test_bf16_is_combined_in_float32_and_rounded_once():
    first, second = (jax.random.normal(jax.random.key(s), (512,), jnp.bfloat16) for s in (0, 1))
    found = interpolate(first, second, 0.3)
    wide = interpolate(first.astype(jnp.float32), second.astype(jnp.float32), 0.3)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, wide.astype(jnp.bfloat16))
    # Negative control: in bf16 throughout the result is another.
    alpha = jnp.bfloat16(0.3)
    assert (found != (1 - alpha) * first + alpha * second).any()


def test_evaluate_on_line_is_a_loop_over_the_points():
    first, second = params_of(0), params_of(1)
    alphas = jnp.linspace(-1, 2, 7)

    def measure(params):
        kernel = params["hidden"]["kernel"][...]
        return {"norm": jnp.sum(kernel**2), "positive": (kernel > 0).sum()}

    found = evaluate_on_line(measure, first, second, alphas)
    loop = [measure(interpolate(first, second, a)) for a in alphas]
    for name, values in found.items():
        np.testing.assert_allclose(values, [at[name] for at in loop], rtol=1e-5)
    jitted = jax.jit(lambda *args: evaluate_on_line(measure, *args))(first, second, alphas)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), jitted, found)


def test_evaluate_on_line_maps_over_pairs_of_checkpoints():
    firsts, seconds = jax.random.normal(jax.random.key(0), (2, 5, 3))
    alphas = jnp.linspace(0, 1, 4)

    def line(first, second):
        return evaluate_on_line(lambda w: jnp.sum(w**2), first, second, alphas)

    loop = [line(*pair) for pair in zip(firsts, seconds, strict=True)]
    np.testing.assert_allclose(jax.vmap(line)(firsts, seconds), loop, rtol=1e-5)


def test_evaluate_on_plane_of_a_closed_form():
    origin, first, second = jax.random.normal(jax.random.key(0), (3, 6))
    alphas, betas = np.linspace(-1, 1, 4), np.linspace(0, 2, 3)
    found = evaluate_on_plane(
        lambda w: {"w": w[2], "sum": w.sum()}, origin, first, second, alphas, betas
    )
    w0, w1, w2 = np.float64([origin, first, second])
    points = w0 + np.multiply.outer(alphas, w1 - w0)[:, None] + np.multiply.outer(betas, w2 - w0)
    np.testing.assert_allclose(found["w"], points[..., 2], atol=1e-5)
    np.testing.assert_allclose(found["sum"], points.sum(-1), atol=1e-5)


def test_the_corners_of_the_plane_are_exact():
    corners = jax.random.normal(jax.random.key(1), (3,))
    found = evaluate_on_plane(lambda w: w, *corners, jnp.arange(2), jnp.arange(2))
    np.testing.assert_array_equal([found[0, 0], found[1, 0], found[0, 1]], corners)


def test_batch_statistics_are_recomputed_inside_the_measure():
    graph, first, rest = nnx.split(Net(4, nnx.Rngs(0)), nnx.Param, ...)
    second = jax.tree.map(lambda p: -3 * p, first)
    x = jax.random.normal(jax.random.key(2), (256, 3))

    def second_moment(params, recompute):
        model = nnx.merge(graph, params, rest, copy=True)
        if recompute:
            model.train()
            model(x)  # momentum 0: the running statistics are now those of x
        model.eval()
        return (model.norm(model.hidden(x)) ** 2).mean(0)[0] / params["norm"]["scale"][...][0] ** 2

    alphas = jnp.array([0.0, 0.1, 0.4, 1.0])
    found = evaluate_on_line(lambda p: second_moment(p, True), first, second, alphas)
    # Normalized with its own statistics every network on the line has variance 1.
    np.testing.assert_allclose(found, jnp.ones(4), rtol=1e-3)
    stale = evaluate_on_line(lambda p: second_moment(p, False), first, second, alphas)
    assert (jnp.abs(stale - 1) > 0.1).any()


def test_different_networks_are_refused_by_the_leaf_that_differs():
    first, wide = params_of(0), params_of(0, width=5)
    message = r"leaf \['hidden'\]\['bias'\].* is \(4,\) in first and \(5,\) in second"
    for call in (
        lambda: interpolate(first, wide, 0.5),
        lambda: evaluate_on_line(lambda p: 0.0, first, wide, jnp.arange(2)),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(ValueError, match=r"in origin and \(5,\) in second"):
        evaluate_on_plane(lambda p: 0.0, first, first, wide, jnp.arange(2), jnp.arange(2))


@pytest.mark.parametrize(
    ("first", "second", "alpha", "message"),
    [
        ({"a": 1.0}, {"a": 1.0, "b": 1.0}, 0.5, r"\['b'\] is missing in first and \(\) in second"),
        ({"a": 1.0, "b": 1.0}, {"a": 1.0}, 0.5, r"\['b'\] is \(\) in first and missing in second"),
        ([1.0], (1.0,), 0.5, "their containers differ"),
        (jnp.ones(2), jnp.ones(3), 0.5, r"leaf the only leaf is \(2,\)|the only leaf is \(2,\)"),
        ({"n": jnp.int32(1)}, {"n": jnp.int32(2)}, 0.5, r"first .* but \['n'\] is int32"),
        (1.0, jnp.arange(3), 0.5, "second must hold floating-point arrays only"),
        ({"k": jax.random.key(0)}, {"k": jax.random.key(0)}, 0.5, r"\['k'\] is key<fry>"),
        (jnp.ones(2), jnp.ones(2), jnp.ones(2), r"alpha must be a single number, .* \(2,\)"),
    ],
)
def test_bad_arguments_are_refused(first, second, alpha, message):
    with pytest.raises(ValueError, match=message):
        interpolate(first, second, alpha)


def test_points_must_have_one_axis():
    with pytest.raises(ValueError, match=r"alphas must be an array of one axis, .* \(\)"):
        evaluate_on_line(jnp.sum, jnp.ones(2), jnp.ones(2), 0.5)
    with pytest.raises(ValueError, match=r"betas must be an array of one axis, .* \(1, 2\)"):
        evaluate_on_plane(jnp.sum, *jnp.ones((3, 2)), jnp.ones(2), jnp.ones((1, 2)))
