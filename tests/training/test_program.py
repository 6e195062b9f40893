"""What a mesh must offer before anything is compiled."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from noisegen import training


def test_too_few_devices(tanh_task):
    settings = training.PoolConfig(lanes=4, lane_devices=4, microbatch=64, batch_devices=4)
    with pytest.raises(ValueError, match="times batch_devices=4 is 16 devices; there are 8"):
        training.Pool(tanh_task, settings)
    with pytest.raises(ValueError, match="there are 3"):
        training.Pool(
            tanh_task, training.PoolConfig(lanes=4, lane_devices=4), devices=jax.devices()[:3]
        )


def test_state_cannot_be_spread_over_devices(tanh_task):
    task = dataclasses.replace(tanh_task, init=lambda key: (jnp.zeros(3), {"mean": jnp.zeros(3)}))
    with pytest.raises(ValueError, match="has a state .* batch_devices=2 must be 1"):
        training.Pool(task, training.PoolConfig(batch_devices=2))
    training.Pool(task, training.PoolConfig(lanes=2, lane_devices=2))


def test_pool_uses_the_devices_it_is_given(tanh_task):
    chosen = jax.devices()[3:5]
    pool = training.Pool(
        tanh_task, training.PoolConfig(lanes=2, lane_devices=2), devices=jax.devices()[3:]
    )
    for leaf in jax.tree.leaves(pool._programs[()].data):
        assert leaf.devices() == set(chosen)
