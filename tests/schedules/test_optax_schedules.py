"""Tests the schedules under optax's names against optax's, with concrete and traced numbers."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import noisegen
from noisegen.schedules import onecycle

COUNTS = jnp.array([0, 1, 2, 3, 4, 5, 7, 10, 29, 30, 31, 84, 85, 86, 99, 100, 101, 199, 200, 1000])
STEPS, LENGTHS = st.integers(1, 100), st.integers(0, 100)
VALUES = st.sampled_from([0.0, 0.1, 1.0, 2.5, -1.0])
ARGUMENTS = {  # name of a schedule: its arguments, any of which may be traced
    "constant_schedule": st.tuples(VALUES),
    "linear_schedule": st.tuples(VALUES, VALUES, LENGTHS, LENGTHS),
    "polynomial_schedule": st.tuples(VALUES, VALUES, st.floats(0.5, 3), LENGTHS, LENGTHS),
    "exponential_decay": st.tuples(VALUES, LENGTHS, st.sampled_from([0, 0.5, 1, 1.1]), LENGTHS),
    "cosine_decay_schedule": st.tuples(VALUES, STEPS, st.floats(0, 1), st.floats(0.5, 2)),
    "warmup_constant_schedule": st.tuples(VALUES, VALUES, LENGTHS),
    "warmup_cosine_decay_schedule": st.tuples(
        VALUES, VALUES, LENGTHS, st.integers(101, 200), VALUES, st.floats(0.5, 2)
    ),
    "linear_onecycle_schedule": st.tuples(st.integers(2, 200), VALUES),
    "cosine_onecycle_schedule": st.tuples(st.integers(1, 200), VALUES),
}
every_name = pytest.mark.parametrize("name", ARGUMENTS)


def assert_agree(ours, theirs):
    """Compares values up to single precision."""
    ours, theirs = np.broadcast_arrays(ours, theirs)
    np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6)


def of_optax(name, *args, **kwargs):
    """Returns the values of optax's schedule, which may take one count at a time only."""
    return jax.vmap(getattr(optax, name)(*args, **kwargs))(COUNTS)


@functools.cache
def traced(name, **constants):
    """Returns a compiled function from all arguments of a schedule to its values."""
    make = functools.partial(getattr(noisegen, name), **constants)
    return jax.jit(lambda *args: make(*args)(COUNTS))


@every_name
@given(data=st.data())
def test_values_are_those_of_optax(name, data):
    args = data.draw(ARGUMENTS[name])
    expected = of_optax(name, *args)
    assert_agree(getattr(noisegen, name)(*args)(COUNTS), expected)
    assert_agree(traced(name)(*args), expected)


@pytest.mark.parametrize("staircase", [False, True])
@pytest.mark.parametrize("rate, end", [(0.5, 0.2), (1.5, 3.0), (0.0, 3.0)])
@pytest.mark.parametrize("steps, begin", [(0, 0), (1, 0), (10, 0), (7, 3)])
def test_exponential_decay_in_steps_and_within_bounds(staircase, rate, end, steps, begin):
    args = (1.0, steps, rate, begin)
    expected = optax.exponential_decay(*args, staircase, end)(COUNTS)
    assert_agree(noisegen.exponential_decay(*args, staircase, end)(COUNTS), expected)
    assert_agree(traced("exponential_decay", staircase=staircase, end_value=end)(*args), expected)


@pytest.mark.slow
@given(st.integers(1, 200), st.floats(0.05, 0.5), st.floats(0.55, 0.95))
def test_cycles_of_other_shapes(steps, start, final):
    shape = {"div_factor": 4.0, "final_div_factor": 10.0, "pct_start": start}
    expected = of_optax("cosine_onecycle_schedule", steps, 0.8, **shape)
    assert_agree(noisegen.cosine_onecycle_schedule(steps, 0.8, **shape)(COUNTS), expected)
    # Optax keeps boundaries in a dictionary, so that of two equal ones the first is lost.
    if int(start * steps) < int(final * steps):
        shape["pct_final"] = final
        expected = of_optax("linear_onecycle_schedule", steps, 0.8, **shape)
        assert_agree(noisegen.linear_onecycle_schedule(steps, 0.8, **shape)(COUNTS), expected)


