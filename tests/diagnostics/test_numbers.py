"""Tests diagnostics of complex gradients, large means, and all number types."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from noisegen import diagnostics

RE, IM = np.random.default_rng(0).normal(size=(2, 8, 50)).astype(np.float32)
PAIR, COMPLEX = [RE, IM], RE + 1j * IM


def assert_same(found, pair):
    np.testing.assert_allclose(found.trace, pair.trace, rtol=1e-5)
    np.testing.assert_allclose(found.squared_norm, pair.squared_norm, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.diagonal, sum(pair.diagonal), rtol=1e-5)
    assert found.diagonal.dtype == found.trace.dtype == jnp.float32


@pytest.mark.parametrize("sizes", [4, [1, 2, 3, 4, 5, 6, 7, 8]])
def test_complex_gradients_of_groups_count_as_pairs(sizes):
    found = diagnostics.estimate_gradient_noise(COMPLEX, sizes)
    assert_same(found, diagnostics.estimate_gradient_noise(PAIR, sizes))


def test_complex_sums_count_as_pairs():
    def sums(gradients, squares):
        return diagnostics.estimate_gradient_noise_from_sums(
            diagnostics.GroupSums(gradients, squares, 32, 8, 32)
        )

    pair = [4 * part.sum(0) for part in PAIR], [4 * (part**2).sum(0) for part in PAIR]
    found = sums(4 * COMPLEX.sum(0), 4 * (np.abs(COMPLEX) ** 2).sum(0))
    assert_same(found, sums(*pair))
    with pytest.raises(ValueError, match="squares must be a real number"):
        sums(4 * COMPLEX.sum(0), 4 * (COMPLEX**2).sum(0))


def test_complex_parameters_have_the_covariance_of_pairs():
    def of_complex(w, x):
        return jnp.sum(jnp.abs(w - x) ** 2) / 2

    def of_pair(w, x):
        return jnp.sum((w[0] - x[0]) ** 2 + (w[1] - x[1]) ** 2) / 2

    zeros = np.zeros(50, np.float32)
    found = diagnostics.gradient_covariance(of_complex, zeros + 0j, COMPLEX)
    assert_same(found, diagnostics.gradient_covariance(of_pair, [zeros, zeros], PAIR))
    np.testing.assert_allclose(found.trace, RE.var(0, ddof=1).sum() + IM.var(0, ddof=1).sum(), 1e-5)


@pytest.mark.parametrize(
    "measure",
    [
        lambda w: diagnostics.hessian_eigenvalues(lambda w: 1.0, w, jax.random.key(0)),
        lambda w: diagnostics.sharpness(lambda w: 1.0, w),
        lambda w: diagnostics.interpolate(w, w, 0.5),
    ],
)
def test_complex_parameters_are_refused_with_the_remedy_elsewhere(measure):
    with pytest.raises(ValueError, match="is complex64. Give its real and imaginary parts as two"):
        measure({"w": jnp.ones(3, jnp.complex64)})


def test_complex_numbers_are_refused_by_name():
    ones = jnp.ones(3)
    for name, call in {
        "alpha": lambda: diagnostics.interpolate(ones, ones, 1j),
        "alphas": lambda: diagnostics.evaluate_on_line(jnp.sum, ones, ones, [1j]),
        "largest_eigenvalue": lambda: diagnostics.critical_learning_rate(1j),
        "trace": lambda: diagnostics.gradient_noise_scale(diagnostics.RunningNoise(1j, 1.0, 1)),
    }.items():
        with pytest.raises(ValueError, match=f"^{name} must be a real number, but it is"):
            call()


def test_unsigned_and_small_numbers_are_as_pythons():
    x = np.random.default_rng(1).normal(size=(300, 3)).astype(np.float32)

    def loss(w, x):
        return jnp.sum(jnp.array([3.0, 2.0, 1.0]) * (w - x) ** 2) / 2

    w = jnp.zeros(3)
    exact = diagnostics.gradient_covariance(loss, w, x, chunk=100)
    np.testing.assert_allclose(
        diagnostics.gradient_covariance(loss, w, x, chunk=np.uint8(100)).trace, exact.trace
    )
    values = diagnostics.hessian_eigenvalues(
        lambda w: loss(w, 0.0), w, jax.random.key(0), num_eigenvalues=np.uint8(2)
    ).values
    np.testing.assert_allclose(values, [3, 2], rtol=1e-4)
    at_two = diagnostics.interpolate({"w": w}, {"w": w + 1}, np.uint8(2))
    np.testing.assert_array_equal(at_two["w"], [2, 2, 2])
    np.testing.assert_array_equal(
        diagnostics.interpolate({"w": w}, {"w": w + 1}, jnp.uint8(2))["w"], at_two["w"]
    )
    ratio = diagnostics.signal_to_noise_ratio(exact, np.uint8(200))
    np.testing.assert_allclose(ratio, diagnostics.signal_to_noise_ratio(exact, 200.0))
    for kind in (np.uint8, np.uint32, np.int64):
        found = diagnostics.estimate_gradient_noise(x[:4], kind(64), np.uint32(3_000_000_000))
        expected = diagnostics.estimate_gradient_noise(x[:4], 64.0, 3e9)
        np.testing.assert_array_equal(found.squared_norm, expected.squared_norm)


def test_sizes_past_int32():
    sums = diagnostics.GroupSums(
        jnp.full(2, 6e9), jnp.full(2, 1.4e10), 3_000_000_000, 2, 3_000_000_000
    )
    found = diagnostics.estimate_gradient_noise_from_sums(sums, 10**10)
    np.testing.assert_allclose(found.trace, 4e9, rtol=1e-5)
    running = diagnostics.RunningNoise(jnp.float32(1), jnp.float32(1), jnp.int32(2**31 - 1))
    running = diagnostics.update_running_noise(running, found._replace(squared_norm=1.0), 1.0)
    assert running.count == 2**31 - 1 and np.isfinite(running.trace)


def test_ratios_of_overflowed_gradients_are_no_numbers():
    for trace, norm in ((np.inf, 1.0), (1.0, np.inf), (np.inf, np.inf), (np.nan, 1.0)):
        noise = diagnostics.GradientNoise(jnp.float32(trace), norm, ())
        assert np.isnan(diagnostics.gradient_noise_scale(noise))
        assert np.isnan(diagnostics.signal_to_noise_ratio(noise, 8))


def test_strict_promotion_and_double_precision_give_the_same_noise():
    gradients = {"a": RE, "b": jnp.asarray(IM, jnp.bfloat16)}
    expected = diagnostics.estimate_gradient_noise(gradients, 4, 100)
    with jax.numpy_dtype_promotion("strict"), jax.enable_x64(True):
        for number in (lambda n: n, jnp.int32, np.uint8):
            found = diagnostics.estimate_gradient_noise(gradients, number(4), number(100))
            np.testing.assert_allclose(found.trace, expected.trace, rtol=1e-6)
            np.testing.assert_allclose(found.squared_norm, expected.squared_norm, rtol=1e-3)
            ones = jnp.ones(4, jnp.float32)
            sums = diagnostics.GroupSums(ones, 2 * ones, number(16), number(2), number(16))
            np.testing.assert_allclose(
                diagnostics.estimate_gradient_noise_from_sums(sums, 100).trace, 7.75
            )
        running = diagnostics.update_running_noise(diagnostics.init_running_noise(), found)
        np.testing.assert_allclose(running.trace, expected.trace, rtol=1e-6)
        assert running.trace.dtype == jnp.float32
