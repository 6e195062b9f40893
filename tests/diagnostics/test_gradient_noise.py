"""Tests gradient noise against known covariances, over many draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from noisegen import diagnostics

N, DIM = 48, 3


@pytest.fixture(scope="module")
def gradients():
    """Returns the gradients of N examples with known mean and covariance."""
    rng = np.random.default_rng(0)
    return (rng.normal(size=(N, DIM)) * [1.0, 2.0, 0.5] + [0.3, 0.0, 0.6]).astype(np.float32)


def covariance(gradients):
    return np.cov(gradients, rowvar=False)


def group_means(gradients, sizes):
    return np.stack([part.mean(0) for part in np.split(gradients, np.cumsum(sizes)[:-1])])


def estimates(gradients, sizes, num_examples, num_draws=4000):
    """Returns trace and squared norm estimated from many batches, drawn without replacement."""

    def draw(key):
        batch = jax.random.permutation(key, jnp.asarray(gradients))[: sum(sizes)]
        ends = np.cumsum([0, *sizes])
        means = jnp.stack([batch[a:b].mean(0) for a, b in zip(ends, ends[1:], strict=False)])
        noise = diagnostics.estimate_gradient_noise(means, jnp.array(sizes), num_examples)
        return noise.trace, noise.squared_norm, jnp.sum(batch.mean(0) ** 2)

    keys = jax.random.split(jax.random.key(1), num_draws)
    return [np.asarray(values, np.float64) for values in jax.jit(jax.vmap(draw))(keys)]


def z_score(values, expected):
    """Returns the distance of the mean from its expectation, in standard errors."""
    return abs(values.mean() - expected) / (values.std() / np.sqrt(len(values)))


@pytest.mark.parametrize("sizes", [(1, 1), (4, 4, 4), (8, 3, 1), (24, 24)])
def test_estimates_are_unbiased(gradients, sizes):
    trace, squared_norm, _ = estimates(gradients, sizes, N)
    assert z_score(trace, np.trace(covariance(gradients))) < 4
    exact = np.sum(gradients.mean(0) ** 2)
    if sum(sizes) < N:
        assert z_score(squared_norm, exact) < 4
    else:  # the full batch has no noise at all
        np.testing.assert_allclose(squared_norm, exact, rtol=1e-4)


def test_a_biased_estimator_is_found_out(gradients):
    sizes = (4, 4, 4)
    trace, _, naive_norm = estimates(gradients, sizes, N)
    exact = np.trace(covariance(gradients))
    assert z_score(trace * (len(sizes) - 1) / len(sizes), exact) > 8  # k for k - 1
    assert z_score(naive_norm, np.sum(gradients.mean(0) ** 2)) > 8  # |g|^2 for |G|^2


def test_squared_norm_of_fresh_examples_counts_all_noise(gradients):
    _, fresh, _ = estimates(gradients, (4, 4, 4), np.inf)
    expected = np.sum(gradients.mean(0) ** 2) - np.trace(covariance(gradients)) / N
    assert z_score(fresh, expected) < 4


@pytest.mark.parametrize("sizes", [(2, 2, 2), (5, 1, 3)])
def test_sums_give_what_groups_give(gradients, sizes):
    batch = gradients[: sum(sizes)]
    counts = np.array(sizes, np.float32)
    sums = group_means(batch, sizes) * counts[:, None]
    found = diagnostics.estimate_gradient_noise_from_sums(
        diagnostics.GroupSums(
            gradient={"w": jnp.asarray(sums.sum(0))},
            squares={"w": jnp.asarray((sums**2 / counts[:, None]).sum(0))},
            size=sum(sizes),
            groups=len(sizes),
            weights=sum(sizes),
        ),
        N,
    )
    expected = diagnostics.estimate_gradient_noise({"w": group_means(batch, sizes)}, counts, N)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("counted", [True, False])
def test_weights_are_not_taken_for_noise_of_the_examples(gradients, counted):
    size, group, deviation = 12, 4, 3.0

    def draw(key):
        order, normal = jax.random.split(key)
        batch = jax.random.permutation(order, jnp.asarray(gradients))[:size]
        xi = deviation * jax.random.normal(normal, (size // 2,))
        weights = (1 + jnp.stack([xi, -xi], 1)).ravel()
        sums = (weights[:, None] * batch).reshape(size // group, group, DIM).sum(1)
        squares = jnp.sum(weights**2) if counted else size
        return diagnostics.estimate_gradient_noise_from_sums(
            diagnostics.GroupSums(
                sums.sum(0), (sums**2 / group).sum(0), size, squares / group, squares
            ),
            N,
        )

    noise = jax.vmap(draw)(jax.random.split(jax.random.key(2), 4000))
    trace, norm = np.asarray(noise.trace), np.asarray(noise.squared_norm)
    scores = (
        z_score(trace, np.trace(covariance(gradients))),
        z_score(norm, np.sum(gradients.mean(0) ** 2)),
    )
    if counted:  # unbiased for any weights
        assert max(scores) < 4
    else:
        assert scores[0] > 8


def test_diagonal_is_that_of_the_covariance(gradients):
    noise = diagnostics.estimate_gradient_noise(gradients, sizes=1)
    np.testing.assert_allclose(noise.diagonal, np.diag(covariance(gradients)), rtol=1e-5)
    np.testing.assert_allclose(noise.trace, np.trace(covariance(gradients)), rtol=1e-5)


def test_exact_covariance_of_a_quadratic():
    rng = np.random.default_rng(1)
    hessian, x = np.diag([1.0, 3.0]).astype(np.float32), rng.normal(size=(50, 2)).astype(np.float32)
    w = jnp.array([0.5, -1.0])

    def loss(w, x):
        return (w - x) @ hessian @ (w - x) / 2

    gradients = (np.asarray(w) - x) @ hessian
    for chunk in (1, 7, 64):
        noise = diagnostics.gradient_covariance(loss, w, x, chunk)
        np.testing.assert_allclose(noise.diagonal, np.diag(covariance(gradients)), rtol=1e-5)
        np.testing.assert_allclose(noise.squared_norm, np.sum(gradients.mean(0) ** 2), rtol=1e-5)
    trace, norm = np.trace(covariance(gradients)), np.sum(gradients.mean(0) ** 2)
    np.testing.assert_allclose(diagnostics.gradient_noise_scale(noise), trace / norm, rtol=1e-5)
    ratio = diagnostics.signal_to_noise_ratio(noise, 16)
    np.testing.assert_allclose(ratio, norm / (trace / 16), rtol=1e-5)


def test_single_group_says_nothing():
    noise = diagnostics.estimate_gradient_noise({"w": jnp.ones((1, 4))}, sizes=64)
    assert np.isnan(noise.trace) and np.isnan(diagnostics.gradient_noise_scale(noise))
    sums = diagnostics.GroupSums(jnp.ones(4), jnp.ones(4), size=8, groups=1, weights=8)
    assert np.isnan(diagnostics.estimate_gradient_noise_from_sums(sums).trace)


def test_the_ratio_of_no_batch_is_no_number():
    noise = diagnostics.GradientNoise(jnp.float32(2), jnp.float32(1), ())
    assert np.isnan(diagnostics.signal_to_noise_ratio(noise, jnp.float32(-1)))


def test_noise_scale_of_no_gradient_is_no_number():
    noise = diagnostics.GradientNoise(jnp.float32(2), jnp.float32(-0.1), ())
    assert np.isnan(diagnostics.gradient_noise_scale(noise))


def test_running_noise_is_the_bias_corrected_average():
    running, decay = diagnostics.init_running_noise(), 0.9
    average, values = 0.0, [3.0, 5.0, 1.0, 8.0]
    for value in values:
        noise = diagnostics.GradientNoise(jnp.float32(value), jnp.float32(2 * value), ())
        running = jax.jit(diagnostics.update_running_noise)(running, noise, decay)
        average = decay * average + (1 - decay) * value
    np.testing.assert_allclose(running.trace, average / (1 - decay ** len(values)), rtol=1e-5)
    np.testing.assert_allclose(running.squared_norm, 2 * running.trace, rtol=1e-6)


def test_running_noise_leaves_out_what_was_not_measured():
    running = diagnostics.init_running_noise()
    for trace, norm in ((4.0, 4.0), (np.nan, np.nan), (5.0, np.nan), (8.0, 8.0)):
        noise = diagnostics.GradientNoise(jnp.float32(trace), jnp.float32(norm), ())
        running = diagnostics.update_running_noise(running, noise, decay=1.0)
    assert (float(running.trace), int(running.count)) == (6.0, 2)


def test_only_a_chunk_of_gradients_is_held():
    x, w = jnp.ones((2000, 50)), jnp.ones((50, 20))

    def measure(w, x):
        return diagnostics.gradient_covariance(lambda w, x: jnp.sum((x @ w) ** 2), w, x, chunk=4)

    used = jax.jit(measure).lower(w, x).compile().memory_analysis().temp_size_in_bytes
    assert used < 50 * 1000 * 4  # all of them are 2000 times 1000 numbers


def test_the_ratio_of_no_signal_is_no_number():
    noise = diagnostics.GradientNoise(jnp.float32(2), jnp.float32(-0.1), ())
    assert np.isnan(diagnostics.signal_to_noise_ratio(noise, 64))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="sizes must be one number or 2"):
        diagnostics.estimate_gradient_noise(jnp.ones((2, 3)), jnp.ones(3))
    with pytest.raises(ValueError, match="sizes must be a finite number > 0"):
        diagnostics.estimate_gradient_noise(jnp.ones((2, 3)), 0)
    for num_examples, least in ((-3, 1), (0, 1), (np.nan, 1), (1, 16), (15, 16)):
        with pytest.raises(ValueError, match=f"num_examples must be a number >= {least}"):
            diagnostics.estimate_gradient_noise(jnp.ones((2, 3)), 8, num_examples)
    sums = diagnostics.GroupSums(jnp.ones(4), jnp.ones(4), size=8, groups=2, weights=8)
    for num_examples in (0, 7):
        with pytest.raises(ValueError, match="num_examples must be a number >= 8"):
            diagnostics.estimate_gradient_noise_from_sums(sums, num_examples)
    for decay in (-0.5, 1.5):
        with pytest.raises(ValueError, match="decay must be a number from 0 to 1"):
            diagnostics.update_running_noise(diagnostics.init_running_noise(), sums, decay)
    for sizes in (-8.0, 0.0, [8.0, 0.0]):
        assert np.isnan(
            diagnostics.estimate_gradient_noise(jnp.ones((2, 3)), jnp.array(sizes)).trace
        )
    for sizes, num_examples in ((8, jnp.int32(15)), (jnp.int32(8), 15), (8, jnp.int32(-5))):
        found = diagnostics.estimate_gradient_noise(jnp.ones((2, 3)), sizes, num_examples)
        assert np.isnan(found.squared_norm)
    assert np.isnan(diagnostics.estimate_gradient_noise_from_sums(sums, jnp.int32(7)).squared_norm)
    with pytest.raises(ValueError, match=r"as many in every leaf, but are \[4, 8\]"):
        diagnostics.gradient_covariance(
            lambda w, e: w * e[0] * e[1], 1.0, (jnp.ones(8), jnp.ones(4))
        )
    running = diagnostics.RunningNoise(jnp.float32(1), jnp.float32(1), jnp.int32(1))
    noise = diagnostics.GradientNoise(jnp.float32(2), jnp.float32(2), ())
    for decay in (-1.0, 2.0):
        found = diagnostics.update_running_noise(running, noise, jnp.float32(decay))
        assert np.isnan(found.trace)
    with pytest.raises(ValueError, match="one leading axis"):
        diagnostics.estimate_gradient_noise({"a": jnp.ones((2, 3)), "b": jnp.ones((4, 3))}, 1)
    with pytest.raises(ValueError, match="2 examples or more"):
        diagnostics.gradient_covariance(lambda w, x: w * x, 1.0, jnp.ones(1))
