"""Tables of the evidence behind a sweep's optima, apart from the table in the manner of a paper.

`make_evidence` has a line for each series and row, `make_differences` one for each comparison of
two series; both are DataFrames of unrounded numbers. `evidence_cells` and `difference_cells` write
the same for readers.

>>> from noisegen import reports, storage, sweeps
>>> runs = sweeps.grid(batch_size=[64], learning_rate=[0.1, 0.2, 0.4], seed=[0, 1, 2])
>>> accuracies = [0.90, 0.92, 0.91, 0.95, 0.97, 0.95, 0.80, 0.82, 0.84]
>>> records = [
...     storage.Record(hparams=run, status="finished", metrics={"test_accuracy": accuracy})
...     for run, accuracy in zip(runs, accuracies)
... ]
>>> protocol = sweeps.Protocol(best=2, of=3)
>>> optima = sweeps.select(records, protocol)
>>> frame = reports.make_evidence(optima, protocol)
>>> frame[["batch_size", "seeds", "all_seeds", "unseen_seeds"]].round(3)
   batch_size  seeds  all_seeds  unseen_seeds
0          64      3      0.957         0.957
"""

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from noisegen import statistics
from noisegen.reports import markup
from noisegen.reports.formatting import (
    NONE,
    decimal_formatter,
    display_name,
    format_number,
    number_formatter,
)
from noisegen.reports.published import Published, normalize_published
from noisegen.sweeps import evidence
from noisegen.sweeps.metrics import Metric
from noisegen.sweeps.protocol import Optimum, Protocol

_DIFFERENCES = (
    "Differences: of scores at unseen seeds; intervals and p values are corrected for all of them."
    " Paired by seed if both series have 5 seeds or more."
)


def make_evidence(
    optima: Sequence[Optimum], protocol: Protocol, published: Published | None = None
) -> pd.DataFrame:
    """Returns the evidence for each optimum as numbers, see `sweeps.row_evidence`.

    Columns: series, the row, `seeds` and `diverged` (numbers of runs at the optimum); `all_seeds`,
    the mean over all surviving seeds; `unseen_seeds`, the mean at values chosen without the seed
    that is scored; `between`, the first tuned field at the optimum between the values tried; each
    with `_low` and `_high`, the ends of its 95 % interval. Then `share`, the share of bootstrap
    resamples that choose the same value, and `difference_in_se`, the mean over all seeds minus the
    published number in standard errors, if anything was published. Unknown numbers are nan.

    Args:
      optima: Optima, as `noisegen.sweeps.select` returns them.
      protocol: The protocol that `select` was given.
      published: As for `make_table`.
    """
    by_name = normalize_published(published, protocol)
    lines = []
    for row, optimum in _rows(optima, protocol):
        line = {"series": row.series, protocol.row: row.row}
        line |= {"seeds": row.num_seeds, "diverged": row.num_diverged}
        line |= _ends("all_seeds", row.all_seeds)
        line |= _ends("unseen_seeds", row.held_out and row.held_out.interval)
        line |= _ends("between", _between(row))
        line["share"] = row.shares.get(optimum.values[protocol.tune[0]], math.nan)
        if by_name:
            values = by_name.get((row.series, row.row), {})
            line["difference_in_se"] = _difference_in_se(row, values, protocol)
        lines.append(line)
    return pd.DataFrame(lines)


def make_differences(
    optima: Sequence[Optimum],
    protocol: Protocol,
    *,
    baseline: str | None = None,
    equalize: bool = False,
) -> pd.DataFrame:
    """Returns the difference of every series from a baseline, see `sweeps.compare_series`.

    Columns: `series`, `baseline`, the row, `difference` with `_low` and `_high`, `p_value`
    (corrected by Holm), and the numbers of values tried for each of the two, `tried` and
    `baseline_tried`.

    Args:
      optima, protocol: As for `make_evidence`.
      baseline, equalize: As for `sweeps.compare_series`.
    """
    return pd.DataFrame(
        [
            {
                "series": each.series,
                "baseline": each.baseline,
                protocol.row: each.row,
                **_ends("difference", each.difference),
                "p_value": each.adjusted_p,
                "tried": each.num_cells[0],
                "baseline_tried": each.num_cells[1],
            }
            for each in evidence.compare_series(
                optima, protocol, baseline=baseline, equalize=equalize
            )
        ]
    )


def evidence_cells(
    optima: Sequence[Optimum],
    protocol: Protocol,
    published: Published | None = None,
    language: markup.Language = markup.TEXT,
) -> pd.DataFrame:
    """Returns the cells of `make_evidence` as text, under headings for readers."""
    pairs = _rows(optima, protocol)
    write_row = decimal_formatter(row.row for row, _ in pairs)
    values = [point.values[protocol.tune[0]] for _, optimum in pairs for point in optimum.points]
    write_value = number_formatter(values, language)
    by_name = normalize_published(published, protocol)
    tuned, metric = display_name(protocol.tune[0]), display_name(protocol.metric)
    several = any(row.series for row, _ in pairs)
    without_score = "without value" if protocol.metric.derive else "diverged"
    lines = []
    for row, _ in pairs:
        line = {"series": markup.visible(row.series)} if several else {}
        line[display_name(protocol.row)] = write_row(row.row)
        line[f"{metric}, all seeds"] = _interval(protocol.metric, row.all_seeds)
        unseen = row.held_out and row.held_out.interval
        line["unseen seeds"] = _interval(protocol.metric, unseen)
        line["seeds"] = f"{row.num_seeds}" + (
            f" ({row.num_diverged} {without_score})" if row.num_diverged else ""
        )
        line = {name: language.escape(cell) for name, cell in line.items()}
        shares = [f"{write_value(value)}: {share:.0%}" for value, share in row.shares.items()]
        line[f"{tuned} chosen"] = ", ".join(shares) or NONE
        line[f"optimal {tuned}"] = language.escape(_values_between(row))
        if by_name:
            difference = _difference_in_se(row, by_name.get((row.series, row.row), {}), protocol)
            cell = NONE if math.isnan(difference) else f"{difference:+.1f}"
            line["from published (SE)"] = language.escape(cell)
        lines.append(line)
    frame = pd.DataFrame(lines, dtype=object)
    return frame.rename(columns=language.escape)


