"""Tests both warm-ups of Goyal et al., and the per-epoch warm-up of Signer & Barbier."""

import jax.numpy as jnp
import numpy as np
import pytest

import noisegen


def test_constant_warmup_jumps_to_what_follows():
    after = noisegen.step_decay_schedule(3.2, (2,), 0.1, num_updates_per_epoch=5)
    values = noisegen.constant_warmup_schedule(0.1, after, 4)(jnp.arange(12))
    np.testing.assert_allclose(values, [0.1] * 4 + [3.2] * 6 + [0.32] * 2, rtol=1e-6)


def test_gradual_warmup_rises_by_equal_increments_and_arrives():
    values = noisegen.gradual_warmup_schedule(0.1, 3.2, 10)(jnp.arange(15))
    np.testing.assert_allclose(np.diff(values)[:10], 0.31, rtol=1e-5)
    np.testing.assert_allclose(values[10:], 3.2)
    np.testing.assert_allclose(values[0], 0.1)


def test_gradual_warmup_by_epochs_is_the_formula_of_signer_and_barbier():
    num_warmup_epochs, per_epoch, base, target = 10, 8, 0.01, 1.28
    schedule = noisegen.gradual_warmup_schedule(
        base, target, num_warmup_epochs * per_epoch, per_epoch
    )
    for i in range(1, num_warmup_epochs + 3):
        rise = min(i - 1, num_warmup_epochs) / num_warmup_epochs
        expected = (1 - rise) * base + rise * target
        counts = jnp.arange((i - 1) * per_epoch, i * per_epoch)
        np.testing.assert_allclose(schedule(counts), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "warmup", [noisegen.constant_warmup_schedule, noisegen.gradual_warmup_schedule]
)
def test_no_updates_of_warmup_is_no_warmup(warmup):
    np.testing.assert_allclose(warmup(0.1, 0.8, 0)(jnp.arange(3)), 0.8)


@pytest.mark.parametrize(
    "warmup", [noisegen.constant_warmup_schedule, noisegen.gradual_warmup_schedule]
)
def test_bad_numbers_are_refused_by_name(warmup):
    with pytest.raises(ValueError, match="num_steps must be a finite number >= 0, but it is -1"):
        warmup(0.1, 0.8, -1)
    with pytest.raises(ValueError, match="init_value must be"):
        warmup(None, 0.8, 1)


def test_increments_take_at_least_one_update():
    with pytest.raises(ValueError, match="num_steps_per_increment must be"):
        noisegen.gradual_warmup_schedule(0.1, 0.8, 10, num_steps_per_increment=0)
