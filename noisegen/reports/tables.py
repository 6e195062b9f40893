"""Tables of optima, beside published numbers: a pandas DataFrame, and texts made of it.

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
>>> print(reports.to_text(optima, protocol, published))  # doctest: +ELLIPSIS
  batch size  test accuracy (%)  learning rate  published  difference
  -------------------------------------------------------------------
          64          98.60 (1)        0.1 [a]      98.61           -
...
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import pandas as pd

from noisegen.reports import markup, notes
from noisegen.reports.formatting import (
    NONE,
    decimal_formatter,
    display_name,
    format_mean,
    format_number,
    is_number,
    number_formatter,
    ordered,
)
from noisegen.reports.published import Published, normalize_published
from noisegen.sweeps.protocol import Optimum, Protocol

_OWN_COLUMNS = ("series", "runs", "flags")  # names in a table that no field may take


@dataclasses.dataclass(frozen=True)
class _Comparison:
    """The optima of a sweep and the published numbers, matched by series and row.

    Attributes:
      labels: Series, in their order.
      rows: Rows, ascending.
      optima: Those measured, by series and row.
      published: By series and row, then by name.
      compared: Names of which anything was published, in the order of their columns.
    """

    labels: list[str]
    rows: list
    optima: Mapping[tuple, Optimum]
    published: Mapping[tuple, Mapping[str, tuple]]
    compared: list[str]

    def at(self, label, row) -> tuple[Optimum, Mapping[str, tuple]]:
        """Returns the optimum of a series and row, and the published numbers; blank if none."""
        key = (label, row)
        blank = Optimum(series=label, row=row)
        return self.optima.get(key, blank), self.published.get(key, {})


def _compare(optima, protocol, published):
    """Matches optima and published numbers."""
    published = normalize_published(published, protocol)
    measured = {(optimum.series, optimum.row): optimum for optimum in optima}
    keys = [*measured, *published]
    names = (*protocol.metric_names, *protocol.tune)
    return _Comparison(
        labels=list(dict.fromkeys(label for label, _ in keys)),
        rows=ordered(row for _, row in keys),
        optima=measured,
        published=published,
        compared=[name for name in names if any(name in values for values in published.values())],
    )


# The numbers


def make_table(
    optima: Sequence[Optimum], protocol: Protocol, published: Published | None = None
) -> pd.DataFrame:
    """Returns the numbers of a sweep, unrounded, one row for each series and row of the sweep.

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
    lines = _numbers(_compare(optima, protocol, published), protocol)
    columns = list(lines[0]) if lines else []
    return pd.DataFrame({name: _column([line[name] for line in lines]) for name in columns})


def to_csv(
    optima: Sequence[Optimum], protocol: Protocol, published: Published | None = None
) -> str:
    """Returns the numbers of `make_table` as CSV; unknown ones are blank.

    A ' precedes text that a spreadsheet would compute, see `markup.spreadsheet_text`.
    """
    lines = _numbers(_compare(optima, protocol, published), protocol)
    cells = [
        {markup.spreadsheet_text(name): _cell(value) for name, value in line.items()}
        for line in lines
    ]
    # The CSV writer quotes only those line breaks that its own line end consists of.
    holds_return = any("\r" in text for line in lines for text in _texts(line))
    frame = pd.DataFrame(cells, dtype=object)  # as objects, so that whole numbers stay whole
    return frame.to_csv(index=False, lineterminator="\r\n" if holds_return else "\n")


def _cell(value):
    """Returns a value as a cell of a CSV file."""
    return markup.spreadsheet_text(value) if isinstance(value, str) else value


def _texts(line):
    """Returns the texts among the columns and values of a line."""
    return [text for item in line.items() for text in item if isinstance(text, str)]


def _numbers(comparison, protocol):
    """Returns the numbers of each series and row by column, None if unknown."""
    lines = []
    for label in comparison.labels:
        for row in comparison.rows:
            if (label, row) in comparison.optima or (label, row) in comparison.published:
                optimum, published = comparison.at(label, row)
                line = {"series": label}
                _add_measured(line, optimum, protocol)
                for name in comparison.compared:
                    _add_published(line, name, published.get(name), optimum, protocol)
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
        mean, std = _mean_and_std(optimum, metric, protocol)
        _add(line, f"{metric.name}_mean", mean)
        _add(line, f"{metric.name}_std", std)


def _add_published(line, name, value, optimum, protocol):
    """Adds the published numbers of one name, and the difference from them."""
    suffix = "" if name == protocol.metric.name else f"_{name}"
    if name in protocol.tune:
        best, low, high = value or (None, None, None)
        _add(line, f"published{suffix}", _in_unit(best))
        _add(line, f"published{suffix}_low", _in_unit(low))
        _add(line, f"published{suffix}_high", _in_unit(high))
    else:
        metric = _metric_named(name, protocol)
        mean, std = value or (None, None)
        _add(line, f"published{suffix}", _in_unit(mean, metric.factor))
        _add(line, f"published{suffix}_std", _in_unit(std, metric.factor))
        _add(line, f"difference{suffix}_in_std", _difference(optimum, value, metric, protocol))