def difference_cells(
    optima: Sequence[Optimum], protocol: Protocol, language: markup.Language = markup.TEXT
) -> pd.DataFrame:
    """Returns the cells of `make_differences` as text, under headings for readers."""
    compared = evidence.compare_series(optima, protocol)
    write_row = decimal_formatter(each.row for each in compared)
    lines = []
    for each in compared:
        p_value = "no test" if math.isnan(each.adjusted_p) else f"{each.adjusted_p:.2g}"
        tried = " and ".join(map(str, dict.fromkeys(each.num_cells)))
        line = {
            "series": f"{markup.visible(each.series)} − {markup.visible(each.baseline)}",
            display_name(protocol.row): write_row(each.row),
            f"difference of {display_name(protocol.metric)}": _interval(
                protocol.metric, each.difference
            ),
            "p (Holm)": p_value,
            "values tried": tried,
        }
        lines.append({name: language.escape(cell) for name, cell in line.items()})
    return pd.DataFrame(lines, dtype=object).rename(columns=language.escape)


def to_html(
    optima: Sequence[Optimum], protocol: Protocol, published: Published | None = None
) -> str:
    """Returns both tables as HTML, with their notes; '' for a sweep of single runs."""
    if all(optimum.point.tried < 2 for optimum in optima if optimum.n):
        return ""
    evidence_frame = evidence_cells(optima, protocol, published, markup.HTML)
    differences = difference_cells(optima, protocol, markup.HTML)
    tables = [
        f'<div class="scroll">{frame.style.hide().to_html(exclude_styles=True)}</div>'
        for frame in (evidence_frame, differences)
        if len(frame)
    ]
    notes = evidence_notes(protocol)
    if len(differences):
        notes.append(_DIFFERENCES)
    lines = [f"<p>{markup.HTML.escape(note)}</p>" for note in notes]
    return "\n".join([*tables, '<div class="notes">', *lines, "</div>"]) + "\n"


def evidence_notes(protocol: Protocol) -> list[str]:
    """Returns sentences that explain the table of evidence."""
    tuned = " and ".join(display_name(name) for name in protocol.tune)
    return [
        "In brackets: 95 % intervals. All seeds: Student's interval of the mean over every seed at"
        " the best value, diverged ones left out. Unseen seeds: each seed is scored at the"
        f" {tuned} that the other seeds choose, so that the choice does not flatter the score.",
        f"Chosen: share of bootstrap resamples of the seeds in which this {tuned} is the best."
        " Optimal: the top of a parabola through the best value and those beside it.",
    ]


def _rows(optima, protocol) -> list[tuple[evidence.RowEvidence, Optimum]]:
    alive = [optimum for optimum in optima if optimum.n]
    return list(zip(evidence.row_evidence(alive, protocol), alive, strict=True))


def _ends(name: str, interval: statistics.Interval | None) -> dict[str, float]:
    """Returns the columns of an interval, nan if there is none."""
    if interval is None:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), math.nan)
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _between(row) -> statistics.Interval | None:
    """Returns the optimum between the values tried, in the unit of the field."""
    if row.between is None or math.isnan(row.between.value):
        return None
    ends = (row.between.value, row.between.low, row.between.high)
    value, low, high = (2.0**end if abs(end) < 1000 else math.nan for end in ends)
    return statistics.Interval(value, low, high, row.between.level)


def _values_between(row) -> str:
    """Writes the optimum between the values tried."""
    interval = _between(row)
    if interval is None:
        return NONE
    value, low, high = (f"{end:.3g}" for end in (interval.value, interval.low, interval.high))
    if math.isnan(interval.low) or math.isnan(interval.high):
        return value
    return f"{value} ({low} to {high})"


def _difference_in_se(row, published: Mapping, protocol) -> float:
    """Returns the mean over all seeds minus the published number, in standard errors of both.

    A published standard deviation is taken to be over as many seeds. Without one, only the error of
    the measured mean counts.
    """
    value = published.get(protocol.metric.name)
    half = row.all_seeds.high - row.all_seeds.value
    survivors = row.num_seeds - row.num_diverged
    if value is None or math.isnan(half):
        return math.nan
    factor = protocol.metric.factor
    error = factor * half / statistics.t_quantile(row.all_seeds.level, survivors - 1)
    published_error = (value[1] or 0.0) / math.sqrt(row.num_seeds)
    return (factor * row.all_seeds.value - value[0]) / math.hypot(error, published_error)


def _interval(metric: Metric, interval: statistics.Interval | None) -> str:
    """Writes a mean with its interval: hundredths of a percent, or two digits of the interval."""
    if interval is None or math.isnan(interval.value):
        return NONE
    value, low, high = (
        metric.factor * end for end in (interval.value, interval.low, interval.high)
    )
    if math.isnan(low):
        return f"{value:.2f}" if metric.unit == "%" else format_number(float(f"{value:.4g}"))
    width = high - low
    decimals = 2
    if metric.unit != "%" and width > 0:
        decimals = max(0, 1 - math.floor(math.log10(width)))
    if decimals > 8 or abs(value) >= 1e12:
        return f"{value:.4g} ({low:.4g} to {high:.4g})"
    return f"{value:.{decimals}f} ({low:.{decimals}f} to {high:.{decimals}f})"
