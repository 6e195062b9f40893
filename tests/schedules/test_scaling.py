"""Tests scaling rules against numbers printed in Signer & Barbier, 2021."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import noisegen

RULES = [
    noisegen.constant_rule,
    noisegen.linear_rule,
    noisegen.square_root_rule,
    noisegen.logarithmic_rule,
]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (noisegen.constant_rule, 0.01),
        (noisegen.linear_rule, 1.28),
        (noisegen.square_root_rule, 0.1131),
        (noisegen.logarithmic_rule, 0.08),
    ],
)
def test_learning_rate_at_8192_from_64(rule, expected):
    assert float(noisegen.scale_learning_rate(0.01, 8192, 64, rule)) == pytest.approx(
        expected, 1e-3
    )


def test_momentum_follows_the_rule():
    momentum = noisegen.scale_momentum(0.9, 8192, 4096, noisegen.square_root_rule)
    assert momentum == pytest.approx(0.92929, 1e-5)
    assert noisegen.scale_momentum(0.9, 128, 64) == pytest.approx(0.95)
    assert noisegen.scale_momentum(0.9, 8192, 64, noisegen.constant_rule) == pytest.approx(0.9)


@given(st.sampled_from(RULES), st.floats(1e-4, 1e4))
def test_there_and_back_is_no_change(rule, ratio):
    assert rule(1.0) == 1.0
    assert rule(ratio) * rule(1 / ratio) == pytest.approx(1.0)


@pytest.mark.parametrize("rule", RULES)
def test_rules_are_traceable_and_do_not_decrease(rule):
    ratios = 2.0 ** jnp.arange(-6, 7)
    traced = jax.vmap(jax.jit(rule))(ratios)
    np.testing.assert_allclose(traced, [rule(r) for r in ratios.tolist()], rtol=1e-6)
    assert (np.diff(traced) >= 0).all()
    assert traced.min() > 0


def test_logarithmic_rule_adds_one_per_doubling():
    assert [float(noisegen.logarithmic_rule(k)) for k in (1, 2, 4, 128)] == [1, 2, 3, 8]
    assert float(noisegen.logarithmic_rule(math.e)) == pytest.approx(1 + 1 / math.log(2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: noisegen.scale_learning_rate(0.1, 0, 64), "batch_size must be"),
        (lambda: noisegen.scale_learning_rate(0.1, 64, 0), "base_batch_size must be"),
        (lambda: noisegen.scale_momentum(1.0, 64, 64), r"base_momentum must be a number in \[0, 1"),
        (lambda: noisegen.scale_momentum(0.5, 16, 64), "momentum must be .* but it is -1.0"),
        (lambda: noisegen.scale_momentum(0.5, 16, 64, 0.5), "rule must be a function"),
        (lambda: noisegen.scale_learning_rate(0.5, 16, 64, lambda k: -k), "value of the rule must"),
    ],
)
def test_bad_numbers_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()
