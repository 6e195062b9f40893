"""Tests add_gradient_noise: keys, precision, placement, distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

import noisegen

NUM_COORDINATES = 100_000
# The sampler and the distribution of one coordinate (on the sphere, normal up to 1 / d).
DISTRIBUTIONS = {
    "normal": (noisegen.normal_noise, scipy.stats.norm()),
    "uniform": (noisegen.uniform_noise, scipy.stats.uniform(-(3**0.5), 2 * 3**0.5)),
    "sphere": (noisegen.sphere_noise, scipy.stats.norm()),
}
every_sampler = pytest.mark.parametrize(
    ("sampler", "distribution"), DISTRIBUTIONS.values(), ids=DISTRIBUTIONS
)


def draw(sampler, stddev=1.0, seed=0, num_updates=1):
    """Returns the noise of the last update, over two leaves, as one vector."""
    tx = noisegen.add_gradient_noise(stddev, jax.random.key(seed), sampler=sampler)
    half = jnp.zeros(NUM_COORDINATES // 2)
    state = tx.init(None)
    for _ in range(num_updates):
        updates, state = tx.update({"u": half, "v": half.reshape(100, -1)}, state)
    return np.concatenate([updates["u"], updates["v"].ravel()])


def stationary_variance(tx, curvature, num_updates=200, num_chains=20_000):
    """Returns the variance over chains on the loss curvature * x**2 / 2, started at zero."""

    def step(carry, _):
        x, state = carry
        updates, state = tx.update(curvature * x, state, x)
        return (x + updates, state), None

    x = jnp.zeros(num_chains)
    (x, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, length=num_updates))((x, tx.init(x)))
    return float(jnp.var(x))


# The relative standard error of a variance over n chains is sqrt(2 / n) = 1 %: four of them.
TOLERANCE = 0.04


@every_sampler
def test_distribution(sampler, distribution):
    # At n = 100,000 and level 1e-3 a standard deviation 3 % off has power > 0.9: the control.
    noise = draw(sampler, stddev=0.3) / 0.3
    assert scipy.stats.kstest(noise, distribution.cdf).pvalue > 1e-3
    assert scipy.stats.kstest(1.03 * noise, distribution.cdf).pvalue < 1e-3


@every_sampler
def test_mean_and_variance(sampler, distribution):
    noise = draw(sampler, seed=1)
    error = 5 / NUM_COORDINATES**0.5
    assert abs(noise.mean()) < error
    assert abs(noise.var() - 1) < error * 2**0.5


@every_sampler
def test_keys_updates_and_leaves_are_uncorrelated(sampler, distribution):
    draws = [draw(sampler, seed=s, num_updates=n) for s in range(2) for n in (1, 2)]
    halves_8 = [half for noise in draws for half in np.split(noise, 2)]
    correlations_8x8 = np.corrcoef(halves_8) - np.eye(8)
    bound = 5 / (NUM_COORDINATES / 2) ** 0.5
    assert np.abs(correlations_8x8).max() < bound
    assert np.corrcoef(halves_8[0], halves_8[0] + 30 * halves_8[1])[0, 1] > bound  # the control


def test_uniform_noise_fills_its_interval():
    # The largest of n draws misses the end by 1 / n of the width, on average.
    extremes = np.array([draw(noisegen.uniform_noise).min(), draw(noisegen.uniform_noise).max()])
    np.testing.assert_allclose(extremes, [-(3**0.5), 3**0.5], rtol=20 / NUM_COORDINATES)


def test_noise_on_the_sphere_has_one_norm_over_the_whole_tree():
    norms = [np.linalg.norm(draw(noisegen.sphere_noise, 0.1, seed)) for seed in range(3)]
    np.testing.assert_allclose(norms, 0.1 * NUM_COORDINATES**0.5, rtol=1e-5)
    # In two dimensions the angle is uniform.
    keys = jax.random.split(jax.random.key(5), 10_000)
    points = np.asarray(jax.vmap(lambda key: noisegen.sphere_noise(key, jnp.zeros(2)))(keys))
    angles = np.arctan2(*points.T) / (2 * np.pi) + 0.5
    assert scipy.stats.kstest(angles, "uniform").pvalue > 1e-3
    assert scipy.stats.kstest(angles**1.1, "uniform").pvalue < 1e-3


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_is_rounded_once(dtype):
    tx = noisegen.add_gradient_noise(0.1, jax.random.key(0))
    grads = jnp.linspace(-1, 1, 1000, dtype=dtype)
    low, _ = tx.update(grads, tx.init(None))
    full, _ = tx.update(grads.astype(jnp.float32), tx.init(None))
    np.testing.assert_array_equal(np.asarray(low), np.asarray(full.astype(dtype)))


def test_double_precision_gets_double_noise():
    with jax.enable_x64(True):
        tx = noisegen.add_gradient_noise(1.0, jax.random.key(0))
        noise, _ = tx.update(jnp.zeros(100, jnp.float64), tx.init(None))
        assert noise.dtype == jnp.float64
        assert np.any(np.asarray(noise) != np.asarray(noise).astype(np.float32))


def test_typed_and_raw_keys_are_the_same_key():
    grads = jnp.zeros(3)
    noise = []
    for key in (jax.random.key(5), jax.random.PRNGKey(5), np.array([0, 5], np.uint32)):
        tx = noisegen.add_gradient_noise(0.1, key)
        noise.append(tx.update(grads, tx.init(None))[0])
    np.testing.assert_array_equal(noise[0], noise[1])
    np.testing.assert_array_equal(noise[0], noise[2])


@pytest.mark.parametrize(
    "key",
    [
        None,
        0,
        np.uint32(3),
        jax.random.key(0, impl="rbg"),
        jax.random.PRNGKey(0, impl="rbg"),
        jax.random.split(jax.random.key(0), 2),
        jnp.zeros(2),
    ],
    ids=["none", "seed", "scalar", "rbg", "raw rbg", "two keys", "floats"],
)
def test_anything_but_one_threefry_key_is_refused(key):
    with pytest.raises(ValueError, match=r"key must be one threefry2x32 key.*jax\.random\.key\("):
        noisegen.add_gradient_noise(0.1, key)


def test_rbg_keys_are_refused_under_vmap():
    keys = jax.random.split(jax.random.key(0, impl="rbg"), 2)
    with pytest.raises(ValueError, match="threefry2x32"):
        jax.vmap(lambda key: noisegen.add_gradient_noise(0.1, key).init(None))(keys)


@pytest.mark.parametrize("stddev", [-0.1, float("nan"), float("inf"), "0.1", None, np.float32(-1)])
def test_a_bad_stddev_is_refused(stddev):
    with pytest.raises(
        ValueError, match="stddev must be a finite number >= 0 or a schedule, but it is"
    ):
        noisegen.add_gradient_noise(stddev, jax.random.key(0))


@pytest.mark.parametrize("stddev", [np.ones(3), jnp.ones(3)])
def test_one_stddev_per_run_needs_vmap(stddev):
    with pytest.raises(ValueError, match="stddev must be a single number.*jax.vmap"):
        noisegen.add_gradient_noise(stddev, jax.random.key(0))


def test_integer_leaves_are_refused():
    tx = noisegen.add_gradient_noise(0.1, jax.random.key(0))
    with pytest.raises(ValueError, match="leaf 1 is int32"):
        tx.update((jnp.ones(2), jnp.ones(2, jnp.int32)), tx.init(None))


def test_a_sampler_of_ones_own():
    def rademacher(key, tree):
        return jax.tree.map(lambda x: jax.random.rademacher(key, x.shape, x.dtype), tree)

    tx = noisegen.add_gradient_noise(0.5, jax.random.key(0), sampler=rademacher)
    noise, _ = tx.update(jnp.zeros(100), tx.init(None))
    assert set(np.unique(noise)) == {-0.5, 0.5}


def test_inject_hyperparams_with_a_sampler_and_a_schedule():
    make = optax.inject_hyperparams(noisegen.add_gradient_noise, static_args="sampler")
    schedule = noisegen.power_decay_schedule(0.1, 0.5)
    tx = make(schedule, jax.random.key(0), sampler=noisegen.uniform_noise)
    plain = noisegen.add_gradient_noise(schedule, jax.random.key(0), sampler=noisegen.uniform_noise)
    state, plain_state = tx.init(jnp.zeros(3)), plain.init(jnp.zeros(3))
    for _ in range(3):
        noise, state = tx.update(jnp.zeros(3), state, jnp.zeros(3))
        expected, plain_state = plain.update(jnp.zeros(3), plain_state)
        np.testing.assert_allclose(noise, expected, rtol=1e-6)


def test_groups_of_a_partition_do_not_share_noise():
    noise = noisegen.add_gradient_noise(1.0, jax.random.key(0))
    tx = optax.partition({"x": noise, "y": noise}, ("x", "y"))
    grads = (jnp.zeros(50), jnp.zeros(50))
    (x, y), _ = tx.update(grads, tx.init(grads))
    assert abs(np.corrcoef(x, y)[0, 1]) < 5 / 50**0.5
    assert not np.array_equal(x, y)


def test_the_trap_of_multi_steps_is_as_documented():
    noise = noisegen.add_gradient_noise(1.0, jax.random.key(0))
    averaged = optax.MultiSteps(optax.identity(), every_k_schedule=4)
    outside = optax.chain(noise, optax.GradientTransformation(averaged.init, averaged.update))
    grads = jnp.zeros(10_000)
    state = outside.init(grads)
    for _ in range(4):
        updates, state = outside.update(grads, state, grads)
    assert float(updates.std()) == pytest.approx(0.5, rel=0.05)
    assert int(state[0].count) == 4


@pytest.mark.parametrize(("learning_rate", "curvature"), [(0.1, 1.0), (0.5, 1.0), (0.5, 3.0)])
def test_noise_on_the_gradient_has_its_closed_form(learning_rate, curvature):
    tx = optax.chain(noisegen.add_gradient_noise(0.3, jax.random.key(0)), optax.sgd(learning_rate))
    expected = learning_rate * 0.3**2 / (curvature * (2 - learning_rate * curvature))
    assert stationary_variance(tx, curvature) == pytest.approx(expected, rel=TOLERANCE)


@pytest.mark.parametrize("momentum", [0.5, 0.8])
def test_noise_before_momentum_has_its_closed_form(momentum):
    noise = noisegen.add_gradient_noise(0.3, jax.random.key(1))
    lr, h = 0.5, 1.0
    expected = lr * 0.3**2 * (1 + momentum) / (h * (1 - momentum) * (2 * (1 + momentum) - lr * h))
    tx = optax.chain(noise, optax.sgd(lr, momentum=momentum))
    assert stationary_variance(tx, h) == pytest.approx(expected, rel=TOLERANCE)


def test_noise_on_the_parameters_has_its_closed_form():
    lr, h = 0.5, 1.0
    tx = optax.chain(optax.sgd(lr), noisegen.add_gradient_noise(0.3, jax.random.key(0)))
    expected = 0.3**2 / (1 - (1 - lr * h) ** 2)
    assert stationary_variance(tx, h) == pytest.approx(expected, rel=TOLERANCE)


@pytest.mark.parametrize("curvature", [0.5, 2.0])
@pytest.mark.parametrize("learning_rate", [0.1, 0.6])
def test_langevin_noise_has_its_closed_form(learning_rate, curvature):
    noise = noisegen.langevin_noise(0.25, learning_rate, jax.random.key(0))
    tx = optax.chain(optax.sgd(learning_rate), noise)
    expected = 2 * 0.25 / (curvature * (2 - learning_rate * curvature))
    assert stationary_variance(tx, curvature) == pytest.approx(expected, rel=TOLERANCE)


def test_langevin_noise_before_the_learning_rate_is_the_same_dynamics():
    lr, temperature = 0.1, 0.25
    before = noisegen.add_gradient_noise((2 * temperature / lr) ** 0.5, jax.random.key(0))
    after = noisegen.langevin_noise(temperature, lr, jax.random.key(0))
    moved = optax.chain(before, optax.scale(lr)).update(jnp.zeros(5), (before.init(None), None))[0]
    np.testing.assert_allclose(moved, after.update(jnp.zeros(5), after.init(None))[0], rtol=1e-5)


def test_langevin_noise_follows_both_schedules():
    learning_rate, temperature = (
        noisegen.power_decay_schedule(0.1, 1.0),
        noisegen.power_decay_schedule(0.5, 0.5),
    )
    tx = noisegen.langevin_noise(temperature, learning_rate, jax.random.key(0))
    unit = noisegen.add_gradient_noise(1.0, jax.random.key(0))
    state = tx.init(None)
    for count in range(3):
        xi, _ = unit.update(jnp.zeros(5), state)
        noise, state = tx.update(jnp.zeros(5), state)
        stddev = (2 * learning_rate(count) * temperature(count)) ** 0.5
        np.testing.assert_allclose(noise, stddev * xi, rtol=1e-5)


def test_langevin_noise_refuses_bad_numbers():
    with pytest.raises(ValueError, match="temperature must be a finite number >= 0"):
        noisegen.langevin_noise(-1.0, 0.1, jax.random.key(0))
    with pytest.raises(ValueError, match="learning_rate must be"):
        noisegen.langevin_noise(1.0, float("nan"), jax.random.key(0))


def test_a_leaf_costs_no_larger_program_than_noise_of_optax():
    """Threefry, unrolled for every leaf, is what takes long to compile."""

    def size(tx, num_leaves):
        gradient = {str(i): jnp.ones((8 + i, 16)) for i in range(num_leaves)}
        lowered = jax.jit(tx.update).lower(gradient, tx.init(gradient))
        return len(lowered.as_text().splitlines())

    ours = noisegen.add_gradient_noise(0.1, jax.random.key(0))
    theirs = optax.add_noise(0.1, 0.5, jax.random.key(0))
    of_a_leaf = [(size(tx, 20) - size(tx, 10)) / 10 for tx in (ours, theirs)]
    assert 0 < of_a_leaf[0] <= 1.25 * of_a_leaf[1]