def test_a_cycle_of_one_update_begins_at_its_first_value():
    cycle = noisegen.linear_onecycle_schedule(1, 0.8, div_factor=4, final_div_factor=10)
    assert_agree(cycle(jnp.arange(3)), [0.2, 0.02, 0.02])


@given(
    st.dictionaries(st.integers(0, 100), st.sampled_from([0.0, 0.1, 1.0, 2.0]), max_size=3),
    VALUES,
)
def test_piecewise_constant_values_are_those_of_optax(scales, value):
    expected = optax.piecewise_constant_schedule(value, scales)(COUNTS)
    assert_agree(noisegen.piecewise_constant_schedule(value, scales)(COUNTS), expected)
    pairs = [*scales.items(), *[(1001, 0.0)] * (3 - len(scales))]  # of one shape to compile
    assert_agree(traced("piecewise_constant_schedule")(value, pairs), expected)


def test_without_boundaries_a_piecewise_constant_is_constant():
    assert noisegen.piecewise_constant_schedule(0.5)(7) == 0.5


@given(st.integers(0, 50), st.integers(51, 100))
def test_joined_schedules_are_those_of_optax(first, second):
    def values(package, join, *boundaries):
        rise = package.linear_schedule(0.0, 1.0, 10)
        fall = package.exponential_decay(1.0, 5, 0.5)
        end = package.constant_schedule(0.3)
        return join([rise, fall, end], boundaries)(COUNTS)

    expected = values(optax, optax.join_schedules, first, second)
    assert_agree(values(noisegen, noisegen.join_schedules, first, second), expected)


def test_schedules_may_be_joined_at_traced_boundaries():
    def values(package, horizon):
        warmup = horizon // 10
        rise = package.linear_schedule(0.0, 1.0, warmup)
        fall = package.cosine_decay_schedule(1.0, horizon - warmup)
        return package.join_schedules([rise, fall], [warmup])(COUNTS)

    ours = jax.vmap(lambda horizon: values(noisegen, horizon))(jnp.array([10, 100, 200]))
    for horizon, found in zip([10, 100, 200], ours, strict=True):
        assert_agree(found, values(optax, horizon))


@given(st.floats(0, 1), st.floats(0.1, 1), st.integers(1, 200))
def test_inverse_square_root_is_its_formula(init, peak, warmup):
    t = np.asarray(COUNTS)
    rise, fall = init + (peak - init) * t / warmup, peak * np.sqrt(warmup / np.maximum(t, 1))
    expected = np.where(t < warmup, rise, fall)
    make = noisegen.warmup_inverse_square_root_schedule
    assert_agree(make(init, peak, warmup)(COUNTS), expected)
    assert_agree(traced("warmup_inverse_square_root_schedule")(init, peak, warmup), expected)


def test_inverse_square_root_is_the_schedule_of_vaswani():
    width, warmup, step = 512, 4000, np.array([1, 100, 3999, 4000, 4001, 100_000])
    expected = width**-0.5 * np.minimum(step**-0.5, step * warmup**-1.5)
    peak = (width * warmup) ** -0.5
    found = noisegen.warmup_inverse_square_root_schedule(0.0, peak, warmup)(step)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("name", [*ARGUMENTS, "piecewise_constant_schedule", "join_schedules"])
def test_arguments_have_optax_s_names_and_defaults(name):
    ours, theirs = (inspect.signature(getattr(p, name)).parameters for p in (noisegen, optax))
    assert [(p.name, p.default) for p in ours.values()] == [
        (p.name, p.default) for p in theirs.values()
    ]


