"""Tests temperature and noise scale against published numbers and inverse functions."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import noisegen

learning_rates = st.floats(1e-4, 100)
momenta = st.floats(0, 0.99)
batch_sizes = st.integers(1, 59_999)


def test_published_numbers():
    assert noisegen.effective_learning_rate(0.8, 0.9) == pytest.approx(8.0)
    assert noisegen.learning_rate_from_effective(2**5, 0.9) == pytest.approx(3.2)
    assert noisegen.temperature(0.8, 1024, 0.9) == pytest.approx(8 / 1024)
    # "Even larger batch size ...": g(30,000) is the learning rate itself on 60,000 examples.
    assert noisegen.sgd_noise_scale(0.1, 30_000, 60_000) == pytest.approx(0.1)
    assert noisegen.sgd_noise_scale(1.0, 64, 60_000) == pytest.approx(936.5)
    assert noisegen.sgd_noise_scale(0.1, 60_000, 60_000, 0.5) == 0.0


@given(learning_rates, batch_sizes, momenta)
def test_temperature_there_and_back(learning_rate, batch_size, momentum):
    t = noisegen.temperature(learning_rate, batch_size, momentum)
    back = noisegen.learning_rate_from_temperature(t, batch_size, momentum)
    assert back == pytest.approx(learning_rate)
    back = noisegen.batch_size_from_temperature(t, learning_rate, momentum)
    assert back == pytest.approx(batch_size)


@given(learning_rates, batch_sizes, momenta)
def test_noise_scale_there_and_back(learning_rate, batch_size, momentum):
    g = noisegen.sgd_noise_scale(learning_rate, batch_size, 60_000, momentum)
    back = noisegen.learning_rate_from_sgd_noise_scale(g, batch_size, 60_000, momentum)
    assert back == pytest.approx(learning_rate)
    back = noisegen.batch_size_from_sgd_noise_scale(g, learning_rate, 60_000, momentum)
    assert back == pytest.approx(batch_size)


@given(learning_rates, momenta)
def test_noise_scale_of_a_small_batch_is_temperature_times_examples(learning_rate, momentum):
    g = noisegen.sgd_noise_scale(learning_rate, 2, 10**6, momentum)
    assert g == pytest.approx(10**6 * noisegen.temperature(learning_rate, 2, momentum), rel=3e-6)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (noisegen.effective_learning_rate, (0.1, 0.9)),
        (noisegen.learning_rate_from_effective, (0.1, 0.9)),
        (noisegen.temperature, (0.1, 64, 0.9)),
        (noisegen.learning_rate_from_temperature, (0.1, 64, 0.9)),
        (noisegen.batch_size_from_temperature, (0.1, 64, 0.9)),
        (noisegen.sgd_noise_scale, (0.1, 64, 640, 0.9)),
        (noisegen.learning_rate_from_sgd_noise_scale, (0.1, 64, 640, 0.9)),
        (noisegen.batch_size_from_sgd_noise_scale, (0.1, 64, 640, 0.9)),
    ],
)
def test_numbers_give_numbers_and_traced_values_agree(function, arguments):
    value = function(*arguments)
    assert type(value) is float
    np.testing.assert_allclose(jax.jit(function)(*arguments), value, rtol=1e-5)
    np.testing.assert_allclose(function(*map(np.float64, arguments)), value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: noisegen.temperature(0.1, 0), "batch_size must be a finite number > 0"),
        (lambda: noisegen.temperature(0.1, 64, 1.0), r"momentum must be a number in \[0, 1\)"),
        (lambda: noisegen.temperature(float("inf"), 64), "learning_rate must be"),
        (lambda: noisegen.batch_size_from_temperature(0, 0.1), "temperature must be"),
        (
            lambda: noisegen.learning_rate_from_sgd_noise_scale(1, 64, 64),
            "beyond_the_batch must be",
        ),
    ],
)
def test_bad_numbers_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()
