"""Tables of optima, beside published numbers, as text, CSV, Markdown and LaTeX.

>>> from noisegen import storage, sweeps
>>> run = {"batch_size": 64, "learning_rate": 0.1, "seed": 0}
>>> record = storage.Record(
...     hparams=run, status="finished", metrics={"test_accuracy": 0.986}
... )
>>> protocol = sweeps.Protocol()
>>> optima = sweeps.select([record], protocol)
>>> table = sweeps.make_table(optima, protocol, published={("", 64): (98.61, None)})
>>> print(sweeps.to_text(table))  # doctest: +ELLIPSIS
  batch size  test accuracy (%)  learning rate  published  difference
  -------------------------------------------------------------------
          64          98.60 (1)        0.1 [a]      98.61           -
...
"""

import csv
import dataclasses
import itertools
import math
import re
import types
from collections.abc import Sequence

from noisegen.sweeps import protocol as protocols
from noisegen.sweeps import texts
from noisegen.sweeps.numerals import (
    NONE,
    is_number,
    number,
    ordered,
    scale,
    speller,
    spread,
    title,
    words,
    writer,
)
from noisegen.sweeps.published import Published, by_name

__all__ = [
    "Published",
    "Table",
    "by_name",
    "make_table",
    "number",
    "scale",
    "speller",
    "title",
    "to_csv",
    "to_latex",
    "to_markdown",
    "to_text",
    "words",
    "writer",
]

