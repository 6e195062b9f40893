"""Tests scale_by_temperature: one schedule gives the learning rate of every batch size."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import noisegen


def updates_of(tx, num_updates=4):
    """Returns successive updates for a gradient of ones."""
    state, grads, updates = tx.init(jnp.ones(())), jnp.ones(()), []
    for _ in range(num_updates):
        update, state = tx.update(grads, state)
        updates.append(float(update))
    return updates


@pytest.mark.parametrize("batch_size", [64, 1024])
def test_it_is_sgd_with_the_learning_rate_of_that_temperature(batch_size):
    momentum, temperature = 0.9, noisegen.power_decay_schedule(1e-3, 0.5)
    ours = optax.chain(
        optax.trace(momentum), noisegen.scale_by_temperature(temperature, batch_size, momentum)
    )
    theirs = optax.sgd(lambda t: temperature(t) * batch_size * (1 - momentum), momentum)
    np.testing.assert_allclose(updates_of(ours), updates_of(theirs), rtol=1e-6)


def test_growing_batches_at_constant_temperature_grow_the_learning_rate():
    tx = noisegen.scale_by_temperature(0.01, lambda t: 64 * 2**t, momentum=0.0)
    np.testing.assert_allclose(updates_of(tx), [-0.64, -1.28, -2.56, -5.12], rtol=1e-6)


def test_a_whole_grid_in_one_program():
    temperatures, batch_sizes = jnp.array([0.01, 0.02]), jnp.array([64, 128, 256])

    def update(temperature, batch_size):
        tx = noisegen.scale_by_temperature(temperature, batch_size, momentum=0.5)
        return tx.update(jnp.ones(()), tx.init(None))[0]

    grid_2x3 = jax.vmap(jax.vmap(update, (None, 0)), (0, None))(temperatures, batch_sizes)
    expected = -0.5 * np.outer([0.01, 0.02], [64, 128, 256])
    np.testing.assert_allclose(grid_2x3, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-0.1, 64, 0.9), "temperature must be"),
        ((0.1, 0, 0.9), "batch_size must be"),
        ((0.1, 64, 1.0), "momentum must be"),
        ((0.1, np.array([64, 128]), 0.9), "batch_size must be a single number.*jax.vmap"),
    ],
)
def test_bad_numbers_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        noisegen.scale_by_temperature(*arguments)
