"""The table of a sweep for readers: as plain text, Markdown, LaTeX and HTML.

>>> from noisegen import reports, storage, sweeps
>>> run = {"batch_size": 64, "learning_rate": 0.1, "seed": 0}
>>> record = storage.Record(
...     hparams=run, status="finished", metrics={"test_accuracy": 0.986}
... )
>>> protocol = sweeps.Protocol()
>>> optima = sweeps.select([record], protocol)
>>> published = {("", 64): (98.61, None)}
>>> print(reports.to_text(optima, protocol, published))  # doctest: +ELLIPSIS
  batch size  test accuracy (%)  learning rate  published  difference (std)
  -------------------------------------------------------------------------
          64          98.60 (1)        0.1 [a]      98.61                 -
...
"""

import math
from collections.abc import Sequence

import pandas as pd

from noisegen.reports import comparison, markup, notes
from noisegen.reports.formatting import (
    NONE,
    decimal_formatter,
    display_name,
    format_mean,
    format_number,
    number_formatter,
)
from noisegen.reports.published import Published
from noisegen.sweeps.protocol import Optimum, Protocol

_NO_RECORD = "No run has a record yet, so there is no table."


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
    matched = comparison.compare(optima, protocol, published)
    write_row = decimal_formatter(matched.rows)
    writers = _tuned_formatters(matched, protocol, language)
    marks = notes.flag_marks(optima)
    lines = []
    for row in matched.rows:
        line = [language.escape(write_row(row))]
        # Every series has cells in every row, blank ones if nothing was measured or published.
        for label in matched.labels:
            optimum, values = matched.at(label, row)
            cells = _measured_cells(optimum, protocol, writers, language)
            if optimum.flags:  # their marks follow the tuned value
                mark = ",".join(marks[flag] for flag in optimum.flags)
                cells[1] = f"{cells[1]} {language.mark(mark)}"
            for name in matched.compared:
                cells += _published_cells(name, values, optimum, protocol, writers, language)
            line += cells
        lines.append(line)
    headings = _measured_headings(optima, protocol)
    for name in matched.compared:
        headings += _published_headings(name, matched.compared, protocol)
    columns = _columns(protocol, matched.labels, headings, language.escape)
    return pd.DataFrame(lines, columns=columns, dtype=object)


def format_optima(
    optima: Sequence[Optimum], protocol: Protocol
) -> tuple[list[str], list[list[str]]]:
    """Returns the measured part of a table with a line for each optimum, for narrow displays.

    Returns:
      headings: The headings, first those of series and row.
      lines: For each optimum its cells.
    """
    matched = comparison.compare(optima, protocol, None)
    write_row = decimal_formatter(matched.rows)
    writers = _tuned_formatters(matched, protocol, markup.TEXT)
    lines = []
    for optimum in optima:
        cells = _measured_cells(optimum, protocol, writers, markup.TEXT)
        lines.append([markup.visible(optimum.series), write_row(optimum.row), *cells])
    return ["", display_name(protocol.row), *_measured_headings(optima, protocol)], lines


def _columns(protocol, labels, headings, escape):
    """Returns the headings of all columns, with the series above them if there are any."""
    first = escape(display_name(protocol.row))
    headings = [escape(heading) for heading in headings]
    if not labels:
        return pd.Index([first], dtype=object)
    if not any(labels):  # a single series without a label
        return pd.Index([first, *headings], dtype=object)
    columns = [("", first)]
    for label in labels:
        columns += [(escape(markup.visible(label)), heading) for heading in headings]
    return pd.MultiIndex.from_tuples(columns)


def _measured_headings(optima, protocol):
    """Returns the headings of the measured cells of one series."""
    best = "best " if notes.was_tuned(optima) else ""
    headings = [display_name(protocol.metric)]
    headings += [best + display_name(name) for name in protocol.tune]
    headings += [display_name(metric) for metric in protocol.report]
    return headings


