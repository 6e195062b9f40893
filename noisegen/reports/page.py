"""One self-contained HTML page for a sweep: counts, plots, table, and how to do it again."""

import collections
import html
import math
import os
import pathlib
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence

from noisegen import storage
from noisegen.reports import plots, style
from noisegen.reports.drawing import png, svg
from noisegen.sweeps import growth, numerals, regimes, tables, texts
from noisegen.sweeps import protocol as protocols
from noisegen.training import run_id

ENDINGS = {  # of the files of a table, and what writes them
    "txt": tables.to_text,
    "csv": tables.to_csv,
    "md": tables.to_markdown,
    "tex": tables.to_latex,
}


def write_report(
    workdir: str | os.PathLike,
    protocol: protocols.Protocol | Sequence[protocols.Protocol],
    runs: Iterable[Mapping] | None = None,
    published: tables.Published | None = None,
) -> pathlib.Path:
    """Writes report.html, figure.png and table.txt, .csv, .md, .tex into a sweep's directory.

    Further protocols make further tables, named by `table_names`, and sections of the page.

    Title, description and command are those of `sweep.json`, where it has them (see
    `open_workdir`).

    The tables are written first. A figure that cannot be drawn is left out with a warning, and the
    page says why.

    Args:
      workdir: The directory of the sweep.
      protocol: How to read its records, or several ways of it, the main one first.
      runs: The planned runs. With them, missing runs are counted, and records of runs that are
        neither planned nor an extension of the plan are left out.
      published: As for `make_table`, beside the first protocol's numbers.

    Returns:
      The path of the page.

    Raises:
      FileNotFoundError: If workdir is not the directory of a sweep.
      ValueError: As `select` and `make_table` do.
      OSError: If the directory cannot be written to.
    """
    workdir = pathlib.Path(workdir)
    readings = (protocol,) if isinstance(protocol, protocols.Protocol) else tuple(protocol)
    sweep = storage.read_sweep(workdir)
    records = storage.read_records(workdir, curves=False)
    missing = 0
    if runs is not None:
        planned = run_id.by_run_id(sweep["task"], runs)
        wanted = growth.extend_grid(sweep["task"], planned, readings, records)
        records = [record for record in records if record.run_id in wanted]
        missing = len(wanted) - len(records)
    selected = [protocols.select(records, each) for each in readings]
    made = []
    for index, (each, optima) in enumerate(zip(readings, selected, strict=True)):
        beside = published if index == 0 else None
        made.append((each, optima, beside, tables.make_table(optima, each, beside)))
    for name, (*_, table) in zip(table_names(readings), made, strict=True):
        for ending, write in ENDINGS.items():
            _write(workdir / f"{name}.{ending}", write(table))
    lacking: list[str] = []
    try:
        image = png(selected[0], readings[0], published)
    except Exception as error:  # of Matplotlib, say
        lacking.append(_failed("figure.png", error))
        (workdir / "figure.png").unlink(missing_ok=True)  # it would show older records
    else:
        storage.write_file(workdir / "figure.png", image)
    curves = _curves(workdir, [optimum for optima in selected for optimum in optima])
    sections = []
    for each, optima, beside, table in made:
        of = f" of {numerals.words(each.metric)}" * (len(made) > 1)
        figures = _figures(optima, each, beside, curves, lacking)
        sections += ['<section class="plots">', *figures, "</section>"]
        sections += [f"<section><h2>Optima{html.escape(of)}</h2>{table_html(table)}</section>"]
    _write(workdir / "report.html", compose(sweep, records, missing, sections))
    if lacking:
        warnings.warn(
            f"the report lacks {len(lacking)} of its parts; its tables are whole. {lacking[0]}."
            " Once that is mended, launch.report makes the report anew.",
            stacklevel=2,
        )
    return workdir / "report.html"


def table_names(readings: Sequence[protocols.Protocol]) -> list[str]:
    """The file names, without ending, of the tables of some protocols: `table`, `table_2`, ..."""
    return ["table", *(f"table_{number}" for number in range(2, len(readings) + 1))]


def _write(path, text):
    """Writes text as UTF-8, which cannot hold the halves of characters that odd file names have."""
    storage.write_file(path, text.encode(errors="backslashreplace"))


