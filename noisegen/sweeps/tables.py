"""Tables of optima, beside published numbers, as text, CSV, Markdown and LaTeX.

>>> from noisegen import sweeps
>>> run = {"batch_size": 64, "learning_rate": 0.1, "seed": 0}
>>> record = {"run": run, "status": "finished", "metrics": {"test_accuracy": 0.986}}
>>> protocol = sweeps.Protocol()
>>> optima = sweeps.select([record], protocol)
>>> table = sweeps.make_table(optima, protocol, published={("", 64): (98.61, None)})
>>> print(sweeps.to_text(table))  # doctest: +ELLIPSIS
  batch size  test accuracy (%)  best learning rate  published  difference
  ------------------------------------------------------------------------
          64          98.60 (1)             0.1 [a]      98.61           -
...
"""

import csv
import dataclasses
import io
import math
import re
from collections.abc import Mapping, Sequence

from noisegen.sweeps import protocol as protocols

Published = Mapping[tuple[str, float], tuple[float, float | None]]

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
      published: From (series label, row) to (value, standard deviation or None), in the unit shown:
        percent for accuracies. The label is '' for a sweep without series.

    Returns:
      The table; its rows are those measured or published.

    Raises:
      ValueError: If published accuracies look like fractions.
    """
    published = published or {}
    largest = max((value for value, _ in published.values()), default=math.inf)
    if scale(protocol.metric) == 100 and largest <= 1:
        raise ValueError(
            f"published values of {protocol.metric} are in percent, got at most {largest!r};"
            " multiply fractions by 100."
        )
    found = {(optimum.series, optimum.row): optimum for optimum in optima}
    labels = list(dict.fromkeys([key[0] for key in found] + [key[0] for key in published]))
    rows = sorted({key[1] for key in (*found, *published)})
    flags = [flag for flag in protocols.FLAGS if any(flag in optimum.flags for optimum in optima)]
    marks = {flag: "abcdefgh"[index] for index, flag in enumerate(flags)}
    columns = _columns(optima, protocol, published)
    pairs = {
        (label, row): (found.get((label, row)), published.get((label, row)))
        for label in labels
        for row in rows
    }
    body = [
        sum((_cells(columns, *pairs[label, row], marks) for label in labels), ((number(row), ""),))
        for row in rows
    ]
    return Table(
        groups=(("", 1), *((label, len(columns)) for label in labels)) if any(labels) else (),
        header=(protocol.row.replace("_", " "), *(list(columns) * len(labels))),
        body=tuple(body),
        notes=tuple(_notes(protocol, published, marks)),
        data=tuple(_datum(*key, *pair, protocol) for key, pair in pairs.items() if any(pair)),
    )


def to_text(table: Table) -> str:
    """The table in aligned columns, for a terminal: one series below the other."""
    lines = [table.header, *([text + _mark(marks) for text, marks in row] for row in table.body)]
    widths = [max(map(len, column)) + 2 for column in zip(*lines, strict=True)]
    text, start = [], 1
    for label, span in table.groups[1:] or [("", len(widths) - 1)]:
        columns = [0, *range(start, start + span)]
        start += span
        rows = ["".join(line[c].rjust(widths[c]) for c in columns) for line in lines]
        text += [f"  {label}"] * bool(label) + [
            rows[0],
            "  " + "-" * (len(rows[0]) - 2),
            *rows[1:],
            "",
        ]
    text += [f"{_mark(mark)} {note}".strip() for mark, note in table.notes]
    return "\n".join(text) + "\n"


def to_csv(table: Table) -> str:
    """The numbers, unrounded and in their own units, one line for each series and row."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(table.data[0]) if table.data else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(table.data)
    return file.getvalue()


def to_markdown(table: Table) -> str:
    """The table as GitHub shows it."""
    labels = [label for label, span in table.groups for _ in range(span)] or [""] * len(
        table.header
    )
    pairs = zip(labels, table.header, strict=True)
    header = [f"{label}: {name}" if label else name for label, name in pairs]
    body = [[_markdown(text + _mark(marks)) for text, marks in row] for row in table.body]
    lines = [map(_markdown, header), ["---:"] * len(header), *body]
    notes = [_markdown(f"{_mark(mark)} {note}".strip()) for mark, note in table.notes]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines) + "\n\n" + "\n\n".join(notes) + "\n"


