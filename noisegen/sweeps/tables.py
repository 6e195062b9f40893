"""Tables of optima, beside published numbers, as text, CSV, Markdown and LaTeX.

>>> from noisegen import sweeps
>>> run = {"batch_size": 64, "learning_rate": 0.1, "seed": 0}
>>> record = {"run": run, "status": "finished", "metrics": {"test_accuracy": 0.986}}
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
import io
import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from noisegen.sweeps import grid
from noisegen.sweeps import protocol as protocols

# For each series and row a value and its standard deviation or None; or several, by metric and
# tuned field (whose three numbers are the best value and the ends of its error bar).
Published = Mapping[tuple[str, float], tuple[float, float | None] | Mapping[str, tuple]]

NONE = "-"  # An empty cell.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table, independent of how it is rendered."""

    groups: tuple[tuple[str, int], ...]  # Label and number of columns; () for a single series.
    header: tuple[str, ...]
    body: tuple[tuple[tuple[str, str], ...], ...]  # Cells: text, with 2^k for powers; marks.
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
      ValueError: If published accuracies look like fractions.
    """
    published = by_name(published or {}, protocol)
    compared = [
        name
        for name in (protocol.metric, *protocol.report, *protocol.tune)
        if any(name in values for values in published.values())
    ]
    found = {(optimum.series, optimum.row): optimum for optimum in optima}
    labels = list(dict.fromkeys(label for label, _ in (*found, *published)))
    rows = sorted({row for _, row in (*found, *published)})
    flags = [flag for flag in protocols.FLAGS if any(flag in optimum.flags for optimum in optima)]
    marks = dict(zip(flags, "abcde", strict=False))
    tuned = not optima or any(len(optimum.points) > 1 for optimum in optima)
    best = "best " * tuned
    columns = [title(protocol.metric), *(f"{best}{title(name)}" for name in protocol.tune)]
    columns += map(title, protocol.report)
    for name in compared:
        columns.append(f"published {title(name)}" if len(compared) > 1 else "published")
        columns += ["difference"] * (name not in protocol.tune)
    points = [point for optimum in optima for point in optimum.points]
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
        header=(title(protocol.row), *columns * len(labels)),
        body=tuple(
            ((number(row), ""), *(cell for label in labels for cell in cells(label, row)))
            for row in rows
        ),
        notes=_notes(protocol, tuned, published, marks),
        data=tuple(
            _datum(*at(*key), protocol, compared)
            for key in itertools.product(labels, rows)
            if key in found or key in published
        ),
    )


def by_name(published: Published, protocol: protocols.Protocol) -> dict[tuple, dict[str, tuple]]:
    """Published numbers by name, for each series and row.

    Raises:
      ValueError: If published accuracies look like fractions, or have a name that the table lacks.
    """
    known = (protocol.metric, *protocol.report, *protocol.tune)
    named = {
        key: dict(values) if isinstance(values, Mapping) else {protocol.metric: values}
        for key, values in published.items()
    }
    for name in dict.fromkeys(name for values in named.values() for name in values):
        if name not in known:
            raise ValueError(
                f"published numbers of {name!r} have no column to stand beside; the table has"
                f" {', '.join(known)}."
            )
        largest = max(values[name][0] for values in named.values() if name in values)
        if scale(name) == 100 and largest <= 1:
            raise ValueError(
                f"published values of {name} are in percent, got at most {largest!r};"
                " multiply fractions by 100."
            )
    return named


def to_text(table: Table) -> str:
    """The table in aligned columns, for a terminal: one series below the other."""
    lines = _lines(table)
    widths = [max(map(len, column)) + 2 for column in zip(*lines, strict=True)]
    text, start = [], 1
    for label, span in table.groups[1:] or [("", len(widths) - 1)]:
        columns = [0, *range(start, start + span)]
        start += span
        head, *rows = ["".join(line[c].rjust(widths[c]) for c in columns) for line in lines]
        text += [f"  {label}"] * bool(label) + [head, "  " + "-" * (len(head) - 2), *rows, ""]
    return "\n".join([*text, *_sentences(table)]) + "\n"


def to_csv(table: Table) -> str:
    """The numbers, unrounded and in their own units, one line for each series and row."""
    file = io.StringIO()
    lines = csv.DictWriter(file, list(table.data[0]) if table.data else [], lineterminator="\n")
    lines.writeheader()
    lines.writerows(table.data)
    return file.getvalue()


def to_markdown(table: Table) -> str:
    """The table as GitHub shows it."""
    header, *body = ([_markdown(text) for text in line] for line in _lines(table))
    labels = [f"{_markdown(label)}: " * bool(label) for label, n in table.groups for _ in range(n)]
    if labels:
        header = [label + name for label, name in zip(labels, header, strict=True)]
    lines = [f"| {' | '.join(row)} |" for row in (header, ["---:"] * len(header), *body)]
    return "\n".join(lines) + "\n\n" + "\n\n".join(map(_markdown, _sentences(table))) + "\n"


def to_latex(table: Table) -> str:
    """The table as a tabular with rules of the booktabs package."""
    header, *body = (" & ".join(map(_latex, line)) + r" \\" for line in _lines(table))
    spans = (rf"\multicolumn{{{span}}}{{c}}{{{_latex(label)}}}" for label, span in table.groups)
    groups = [" & ".join(spans) + r" \\"] * bool(table.groups)
    lines = [r"\begin{tabular}{" + "r" * len(table.header) + "}", r"\toprule", *groups, header]
    lines += [r"\midrule", *body, r"\bottomrule", r"\end{tabular}", ""]
    return "\n".join([*lines, *(_latex(note) + r"\par" for note in _sentences(table))]) + "\n"


def number(value: float) -> str:
    """A number as people write it: an integer in full, others with six digits at most."""
    return f"{int(value)}" if float(value).is_integer() else f"{value:.6g}"


def writer(values: Iterable[float]) -> Callable[[float], str]:
    """How to write these values: as 2^k where all are powers of two, else as `number` does."""
    values = set(values)
    if values and all(map(grid.is_power_of_two, values)):
        return lambda value: f"2^{math.frexp(value)[1] - 1}"
    return number


def title(name: str) -> str:
    """The words of a metric or field, with its unit where it has one."""
    return name.replace("_", " ") + (" (%)" if name.endswith("accuracy") else "")


def scale(metric: str) -> int:
    """The factor from a metric to the unit that `title` names."""
    return 100 if metric.endswith("accuracy") else 1


def _texts(optimum, protocol, writers):
    """The measured cells of one series and row."""
    if not optimum.n:
        missing = len(protocol.tune) - 1 + len(protocol.report)
        return [NONE, "diverged" if optimum.flags else NONE, *[NONE] * missing]
    tuned = [write(optimum.values[name]) for name, write in writers.items()]
    bar = (optimum.values[protocol.tune[0]], optimum.low, optimum.high)
    tuned[0] = _range(bar, writers[protocol.tune[0]])
    mean = _spread(protocol.metric, optimum.mean, optimum.std)
    reported = [_spread(name, *optimum.report[name]) for name in protocol.report]
    return [f"{mean} ({optimum.n})", *tuned, *reported]


def _range(bar, write):
    """The best value of a tuned field, and the ends of its error bar."""
    best, low, high = map(write, bar)
    return best if low == high else f"{best} ({low}–{high})"


def _compared(optimum, value, name, protocol):
    """The cells of a published number, as it was printed, and of the difference from it."""
    if value is None:
        return [NONE, NONE]
    mean, std = value
    printed = f"{mean:g}" + ("" if std is None else f" ± {std:g}")
    difference = _difference(optimum, value, name, protocol)
    signed = NONE if math.isnan(difference) else f"{difference:+.1f}".replace("-", "−")
    return [printed, signed]


def _datum(optimum, values, protocol, compared):
    """The line of a CSV file; what is unknown is blank."""
    first = protocol.tune[0]
    data = {"series": optimum.series, protocol.row: optimum.row}
    data |= {f"{protocol.metric}_mean": optimum.mean, f"{protocol.metric}_std": optimum.std}
    data |= {"runs": optimum.n, **{name: optimum.values.get(name) for name in protocol.tune}}
    data |= {f"{first}_low": optimum.low, f"{first}_high": optimum.high}
    for name in protocol.report:
        data[f"{name}_mean"], data[f"{name}_std"] = optimum.report.get(name, (None, None))
    for name in compared:
        value, of = values.get(name), "" if name == protocol.metric else f"_{name}"
        ends = ("low", "high") if name in protocol.tune else ("std",)
        columns = [f"published{of}", *(f"published{of}_{end}" for end in ends)]
        for column, item in zip(columns, value or [None] * len(columns), strict=True):
            # Without the noise of the division.
            data[column] = None if item is None else float(f"{item / scale(name):.12g}")
        if name not in protocol.tune:
            difference = _difference(optimum, value, name, protocol) if value else None
            data[f"difference{of}_in_std"] = difference
    data["flags"] = " ".join(optimum.flags)
    return {name: "" if item is None or item != item else item for name, item in data.items()}


def _notes(protocol, tuned, published, marks):
    """The sentences under the table, each with its mark."""
    first, fields = title(protocol.tune[0]), " and ".join(map(title, protocol.tune))
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
            f" {protocol.metric.replace('_', ' ')} that is shown."
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


def _spread(metric, mean, std):
    """mean ± std: hundredths of a percent, or the two leading digits of std."""
    if math.isnan(mean):
        return NONE
    factor = scale(metric)
    if factor == 100:
        digits = 2
    elif std > 0:
        digits = max(0, 1 - math.floor(math.log10(std)))
    else:
        digits = 0 if float(mean).is_integer() else 4  # a count, or one run
    bar = "" if math.isnan(std) else f" ± {factor * std:.{digits}f}"
    return f"{factor * mean:.{digits}f}{bar}"


def _lines(table):
    """Header and body as texts, the marks in brackets."""
    return [table.header, *([text + _mark(marks) for text, marks in row] for row in table.body)]


def _sentences(table):
    """The notes as texts."""
    return [f"{_mark(mark)} {note}".strip() for mark, note in table.notes]


def _mark(marks):
    return f" [{marks}]" if marks else ""


def _markdown(text):
    text = re.sub(r"([\\`*_|<>\[\]])", r"\\\1", text)
    return re.sub(r"2\^(-?\d+)", r"2<sup>\1</sup>", text)


def _latex(text):
    r"""Text with LaTeX's special characters escaped and 2^k, ± and – set as mathematics."""
    text = re.sub(r"[\\{}$&%#_~^]", lambda found: _LATEX.get(found[0], "\\" + found[0]), text)
    text = re.sub(r"2\\textasciicircum\{\}(-?\d+)", r"$2^{\1}$", text)
    return text.replace("±", r"$\pm$").replace("–", "--").replace("−", "$-$")


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}