def _add(line, name, value):
    """Adds a value under a name that no other column has."""
    # Nothing keeps a user from calling a field `runs` or `flags`.
    while name in line or name in _OWN_COLUMNS:
        name += "_"
    is_nan = value != value
    line[name] = None if is_nan else value


def _in_unit(value, factor=1):
    """Converts a published number to the metric's own unit."""
    # Twelve digits are more than any paper prints, and hide the rounding of 98.61 / 100.
    return float(f"{value / factor:.12g}") if is_number(value) else value


def _metric_named(name, protocol):
    """Returns the metric of a protocol that has a name."""
    return next(each for each in (protocol.metric, *protocol.report) if each.name == name)


def _mean_and_std(optimum, metric, protocol):
    """Returns mean and standard deviation of a metric at an optimum, nan if unknown."""
    if metric == protocol.metric:
        return optimum.mean, optimum.std
    return optimum.report.get(metric.name, (math.nan, math.nan))


def _difference(optimum, published, metric, protocol):
    """Returns measured minus published, in standard deviations; nan if unknown.

    They are those of both together, sqrt(measured^2 + published^2), if both are known.
    """
    if published is None:
        return math.nan
    mean, std = _mean_and_std(optimum, metric, protocol)
    stds = [metric.factor * std, published[1] or 0]
    combined = math.hypot(*(each for each in stds if not math.isnan(each)))
    return (metric.factor * mean - published[0]) / combined if combined else math.nan


def _column(values):
    """Returns a column: integers, floating-point numbers with nan for None, or objects."""
    # Integers have no nan, so that a column with a gap becomes one of floating-point numbers.
    known = [value for value in values if value is not None]
    if len(known) == len(values) and all(type(value) is int for value in values):
        return pd.Series(values)
    if all(is_number(value) for value in known):
        return pd.Series(values, dtype=float)
    return pd.Series(values, dtype=object)


# The cells


def format_table(
    optima: Sequence[Optimum],
    protocol: Protocol,
    published: Published | None = None,
    language: markup.Language = markup.TEXT,
) -> pd.DataFrame:
    """Returns the cells of a table as text, one line for each row of the sweep.

    Args:
      optima, protocol, published: As for `make_table`.
      language: The markup language of cells and headings.

    Returns:
      A frame whose columns are headings, or pairs (series, heading) if the sweep has series. Its
      first column holds the rows.
    """
    comparison = _compare(optima, protocol, published)
    escape = language.escape
    write_row = decimal_formatter(comparison.rows)
    writers = _tuned_formatters(comparison, protocol, language)
    marks = notes.flag_marks(optima)
    lines = []
    for row in comparison.rows:
        # Every series has cells in every row, blank ones if nothing was measured or published.
        line = [escape(write_row(row))]
        for label in comparison.labels:
            optimum, values = comparison.at(label, row)
            cells = _measured_cells(optimum, protocol, writers, language)
            if optimum.flags:  # their marks follow the tuned value
                mark = ",".join(marks[flag] for flag in optimum.flags)
                cells[1] = f"{cells[1]} {language.mark(mark)}"
            for name in comparison.compared:
                cells += _published_cells(name, values, optimum, protocol, writers, language)
            line += cells
        lines.append(line)
    headings = [escape(text) for text in _headings(optima, protocol, comparison.compared)]
    return pd.DataFrame(
        lines, columns=_columns(protocol, comparison.labels, headings, escape), dtype=object
    )


def _columns(protocol, labels, headings, escape):
    """Returns the headings of all columns, with the series above them if there are any."""
    first = escape(display_name(protocol.row))
    if not any(labels):
        return pd.Index([first, *headings * len(labels)], dtype=object)
    columns = [("", first)]
    for label in labels:
        columns += [(escape(markup.visible(label)), heading) for heading in headings]
    return pd.MultiIndex.from_tuples(columns)


def _headings(optima, protocol, compared):
    """Returns the headings of one series."""
    best = "best " if notes.was_tuned(optima) else ""
    headings = [display_name(protocol.metric)]
    headings += [best + display_name(name) for name in protocol.tune]
    headings += [display_name(metric) for metric in protocol.report]
    for name in compared:
        is_tuned = name in protocol.tune
        of = display_name(name if is_tuned else _metric_named(name, protocol))
        headings.append(f"published {of}" if len(compared) > 1 else "published")
        if not is_tuned:
            headings.append("difference")
    return headings


def _tuned_formatters(comparison, protocol, language):
    """Returns a function for each tuned field that writes its values, tried and published."""
    # All values that were tried count, not only the best ones: among 0.25 and 0.3 the best one is
    # written 0.25 and not 2^-2.
    points = [point for optimum in comparison.optima.values() for point in optimum.points]
    writers = {}
    for name in protocol.tune:
        values = [point.values[name] for point in points]
        for published in comparison.published.values():
            values += published.get(name, ())
        writers[name] = number_formatter(values, language)
    return writers


