"""Metrics: the numbers that a protocol reads, with their unit and the data they are measured on."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Metric:
    """A number that every finished run has.

    Attributes:
      name: Key of a record's `metrics`, or one of `noisegen.storage.RUN_TOTALS`.
      unit: Unit that follows the name in tables and figures. With "%" the values are fractions,
        and they are shown times 100.
      split: The data it is measured on. If a protocol tunes on it, the table notes that the sweep
        was tuned on the test set ("test") or on the validation split ("valid").

    >>> Metric("top5_accuracy", unit="%", split="test").factor
    100
    """

    name: str
    unit: str = ""
    split: str = ""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, str):
                raise ValueError(f"Metric {field.name} must be text, got {value!r:.80}.")

    @property
    def factor(self) -> int:
        """The factor from a value to the number that is shown in the unit."""
        return 100 if self.unit == "%" else 1


# The metrics of the tasks of noisegen.tasks. A protocol may name these by a plain string. The unit
# and the split of any other metric are declared with `Metric`.
WELL_KNOWN = {
    metric.name: metric
    for metric in (
        Metric("test_accuracy", unit="%", split="test"),
        Metric("test_loss", split="test"),
        Metric("test_squared_error", split="test"),
        Metric("valid_accuracy", unit="%", split="valid"),
        Metric("valid_loss", split="valid"),
        Metric("valid_squared_error", split="valid"),
        Metric("clean_train_accuracy", unit="%"),
    )
}


def as_metric(value: object) -> Metric:
    """Returns the metric that a protocol names by a `Metric` or a plain string.

    A string that is no metric of `WELL_KNOWN` has no unit and no split.

    Raises:
      ValueError: If it is neither.
    """
    if isinstance(value, Metric):
        return value
    if isinstance(value, str):
        return WELL_KNOWN.get(value, Metric(value))
    raise ValueError(
        f"Protocol metric must be a word, such as 'test_accuracy', or a Metric, got {value!r:.80}."
    )


def as_metrics(values: object) -> tuple[Metric, ...]:
    """Returns the metrics that a protocol reports.

    Raises:
      ValueError: If it is no tuple or list of words and metrics.
    """
    if isinstance(values, str):
        raise ValueError(f"Protocol report must be a tuple of words; write ({values!r},).")
    if not isinstance(values, tuple | list):
        raise ValueError(f"Protocol report must be a tuple of words, got {values!r:.80}.")
    if not all(isinstance(value, str | Metric) for value in values):
        raise ValueError(f"Protocol report must be a tuple of words, got {values!r:.80}.")
    return tuple(as_metric(value) for value in values)