def _published_headings(name, compared, protocol):
    """Returns the headings of the published cells of one name."""
    is_tuned = name in protocol.tune
    what = name if is_tuned else comparison.metric_named(name, protocol)
    heading = f"published {display_name(what)}" if len(compared) > 1 else "published"
    return [heading] if is_tuned else [heading, "difference (std)"]


def _tuned_formatters(matched, protocol, language):
    """Returns a function for each tuned field that writes its values, tried and published."""
    # All values that were tried count, not only the best ones: among 0.25 and 0.3 the best one is
    # written 0.25 and not 2^-2.
    points = [point for optimum in matched.optima.values() for point in optimum.points]
    writers = {}
    for name in protocol.tune:
        values = [point.values[name] for point in points]
        for published in matched.published.values():
            values += published.get(name, ())
        writers[name] = number_formatter(values, language)
    return writers


def _measured_cells(optimum, protocol, writers, language):
    """Returns the measured cells of one series and row."""
    first, *others = protocol.tune
    if not optimum.n:
        # Flags tell a row without a surviving run from one that was published only.
        reason = "diverged" if "all_diverged" in optimum.flags else NONE
        return [NONE, reason, *[NONE] * (len(others) + len(protocol.report))]
    mean = format_mean(protocol.metric, optimum.mean, optimum.std)
    cells = [language.escape(f"{mean} ({optimum.n})")]
    cells.append(_range(writers[first], optimum.values[first], optimum.low, optimum.high, language))
    cells += [writers[name](optimum.values[name]) for name in others]
    for metric in protocol.report:
        mean, std = comparison.mean_and_std(optimum, metric, protocol)
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
    metric = comparison.metric_named(name, protocol)
    difference = comparison.difference_in_std(optimum, value, metric, protocol)
    return [language.escape(printed), language.escape(_signed(difference))]


def _range(write, best, low, high, language):
    """Returns the best value of a tuned field, with the ends of its error bar if it has any."""
    is_unknown = low != low  # nan; a published end may be a word, which math.isnan refuses
    if low == high or is_unknown:
        return write(best)
    return f"{write(best)} ({write(low)}{language.escape('–')}{write(high)})"


def _signed(difference):
    """Writes a difference with its sign."""
    if math.isnan(difference):
        return NONE
    form = "+.1f" if abs(difference) < 1e6 else "+.1e"
    return format(difference, form).replace("-", "−")


def to_text(
    optima: Sequence[Optimum], protocol: Protocol, published: Published | None = None
) -> str:
    """Returns the table in aligned columns for a terminal, one series below the other."""
    frame = format_table(optima, protocol, published)
    if frame.empty:
        return f"{_NO_RECORD}\n"
    if frame.columns.nlevels == 1:
        blocks = [_aligned(frame)]
    else:
        rows, *labels = frame.columns.unique(level=0)
        blocks = []
        for label in labels:
            # Rows that only other series have are left out.
            own = (frame[label] != NONE).any(axis=1)
            block = pd.concat([frame[rows], frame[label]], axis=1)[own]
            blocks.append(f"  {label}\n{_aligned(block)}")
    blocks.append("\n".join(_notes(optima, protocol, published, markup.TEXT)))
    return "\n\n".join(blocks) + "\n"


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
    if frame.empty:
        return f"{_NO_RECORD}\n"
    if frame.columns.nlevels > 1:
        # Markdown has one line of headings.
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
    if frame.empty:
        return f"{_NO_RECORD}\n"
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
    if frame.empty:
        return f"<p>{_NO_RECORD}</p>\n"
    table = frame.style.hide().to_html(exclude_styles=True)
    lines = _notes(optima, protocol, published, markup.HTML)
    paragraphs = "\n".join(f"<p>{line}</p>" for line in lines)
    return f'<div class="scroll">{table}</div>\n<div class="notes">{paragraphs}</div>\n'


def _notes(optima, protocol, published, language):
    """Returns the notes as lines of a markup language, each with its mark in front."""
    lines = []
    for mark, sentence in notes.make_notes(optima, protocol, published):
        escaped = language.escape(sentence)
        lines.append(f"{language.mark(mark)} {escaped}" if mark else escaped)
    return lines
