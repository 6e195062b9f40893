"""Numbers and names as people write them."""

import pytest

from noisegen import sweeps
from noisegen.reports import formatting, markup


@pytest.mark.parametrize(
    "language, written",
    [
        (markup.TEXT, "2^-3"),
        (markup.UNICODE, "2⁻³"),
        (markup.MARKDOWN, "2<sup>-3</sup>"),
        (markup.LATEX, "$2^{-3}$"),
        (markup.HTML, "2<sup>−3</sup>"),
    ],
)
def test_powers_of_two_are_written_as_such_if_all_values_are(language, written):
    assert formatting.number_formatter([0.125, 4], language)(0.125) == written
    assert formatting.number_formatter([0.125, 0.3], language)(0.125) == "0.125"
    assert formatting.number_formatter([0.125, True], language)(0.125) == "0.125"


def test_a_metric_has_its_unit_in_its_name():
    assert formatting.display_name(sweeps.Metric("test_accuracy", unit="%")) == "test accuracy (%)"
    assert formatting.display_name(sweeps.Metric("wall_time", unit="s")) == "wall time (s)"
    assert formatting.display_name(sweeps.Metric("loss")) == "loss"


@pytest.mark.parametrize(
    "values, written",
    [
        ([0.1, 0.1000000015, 0.3], ["0.1", "0.1000000015", "0.3"]),
        ([0.1 + 0.2, 0.5], ["0.3", "0.5"]),
        ([1, 1.0000001], ["1", "1.0000001"]),
        ([True, False], ["True", "False"]),
        (["adam", "2^3", ""], ["adam", "2^3", "''"]),
        ([2**60, 2**60 + 1], ["1152921504606846976", "1152921504606846977"]),
        ([1e300, 5e-324], ["1e+300", "4.94066e-324"]),
        ([-0.5, 0, float("nan")], ["-0.5", "0", "nan"]),
    ],
)
def test_different_values_look_different(values, written):
    assert list(map(formatting.decimal_formatter(values), values)) == written
    assert list(map(formatting.number_formatter([*values, 3]), values)) == written


@pytest.mark.parametrize(
    "mean, std, shown",
    [
        (1e300, 1e299, "1e+300 ± 1e+299"),
        (1.5e-30, 1e-31, "1.5e-30 ± 1e-31"),
        (2e-5, float("nan"), "2e-05"),
        (-0.25, 0.01, "-0.250 ± 0.010"),
        (float(2**53), float("nan"), "9007199254740992"),
        (0.0, 0.0, "0 ± 0"),
        (float("nan"), float("nan"), "-"),
    ],
)
def test_metrics_of_any_size_are_short(mean, std, shown):
    assert formatting.format_mean(sweeps.Metric("loss"), mean, std) == shown


def test_names_are_words_and_different_ones_without_words_differ():
    names = ["learning_rate", "_lr", "lr_", "a__b", "_", "", "x\ny"]
    assert [formatting.display_name(name) for name in names] == [
        *("learning rate", "_lr", "lr_", "a__b", "_", "''", "'x\\ny'"),
    ]
