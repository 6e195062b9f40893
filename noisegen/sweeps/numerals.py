"""Numbers, words and names as people write them.

>>> number(64.0), number(0.1 + 0.2), number(True), number("adam")
('64', '0.3', 'True', 'adam')
>>> [spell(0.1 + 0.2) for spell in (speller([0.1 + 0.2]), speller([0.1 + 0.2, 0.3]))]
['0.3', '0.30000000000000004']
>>> list(map(writer([0.25, 0.5]), [0.25, 0.5])), spread("test_accuracy", 0.9861, 0.0012)
(['2^-2', '2^-1'], '98.61 ± 0.12')
"""

import collections
import math
import numbers
import re
from collections.abc import Callable, Iterable

from noisegen.sweeps import grid, texts

Value = float | bool | str
NONE = "-"  # An empty cell.


def number(value: Value) -> str:
    """Returns an integer in full, other numbers with six digits at most; words as they are."""
    if isinstance(value, str):
        return texts.Words(texts.shown(value))
    if not is_number(value):
        return str(value)
    if isinstance(value, numbers.Integral) or (value.is_integer() and abs(value) < 2**53):
        return str(int(value))
    return f"{value:.6g}"


def is_number(value: object) -> bool:
    """Returns whether a value is a real number, Python's or NumPy's, and no boolean."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def ordered(values: Iterable[Value]) -> list[Value]:
    """Returns different values in ascending order, words after numbers."""
    return sorted(set(values), key=lambda value: (isinstance(value, str), value))


def speller(values: Iterable[Value]) -> Callable[[Value], str]:
    """Returns how to write these values: as `number` does, where this tells them apart."""
    alike = collections.Counter(map(number, set(values)))

    def spell(value):
        text = number(value)
        exact = alike[text] > 1 and is_number(value) and not float(value).is_integer()
        return repr(float(value)) if exact else text

    return spell


def writer(values: Iterable[Value]) -> Callable[[Value], str]:
    """Returns how to write these values: as 2^k where all are powers of two, else as `speller`."""
    values = set(values)
    if values and all(is_number(value) and grid.is_power_of_two(value) for value in values):
        return lambda value: f"2^{math.frexp(value)[1] - 1}"
    return speller(values)


def words(name: str) -> str:
    """Returns the words of a field or a metric; underscores that part no words stay."""
    return texts.shown(re.sub("(?<=[^_])_(?=[^_])", " ", name))


def title(metric: str) -> str:
    """Returns the words of a metric, with its unit where it has one."""
    return words(metric) + (" (%)" if scale(metric) == 100 else "")


def scale(metric: str) -> int:
    """Returns the factor from a metric to the unit that `title` names."""
    return 100 if metric.endswith("accuracy") else 1


def spread(metric: str, mean: float, std: float) -> str:
    """Returns mean ± std: hundredths of a percent, or the two leading digits of std."""
    if math.isnan(mean):
        return NONE
    factor = scale(metric)
    if factor == 100:
        digits = 2
    elif std > 0:
        digits = max(0, 1 - math.floor(math.log10(std)))
    else:
        digits = 0 if float(mean).is_integer() else 4  # a count, or one run
    mean, std = factor * mean, factor * std
    tiny = digits == 4 and not std > 0 and abs(mean) < 1e-3  # four decimals would show little of it
    long = digits > 8 or max(abs(mean), std) >= 1e21
    if tiny or long:
        return f"{mean:.6g}" + ("" if math.isnan(std) else f" ± {std:.2g}")
    return f"{mean:.{digits}f}" + ("" if math.isnan(std) else f" ± {std:.{digits}f}")