def _measured_cells(optimum, protocol, writers, language):
    """Returns the measured cells of one series and row."""
    first, *others = protocol.tune
    if not optimum.n:
        reason = "diverged" if optimum.flags else NONE
        return [NONE, reason, *[NONE] * (len(others) + len(protocol.report))]
    mean = format_mean(protocol.metric, optimum.mean, optimum.std)
    cells = [language.escape(f"{mean} ({optimum.n})")]
    cells.append(_range(writers[first], optimum.values[first], optimum.low, optimum.high, language))
    cells += [writers[name](optimum.values[name]) for name in others]
    for metric in protocol.report:
        mean, std = _mean_and_std(optimum, metric, protocol)
        cells.append(language.escape(format_mean(metric, mean, std)))
    return cells


def _published_cells(name, values, optimum, protocol, writers, language):
    """Returns the cells of a published number, as it was printed, and of the difference from it."""
    value = values.get(name)
    if name in protocol.tune:
        return [NONE] if value is None else [_range(writers[name], *value, language)]
    if value is None:
        return [NONE, NONE]
    mean, std = value
    printed = format_number(mean) + ("" if std is None else f" ± {format_number(std)}")
    difference = _difference(optimum, value, _metric_named(name, protocol), protocol)
    return [language.escape(printed), language.escape(_signed(difference))]


def _range(write, best, low, high, language):
    """Returns the best value of a tuned field, with the ends of its error bar if it has any."""
    is_unknown = low != low
    if low == high or is_unknown:
        return write(best)
    return f"{write(best)} ({write(low)}{language.escape('–')}{write(high)})"


def _signed(difference):
    """Writes a difference with its sign."""
    if math.isnan(difference):
        return NONE
    form = "+.1f" if abs(difference) < 1e6 else "+.1e"
    return format(difference, form).replace("-", "−")


# The texts


def to_text(
    optima: Sequence[Optimum], protocol: Protocol, published: Published | None = None
) -> str:
    """Returns the table in aligned columns for a terminal, one series below the other."""
    frame = format_table(optima, protocol, published)
    if frame.columns.nlevels == 1:
        blocks = [_aligned(frame)]
    else:
        rows, *labels = frame.columns.unique(level=0)
        blocks = []
        for label in labels:
            block = pd.concat([frame[rows], frame[label]], axis=1)
            blocks.append(f"  {label}\n{_aligned(block)}")
    return "\n\n".join([*blocks, "\n".join(_notes(optima, protocol, published))]) + "\n"


def _aligned(frame):
    """Returns the columns of a frame aligned at the right, in columns of a terminal.

    `DataFrame.to_string` aligns by the number of characters, of which some are two columns wide
    and others join the one before.
    """
    columns = []
    for position in range(frame.shape[1]):
        cells = [frame.columns[position], *frame.iloc[:, position]]
        widest = max(markup.width(cell) for cell in cells)
        columns.append([" " * (widest + 2 - markup.width(cell)) + cell for cell in cells])
    header, *lines = ["".join(cells) for cells in zip(*columns, strict=True)]
    rule = "  " + "-" * (markup.width(header) - 2)
    return "\n".join([header, rule, *lines])


def to_markdown(
    optima: Sequence[Optimum], protocol: Protocol, published: Published | None = None
) -> str:
    """Returns the table as GitHub shows it, with the notes below."""
    frame = format_table(optima, protocol, published, markup.MARKDOWN)
    if frame.columns.nlevels > 1:
        frame.columns = [
            f"{label}: {heading}" if label else heading for label, heading in frame.columns
        ]
    # Without disable_numparse, tabulate would round the numbers among the cells.
    table = frame.to_markdown(
        index=False, disable_numparse=True, colalign=["right"] * frame.shape[1]
    )
    return "\n\n".join([table, *_notes(optima, protocol, published, markup.MARKDOWN)]) + "\n"


def to_latex(
    optima: Sequence[Optimum], protocol: Protocol, published: Published | None = None
) -> str:
    """Returns the table as a tabular with rules of the booktabs package, with the notes below."""
    frame = format_table(optima, protocol, published, markup.LATEX)
    table = frame.style.hide().to_latex(
        column_format="r" * frame.shape[1], hrules=True, multicol_align="c"
    )
    lines = [note + r"\par" for note in _notes(optima, protocol, published, markup.LATEX)]
    return "\n".join([table, *lines]) + "\n"


def to_html(
    optima: Sequence[Optimum], protocol: Protocol, published: Published | None = None
) -> str:
    """Returns the table as HTML, with the notes below."""
    frame = format_table(optima, protocol, published, markup.HTML)
    table = frame.style.hide().to_html(exclude_styles=True)
    lines = _notes(optima, protocol, published, markup.HTML)
    paragraphs = "\n".join(f"<p>{line}</p>" for line in lines)
    return f'<div class="scroll">{table}</div>\n<div class="notes">{paragraphs}</div>\n'


def _notes(optima, protocol, published, language=markup.TEXT):
    """Returns the notes as lines of a markup language, each with its mark in front."""
    lines = []
    for mark, sentence in notes.make_notes(optima, protocol, published):
        escaped = language.escape(sentence)
        lines.append(f"{language.mark(mark)} {escaped}" if mark else escaped)
    return lines