_OWN = ("series", "runs", "flags")  # columns of the CSV file whose names no field may take


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table, independent of how it is rendered."""

    groups: tuple[tuple[str, int], ...]  # Label and number of columns; () for a single series.
    header: tuple[str, ...]
    # Cells: text, with 2^k for powers unless it is `texts.Words`; marks.
    body: tuple[tuple[tuple[str, str], ...], ...]
    notes: tuple[tuple[str, str], ...]  # Mark ('' for general ones) and sentence.
    data: tuple[dict, ...]  # One flat dict for each series and row: the numbers unrounded.


def make_table(
    optima: Sequence[protocols.Optimum],
    protocol: protocols.Protocol,
    published: Published | None = None,
) -> Table:
    """The table of a sweep: for each series the optimum, its learning rate, and published numbers.

    Args:
      optima: What `select` returned.
      protocol: The protocol it was given.
      published: From (series label, row) to (value, standard deviation or None) of the protocol's
        metric, in the unit shown: percent for accuracies. The label is '' for a sweep without
        series. Where more was published, to a mapping from names to such pairs: names of the metric
        and of those in `report`, and of tuned fields, with (best value, low, high) as theirs.

    Returns:
      The table; its rows are those measured or published.

    Raises:
      ValueError: As `by_name` does.
    """
    published = by_name(published or {}, protocol)
    compared = [
        name
        for name in (protocol.metric, *protocol.report, *protocol.tune)
        if any(name in values for values in published.values())
    ]
    found = {(optimum.series, optimum.row): optimum for optimum in optima}
    labels = list(dict.fromkeys(label for label, _ in (*found, *published)))
    rows = ordered(row for _, row in (*found, *published))
    flags = [flag for flag in protocols.FLAGS if any(flag in optimum.flags for optimum in optima)]
    marks = dict(zip(flags, "abcde", strict=False))
    tuned = not optima or any(len(optimum.points) > 1 for optimum in optima)
    best = "best " * tuned
    columns = [title(protocol.metric), *(f"{best}{words(name)}" for name in protocol.tune)]
    columns += map(title, protocol.report)
    for name in compared:
        of = words(name) if name in protocol.tune else title(name)
        columns.append(f"published {of}" if len(compared) > 1 else "published")
        columns += ["difference"] * (name not in protocol.tune)
    points = [point for optimum in optima for point in optimum.points]
    spell = speller(rows)
    writers = {
        name: writer(
            [point.values[name] for point in points]
            + [value for values in published.values() for value in values.get(name, ())]
        )
        for name in protocol.tune
    }

    def at(label, row):
        blank = protocols.Optimum(series=label, row=row)
        return found.get((label, row), blank), published.get((label, row), {})

    def cells(label, row):
        optimum, values = at(label, row)
        texts = _texts(optimum, protocol, writers)
        for name in compared:
            if name in protocol.tune:
                texts.append(_range(values[name], writers[name]) if name in values else NONE)
            else:
                texts += _compared(optimum, values.get(name), name, protocol)
        mark = ",".join(marks[flag] for flag in optimum.flags)
        return [(text, mark if index == 1 else "") for index, text in enumerate(texts)]

    return Table(
        groups=(("", 1), *((label, len(columns)) for label in labels)) if any(labels) else (),
        header=(words(protocol.row), *columns * len(labels)),
        body=tuple(
            ((spell(row), ""), *(cell for label in labels for cell in cells(label, row)))
            for row in rows
        ),
        notes=_notes(protocol, tuned, published, marks),
        data=tuple(
            _datum(*at(*key), protocol, compared)
            for key in itertools.product(labels, rows)
            if key in found or key in published
        ),
    )


def to_text(table: Table) -> str:
    """The table in aligned columns, for a terminal: one series below the other."""
    lines = _lines(table)
    widths = [max(map(texts.width, column)) + 2 for column in zip(*lines, strict=True)]
    text, start = [], 1
    for label, span in table.groups[1:] or [(None, len(widths) - 1)]:
        columns = [0, *range(start, start + span)]
        start += span
        head, *rows = ["".join(_right(line[c], widths[c]) for c in columns) for line in lines]
        text += [] if label is None else [f"  {texts.shown(label)}"]
        text += [head, "  " + "-" * (texts.width(head) - 2), *rows, ""]
    return "\n".join([*text, *_sentences(table)]) + "\n"


def to_csv(table: Table) -> str:
    """The numbers, unrounded and in their own units, one line for each series and row.

    Text that a spreadsheet would compute is preceded by ', see `texts.cell`.
    """
    lines = []
    # The writer quotes the characters of its line end only, and a label may hold either.
    file = csv.writer(types.SimpleNamespace(write=lines.append), lineterminator="\r\n")
    for values in (table.data[0] if table.data else {}, *(each.values() for each in table.data)):
        file.writerow([texts.cell(each) if isinstance(each, str) else each for each in values])
    return "".join(line.removesuffix("\r\n") + "\n" for line in lines)


def to_markdown(table: Table) -> str:
    """The table as GitHub shows it."""
    header, *body = ([_markdown(text) for text in line] for line in _lines(table))
    labels = [label for label, span in table.groups[1:] for _ in range(span)]
    for column, label in enumerate(labels, 1):
        header[column] = f"{texts.markdown(texts.shown(label))}: {header[column]}"
    lines = [f"| {' | '.join(row)} |" for row in (header, ["---:"] * len(header), *body)]
    return "\n".join(lines) + "\n\n" + "\n\n".join(map(texts.markdown, _sentences(table))) + "\n"


def to_latex(table: Table) -> str:
    """The table as a tabular with rules of the booktabs package."""
    header, *body = (_latex_row(map(_latex, line)) for line in _lines(table))
    labels = ["", *(texts.latex(texts.shown(label)) for label, _ in table.groups[1:])]
    spans = [span for _, span in table.groups]
    groups = [
        rf"\multicolumn{{{span}}}{{c}}{{{label}}}"
        for label, span in zip(labels, spans, strict=False)
    ]
    lines = [r"\begin{tabular}{" + "r" * len(table.header) + "}", r"\toprule"]
    lines += [_latex_row(groups)] * bool(groups) + [header, r"\midrule", *body, r"\bottomrule"]
    lines += [r"\end{tabular}", ""]
    return "\n".join([*lines, *(texts.latex(note) + r"\par" for note in _sentences(table))]) + "\n"


def _texts(optimum, protocol, writers):
    """The measured cells of one series and row."""
    if not optimum.n:
        missing = len(protocol.tune) - 1 + len(protocol.report)
        return [NONE, "diverged" if optimum.flags else NONE, *[NONE] * missing]
    tuned = [write(optimum.values[name]) for name, write in writers.items()]
    bar = (optimum.values[protocol.tune[0]], optimum.low, optimum.high)
    tuned[0] = _range(bar, writers[protocol.tune[0]])
    mean = spread(protocol.metric, optimum.mean, optimum.std)
    reported = [spread(name, *optimum.report[name]) for name in protocol.report]
    return [f"{mean} ({optimum.n})", *tuned, *reported]


def _range(bar, write):
    """The best value of a tuned field, and the ends of its error bar."""
    best, low, high = map(write, bar)
    return best if low == high or bar[1] != bar[1] else type(best)(f"{best} ({low}–{high})")


def _compared(optimum, value, name, protocol):
    """The cells of a published number, as it was printed, and of the difference from it."""
    if value is None:
        return [NONE, NONE]
    mean, std = value
    printed = number(mean) + ("" if std is None else f" ± {number(std)}")
    difference = _difference(optimum, value, name, protocol)
    form = "+.1f" if abs(difference) < 1e6 else "+.1e"
    signed = NONE if math.isnan(difference) else format(difference, form).replace("-", "−")
    return [printed, signed]


def _datum(optimum, values, protocol, compared):
    """The line of a CSV file; what is unknown is blank."""
    data = {"series": optimum.series}

    def put(name, value):
        while name in data or name in _OWN:  # nothing keeps a field from being called `runs`
            name += "_"
        data[name] = "" if value is None or value != value else value

    put(protocol.row, optimum.row)
    put(f"{protocol.metric}_mean", optimum.mean)
    put(f"{protocol.metric}_std", optimum.std)
    data["runs"] = optimum.n
    for name in protocol.tune:
        put(name, optimum.values.get(name))
    put(f"{protocol.tune[0]}_low", optimum.low)
    put(f"{protocol.tune[0]}_high", optimum.high)
    for name in protocol.report:
        mean, std = optimum.report.get(name, (None, None))
        put(f"{name}_mean", mean)
        put(f"{name}_std", std)
    for name in compared:
        of, tuned = "" if name == protocol.metric else f"_{name}", name in protocol.tune
        ends = ("_low", "_high") if tuned else ("_std",)
        for end, item in zip(("", *ends), values.get(name) or (None, None, None), strict=False):
            put(f"published{of}{end}", _in_own_unit(item, 1 if tuned else scale(name)))
        if not tuned:
            found = name in values
            difference = _difference(optimum, values[name], name, protocol) if found else None
            put(f"difference{of}_in_std", difference)
    data["flags"] = " ".join(optimum.flags)
    return data


def _in_own_unit(item, factor):
    """Converts a published number to the unit of the metric, without the noise of the division."""
    return float(f"{item / factor:.12g}") if is_number(item) else item


def _notes(protocol, tuned, published, marks):
    """The sentences under the table, each with its mark."""
    first, fields = words(protocol.tune[0]), " and ".join(map(words, protocol.tune))
    what = "Mean ± standard deviation" if protocol.best > 1 else "Result"
    best = "" if protocol.best == protocol.of else f"best {protocol.best} of "
    runs = f"the {best}{protocol.of} runs" if protocol.of > 1 else "one run"
    runs += f" with the best {fields}" * tuned
    notes = [f"{what} (number) of {runs}; a diverged run counts as the worst."]
    if tuned and protocol.best > 1:
        notes.append(
            f"The range in brackets holds every {first} whose mean is within one standard"
            " deviation of the best."
        )
    if tuned and protocol.metric.startswith("test_"):
        notes.append(
            f"Tuned on the test set: {fields} chosen by the same"
            f" {words(protocol.metric)} that is shown."
        )
    if published:
        notes.append(
            "Difference: measured minus published, in standard deviations (of both together where"
            " both are known)."
        )
    flagged = ((mark, protocols.FLAGS[flag]) for flag, mark in marks.items())
    return (*(("", note) for note in notes), *flagged)


def _difference(optimum, value, name, protocol):
    """Measured minus published, in standard deviations; nan where unknown."""
    measured = {protocol.metric: (optimum.mean, optimum.std), **optimum.report}
    mean, std = (scale(name) * number for number in measured.get(name, (math.nan, math.nan)))
    spreads = [each for each in (std, value[1]) if each and not math.isnan(each)]
    return (mean - value[0]) / math.hypot(*spreads) if spreads else math.nan


def _lines(table):
    """Header and body as texts, the marks in brackets."""
    body = [[type(text)(text + _mark(marks)) for text, marks in row] for row in table.body]
    return [list(map(texts.Words, table.header)), *body]


def _sentences(table):
    """The notes as texts."""
    return [f"{_mark(mark)} {note}".strip() for mark, note in table.notes]


def _mark(marks):
    return f" [{marks}]" if marks else ""


def _right(text, width):
    """Aligns text at the right of a column."""
    return " " * (width - texts.width(text)) + text


def _markdown(text):
    """Sets a cell in Markdown, with powers of two as such."""
    escaped = texts.markdown(text)
    own = not isinstance(text, texts.Words)
    return re.sub(r"2\^(-?\d+)", r"2<sup>\1</sup>", escaped) if own else escaped


def _latex(text):
    """Sets a cell in LaTeX, with powers of two as such."""
    escaped = texts.latex(text)
    own = not isinstance(text, texts.Words)
    return re.sub(r"2\\textasciicircum\{\}(-?\d+)", r"$2^{\1}$", escaped) if own else escaped


def _latex_row(cells):
    r"""Joins the cells of a row; an empty group parts [ and * from the \\ before them."""
    row = " & ".join(cells)
    return ("{}" if row.startswith(("[", "*")) else "") + row + r" \\"
