"""Writes numbers and names for readers.

>>> format_number(64.0), format_number(0.1 + 0.2), format_number(True), format_number("adam")
('64', '0.3', 'True', 'adam')
>>> list(map(number_formatter([0.25, 0.5]), [0.25, 0.5]))
['2^-2', '2^-1']
>>> from noisegen import sweeps
>>> accuracy = sweeps.Metric("test_accuracy", unit="%")
>>> display_name(accuracy), format_mean(accuracy, 0.9861, 0.0012)
('test accuracy (%)', '98.61 ± 0.12')
"""

import collections
import math
import numbers
import re
from collections.abc import Callable, Iterable

from noisegen.reports import markup
from noisegen.sweeps import grids
from noisegen.sweeps.metrics import Metric

Value = float | bool | str
NONE = "-"  # an empty cell


def is_number(value: object) -> bool:
    """Returns whether a value is a real number, Python's or NumPy's, and no boolean."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def ordered(values: Iterable[Value]) -> list[Value]:
    """Returns different values in ascending order, words after numbers."""
    return sorted(set(values), key=lambda value: (isinstance(value, str), value))


def display_name(name: str | Metric) -> str:
    """Returns the words of a field or a metric, a `Metric` with its unit.

    "num_epochs" is read as "number of epochs". Underscores that part no words stay, so that
    different names stay different.
    """
    if isinstance(name, Metric):
        words = display_name(name.name)
        return f"{words} ({markup.visible(name.unit)})" if name.unit else words
    name = re.sub("^num_(?=[^_])", "number_of_", name)
    return markup.visible(re.sub("(?<=[^_])_(?=[^_])", " ", name))


def capitalized(sentence: str) -> str:
    """Returns a sentence with its first letter in upper case and the others as they are."""
    return sentence[0].upper() + sentence[1:]


def format_number(value: Value) -> str:
    """Returns an integer in full, other numbers with six digits at most; words as they are."""
    if isinstance(value, str):
        return markup.visible(value)
    if not is_number(value):
        return str(value)
    if isinstance(value, numbers.Integral) or (value.is_integer() and abs(value) < 2**53):
        return str(int(value))
    return f"{value:.6g}"


def decimal_formatter(values: Iterable[Value]) -> Callable[[Value], str]:
    """Returns a function that writes any of these values, different ones differently.

    It writes as `format_number` does, and in full a number that this would confuse with another.
    """
    counts = collections.Counter(map(format_number, set(values)))

    def write(value):
        text = format_number(value)
        if counts[text] > 1 and is_number(value) and not float(value).is_integer():
            return repr(float(value))
        return text

    return write


def number_formatter(
    values: Iterable[Value], language: markup.Language = markup.TEXT
) -> Callable[[Value], str]:
    """Returns a function that writes any of these values in a markup language.

    It writes powers of two if all values are, and else as `decimal_formatter` does.
    """
    values = set(values)
    if values and all(is_number(value) and grids.is_power_of_two(value) for value in values):
        return lambda value: language.power(math.frexp(value)[1] - 1)
    write = decimal_formatter(values)
    return lambda value: language.escape(write(value))


def format_mean(metric: Metric, mean: float, std: float) -> str:
    """Returns mean ± standard deviation: hundredths of a percent, or the leading digits of std."""
    if math.isnan(mean):
        return NONE
    shown, spread = metric.factor * mean, metric.factor * std
    if metric.unit == "%":
        digits = 2
    elif std > 0:
        digits = max(0, 1 - math.floor(math.log10(std)))
    else:
        digits = 0 if float(mean).is_integer() else 4  # a count, or one run
    # Four decimals would show little of a tiny number, and a huge one would fill the line.
    tiny = digits == 4 and not std > 0 and abs(shown) < 1e-3
    long = digits > 8 or max(abs(shown), spread) >= 1e21
    if tiny or long:
        return f"{shown:.6g}" + ("" if math.isnan(std) else f" ± {spread:.2g}")
    return f"{shown:.{digits}f}" + ("" if math.isnan(std) else f" ± {spread:.{digits}f}")
