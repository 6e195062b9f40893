"""The numbers of a table, unrounded: as a pandas DataFrame, and as CSV.

`noisegen.reports.rendering` writes the same table for readers.

>>> from noisegen import reports, storage, sweeps
>>> run = {"batch_size": 64, "learning_rate": 0.1, "seed": 0}
>>> record = storage.Record(
...     hparams=run, status="finished", metrics={"test_accuracy": 0.986}
... )
>>> protocol = sweeps.Protocol()
>>> optima = sweeps.select([record], protocol)
>>> published = {("", 64): (98.61, None)}
>>> reports.make_table(optima, protocol, published)[["batch_size", "published"]]
   batch_size  published
0          64     0.9861
"""

from collections.abc import Sequence

import pandas as pd

from noisegen.reports import comparison, markup
from noisegen.reports.formatting import is_number
from noisegen.reports.published import Published
from noisegen.sweeps.protocol import Optimum, Protocol

_OWN_COLUMNS = ("series", "runs", "flags")  # names in a table that no field may take


def make_table(
    optima: Sequence[Optimum], protocol: Protocol, published: Published | None = None
) -> pd.DataFrame:
    """Returns the numbers of a sweep, unrounded, one line for each series and row of the sweep.

    Its columns are the series, the row, mean and standard deviation of the metric, the number of
    runs, the tuned fields with the error bar of the first, the reported metrics, and the flags.
    Published numbers stand in front of the flags, converted to the metric's own unit, with the
    difference from them in standard deviations. Unknown numbers are nan.

    Args:
      optima: Optima, as `noisegen.sweeps.select` returns them.
      protocol: The protocol that `select` was given.
      published: From (series label, row) to (value, standard deviation or None) of the protocol's
        metric, in the unit shown: percent for accuracies. The label is '' for a sweep without
        series. If more was published, from there to a mapping from names to such pairs: names of
        the metric and of those in `report`, and of tuned fields, with (best value, low, high).

    Raises:
      ValueError: If published numbers are of another form, or have no column to stand beside.
    """
    lines = _make_lines(optima, protocol, published)
    names = list(lines[0]) if lines else []
    return pd.DataFrame({name: _column([line[name] for line in lines]) for name in names})


def to_csv(
    optima: Sequence[Optimum], protocol: Protocol, published: Published | None = None
) -> str:
    """Returns the numbers of `make_table` as CSV; unknown ones are blank.

    A ' precedes text that a spreadsheet would compute, see `markup.spreadsheet_text`.
    """
    lines = []
    holds_return = False
    for line in _make_lines(optima, protocol, published):
        cells = {}
        for name, value in line.items():
            is_text = isinstance(value, str)
            cells[markup.spreadsheet_text(name)] = (
                markup.spreadsheet_text(value) if is_text else value
            )
            holds_return |= "\r" in name or (is_text and "\r" in value)
        lines.append(cells)
    # As objects, so that whole numbers stay whole in a column with a gap.
    frame = pd.DataFrame(lines, dtype=object)
    # The CSV writer quotes only those line breaks that its own line end consists of.
    return frame.to_csv(index=False, lineterminator="\r\n" if holds_return else "\n")


def _make_lines(optima, protocol, published):
    """Returns the numbers of each series and row by column, None if unknown."""
    matched = comparison.compare(optima, protocol, published)
    lines = []
    for optimum, values in matched:
        line = {"series": optimum.series}
        _add_measured(line, optimum, protocol)
        for name in matched.compared:
            if name in protocol.tune:
                _add_published_field(line, name, values.get(name))
            else:
                _add_published_metric(line, name, values.get(name), optimum, protocol)
        line["flags"] = " ".join(optimum.flags)
        lines.append(line)
    return lines


def _add_measured(line, optimum, protocol):
    """Adds the measured numbers of one series and row."""
    _add(line, protocol.row, optimum.row)
    _add(line, f"{protocol.metric.name}_mean", optimum.mean)
    _add(line, f"{protocol.metric.name}_std", optimum.std)
    line["runs"] = optimum.n
    for name in protocol.tune:
        _add(line, name, optimum.values.get(name))
    _add(line, f"{protocol.tune[0]}_low", optimum.low)
    _add(line, f"{protocol.tune[0]}_high", optimum.high)
    for metric in protocol.report:
        mean, std = comparison.mean_and_std(optimum, metric, protocol)
        _add(line, f"{metric.name}_mean", mean)
        _add(line, f"{metric.name}_std", std)


def _add_published_field(line, name, value):
    """Adds the published best value of a tuned field, and the ends of its error bar."""
    best, low, high = value or (None, None, None)
    _add(line, f"published_{name}", _in_unit(best))
    _add(line, f"published_{name}_low", _in_unit(low))
    _add(line, f"published_{name}_high", _in_unit(high))


def _add_published_metric(line, name, value, optimum, protocol):
    """Adds the published numbers of a metric, and the difference from them."""
    # The columns of the metric that is optimized have no name in them: mostly it is the only one.
    suffix = "" if name == protocol.metric.name else f"_{name}"
    metric = comparison.metric_named(name, protocol)
    mean, std = value or (None, None)
    _add(line, f"published{suffix}", _in_unit(mean, metric.factor))
    _add(line, f"published{suffix}_std", _in_unit(std, metric.factor))
    difference = comparison.difference_in_std(optimum, value, metric, protocol)
    _add(line, f"difference{suffix}_in_std", difference)


def _add(line, name, value):
    """Adds a value under a name that no other column has."""
    # Nothing keeps a user from calling a field `runs` or `flags`.
    while name in line or name in _OWN_COLUMNS:
        name += "_"
    is_nan = value != value  # also for text and None, which math.isnan refuses
    line[name] = None if is_nan else value


def _in_unit(value, factor=1):
    """Converts a published number to the metric's own unit."""
    # Twelve digits are more than any paper prints, and hide the rounding of 98.61 / 100.
    return float(f"{value / factor:.12g}") if is_number(value) else value


def _column(values):
    """Returns a column: integers, floating-point numbers with nan for None, or objects."""
    # Integers have no nan, so that a column with a gap becomes one of floating-point numbers.
    known = [value for value in values if value is not None]
    if len(known) == len(values) and all(type(value) is int for value in values):
        return pd.Series(values)
    if all(is_number(value) for value in known):
        return pd.Series(values, dtype=float)
    return pd.Series(values, dtype=object)
