"""Tests that matched noise has the covariance of a smaller batch, on known gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import noisegen
from noisegen import diagnostics
from noisegen.transforms.matched_noise import COVARIANCES

NUM_EXAMPLES, BATCH, REFERENCE = 64, 32, 4
NUM_DRAWS = 20_000


@pytest.fixture(scope="module")
def gradients():
    """Returns correlated per-example gradients (N, P) of a network, of unequal variances."""
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (NUM_EXAMPLES, 3)) * jnp.array([[1.0, 3.0, 0.3]])
    graph, params = nnx.split(model)

    def loss(params, x):
        return jnp.sum(jnp.tanh(nnx.merge(graph, params)(x)) ** 2) + 5 * params["bias"][...].sum()

    found = jax.vmap(jax.grad(loss), (None, 0))(params, x)
    flat, _ = jax.vmap(lambda tree: jax.flatten_util.ravel_pytree(tree)[0])(found), None
    return np.asarray(flat)


@pytest.fixture(scope="module")
def lacking(gradients):
    """Returns (1 / B_0 - 1 / B) K."""
    return (1 / REFERENCE - 1 / BATCH) * np.cov(gradients, rowvar=False)


def drawn(function, seed=0):
    """Returns covariance and mean of the results of `function` over many keys."""
    keys = jax.random.split(jax.random.key(seed), NUM_DRAWS)
    values = np.asarray(jax.jit(jax.vmap(function))(keys), np.float64)
    return np.cov(values, rowvar=False), values.mean(0)


def distance(covariance, expected):
    """Returns the relative distance of covariances; sampling alone gives sqrt(2 d / draws)."""
    return np.linalg.norm(covariance - expected) / np.linalg.norm(expected)


def weighted(gradients, batch_size=BATCH, paired=True):
    """Returns the noise that weights add to the mean gradient of a random batch."""

    def draw(key):
        order, weight_key = jax.random.split(key)
        batch = jax.random.permutation(order, jnp.asarray(gradients))[:batch_size]
        if paired:
            positions = jnp.arange(batch_size)
            weights = noisegen.matched_weights(weight_key, positions, batch_size, REFERENCE)
        else:
            deviation = np.sqrt(batch_size / REFERENCE - 1)
            weights = 1 + deviation * jax.random.normal(weight_key, (batch_size,))
        return (weights - 1) @ batch / batch_size

    return draw


@pytest.mark.parametrize("batch_size", [BATCH, 31, 5])
def test_weights_add_the_whole_covariance(gradients, batch_size):
    expected = (1 / REFERENCE - 1 / batch_size) * np.cov(gradients, rowvar=False)
    covariance, mean = drawn(weighted(gradients, batch_size))
    assert distance(covariance, expected) < 0.06
    standard_error = np.sqrt(np.diag(expected) / NUM_DRAWS)
    assert np.all(np.abs(mean) < 4.5 * standard_error)


def test_weights_that_are_not_of_mean_1_are_found_out(gradients, lacking):
    # They also scale the mean gradient at random: E g g^T in the place of the covariance.
    covariance, _ = drawn(weighted(gradients, paired=False))
    assert distance(covariance, lacking) > 0.3


def test_a_weighted_batch_has_mean_and_covariance_of_a_small_one(gradients):
    def small(key):
        return jax.random.permutation(key, jnp.asarray(gradients))[:REFERENCE].mean(0)

    def large(key):
        order, noise_key = jax.random.split(key)
        batch = jax.random.permutation(order, jnp.asarray(gradients))[:BATCH]
        weights = noisegen.matched_weights(noise_key, jnp.arange(BATCH), BATCH, REFERENCE)
        return weights @ batch / BATCH

    def plain(key):
        return jax.random.permutation(key, jnp.asarray(gradients))[:BATCH].mean(0)

    (small, mean), (large, same), (plain, _) = drawn(small, 1), drawn(large, 2), drawn(plain, 3)
    assert distance(large, small) < 0.08
    assert distance(plain, small) > 0.5  # what has to be made up for
    np.testing.assert_allclose(same, mean, atol=5 * np.sqrt(np.diag(small).max() / NUM_DRAWS))


@pytest.mark.parametrize("shape", ["isotropic", "diagonal"])
def test_normal_noise_has_the_measured_size(gradients, lacking, shape):
    noise = diagnostics.estimate_gradient_noise(gradients, sizes=1)

    def draw(key):
        tx = noisegen.matched_noise(REFERENCE, key, covariance=shape)
        zero = jnp.zeros(gradients.shape[1])
        return tx.update(zero, tx.init(zero), batch_size=BATCH, gradient_noise=noise)[0]

    covariance, _ = drawn(draw)
    expected = np.diag(np.diag(lacking))
    if shape == "isotropic":
        expected = np.eye(len(lacking)) * np.trace(lacking) / len(lacking)
    assert distance(covariance, expected) < 0.06
    np.testing.assert_allclose(np.trace(covariance), np.trace(lacking), rtol=0.03)
    assert distance(covariance, lacking) > 0.1  # neither is the whole of it


def test_estimates_of_the_noise_give_the_right_covariance_on_average(gradients, lacking):
    def draw(key):
        order, noise_key = jax.random.split(key)
        batch = jax.random.permutation(order, jnp.asarray(gradients))[:BATCH]
        groups = batch.reshape(4, BATCH // 4, -1).mean(1)
        tx = noisegen.matched_noise(REFERENCE, noise_key)
        noise = diagnostics.estimate_gradient_noise(groups, BATCH // 4)
        zero = jnp.zeros(groups.shape[1])
        return tx.update(zero, tx.init(zero), batch_size=BATCH, gradient_noise=noise)[0]

    covariance, _ = drawn(draw)
    assert distance(covariance, np.diag(np.diag(lacking))) < 0.1


def test_equal_batches_lack_nothing():
    key, noise = jax.random.key(0), diagnostics.GradientNoise(jnp.float32(3), 0.0, jnp.ones(8))
    gradient = jax.random.normal(key, (8,))
    for shape in ("isotropic", "diagonal"):
        tx = noisegen.matched_noise(16, jax.random.key(1), covariance=shape)
        updates, _ = jax.jit(tx.update)(
            gradient, tx.init(gradient), batch_size=16, gradient_noise=noise
        )
        np.testing.assert_array_equal(updates, gradient)
    weights = noisegen.matched_weights(jax.random.key(2), jnp.arange(16), 16, 16)
    np.testing.assert_array_equal(weights, np.ones(16))


def test_weights_do_not_depend_on_the_cut_into_microbatches():
    key, whole = jax.random.key(0), jnp.arange(12)
    cut = [noisegen.matched_weights(key, part, 12, 3) for part in jnp.split(whole, 4)]
    whole = noisegen.matched_weights(key, whole, 12, 3)
    np.testing.assert_allclose(jnp.concatenate(cut), whole, rtol=1e-6)
    np.testing.assert_allclose(jnp.concatenate(cut).reshape(-1, 2).mean(1), 1, rtol=1e-6)


def test_the_target_under_scaling_rules():
    lacking, n, b, b0 = noisegen.matched_variance, 60_000, 1024, 64
    linear = lacking(b, b0, learning_rate=b / b0, num_examples=n)
    assert linear == pytest.approx((1 - b0 / b) / n)
    root = lacking(b, b0, learning_rate=(b / b0) ** 0.5)
    assert root == pytest.approx(1 / (b0 * b) ** 0.5 - 1 / b)
    assert lacking(b, b0, num_examples=n) == pytest.approx(1 / b0 - 1 / b)
    # From a temperature: T = learning rate / batch size.
    reference = noisegen.batch_size_from_temperature(0.1 / 64, learning_rate=0.1)
    assert lacking(b, reference) == pytest.approx(1 / 64 - 1 / b)


@pytest.mark.parametrize("num_examples", [np.inf, 60_000, 1024])
def test_the_reference_at_another_learning_rate_has_that_target(num_examples):
    rates = {"learning_rate": 0.3, "reference_learning_rate": 0.1}
    reference = noisegen.matched_reference(64, **rates, num_examples=num_examples)
    lacking = noisegen.matched_variance(1024, 64, **rates, num_examples=num_examples)
    assert noisegen.matched_variance(1024, reference) == pytest.approx(lacking)
    equal = noisegen.matched_reference(64, learning_rate=0.1, reference_learning_rate=0.1)
    assert equal == 64


def test_noise_cannot_be_taken_away():
    with pytest.raises(ValueError, match="choose a smaller reference batch size"):
        noisegen.matched_variance(64, 128)
    with pytest.raises(ValueError, match="choose a smaller reference batch size"):
        noisegen.matched_weights(jax.random.key(0), jnp.arange(64), 64, 128)
    traced = jax.jit(lambda b: noisegen.matched_variance(b, 128))(64)
    assert np.isnan(traced)
    with pytest.raises(ValueError, match="choose a smaller reference batch size"):
        noisegen.matched_variance(np.array([64, 256]), 128)
    alone = noisegen.matched_weights(jax.random.key(0), jnp.arange(1), 1, 0.5)
    assert np.isnan(alone).all()  # has no other example to be paired with


@pytest.mark.parametrize("positions", [jnp.arange(4.0), jnp.zeros((2, 2), int), 3])
def test_positions_of_no_batch_are_refused(positions):
    with pytest.raises(ValueError, match="positions must be integers, one for each example"):
        noisegen.matched_weights(jax.random.key(0), positions, 4, 2)


@pytest.mark.parametrize("key", [0, jax.random.split(jax.random.key(0), 2)])
def test_weights_need_one_key(key):
    with pytest.raises(ValueError, match="key must be one threefry2x32 key"):
        noisegen.matched_weights(key, jnp.arange(4), 4, 2)


def test_bad_input_is_refused():
    rates = {"learning_rate": 4.0, "reference_learning_rate": 1.0, "num_examples": 512}
    with pytest.raises(ValueError, match="num_examples must be a number >= 1024"):
        noisegen.matched_variance(1024, 64, **rates)
    with pytest.raises(ValueError, match="num_examples must be a number >= 600"):
        noisegen.matched_reference(600, **rates)
    with pytest.raises(ValueError, match="learning_rate must be a finite number > 0"):
        noisegen.matched_reference(64, **rates | {"learning_rate": 0.0})
    for size in (-5.0, 0.0, 600.0):
        assert np.isnan(noisegen.matched_reference(jnp.float32(size), **rates))
    for batch_size, reference in ((1024.0, 64), (-64.0, 64), (64.0, jnp.float32(0))):
        assert np.isnan(noisegen.matched_variance(jnp.float32(batch_size), reference, **rates))
    with pytest.raises(ValueError, match="'isotropic', 'diagonal'"):
        noisegen.matched_noise(64, jax.random.key(0), covariance="full")
    with pytest.raises(ValueError, match="reference_batch_size"):
        noisegen.matched_noise(0, jax.random.key(0))
    with pytest.raises(ValueError, match="set the noise_microbatch of the task"):
        tx = noisegen.matched_noise(4, jax.random.key(0))
        tx.update(jnp.ones(3), tx.init(None), batch_size=8)


UPDATES = {"w": jnp.ones(3), "b": jnp.ones(())}
NOISE = diagnostics.GradientNoise(1.0, 1.0, UPDATES)
OF_NO_KIND = {  # what has neither of the two: what the message calls it
    "a number": 1.0,
    r"an array of shape \(3, 3\)": jnp.ones((3, 3)),  # has methods of the fields' names
    "a value of type dict": NOISE._asdict(),
    "a value of type tuple": tuple(NOISE),
    "a value of type GroupSums": diagnostics.GroupSums(UPDATES, UPDATES, 8, 2, 8),
    "a value of type function": diagnostics.estimate_gradient_noise,
}
OF_OTHER_SHAPES = [
    ("isotropic", {"trace": jnp.ones(2)}, "gradient_noise.trace must have"),
    ("isotropic", {"trace": None}, "gradient_noise.trace must have"),
    ("diagonal", {"diagonal": ()}, "gradient_noise.diagonal must have"),
    ("diagonal", {"diagonal": {"b": 1.0}}, "gradient_noise.diagonal must have"),
    ("diagonal", {"diagonal": UPDATES | {"z": 1.0}}, "gradient_noise.diagonal must have"),
    ("diagonal", {"diagonal": UPDATES | {"w": 1.0}}, "gradient_noise.diagonal must have"),
    ("diagonal", {"diagonal": UPDATES | {"w": "w"}}, "gradient_noise.diagonal must have"),
]


@pytest.mark.parametrize(
    ("covariance", "noise", "message"),
    [(c, noise, f"gradient_noise is {m}") for m, noise in OF_NO_KIND.items() for c in COVARIANCES]
    + [(c, NOISE._replace(**fields), message) for c, fields, message in OF_OTHER_SHAPES]
    + [("diagonal", diagnostics.init_running_noise(), "is a value of type RunningNoise")],
)
def test_other_things_than_the_noise_of_these_updates_are_refused(covariance, noise, message):
    tx = noisegen.matched_noise(4, jax.random.key(0), covariance=covariance)
    with pytest.raises(ValueError, match=f"{message}.* Give the result of"):
        tx.update(UPDATES, tx.init(UPDATES), batch_size=8, gradient_noise=noise)


def test_only_what_is_read_of_the_noise_must_fit():
    for covariance, noise in (
        ("isotropic", diagnostics.init_running_noise()),
        ("isotropic", NOISE._replace(diagonal=())),
        ("diagonal", NOISE._replace(trace=None)),
    ):
        tx = noisegen.matched_noise(4, jax.random.key(0), covariance=covariance)
        tx.update(UPDATES, tx.init(UPDATES), batch_size=8, gradient_noise=noise)