def _failed(what, error):
    """Says in one line why a part of the report is missing."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{what} is left out: {texts.printable(reason)}"


def compose(sweep: Mapping, records: Sequence[Mapping], missing: int, sections: list[str]) -> str:
    """The page as text; it needs no network and no other file."""
    heading = _escaped(sweep.get("title") or sweep["sweep"])
    parts = [
        f"<header><h1>{heading}</h1>",
        f'<p class="lead">{_escaped(sweep.get("description") or "")}</p>',
        _counts(records, missing),
        "</header><main>",
        *sections,
        f"<section><h2>What was swept</h2>{_definitions(_swept(records))}</section>",
        f"<section><h2>How to do it again</h2>{_again(sweep, records)}</section></main>",
    ]
    return style.PAGE.format(title=heading, css=style.CSS, body="\n".join(parts))


def _curves(workdir, optima):
    """From run_id to curve, for the runs at the optima."""
    wanted = {record.run_id for optimum in optima for record in optimum.best}
    return storage.read_curves(workdir, wanted)


def _limits(optima, protocol, lacking):
    """Finds the boundaries between the regimes; gives them, and sentences that name them."""
    if not regimes.has_boundaries(protocol):
        return {}, ""
    try:
        limits = regimes.boundaries(optima, protocol)
    except Exception as error:
        lacking.append(_failed("The boundary between noise and curvature", error))
        return {}, f" {lacking[-1]}."
    return limits, "".join(map(_regimes, limits.items()))


def _figures(optima, protocol, published, curves, lacking):
    """Draws the figures, of all series, then of each: those that have something to show."""

    def figure(title, caption, draw):
        """Returns a figure as inline SVG with title and caption, or the reason it is missing."""
        title = title[0].upper() + title[1:]
        try:
            image = svg(draw, title)
        except Exception as error:
            lacking.append(_failed(f"The figure {title!r}", error))
            image = f"<p>{html.escape(lacking[-1])}.</p>"
        return (
            f"<figure><h3>{html.escape(title)}</h3>{image}"
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )

    limits, sentences = _limits(optima, protocol, lacking)
    metric, row = numerals.words(protocol.metric), numerals.words(protocol.row)
    tuned = numerals.words(protocol.tune[0])
    hollow = "; hollow: published" * bool(published)
    yield figure(
        f"{metric} against {row}",
        f"Mean and standard deviation at the optimum{hollow}.",
        lambda ax: plots.plot_metric(optima, ax, protocol, published),
    )
    tried = {point.values[protocol.tune[0]] for optimum in optima for point in optimum.points}
    if len(tried) != 1:
        yield figure(
            f"best {tuned} against {row}",
            f"Bars span every {tuned} within one standard deviation of the best mean." + sentences,
            lambda ax: plots.plot_tuned(optima, ax, protocol, limits),
        )
    labels = dict.fromkeys(optimum.series for optimum in optima)
    for label in labels:
        group = [optimum for optimum in optima if optimum.series == label]
        of = f", {texts.shown(label)}" if any(labels) else ""
        if len(tried) != 1:
            yield figure(
                f"mean {tables.title(protocol.metric)}{of}",
                "Framed: the optimum. ×: no run survived. Empty: not tried.",
                lambda ax, group=group: plots.plot_heatmap(group, ax, protocol),
            )
        if _have_curves(group, protocol, curves):
            yield figure(
                f"{metric} during training{of}",
                "At the optimum: mean and standard deviation over seeds.",
                lambda ax, group=group: plots.plot_curves(group, ax, protocol, curves),
            )


def _have_curves(optima, protocol, curves):
    """Returns whether there are curves to draw."""
    try:
        found = (plots.load_curves(optimum, protocol.metric, curves) for optimum in optima)
        return any(len(epochs) > 1 for epochs, _ in found)
    except (TypeError, ValueError):
        return True  # the figure will say what is wrong with them


def _regimes(item):
    """Where noise stops ruling, in a sentence."""
    label, boundary = item
    of = f" of {texts.shown(label)}" if label else ""
    what = f" The boundary between noise and curvature{of} lies"
    beyond = {"no_plateau": "larger", "no_slope": "smaller"}
    for flag in boundary.flags:
        if flag in beyond:
            return f"{what} at {beyond[flag]} batches, if anywhere."
    if not math.isfinite(boundary.batch_size) or not math.isfinite(boundary.temperature):
        return f"{what} nowhere in these numbers."
    known = boundary.low > 0 and math.isfinite(boundary.high)
    interval = f" (95 %: {boundary.low:.0f} to {boundary.high:.0f})" * known
    return (
        f"{what} at batch size {boundary.batch_size:.0f}{interval}; below it the best temperature"
        f" is {boundary.temperature:.2g}."
    )


def _counts(records, missing):
    """Finished, diverged and missing runs, large."""
    finished = sum(record.status == "finished" for record in records)
    counts = {"finished": finished, "diverged": len(records) - finished, "missing": missing}
    items = (f"<div><b>{count:,}</b> {word}</div>" for word, count in counts.items())
    return f'<div class="counts">{"".join(items)}</div>'


def table_html(table: tables.Table) -> str:
    """The table as HTML, with its notes."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in table.header)
    labels = ["", *(texts.shown(label) for label, _ in table.groups[1:])]
    groups = "".join(
        f'<th class="group" colspan="{span}">{html.escape(label)}</th>'
        for label, (_, span) in zip(labels, table.groups, strict=False)
    )
    head = f"<tr>{groups}</tr>" * bool(groups) + f"<tr>{head}</tr>"
    body = "".join(
        f"<tr>{''.join(f'<td>{_cell(text)}{_mark(marks)}</td>' for text, marks in row)}</tr>"
        for row in table.body
    )
    notes = "".join(f"<p>{_mark(mark)} {html.escape(note)}</p>" for mark, note in table.notes)
    return (
        f'<div class="scroll"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>'
        f'<div class="notes">{notes}</div>'
    )


