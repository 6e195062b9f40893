"""Published numbers, to stand beside the measured ones of a protocol."""

import math
import numbers
from collections.abc import Mapping

from noisegen.sweeps import protocol as protocols
from noisegen.sweeps.numerals import is_number, scale

# For each series and row a value and its standard deviation or None; or several, by metric and
# tuned field (whose three numbers are the best value and the ends of its error bar).
Published = Mapping[tuple[str, float], tuple[float, float | None] | Mapping[str, tuple]]


def by_name(published: Published, protocol: protocols.Protocol) -> dict[tuple, dict[str, tuple]]:
    """Returns published numbers by name, for each series and row.

    Raises:
      ValueError: If published accuracies look like fractions, have a name that the table lacks, or
        are not of the form that `make_table` takes.
    """
    known = (protocol.metric, *protocol.report, *protocol.tune)
    named = {}
    for key, values in _items(published):
        named[key] = dict(values) if isinstance(values, Mapping) else {protocol.metric: values}
        for name, value in named[key].items():
            if name not in known:
                raise ValueError(
                    f"published numbers of {name!r} have no column to stand beside; the table has"
                    f" {', '.join(known)}."
                )
            _check_published(key, name, value, name in protocol.tune)
    for name in (protocol.metric, *protocol.report):
        found = [values[name][0] for values in named.values() if name in values]
        if found and scale(name) == 100 and max(found) <= 1:
            raise ValueError(
                f"published values of {name} are in percent, got at most {max(found)!r};"
                " multiply fractions by 100."
            )
    return named


def _items(published):
    """Returns published numbers with their keys, which it checks."""
    if not isinstance(published, Mapping):
        raise ValueError(
            "published numbers must be a mapping from (series label, row) to (value, standard"
            f" deviation or None), got {published!r:.200}."
        )
    for key in published:
        pair = isinstance(key, tuple) and len(key) == 2 and isinstance(key[0], str)
        if not pair or not isinstance(key[1], str | bool | numbers.Real):
            raise ValueError(
                f"published numbers have the key {key!r}; it must be (series label, row), with ''"
                " as the label of a sweep without series."
            )
    return published.items()


def _check_published(key, name, value, tuned):
    """Checks the published numbers of one name at one series and row."""
    if tuned:
        form = "(best value, low, high)"
        holds = isinstance(value, tuple | list) and len(value) == 3
        holds = holds and all(isinstance(each, str | bool) or _finite(each) for each in value)
    else:
        form = "(value, standard deviation or None)"
        holds = isinstance(value, tuple | list) and len(value) == 2 and _finite(value[0])
        holds = holds and (value[1] is None or _finite(value[1]) and value[1] >= 0)
    if not holds:
        raise ValueError(f"published {name} at {key!r} must be {form}, got {value!r}.")


def _finite(value):
    return is_number(value) and math.isfinite(value)
