"""Tests Hessian eigenvalues against closed forms and NumPy, and critical learning rates."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from noisegen.diagnostics.hessian import critical_learning_rate, hessian_eigenvalues

KEY = jax.random.key(0)
EPS = 2.0**-17  # the part of |H| that is counted as rounding


def measure(loss, params, **settings):
    """Compiles the whole measurement, which is faster than one program per operation."""
    return jax.jit(lambda p: hessian_eigenvalues(loss, p, KEY, **settings))(params)


class Net(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(2, 8, rngs=rngs)
        self.logits = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        return self.logits(nnx.tanh(self.hidden(x)))


def net_loss_and_params(seed=0):
    """Returns the loss of a classifier on 32 points, and its 51 parameters."""
    graph, params = nnx.split(Net(nnx.Rngs(seed)))
    x = np.random.RandomState(1).randn(32, 2).astype(np.float32)
    y = np.arange(32) % 3

    def loss(params):
        logits = nnx.merge(graph, params)(x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    return loss, params


def dense_eigenvalues(loss, params):
    x, unravel = jax.flatten_util.ravel_pytree(params)
    h = np.float64(jax.jit(jax.hessian(lambda x: loss(unravel(x))))(x))
    return np.linalg.eigvalsh((h + h.T) / 2)[::-1]


def quadratic(h):
    h = jnp.asarray(h, jnp.float32)
    return lambda w: w @ (h @ w) / 2


def rotated(eigenvalues):
    q, _ = np.linalg.qr(np.random.RandomState(2).randn(len(eigenvalues), len(eigenvalues)))
    return (q * eigenvalues) @ q.T


SPECTRA = {
    "distinct": [7.0, 3.0, 1.0, 0.5, -2.0, -9.0],
    "repeated": [5.0, 5.0, 5.0, 2.0, 2.0, -1.0],
    "one value": [2.0] * 6,
    "singular": [4.0, 1.0, 0.0, 0.0, 0.0, 0.0],
    "negative": [-1.0, -2.0, -3.0, -4.0, -5.0, -60.0],
    "zero": [0.0] * 6,
    "tiny": list(1e-25 * np.array([7.0, 3.0, 1.0, 0.5, -2.0, -9.0])),
    "huge": list(1e25 * np.array([7.0, 3.0, 1.0, 0.5, -2.0, -9.0])),
}


@pytest.mark.parametrize("num_iterations", [6, 40])
@pytest.mark.parametrize("rotate", [np.diag, rotated])
def test_the_whole_spectrum_of_a_quadratic(rotate, num_iterations):
    expected = np.array(list(SPECTRA.values()))
    settings = {"num_eigenvalues": 6, "num_iterations": num_iterations}

    @jax.jit
    @jax.vmap
    def eigenvalues(h):
        return hessian_eigenvalues(quadratic(h), jnp.ones(6), KEY, **settings)

    found = eigenvalues(jnp.float32([rotate(spectrum) for spectrum in expected]))
    largest = np.abs(expected).max(1, keepdims=True)
    # Float32 arithmetic on six numbers: a few units of 2^-23.
    assert (np.abs(found.values - expected) <= 2e-6 * largest).all()
    assert (np.abs(found.values - expected) <= found.errors).all()
    assert (found.errors <= 4 * EPS * largest).all()


@pytest.mark.parametrize(("num_iterations", "copies"), [(5, 1), (50, 3)])
def test_copies_of_a_repeated_eigenvalue_come_late(num_iterations, copies):
    spectrum = np.concatenate([[9.0] * 3, np.linspace(-1, 1, 47)])
    settings = {"num_eigenvalues": 4, "num_iterations": num_iterations}
    found = measure(quadratic(np.diag(spectrum)), jnp.ones(50), **settings)
    assert ((found.values > 8.99) == (np.arange(4) < copies)).all()


@pytest.mark.parametrize("num_iterations", [1, 4, 16])
def test_some_eigenvalue_lies_within_the_error_and_none_is_overestimated(num_iterations):
    spectrum = np.linspace(-1, 1, 200, dtype=np.float32) ** 3
    found = jax.jit(
        jax.vmap(
            lambda key: hessian_eigenvalues(
                quadratic(np.diag(spectrum)), jnp.ones(200), key, num_iterations=num_iterations
            )
        )
    )(jax.random.split(jax.random.key(1), 20))
    distance = np.abs(np.asarray(found.values) - spectrum).min(1, keepdims=True)
    assert (distance <= found.errors).all()
    assert (found.values <= 1 + 1e-5).all()
    # Negative control: the errors are no idle bound, and with one iteration they are large.
    assert (found.errors < 1).all() and (num_iterations > 1 or (found.errors > 0.1).all())


@pytest.mark.parametrize("num_iterations", [12, 60])
def test_a_network_agrees_with_numpy(num_iterations):
    loss, params = net_loss_and_params()
    expected = dense_eigenvalues(loss, params)
    settings = {"num_eigenvalues": 3, "num_iterations": num_iterations}
    found = measure(loss, params, **settings)
    nearest = np.abs(np.asarray(found.values)[:, None] - expected).min(1)
    assert (nearest <= found.errors).all()
    np.testing.assert_allclose(found.values, expected[:3], atol=2 * found.errors.max())
    assert found.errors[0] < 1e-3 * expected[0]


def test_jit_and_vmap_change_nothing():
    lanes, keys = jax.random.normal(KEY, (2, 30)), jax.random.split(jax.random.key(1))

    def eigenvalues(w, key):
        def loss(w):
            return jnp.sum(jnp.sin(w)) ** 2 + jnp.sum(w**4)

        return hessian_eigenvalues(loss, w, key, num_eigenvalues=2, num_iterations=16)

    mapped = jax.jit(jax.vmap(eigenvalues))(lanes, keys)
    for i, function in enumerate([eigenvalues, jax.jit(eigenvalues)]):
        alone = function(lanes[i], keys[i])
        # Sixteen steps of float32 differ by rounding, which the errors count.
        assert (np.abs(mapped.values[i] - alone.values) <= alone.errors + mapped.errors[i]).all()


def test_lanes_that_end_early_leave_the_others_alone():
    spectra = jnp.array([[3.0] * 4, [0.0] * 4, [4.0, 3.0, 2.0, 1.0], [jnp.nan] * 4])

    @jax.jit
    @jax.vmap
    def eigenvalues(h):
        return hessian_eigenvalues(
            lambda w: jnp.sum(h * w**2) / 2, jnp.ones(4), KEY, num_eigenvalues=4
        ).values

    np.testing.assert_allclose(eigenvalues(spectra), spectra, atol=1e-5)


def test_bf16_parameters_are_raised():
    h = jnp.array([3.0, 1.001])  # 1.001 is 1 in bf16
    params = jnp.ones(2, jnp.bfloat16)
    found = measure(lambda w: jnp.sum(h * w**2) / 2, params, num_eigenvalues=2)
    np.testing.assert_allclose(found.values, h, atol=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        lambda w: jnp.sum(w**2) + jnp.inf,  # the loss is infinite, its Hessian is not
        lambda w: jnp.log(w.sum() - 2),
        lambda w: jnp.sqrt(w.sum() - 2),  # an infinite gradient
        lambda w: ((w - 1) ** 2).sum() ** 0.75,  # 0 / 0 in its Hessian
        lambda w: jnp.sum(w**2) * jnp.nan,
    ],
)
def test_losses_that_are_not_finite_give_nan(loss):
    found = measure(loss, jnp.ones(2))
    assert np.isnan(found.values).all() and np.isnan(found.errors).all()


@pytest.mark.parametrize(
    ("params", "settings", "message"),
    [
        (jnp.ones(3), {"num_eigenvalues": 4}, "num_eigenvalues must lie between 1 and"),
        (jnp.ones(9), {"num_eigenvalues": 3, "num_iterations": 2}, "3 with 2 iterations on 9"),
        (jnp.ones(3), {"num_eigenvalues": 0}, "num_eigenvalues must be a whole number >= 1"),
        ({"w": jnp.ones(3), "step": jnp.int32(3)}, {}, r"params .* but \['step'\] is int32"),
    ],
)
def test_bad_arguments_are_refused(params, settings, message):
    if isinstance(params, dict):
        settings = {"num_eigenvalues": 1, **settings}
    with pytest.raises(ValueError, match=message):
        hessian_eigenvalues(lambda w: 0.0, params, KEY, **{"num_eigenvalues": 1, **settings})


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_descent_converges_below_the_critical_rate_and_diverges_above(momentum):
    loss, w = quadratic(rotated([8.0, 2.0, 1.0])), jnp.array([1.0, -1.0, 2.0])
    largest = measure(loss, w).values[0]
    critical = critical_learning_rate(largest, momentum)
    np.testing.assert_allclose(critical, 2 * (1 + momentum) / 8, rtol=1e-5)

    def size_after(learning_rate):
        tx = optax.chain(optax.trace(momentum), optax.scale(-learning_rate))

        def step(_, carry):
            updates, state = tx.update(jax.grad(loss)(carry[0]), carry[1])
            return optax.apply_updates(carry[0], updates), state

        return jnp.linalg.norm(jax.lax.fori_loop(0, 3000, step, (w, tx.init(w)))[0])

    below, above = jax.vmap(size_after)(critical * jnp.array([0.98, 1.02]))
    # At m = 0 a step changes the size by 1 -+ 0.04 and at m = 0.5 or 0.9 by less, yet 3000 of them
    # by many orders of magnitude.
    assert below < 1e-3 * jnp.linalg.norm(w)
    assert not above < 1e3 * jnp.linalg.norm(w)


def test_critical_learning_rate_of_flat_and_undefined_losses():
    eigenvalues = jnp.array([4.0, 0.0, -1.0, jnp.nan, jnp.inf])
    expected = [0.5, np.inf, np.inf, np.nan, 0.0]
    np.testing.assert_array_equal(critical_learning_rate(eigenvalues), expected)
    np.testing.assert_array_equal(jax.vmap(critical_learning_rate)(eigenvalues), expected)
    with pytest.raises(ValueError, match=r"momentum must be a number in \[0, 1\)"):
        critical_learning_rate(1.0, momentum=1.0)
