"""Tests transforms with other number types, other arguments, and under JAX's flags."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import noisegen
from noisegen import diagnostics

KEY = jax.random.key(0)
MATCHED = functools.partial(
    noisegen.matched_noise(2, KEY).update,
    batch_size=4,
    gradient_noise=diagnostics.GradientNoise(1.0, 1.0, {"w": jnp.ones(4), "s": 1.0}),
)
TRANSFORMS = {
    "normal": noisegen.add_gradient_noise(0.1, KEY),
    "sphere": noisegen.add_gradient_noise(0.1, KEY, sampler=noisegen.sphere_noise),
    "decaying": noisegen.add_gradient_noise(noisegen.power_decay_schedule(0.1, 0.5), KEY),
    "langevin": noisegen.langevin_noise(0.1, noisegen.power_decay_schedule(0.1, 0.5), KEY),
    "temperature": noisegen.scale_by_temperature(0.1, lambda t: 64 + t, 0.9),
    "matched": optax.GradientTransformationExtraArgs(noisegen.matched_noise(2, KEY).init, MATCHED),
}
every_transform = pytest.mark.parametrize("tx", TRANSFORMS.values(), ids=TRANSFORMS)


def gradients(dtype=jnp.float32):
    return {"w": jnp.linspace(-1, 1, 4, dtype=dtype), "s": jnp.ones((), dtype)}


@every_transform
def test_a_bare_transform_ignores_arguments_of_others(tx):
    assert isinstance(tx, optax.GradientTransformationExtraArgs)
    state = tx.init(gradients())
    updates, _ = tx.update(gradients(), state, gradients(), value=1.0, grad=gradients())
    expected, _ = tx.update(gradients(), state, gradients())
    np.testing.assert_array_equal(updates["w"], expected["w"])


@pytest.mark.slow
@every_transform
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16, jnp.float64])
def test_strict_promotion_and_double_precision_give_the_same_updates(tx, dtype):
    with jax.enable_x64(dtype == jnp.float64):
        grads = gradients(dtype)
        expected, _ = tx.update(grads, tx.init(grads))
        with jax.numpy_dtype_promotion("strict"):
            updates, _ = jax.jit(tx.update)(grads, tx.init(grads))
        for a, b, g in zip(*map(jax.tree.leaves, (updates, expected, grads)), strict=True):
            assert a.dtype == g.dtype
            np.testing.assert_allclose(
                np.asarray(a, float), np.asarray(b, float), rtol=1e-2, atol=1e-3
            )


@every_transform
def test_a_compiled_update_transfers_nothing(tx):
    grads = gradients()
    state = tx.init(grads)
    with jax.transfer_guard("disallow"):
        updates, _ = jax.jit(tx.update)(grads, state)
    expected, _ = tx.update(grads, state)
    np.testing.assert_allclose(updates["w"], expected["w"], rtol=1e-5)


@pytest.mark.parametrize("name", ["normal", "sphere", "decaying", "langevin"])
def test_complex_leaves_are_refused_with_the_remedy(name):
    tx, grads = TRANSFORMS[name], {"w": jnp.ones(4, jnp.complex64), "s": jnp.ones(())}
    message = r"leaf 1 is complex64.*optax\.contrib\.split_real_and_imaginary"
    with pytest.raises(ValueError, match=message):
        tx.update(grads, tx.init(grads))
    split = optax.contrib.split_real_and_imaginary(tx)
    updates, _ = split.update(grads, split.init(grads))
    assert np.all(np.imag(updates["w"]) != 0) and np.all(np.real(updates["w"]) != 1)


def test_values_of_schedules_are_checked_too():
    for value, message in (
        (1j, "value of a schedule must be a real number"),
        (-1, "stddev must be"),
    ):
        tx = noisegen.add_gradient_noise(lambda count, value=value: value, KEY)
        with pytest.raises(ValueError, match=message):
            tx.update(gradients(), tx.init(None))
    tx = noisegen.add_gradient_noise(lambda count: jnp.ones(4), KEY)
    with pytest.raises(ValueError, match="stddev must be a single number"):
        tx.update(gradients(), tx.init(None))


def test_numbers_of_numpy_scale_as_pythons_do():
    expected = TRANSFORMS["normal"].update(gradients(), TRANSFORMS["normal"].init(None))[0]
    for kind in (np.float32, np.float64, np.array):
        tx = noisegen.add_gradient_noise(kind(0.1), KEY)
        np.testing.assert_allclose(tx.update(gradients(), tx.init(None))[0]["w"], expected["w"])
    small = noisegen.scale_by_temperature(np.uint8(2), np.uint8(200), np.float16(0.5))
    assert small.update(jnp.ones(()), small.init(None))[0] == -200


def test_traced_single_precision_numbers_under_strict_double_precision():
    def update(x):
        tx = noisegen.scale_by_temperature(noisegen.power_decay_schedule(x, x), lambda t: 64 + t, x)
        return tx.update(jnp.ones((), jnp.float32), tx.init(None))[0]

    expected = update(0.3)
    with jax.numpy_dtype_promotion("strict"), jax.enable_x64(True):
        np.testing.assert_allclose(jax.jit(update)(jnp.float32(0.3)), expected, rtol=1e-6)


def test_places_of_unsigned_type_are_places():
    expected = noisegen.matched_weights(KEY, jnp.arange(4), 4, 2)
    for kind in (np.uint8, np.uint32, np.int8, np.int64):
        weights = noisegen.matched_weights(KEY, np.arange(4, dtype=kind), kind(4), kind(2))
        np.testing.assert_array_equal(weights, expected)
    with jax.numpy_dtype_promotion("strict"), jax.enable_x64(True):
        weights = jax.jit(lambda b: noisegen.matched_weights(KEY, jnp.arange(4), b, 2.0))(4)
        assert weights.dtype == jnp.float32
        np.testing.assert_allclose(weights, expected, rtol=1e-6)
