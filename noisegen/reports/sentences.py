"""Sentences about a sweep, and the parts that they are made of."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from noisegen._text import plural
from noisegen.reports.formatting import display_name, format_number, ordered
from noisegen.sweeps import evidence
from noisegen.sweeps.metrics import Metric

LEVEL = 0.95  # of all intervals and tests
PERCENT = f"{100 * LEVEL:g} %"
FEWEST_SEEDS = 3  # a held-out score needs two seeds to choose with
UP_TO = (
    ' "Up to" a number: the interval contains 0, which the test excludes, because intervals that'
    " hold together are wider."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """A sentence about a sweep.

    Attributes:
      kind: "batch_size", "updates", "learning_rate", "target" or "series"; "open" for a question
        that is left open. Advice also has "measured" and "cost".
      series: Label of the series that it is about; '' if there is one only, or if it is about all.
      text: The sentence.
      rule: How it was found, in a sentence; '' if the sentence says so itself.
      figure: Name of the figure of a page that shows it, as in `figures.Figure`, or ''.
      command: A command that trains the runs that it asks for, or ''.
      numbers: The numbers that it states, by name.
    """

    kind: str
    series: str = ""
    text: str
    rule: str = ""
    figure: str = ""
    command: str = ""
    numbers: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def about(label: str, text: str) -> str:
    """Returns a sentence about a series, which is named if it has a label."""
    return f"{label}: {text[0].lower()}{text[1:]}." if label else f"{text}."


def held_out(protocol, is_tuned) -> str:
    """Says at which values of the tuned fields a seed is scored."""
    if is_tuned:
        return f"Each seed is scored at the {tuned_fields(protocol)} that the other seeds choose."
    fields = tuned_fields(protocol)
    return f"Nothing was tuned: each {display_name(protocol.row)} has a single {fields}."


def tuned_fields(protocol) -> str:
    """Names the tuned fields."""
    return " and ".join(display_name(name) for name in protocol.tune)


def with_unit(metric: Metric, amount: float) -> str:
    """Writes a difference of a metric with its unit."""
    if metric.unit == "%" and amount >= 1:
        return "100 points"  # With few seeds the interval may exceed 100 points.
    shown = two_digits(metric.factor * amount)
    return f"{shown} points" if metric.unit == "%" else f"{shown} {metric.unit}".strip()


def range_with_unit(metric: Metric, low: float, high: float) -> str:
    """Writes an interval of the size of a difference of a metric."""
    if low <= 0:
        return f"up to {with_unit(metric, high)}"
    if two_digits(metric.factor * low) == two_digits(metric.factor * high):
        return with_unit(metric, high)
    return f"{two_digits(metric.factor * low)} to {with_unit(metric, high)}"


def two_digits(value: float) -> str:
    """Writes a number with two digits."""
    if not value:
        return "0"
    decimals = max(0, 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"


def rows_named(name: str, found) -> str:
    """Writes the rows of optima or comparisons, each once."""
    return named(name, [format_number(row) for row in ordered(each.row for each in found)])


def named(name: str, values: Sequence[str]) -> str:
    """Writes values of a field behind its name, in singular or plural."""
    what = display_name(name)
    return f"{what if len(values) == 1 else plural(what)} {listed(values)}"


def listed(words: Iterable[str]) -> str:
    """Joins words: 'a, b and c'."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def spread(optima) -> float:
    """Returns the median over rows of the standard deviation over seeds."""
    return float(np.nanmedian([evidence.noise(optimum) for optimum in optima]))