def test_updates_are_counted_exactly_beyond_single_precision():
    begin = 2**24 + 1  # rounds to 2**24
    counts = begin + np.arange(-1, 6)
    expected = [0, 0, 0.25, 0.5, 0.75, 1, 1]

    def linear(begin, counts):
        return noisegen.linear_schedule(0.0, 1.0, 4, begin)(counts)

    for values in (linear, jax.jit(linear)):
        np.testing.assert_array_equal(values(begin, jnp.asarray(counts)), expected)
        np.testing.assert_array_equal(values(begin, counts), expected)
    one = noisegen.piecewise_constant_schedule(1.0, {begin: 0.5})
    np.testing.assert_array_equal(one(jnp.asarray(counts[:3])), [1, 0.5, 0.5])
    # In single precision, 41 * (1 / 41) is less than 1.
    drops = noisegen.exponential_decay(1.0, 41, 0.5, staircase=True)
    np.testing.assert_array_equal(drops(jnp.array([40, 41, 81, 82])), [1, 0.5, 0.5, 0.25])


@pytest.mark.parametrize("fraction", [0.3, 0.85])
def test_traced_cycles_have_the_boundaries_of_concrete_ones(fraction):
    steps = np.arange(1, 400_001)
    found = jax.jit(onecycle._whole_part)(fraction, steps)
    np.testing.assert_array_equal(found, [int(fraction * n) for n in steps.tolist()])


def test_traced_lengths_that_are_not_positive_give_nan_where_optax_refuses():
    for make in (
        lambda n: noisegen.cosine_decay_schedule(1.0, n),
        lambda n: noisegen.warmup_cosine_decay_schedule(0.0, 1.0, 10, 10 + n),
        lambda n: noisegen.linear_onecycle_schedule(n, 1.0),
        lambda n: noisegen.cosine_onecycle_schedule(n, 1.0),
    ):
        values = jax.jit(jax.vmap(lambda n, make=make: make(n)(COUNTS)))(jnp.array([-1, 0, 5]))
        np.testing.assert_array_equal(np.isnan(values).all(1), [True, True, False])
        with pytest.raises(ValueError, match="must be a finite number > 0"):
            make(0)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda s: s.linear_schedule(np.nan, 1.0, 5), "init_value must be a finite number"),
        (lambda s: s.linear_schedule(0.0, 1.0, -5), "transition_steps must be .* >= 0"),
        (lambda s: s.linear_schedule(0.0, 1.0, 5, -1), "transition_begin must be"),
        (lambda s: s.polynomial_schedule(0.0, 1.0, -1, 5), "power must be"),
        (lambda s: s.exponential_decay(1.0, 5, -0.5), "decay_rate must be"),
        (lambda s: s.exponential_decay(1.0, 5, 0.5, end_value="0"), "end_value must be"),
        (lambda s: s.cosine_decay_schedule(1.0, 5, alpha=np.inf), "alpha must be"),
        (lambda s: s.cosine_decay_schedule(1.0, 5, exponent=-1), "exponent must be"),
        (lambda s: s.warmup_constant_schedule(0.0, None, 5), "peak_value must be"),
        (lambda s: s.warmup_constant_schedule(0.0, 1.0, -5), "warmup_steps must be"),
        (
            lambda s: s.warmup_cosine_decay_schedule(0.0, 1.0, 5, 5),
            "decay_steps_beyond_the_warmup must be a finite number > 0, but it is 0",
        ),
        (lambda s: s.warmup_inverse_square_root_schedule(0.0, 1.0, 0), "warmup_steps must be"),
        (lambda s: s.cosine_onecycle_schedule(5, 1.0, 1.5), "pct_start must be"),
        (lambda s: s.cosine_onecycle_schedule(5, 1.0, div_factor=0), "div_factor must be"),
        (
            lambda s: s.linear_onecycle_schedule(5, 1.0, 0.9, 0.1),
            "pct_final_beyond_pct_start must be",
        ),
        (lambda s: s.piecewise_constant_schedule(1.0, {-1: 0.5}), "a boundary of .* >= 0"),
        (lambda s: s.piecewise_constant_schedule(1.0, [(1, -0.5)]), "a scale of .* >= 0"),
        (lambda s: s.join_schedules([s.constant_schedule(1.0)], [5]), "there are 1 for 1"),
        (lambda s: s.join_schedules([s.constant_schedule(1.0)] * 2, [-5]), "a boundary must be"),
    ],
)
def test_bad_numbers_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make(noisegen)
