"""Tests sharpness against boxes with a known highest corner, and SciPy's L-BFGS-B."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
from flax import nnx

from noisegen.diagnostics.sharpness import sharpness

KEY = jax.random.key(0)


class Net(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(2, 8, rngs=rngs)
        self.logits = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        return self.logits(nnx.tanh(self.hidden(x)))


NUM_STEPS, EPSILONS = (0, 500, 4000), (1e-2, 1e-3, 5e-4)


@functools.cache
def net_loss_and_params():
    """Returns a loss of flat parameters, and networks after 0, 500 and 4000 steps."""
    graph, params = nnx.split(Net(nnx.Rngs(0)))
    start, unravel = jax.flatten_util.ravel_pytree(params)
    x = np.random.RandomState(1).randn(64, 2).astype(np.float32)
    y = (x[:, 0] * x[:, 1] > 0).astype(int) + (x[:, 0] > 1)

    def loss(params):
        logits = nnx.merge(graph, unravel(params))(x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    @jax.jit
    def train(num_steps):
        return jax.lax.fori_loop(0, num_steps, lambda _, p: p - 0.5 * jax.grad(loss)(p), start)

    return loss, [train(n) for n in NUM_STEPS]


def sharpness_by_scipy(value_and_grad, x, epsilon, a):
    """Computes sharpness as Keskar et al. do, in units that keep SciPy from stopping early."""
    a, x = np.float64(a), np.float64(x)
    half_widths = epsilon * (np.abs(np.linalg.pinv(a) @ x) + 1)

    def fun(u):
        value, gradient = value_and_grad(jnp.float32(x + a @ (half_widths * u)))
        return -float(value), -half_widths * (a.T @ np.float64(gradient))

    center = np.zeros(len(half_widths))
    start, slope = fun(center)
    scale = 1 / np.abs(slope).max()
    result = scipy.optimize.minimize(
        lambda u: tuple(scale * part for part in fun(u)),
        center,
        jac=True,
        method="L-BFGS-B",
        bounds=[(-1, 1)] * len(center),
        options={"maxiter": 10, "gtol": 0, "ftol": 0},
    )
    return 100 * (start - result.fun / scale) / (1 - start)


@pytest.mark.parametrize("subspace", [None, 20])
def test_networks_rise_as_far_as_lbfgsb_finds(subspace):
    loss, networks = net_loss_and_params()
    a = np.eye(51) if subspace is None else jax.random.normal(jax.random.key(3), (51, subspace))
    settings = {"subspace": subspace, "key": jax.random.key(3)}
    value_and_grad = jax.jit(jax.value_and_grad(loss))
    measure = jax.jit(lambda params, eps: sharpness(loss, params, epsilon=eps, **settings))
    for params, epsilon in itertools.product(networks, EPSILONS):
        expected = sharpness_by_scipy(value_and_grad, params, epsilon, a)
        # Both stop at a local maximum, perhaps another: hence not all of it.
        assert measure(params, epsilon) >= 0.95 * expected > 0


@pytest.mark.parametrize("epsilon", [1e-1, 1e-3])
def test_the_corner_of_a_diagonal_quadratic(epsilon):
    h, x = np.array([100.0, 1.0, 0.0, 10.0]), np.array([0.5, -2.0, 1.0, -0.01])
    found = sharpness(lambda w: jnp.sum(h * w**2) / 2, jnp.float32(x), epsilon=epsilon)
    start, corner = (np.sum(h * w**2) / 2 for w in (x, np.abs(x) + epsilon * (np.abs(x) + 1)))
    np.testing.assert_allclose(found, 100 * (corner - start) / (1 + start), rtol=1e-3)


def test_the_corner_of_a_linear_loss_with_slopes_of_every_size():
    slopes = np.logspace(-5, 0, 600) * np.tile([1, -1], 300)
    found = sharpness(lambda w: 1 + jnp.dot(slopes, w), jnp.zeros(600), epsilon=1e-2)
    # Ten doubling steps reach 127 times the mean slope's inverse: less than 1 % is left.
    np.testing.assert_allclose(found, 100 * 1e-2 * np.abs(slopes).sum() / 2, rtol=1e-2)


def test_the_corner_is_chosen_from_inside_the_box():
    # The slope at the center points to the corner (1, 1), which rises by 0.515 and is a maximum of
    # its own; curvature to the side of it leads to (1, -1), which rises by 2.505.
    def loss(w):
        return 1 + (w[0] - w[1]) ** 2 / 2 + jnp.sum(w**2) / 4 + 0.01 * w[0] + 0.005 * w[1]

    np.testing.assert_allclose(sharpness(loss, jnp.zeros(2), epsilon=1.0), 125.25, rtol=1e-4)


def test_a_maximum_inside_the_box():
    x = jnp.zeros(3)
    peak = jnp.array([0.3, -0.2, 0.05])
    found = sharpness(lambda w: 1 - jnp.sum((w - peak) ** 2), x, epsilon=1.0)
    rise = float(jnp.sum(peak**2))
    np.testing.assert_allclose(found, 100 * rise / (2 - rise), rtol=0.05)


def test_a_stationary_point_is_left():
    found = sharpness(lambda w: jnp.sum(w**2), jnp.zeros(4), epsilon=1e-2)
    np.testing.assert_allclose(found, 100 * 4 * 1e-4, rtol=1e-5)


def test_jit_changes_nothing():
    def measure(w):
        return sharpness(lambda w: jnp.sum(jnp.cos(w) + w**4), w, epsilon=0.1)

    w = jax.random.normal(jax.random.key(1), (20,))
    np.testing.assert_allclose(jax.jit(measure)(w), measure(w), rtol=1e-4)


def test_a_maximum_and_a_constant_have_none():
    assert sharpness(lambda w: 1 - jnp.sum(w**2), jnp.zeros(4)) == 0
    assert sharpness(lambda w: jnp.sum(0 * w) + 3, jnp.ones(4)) == 0


def test_the_box_of_a_random_subspace():
    x = jnp.linspace(-30, 30, 40)
    slopes = np.cos(np.arange(40.0))
    a = np.float64(jax.random.normal(KEY, (40, 3)))
    half_widths = 1e-2 * (np.abs(np.linalg.pinv(a) @ np.float64(x)) + 1)
    assert half_widths.max() > 2e-2  # else the test would not see the pseudoinverse
    rise = np.sum(half_widths * np.abs(a.T @ slopes))
    start = 100 + slopes @ np.float64(x)
    found = sharpness(
        lambda w: 100 + jnp.dot(slopes, w), x, epsilon=1e-2, subspace=3, key=jax.random.key(0)
    )
    np.testing.assert_allclose(found, 100 * rise / (1 + start), rtol=1e-3)


def test_vmap_is_a_loop():
    loss, networks = net_loss_and_params()
    loop = [*map(jax.jit(lambda params: sharpness(loss, params)), networks)]
    found = jax.jit(jax.vmap(lambda params: sharpness(loss, params)))(jnp.stack(networks))
    # The rise is a difference of losses near 1, which float32 knows to 1e-7: 1e-5 percent.
    np.testing.assert_allclose(found, loop, rtol=1e-3, atol=3e-5)


def test_lanes_of_their_own_epsilon_and_subspace():
    def measure(epsilon, key):
        return sharpness(
            lambda w: 1 + jnp.sum(w), jnp.zeros(5), epsilon=epsilon, subspace=2, key=key
        )

    epsilons, keys = jnp.array([1e-3, 1e-2]), jax.random.split(jax.random.key(5))
    a = [jax.random.normal(key, (5, 2)) for key in jax.random.split(jax.random.key(5))]
    rises = [np.abs(matrix.sum(0)).sum() for matrix in a]
    expected = 50 * epsilons * jnp.array(rises)
    np.testing.assert_allclose(jax.jit(jax.vmap(measure))(epsilons, keys), expected, rtol=1e-3)


def test_points_where_the_loss_is_not_finite_do_not_count():
    # Above w = 0.5 the loss is infinite; the box reaches to 1.
    found = sharpness(lambda w: -jnp.log(0.5 - w.sum()) + 1, jnp.zeros(1), epsilon=1.0)
    assert np.isfinite(found) and found > 0


@pytest.mark.parametrize(
    "loss",
    [
        lambda w: jnp.log(w.sum()),  # infinite
        lambda w: jnp.sum(w) * jnp.nan,
        lambda w: jnp.sqrt(w.sum()),  # with an infinite slope
        lambda w: jnp.sum(w) - 1,  # the denominator is 0
    ],
)
def test_undefined_sharpness_is_nan(loss):
    for num_iterations in (10, 100):  # steps shrink with each that is in vain
        measure = jax.jit(lambda w, n=num_iterations: sharpness(loss, w, num_iterations=n))
        assert np.isnan(measure(jnp.zeros(2)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epsilon": 0.0}, "epsilon must be a finite number > 0"),
        ({"num_iterations": 0}, "num_iterations must be a whole number >= 1"),
        ({"subspace": 2}, "2 without a key"),
        ({"subspace": 4, "key": jax.random.key(0)}, "between 1 and the number of parameters, 3"),
    ],
)
def test_bad_arguments_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        sharpness(jnp.sum, jnp.ones(3), **settings)


def test_counters_are_refused():
    with pytest.raises(ValueError, match="params must hold floating-point arrays only"):
        sharpness(jnp.sum, jnp.arange(3))
