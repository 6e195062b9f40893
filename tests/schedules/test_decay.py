"""Tests the exact updates of drops, and both conventions for noise (variance, deviation)."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import noisegen


def drops(schedule, num_steps):
    """Returns the updates at which a schedule changes."""
    values = np.asarray(schedule(jnp.arange(num_steps)))
    return (np.flatnonzero(np.diff(values)) + 1).tolist()


def test_power_decay_is_its_formula():
    counts = jnp.array([0, 1, 99, 10**6])
    expected = [0.3, 0.3 / 2**0.55, 0.3 / 100**0.55, 0.3 / (10**6 + 1) ** 0.55]
    np.testing.assert_allclose(
        noisegen.power_decay_schedule(0.3, 0.55)(counts), expected, rtol=1e-5
    )


@given(st.floats(1e-6, 10), st.floats(0, 2), st.integers(0, 10**6))
def test_both_conventions_are_one_law(variance, gamma, count):
    stddev = noisegen.power_decay_from_variance_schedule(variance, gamma)(count)
    np.testing.assert_allclose(stddev**2, variance / (1 + count) ** gamma, rtol=1e-4)
    np.testing.assert_allclose(
        stddev, noisegen.power_decay_schedule(variance**0.5, gamma / 2)(count)
    )


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (noisegen.power_decay_from_variance_schedule(1e-5, 0.55), (1e-5, 0.55)),
        (noisegen.power_decay_schedule(0.3, 0.55), (0.3**2, 1.1)),
    ],
)
def test_the_law_of_optax_add_noise(ours, theirs):
    decaying, unit = optax.add_noise(*theirs, key=7), optax.add_noise(1.0, 0.0, key=7)
    zero = jnp.zeros(())
    state, unit_state = decaying.init(zero), unit.init(zero)
    for count in range(4):
        noise, state = decaying.update(zero, state)
        xi, unit_state = unit.update(zero, unit_state)
        np.testing.assert_allclose(noise / xi, ours(count), rtol=1e-5)


def test_the_drops_of_the_published_9765_updates():
    schedule = noisegen.hold_then_decay_schedule(0.8, 9765)
    # Each twentieth of the run is 488.25 updates.
    assert drops(schedule, 9765) == [4882, 5370, 5859, 6347, 6835, 7323, 7812, 8300, 8788, 9276]
    np.testing.assert_allclose(schedule(9764), 0.8 * 2.0**-10, rtol=1e-6)


@given(st.integers(20, 3000))
def test_hold_then_decay_at_any_horizon(num_steps):
    expected = [(10 + k) * num_steps // 20 for k in range(10)]
    schedule = noisegen.hold_then_decay_schedule(1.0, num_steps)
    values = np.asarray(schedule(jnp.array([0, num_steps // 2 - 1, *expected, num_steps - 1])))
    exponents = [0, 0, *range(1, 11), 10]
    np.testing.assert_allclose(values, 2.0 ** -np.array(exponents, float), rtol=1e-6)
    before = np.asarray(schedule(jnp.array(expected) - 1))
    np.testing.assert_allclose(before, 2.0 ** -np.arange(10.0), rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.float32])
def test_traced_horizons_drop_where_concrete_ones_do(dtype):
    horizons = [20, 39, 450, 9765, 156_250]
    for n in horizons:
        traced = jax.jit(lambda n: noisegen.hold_then_decay_schedule(1.0, n)(jnp.arange(200_000)))
        concrete = noisegen.hold_then_decay_schedule(1.0, n)(jnp.arange(200_000))
        np.testing.assert_array_equal(traced(jnp.asarray(n, dtype)), concrete)


@given(st.floats(1e-3, 10), st.floats(1e-6, 10), st.integers(20, 10_000))
def test_a_final_value_is_a_decay_rate(init_value, final_value, num_steps):
    by_value = noisegen.hold_then_decay_to_schedule(init_value, num_steps, final_value)
    counts = jnp.linspace(0, num_steps, 41).astype(jnp.int32)
    if final_value <= init_value:  # a decay rate above 1 is refused
        decay_rate = (final_value / init_value) ** 0.1
        by_rate = noisegen.hold_then_decay_schedule(init_value, num_steps, decay_rate)
        np.testing.assert_allclose(by_value(counts), by_rate(counts), rtol=1e-5)
    np.testing.assert_allclose(by_value(jnp.array([0, num_steps])), [init_value, final_value], 1e-6)


def exact_first_update(epoch, num_examples, batch_size):
    return math.ceil(Fraction(epoch) * num_examples / batch_size)


@given(
    st.integers(1, 300),
    st.integers(1, 60_000),
    st.sampled_from([1797, 50_000, 60_000]),
)
def test_step_decay_drops_at_the_first_update_of_the_epoch(epoch, batch_size, num_examples):
    first = exact_first_update(epoch, num_examples, batch_size)
    schedule = noisegen.step_decay_schedule(1.0, (epoch,), 0.5, num_examples / batch_size)
    np.testing.assert_array_equal(schedule(jnp.array([first - 1, first])), [1.0, 0.5])


@pytest.mark.parametrize(
    ("num_examples", "batch_size", "epoch"),
    # epoch * (N / B) is a whole number, and rounds to above it: twice in double, twice in single.
    [(50_000, 3, 15), (50_000, 12, 30), (60_000, 3125, 25), (1797, 2995, 50)],
)
def test_rounding_does_not_delay_a_drop(num_examples, batch_size, epoch):
    first = exact_first_update(epoch, num_examples, batch_size)

    def schedule(num_updates_per_epoch):
        schedule = noisegen.step_decay_schedule(1.0, (epoch,), 0.5, num_updates_per_epoch)
        return schedule(jnp.array([first - 1, first]))

    per_epoch = num_examples / batch_size
    np.testing.assert_array_equal(schedule(per_epoch), [1.0, 0.5])
    np.testing.assert_array_equal(jax.jit(schedule)(per_epoch), [1.0, 0.5])


def test_step_decay_with_everything_traced():
    epochs, sizes = (25, 40, 50), jnp.array([7, 32, 64, 93, 128, 6903])

    @jax.vmap
    def schedule(batch_size, decay_rate):
        return noisegen.step_decay_schedule(0.1, epochs, decay_rate, 6903 / batch_size)(
            jnp.arange(50_000)
        )

    for size, values in zip(sizes.tolist(), schedule(sizes, jnp.full(6, 0.1)), strict=True):
        firsts = [exact_first_update(epoch, 6903, size) for epoch in epochs]
        assert (np.flatnonzero(np.diff(values)) + 1).tolist() == firsts
        np.testing.assert_allclose(np.unique(values), [1e-4, 1e-3, 1e-2, 0.1], rtol=1e-5)


@pytest.mark.parametrize("per_epoch", [7.5, 40])
def test_epochs_of_step_decay_may_be_traced(per_epoch):
    counts = jnp.arange(200)

    def schedule(epochs):
        return noisegen.step_decay_schedule(0.1, epochs, 0.5, per_epoch)(counts)

    first = jnp.array([1.0, 2.5, 3.0])
    traced = jax.vmap(lambda epoch: schedule((epoch, 2 * epoch, math.inf)))(first)
    for epoch, values in zip(first.tolist(), traced, strict=True):
        np.testing.assert_allclose(values, schedule((epoch, 2 * epoch)), rtol=1e-6)
    np.testing.assert_allclose(jax.jit(schedule)(first), schedule(first.tolist()), rtol=1e-6)
    np.testing.assert_allclose(schedule(first), schedule(first.tolist()), rtol=1e-6)


@pytest.mark.parametrize("epochs", [(2.0, 1.0), (0.0, 1.0), (1.0, 1.0), (1.0, math.nan)])
def test_traced_epochs_that_do_not_increase_give_nan(epochs):
    @jax.jit
    def value(epochs):
        return noisegen.step_decay_schedule(0.1, epochs, 0.5, 10)(3)

    assert np.isnan(value(epochs)) and np.isnan(value(jnp.array(epochs)))


@pytest.mark.parametrize("epochs", [jnp.ones((2, 2)), jnp.float32(1), (jnp.ones(2), 3.0)])
def test_epochs_have_one_axis(epochs):
    with pytest.raises(ValueError, match="^epochs must be"):
        noisegen.step_decay_schedule(0.1, epochs, 0.5, 10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: noisegen.power_decay_schedule(-0.1, 0.5),
            "init_value must be a finite number >= 0",
        ),
        (lambda: noisegen.power_decay_schedule(0.1, float("nan")), "gamma must be"),
        (lambda: noisegen.power_decay_schedule("0.1", 0.5), "init_value must be"),
        (lambda: noisegen.power_decay_from_variance_schedule(-1, 0.5), "init_variance must be"),
        (
            lambda: noisegen.hold_then_decay_schedule(0.1, 19),
            r"num_steps must be a number in \[20, inf\)",
        ),
        (lambda: noisegen.hold_then_decay_schedule(0.1, 100, 0), "decay_rate must be"),
        (lambda: noisegen.hold_then_decay_to_schedule(0.1, 100, 0), "final_value must be"),
        (lambda: noisegen.step_decay_schedule(0.1, (40, 25), 0.1, 5), "epochs must be increasing"),
        (lambda: noisegen.step_decay_schedule(0.1, (0,), 0.1, 5), "epochs must be increasing"),
        (lambda: noisegen.step_decay_schedule(0.1, (1,), 0.1, 0), "num_updates_per_epoch must be"),
    ],
)
def test_bad_numbers_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()
