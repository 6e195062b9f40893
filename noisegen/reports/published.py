"""Published numbers, to stand beside the measured ones of a protocol."""

import math
import numbers
from collections.abc import Mapping

from noisegen.reports.formatting import is_number
from noisegen.sweeps.protocol import Protocol

# For each series and row a value and its standard deviation or None. Or several such pairs, by
# metric and tuned field; those of a tuned field are the best value and the ends of its error bar.
Published = Mapping[tuple[str, float], tuple[float, float | None] | Mapping[str, tuple]]


def normalize_published(
    published: Published | None, protocol: Protocol
) -> dict[tuple, dict[str, tuple]]:
    """Returns published numbers by name, for each series and row.

    Args:
      published: As for `make_table`; None stands for none.
      protocol: The protocol whose numbers they stand beside.

    Raises:
      ValueError: If published percentages look like fractions, have a name that the table lacks,
        or are not of the form that `make_table` takes.
    """
    published = {} if published is None else published
    _check_keys(published)
    known = (*protocol.metric_names, *protocol.tune)
    by_name = {}
    for key, values in published.items():
        by_name[key] = (
            dict(values) if isinstance(values, Mapping) else {protocol.metric.name: values}
        )
        for name, value in by_name[key].items():
            if name not in known:
                raise ValueError(
                    f"published numbers of {name!r} have no column to stand beside; the table has"
                    f" {', '.join(known)}."
                )
            _check_value(key, name, value, is_tuned=name in protocol.tune)
    for metric in (protocol.metric, *protocol.report):
        _check_unit(metric, by_name)
    return by_name


def _check_keys(published):
    """Checks that published numbers are a mapping from series and row."""
    if not isinstance(published, Mapping):
        raise ValueError(
            "published numbers must be a mapping from (series label, row) to (value, standard"
            f" deviation or None), got {published!r:.200}."
        )
    for key in published:
        is_pair = isinstance(key, tuple) and len(key) == 2 and isinstance(key[0], str)
        if not is_pair or not isinstance(key[1], str | bool | numbers.Real):
            raise ValueError(
                f"published numbers have the key {key!r}; it must be (series label, row), with ''"
                " as the label of a sweep without series."
            )


def _check_value(key, name, value, is_tuned):
    """Checks the published numbers of one name at one series and row."""
    is_sequence = isinstance(value, tuple | list)
    if is_tuned:
        form = "(best value, low, high)"
        fits = is_sequence and len(value) == 3
        fits = fits and all(isinstance(each, str | bool) or _is_finite(each) for each in value)
    else:
        form = "(value, standard deviation or None)"
        fits = is_sequence and len(value) == 2 and _is_finite(value[0])
        fits = fits and (value[1] is None or (_is_finite(value[1]) and value[1] >= 0))
    if not fits:
        raise ValueError(f"published {name} at {key!r} must be {form}, got {value!r}.")


def _check_unit(metric, by_name):
    """Checks that published percentages are no fractions."""
    means = [values[metric.name][0] for values in by_name.values() if metric.name in values]
    if means and metric.unit == "%" and max(means) <= 1:
        raise ValueError(
            f"published values of {metric.name} are in percent, got at most {max(means)!r};"
            " multiply fractions by 100."
        )


def _is_finite(value):
    return is_number(value) and math.isfinite(value)