def _cell(text):
    """A cell, with powers of two set as such."""
    escaped = html.escape(text)
    if isinstance(text, texts.Words):
        return escaped
    return re.sub(r"2\^(-?\d+)", r"2<sup>\1</sup>", escaped).replace("<sup>-", "<sup>−")


def _mark(marks):
    return f" <small>[{html.escape(marks)}]</small>" if marks else ""


def _swept(records):
    """Lists the words of each field, and its values in the records."""
    fields = collections.defaultdict(set)
    for record in records:
        for name, value in record.hparams.items():
            # As words, so that True is not taken for 1.
            fields[name].add(str(value) if isinstance(value, bool) else value)
    return [(numerals.words(name), _listed(values)) for name, values in fields.items()]


def _listed(values):
    """A few values in full, many by their ends."""
    spell, values = tables.speller(values), numerals.ordered(values)
    shown = values if len(values) <= 10 else (*values[:2], values[-1])
    found = list(map(spell, shown))
    if len(values) <= 10:
        return ", ".join(found)
    return f"{found[0]}, {found[1]}, …, {found[2]} ({len(values)} values)"


def _again(sweep, records):
    """The command, and the machine and versions that the records name."""
    command = sweep.get("command")
    devices = sorted({record.device for record in records if record.device})
    versions = [record.versions for record in records]
    items = (each.items() for each in versions if isinstance(each, Mapping))
    versions = sorted({f"{name} {version}" for pairs in items for name, version in pairs})
    configs = sorted({str(record.jax_config or "JAX's defaults") for record in records})
    if len(configs) > 1:
        warnings.warn(
            f"the runs of one table were trained with different settings of JAX: "
            f"{'; '.join(configs)}; their results may differ by more than rounding.",
            stacklevel=1,
        )
    code = f"<pre>{_escaped(command)}</pre>" if command else ""
    facts = {
        "task": sweep["task"],
        "data": sweep.get("data") or "",
        "device": "; ".join(devices),
        "versions": ", ".join(versions),
        "settings of JAX": "; ".join(configs) if configs != ["JAX's defaults"] else "",
    }
    return code + _definitions(facts.items())


def _definitions(items):
    """A list of words and what they stand for."""
    pairs = (f"<dt>{_escaped(name)}</dt><dd>{_escaped(text)}</dd>" for name, text in items if text)
    return f"<dl>{''.join(pairs)}</dl>"


def _escaped(text):
    """Escapes prose, or a command, for the page."""
    return html.escape(texts.printable(str(text)))
