"""Tests schedules and laws with all number types: any width and sign, beyond int32, infinite."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import noisegen

PAST = 3_000_000_000  # beyond int32
COUNTS = jnp.array([0, 299, 300, 1000])
SCHEDULES = {  # number of updates -> schedule
    "power_decay": lambda n: noisegen.power_decay_schedule(0.3, 0.55),
    "power_decay_from_variance": lambda n: noisegen.power_decay_from_variance_schedule(0.3, 0.55),
    "hold_then_decay": lambda n: noisegen.hold_then_decay_schedule(1.0, n),
    "hold_then_decay_to": lambda n: noisegen.hold_then_decay_to_schedule(1.0, n, 0.1),
    "step_decay": lambda n: noisegen.step_decay_schedule(1.0, (1, 2), 0.1, n / 2),
    "constant_warmup": lambda n: noisegen.constant_warmup_schedule(0.1, 0.8, n),
    "gradual_warmup": lambda n: noisegen.gradual_warmup_schedule(0.1, 0.8, n),
    "linear": lambda n: noisegen.linear_schedule(0.8, 0.1, n / 2, n / 4),
    "exponential": lambda n: noisegen.exponential_decay(0.8, n / 4, 0.1, staircase=True),
    "cosine_decay": lambda n: noisegen.cosine_decay_schedule(0.8, n, alpha=0.1),
    "warmup_cosine_decay": lambda n: noisegen.warmup_cosine_decay_schedule(0.1, 0.8, n, 2 * n),
    "warmup_inverse_square_root": lambda n: noisegen.warmup_inverse_square_root_schedule(
        0.1, 0.8, n
    ),
    "linear_onecycle": lambda n: noisegen.linear_onecycle_schedule(n, 0.8),
    "piecewise_constant": lambda n: noisegen.piecewise_constant_schedule(0.8, [(n, 0.1)]),
}
every_schedule = pytest.mark.parametrize("make", SCHEDULES.values(), ids=SCHEDULES)


@pytest.mark.parametrize("never", [10**9, 1e300, math.inf])
@pytest.mark.parametrize("per_epoch", [10, 1e300])
def test_a_drop_meant_never_to_come_never_comes(never, per_epoch):
    epochs = (30, never) if per_epoch == 10 else (never,)
    right = noisegen.step_decay_schedule(0.1, epochs[:-1], 0.1, per_epoch)(COUNTS)

    def schedule(per_epoch):
        return noisegen.step_decay_schedule(0.1, epochs, 0.1, per_epoch)

    np.testing.assert_array_equal(schedule(per_epoch)(COUNTS), right)
    if per_epoch == 10:
        traced = jax.jit(lambda u: schedule(u)(COUNTS))(10.0)
        np.testing.assert_allclose(traced, right, rtol=1e-6)
        # Where optax's count of updates stays, the last drop has not come either.
        last = jnp.int32(2**31 - 1)
        np.testing.assert_allclose(schedule(per_epoch)(last), 0.01, rtol=1e-6)
        np.testing.assert_allclose(jax.jit(lambda u: schedule(u)(last))(10.0), 0.01, rtol=1e-6)


def test_counts_and_horizons_past_int32_have_the_value_of_the_formula():
    for count in (PAST, np.int64(PAST), np.uint32(PAST), float(PAST)):
        expected = 0.3 / (1 + PAST) ** 0.55
        np.testing.assert_allclose(
            noisegen.power_decay_schedule(0.3, 0.55)(count), expected, rtol=1e-5
        )
    hold = noisegen.hold_then_decay_schedule(1.0, PAST)
    drops = [(10 + k) * PAST // 20 for k in range(10)]
    assert [float(hold(drop)) for drop in drops] == [0.5 ** (k + 1) for k in range(10)]
    assert [float(hold(drop - 1)) for drop in drops] == [0.5**k for k in range(10)]
    assert float(hold(jnp.int32(2**31 - 1))) == 0.5**5
    assert (
        float(jax.jit(lambda n: noisegen.hold_then_decay_schedule(1.0, n)(5))(float(PAST))) == 1.0
    )
    warm = noisegen.gradual_warmup_schedule(0.1, 1.0, PAST)
    np.testing.assert_allclose(warm(jnp.int32(2**31 - 1)), 0.1 + 0.9 * 2**31 / PAST, rtol=1e-6)
    np.testing.assert_allclose(warm(PAST - 1), 1.0, rtol=1e-6)
    constant = noisegen.constant_warmup_schedule(0.1, 1.0, np.uint32(PAST))
    assert [float(constant(n)) for n in (5, PAST - 1, PAST)] == pytest.approx([0.1, 0.1, 1.0])


@pytest.mark.slow
@every_schedule
def test_counts_of_every_type_are_the_same_count(make):
    schedule, values = make(40), []
    types = (int, float, np.int8, np.uint8, np.int64, np.uint64, np.float16)
    types += (jnp.int8, jnp.uint8, jnp.int32, jnp.uint32, jnp.float32, jnp.bfloat16)
    for kind in types:
        values += [np.asarray(schedule(kind(count))) for count in (3, 38, 40, 100)]
    values += list(np.asarray(jax.jit(schedule)(jnp.array([3, 38, 40, 100]))))
    values = np.reshape(values, (-1, 4))
    np.testing.assert_allclose(values, np.broadcast_to(values[3], values.shape), rtol=1e-6)


@every_schedule
def test_a_count_that_is_no_number_is_refused_by_name(make):
    for count in (1j, "3", None, 10**400):
        with pytest.raises(ValueError, match="count must be a real number"):
            make(40)(count)


@pytest.mark.slow
@every_schedule
def test_schedules_work_under_strict_promotion_and_in_double_precision(make):
    expected = np.asarray([make(40)(count) for count in (3, 38, 40, 100)])
    counts = jnp.array([3, 38, 40, 100])
    with jax.numpy_dtype_promotion("strict"):
        np.testing.assert_allclose(make(40)(counts), expected, rtol=1e-6)
        traced = jax.jit(lambda n: make(n)(counts))
        np.testing.assert_allclose(traced(jnp.int32(40)), expected, rtol=1e-6)
        np.testing.assert_allclose(traced(jnp.float32(40)), expected, rtol=1e-6)
        with jax.enable_x64(True):
            np.testing.assert_allclose(make(40)(counts), expected, rtol=1e-6)
            past = jnp.int64(2**40)
            np.testing.assert_allclose(make(2**41)(past), make(2**41)(2**40), rtol=1e-12)


def test_growth_is_refused():
    for rate in (2.0, 1.0001, np.uint8(2), 0, -0.5, math.nan):
        message = r"decay_rate must be a number in \(0, 1\], since every drop multiplies"
        with pytest.raises(ValueError, match=message):
            noisegen.hold_then_decay_schedule(1.0, 100, rate)
        with pytest.raises(ValueError, match=message):
            noisegen.step_decay_schedule(1.0, (5, 8), rate, 1.0)
    with pytest.raises(TypeError, match="factor"):
        noisegen.hold_then_decay_schedule(1.0, 100, factor=2.0)
    for schedule in (
        lambda rate: noisegen.hold_then_decay_schedule(1.0, 100, rate)(0),
        lambda rate: noisegen.step_decay_schedule(1.0, (5, 8), rate, 1.0)(0),
    ):
        assert np.isnan(jax.jit(schedule)(2.0)) and np.isnan(jax.jit(schedule)(-0.5))
        assert jax.jit(schedule)(1.0) == 1.0


def test_both_decays_multiply():
    assert noisegen.hold_then_decay_schedule(1.0, 20, 0.25)(10) == 0.25
    assert noisegen.step_decay_schedule(1.0, (5,), 0.25, 1)(5) == 0.25
    assert noisegen.hold_then_decay_schedule(1.0, 20)(10) == 0.5


TYPES = [int, np.int8, np.uint8, np.int16, np.uint16, np.uint32, np.uint64, np.float16, np.float32]
LAWS = {  # of one small whole number, by a law
    "temperature": lambda n: noisegen.temperature(n(100), n(100)),
    "learning_rate_from_temperature": lambda n: noisegen.learning_rate_from_temperature(
        n(100), n(100)
    ),
    "batch_size_from_temperature": lambda n: noisegen.batch_size_from_temperature(n(3), n(100)),
    "noise_scale": lambda n: noisegen.sgd_noise_scale(n(100), n(2), n(127)),
    "learning_rate_from_noise_scale": lambda n: noisegen.learning_rate_from_sgd_noise_scale(
        n(100), n(100), n(127)
    ),
    "batch_size_from_noise_scale": lambda n: noisegen.batch_size_from_sgd_noise_scale(
        n(100), n(100), n(127)
    ),
    "scale_learning_rate": lambda n: noisegen.scale_learning_rate(n(100), n(100), n(2)),
    "scale_momentum": lambda n: noisegen.scale_momentum(n(0), n(100), n(2)),
    "matched_variance": lambda n: noisegen.matched_variance(n(100), n(3)),
    "matched_reference": lambda n: noisegen.matched_reference(
        n(100), learning_rate=n(2), reference_learning_rate=n(1)
    ),
}


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_laws_of_any_type_of_number_are_those_of_pythons(law):
    expected = law(float)
    for kind in TYPES:
        assert law(kind) == expected and type(law(kind)) is float
        assert np.asarray(law(lambda n, kind=kind: np.array([n, n], kind)))[1] == expected
    for kind in (jnp.int8, jnp.uint8, jnp.float16, jnp.int32, jnp.float32):
        np.testing.assert_allclose(law(kind), expected, rtol=1e-5)
    for x64 in (False, True):
        with jax.numpy_dtype_promotion("strict"), jax.enable_x64(x64):
            np.testing.assert_allclose(law(jnp.int32), expected, rtol=1e-5)


def test_a_batch_beyond_the_examples_is_refused_whatever_the_type():
    for kind in (np.uint8, np.uint16, np.uint32, np.uint64):
        for law in (noisegen.sgd_noise_scale, noisegen.learning_rate_from_sgd_noise_scale):
            with pytest.raises(ValueError, match="num_examples_beyond_the_batch must be"):
                law(0.5, kind(200), kind(64))


@pytest.mark.parametrize(
    "value",
    [1j, np.complex64(1), True, np.bool_(True), math.nan, math.inf, 10**400, 10**5000, "1"],
    ids=["1j", "complex64", "True", "bool", "nan", "inf", "401 digits", "5001 digits", "text"],
)
def test_values_that_are_not_finite_real_numbers_are_refused_in_one_line(value):
    for name, call in {
        "learning_rate": lambda: noisegen.temperature(value, 64),
        "batch_size": lambda: noisegen.temperature(0.1, value),
        "momentum": lambda: noisegen.temperature(0.1, 64, value),
        "init_value": lambda: noisegen.power_decay_schedule(value, 0.5),
        "num_steps": lambda: noisegen.hold_then_decay_schedule(0.1, value),
        "num_updates_per_epoch": lambda: noisegen.step_decay_schedule(0.1, (1,), 0.5, value),
        "stddev": lambda: noisegen.add_gradient_noise(value, jax.random.key(0)),
    }.items():
        with pytest.raises(ValueError, match=f"^{name} must be") as raised:
            call()
        assert "\n" not in str(raised.value) and len(str(raised.value)) < 300


def test_a_schedule_in_place_of_a_number_is_refused():
    def schedule(count):
        return 0.1

    for name, call in {
        "learning_rate": lambda: noisegen.temperature(schedule, 64),
        "init_value": lambda: noisegen.power_decay_schedule(schedule, 0.5),
        "gamma": lambda: noisegen.power_decay_schedule(0.1, schedule),
        "ratio": lambda: noisegen.square_root_rule(schedule),
        "num_updates_per_epoch": lambda: noisegen.step_decay_schedule(0.1, (1,), 0.5, schedule),
        "num_steps": lambda: noisegen.constant_warmup_schedule(0.1, schedule, schedule),
    }.items():
        with pytest.raises(ValueError, match=f"^{name} must be"):
            call()


def test_a_list_of_traced_numbers_in_place_of_one_is_refused():
    with pytest.raises(ValueError, match="^num_steps must be"):
        jax.jit(lambda n: noisegen.hold_then_decay_schedule(0.1, [n, n])(0))(40)


def test_jax_arrays_that_are_no_real_numbers_are_refused():
    for value in (jnp.complex64(1), jnp.bool_(True), jax.random.key(0)):
        with pytest.raises(ValueError, match="learning_rate must be a finite number"):
            jax.jit(lambda value: noisegen.temperature(value, 64))(value)


def test_numbers_of_arbitrary_length_are_numbers():
    assert noisegen.temperature(10**30, 10**30) == 1.0
    assert noisegen.hold_then_decay_schedule(1.0, 10**30)(5) == 1.0