def to_latex(table: Table) -> str:
    """The table as a tabular with rules of the booktabs package."""
    lines = [r"\begin{tabular}{" + "r" * len(table.header) + "}", r"\toprule"]
    if table.groups:
        spans = (rf"\multicolumn{{{span}}}{{c}}{{{_latex(label)}}}" for label, span in table.groups)
        lines.append(" & ".join(spans) + r" \\")
    lines += [" & ".join(map(_latex, table.header)) + r" \\", r"\midrule"]
    for row in table.body:
        lines.append(" & ".join(_latex(text + _mark(marks)) for text, marks in row) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", ""]
    lines += [_latex(f"{_mark(mark)} {note}".strip()) + r"\par" for mark, note in table.notes]
    return "\n".join(lines) + "\n"


def number(value: float) -> str:
    """A number as people write it: six digits at most, powers of two beyond 1/16 kept short."""
    return f"{int(value)}" if float(value).is_integer() else f"{value:.6g}"


def title(name: str) -> str:
    """The words of a metric or field, with its unit where it has one."""
    return name.replace("_", " ") + (" (%)" if name.endswith("accuracy") else "")


def scale(metric: str) -> int:
    """The factor from a metric to the unit that `title` names."""
    return 100 if metric.endswith("accuracy") else 1


def _columns(optima, protocol, published):
    """From the name of a column to the function that writes its cell."""
    bases = {name: _base_two(optima, name) for name in protocol.tune}
    first, *others = protocol.tune
    columns = {
        title(protocol.metric): lambda o, _: _spread(protocol.metric, o.mean, o.std) + f" ({o.n})",
        f"best {title(first)}": lambda o, _: _bar(o, first, bases[first]),
    }
    for name in others:
        columns[f"best {title(name)}"] = lambda o, _, name=name: _power(o.values[name], bases[name])
    for name in protocol.report:
        columns[title(name)] = lambda o, _, name=name: _spread(name, *o.report[name])
    if published:
        columns["published"] = lambda _, p: _printed(*p)
        columns["difference"] = lambda o, p: _signed(_difference(o, p, protocol))
    return columns


def _cells(columns, optimum, value, marks):
    """The cells of one series and row: the marks stand at the learning rate."""
    cells = []
    for index, (name, write) in enumerate(columns.items()):
        missing = (value is None and name in ("published", "difference")) or (
            name != "published" and (optimum is None or not optimum.n)
        )
        flagged = index == 1 and optimum is not None
        text = (
            "diverged" if flagged and not optimum.n else NONE if missing else write(optimum, value)
        )
        cells.append((text, ",".join(marks[flag] for flag in optimum.flags) if flagged else ""))
    return tuple(cells)


def _datum(label, row, optimum, value, protocol):
    """The line of a CSV file."""
    data = {"series": label, protocol.row: row}
    known = optimum is not None and optimum.n > 0
    first = protocol.tune[0]
    data[f"{protocol.metric}_mean"] = optimum.mean if known else ""
    data[f"{protocol.metric}_std"] = _blank(optimum.std) if known else ""
    data["runs"] = optimum.n if optimum else 0
    for name in protocol.tune:
        data[name] = optimum.values[name] if known else ""
    data[f"{first}_low"] = optimum.low if known else ""
    data[f"{first}_high"] = optimum.high if known else ""
    for name in protocol.report:
        mean, std = optimum.report[name] if known else (math.nan, math.nan)
        data |= {f"{name}_mean": _blank(mean), f"{name}_std": _blank(std)}
    factor = scale(protocol.metric)
    data["published"] = _fraction(value[0], factor) if value else ""
    data["published_std"] = _fraction(value[1], factor) if value else ""
    data["difference_in_std"] = _blank(_difference(optimum, value, protocol)) if known else ""
    data["flags"] = " ".join(optimum.flags) if optimum else ""
    return data


def _notes(protocol, published, marks):
    """The sentences under the table."""
    tuned = " and ".join(protocol.tune).replace("_", " ")
    best = "" if protocol.best == protocol.of else f"best {protocol.best} of "
    what = "Mean ± standard deviation" if protocol.best > 1 else "Result"
    runs = f"the {best}{protocol.of} runs" if protocol.of > 1 else "one run"
    yield (
        "",
        f"{what} (number) of {runs} with the best {tuned}; a diverged run counts as the worst.",
    )
    if protocol.best > 1:
        yield (
            "",
            (
                "The range in brackets holds every"
                f" {protocol.tune[0].replace('_', ' ')} whose mean is"
                " within one standard deviation of the best."
            ),
        )
    if protocol.metric.startswith("test_"):
        yield (
            "",
            (
                f"Tuned on the test set: {tuned} chosen by the same"
                f" {protocol.metric.replace('_', ' ')} that is shown."
            ),
        )
    if published:
        yield (
            "",
            (
                "Difference: measured minus published, in standard deviations (of both together where"
                " both"
                " are known)."
            ),
        )
    for flag, mark in marks.items():
        yield mark, protocols.FLAGS[flag][0].upper() + protocols.FLAGS[flag][1:] + "."


def _difference(optimum, value, protocol):
    """Measured minus published, in standard deviations; nan where unknown."""
    if optimum is None or value is None:
        return math.nan
    factor = scale(protocol.metric)
    spreads = [std for std in (factor * optimum.std, value[1]) if std and not math.isnan(std)]
    return (factor * optimum.mean - value[0]) / math.hypot(*spreads) if spreads else math.nan


def _spread(metric, mean, std):
    """mean ± std: hundredths of a percent, or the two leading digits of std."""
    if math.isnan(mean):
        return NONE
    factor = scale(metric)
    digits = 2 if factor == 100 else 4 if not std > 0 else max(0, 1 - math.floor(math.log10(std)))
    bar = "" if math.isnan(std) else f" ± {factor * std:.{digits}f}"
    return f"{factor * mean:.{digits}f}{bar}"


def _printed(value, std):
    """A published number as it was printed."""
    return f"{value:g}" + ("" if std is None else f" ± {std:g}")


def _bar(optimum, name, base_two):
    """The optimum with its error bar, if it has one."""
    ends = [_power(end, base_two) for end in (optimum.low, optimum.high)]
    bar = f" ({ends[0]}–{ends[1]})" if ends[0] != ends[1] else ""
    return _power(optimum.values[name], base_two) + bar


def _base_two(optima, name):
    """Whether all values of a tuned field are powers of two, so that they are best written so."""
    values = [point.values[name] for optimum in optima for point in optimum.points]
    return bool(values) and all(value > 0 and math.frexp(value)[0] == 0.5 for value in values)


def _power(value, base_two):
    """2^k, or the number."""
    return f"2^{math.frexp(value)[1] - 1}" if base_two else number(value)


def _signed(value):
    return NONE if math.isnan(value) else f"{value:+.1f}".replace("-", "−")


def _fraction(value, factor):
    """A published number in the metric's own unit, without the noise of the division."""
    return "" if value is None else float(f"{value / factor:.12g}")


def _blank(value):
    return "" if math.isnan(value) else value


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
