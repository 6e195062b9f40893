"""Metrics are declared: unit and split follow from no part of a name."""

import pytest

from noisegen import sweeps


def test_plain_strings_name_the_metrics_of_noisegens_own_tasks():
    assert sweeps.Protocol().metric == sweeps.Metric("test_accuracy", unit="%", split="test")
    protocol = sweeps.Protocol(metric="test_loss", report=("test_squared_error",))
    assert {metric.split for metric in (protocol.metric, *protocol.report)} == {"test"}


def test_metrics_of_validation_data_are_known_like_those_of_test_data():
    protocol = sweeps.Protocol(
        metric="valid_accuracy", report=("valid_loss", "valid_squared_error", "test_accuracy")
    )
    assert protocol.metric == sweeps.Metric("valid_accuracy", unit="%", split="valid")
    assert [metric.split for metric in protocol.report] == ["valid", "valid", "test"]


@pytest.mark.parametrize("name", ["accuracy", "validation_accuracy", "test_recall", "seconds"])
def test_any_other_string_has_no_unit_and_no_split(name):
    assert sweeps.Protocol(metric=name).metric == sweeps.Metric(name)


def test_a_declared_metric_is_taken_as_it_is():
    recall = sweeps.Metric("recall", unit="%", split="test")
    protocol = sweeps.Protocol(metric=recall, report=[recall, "seconds"])
    assert protocol.metric is recall and protocol.report == (recall, sweeps.Metric("seconds"))
    assert protocol.metric_names == ("recall", "recall", "seconds")


def test_percent_means_fractions_shown_times_a_hundred():
    assert sweeps.Metric("recall", unit="%").factor == 100
    assert sweeps.Metric("wall_time", unit="s").factor == 1


def test_a_metric_that_is_no_text_is_refused():
    with pytest.raises(ValueError, match="Metric unit must be text, got 100"):
        sweeps.Metric("recall", unit=100)
    with pytest.raises(ValueError, match="Protocol report must be a tuple of words"):
        sweeps.Protocol(report=(3,))


def test_the_scaling_rule_is_for_learning_rates_over_batch_sizes_unless_declared():
    assert sweeps.Protocol().has_scaling_rule
    assert sweeps.Protocol(tune=("effective_learning_rate",)).has_scaling_rule
    assert not sweeps.Protocol(tune=("base_learning_rate",)).has_scaling_rule
    assert not sweeps.Protocol(row="num_epochs").has_scaling_rule
    assert not sweeps.Protocol(scaling_rule=False).has_scaling_rule
    assert sweeps.Protocol(row="width", tune=("lr",), scaling_rule=True).has_scaling_rule
    with pytest.raises(ValueError, match="scaling_rule must be True, False or None"):
        sweeps.Protocol(scaling_rule="linear")
