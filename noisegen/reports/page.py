"""One self-contained HTML page for a sweep: counts, plots, table, and how to do it again."""

import collections
import html
import io
import os
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence

from noisegen.reports import plots, style
from noisegen.sweeps import growth, identity, regimes, tables
from noisegen.sweeps import protocol as protocols
from noisegen.sweeps import records as records_lib

_ENDINGS = {
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
    sweep = records_lib.read_sweep(workdir)
    records = records_lib.read(workdir, curves=False)
    missing = 0
    if runs is not None:
        planned = identity.by_run_id(sweep["task"], runs)
        wanted = growth.wanted(sweep["task"], planned, readings, records)
        records = [record for record in records if record["run_id"] in wanted]
        missing = len(wanted) - len(records)
    selected = [protocols.select(records, each) for each in readings]
    curves = _curves(workdir, [optimum for optima in selected for optimum in optima])
    sections = []
    names = table_names(readings)
    for index, (name, each, optima) in enumerate(zip(names, readings, selected, strict=True)):
        beside = published if index == 0 else None
        table = tables.make_table(optima, each, beside)
        for ending, write in _ENDINGS.items():
            records_lib.write_file(workdir / f"{name}.{ending}", write(table))
        limits = regimes.boundaries(optima, each) if regimes.has_boundaries(each) else {}
        figures = _figures(optima, each, beside, curves, limits)
        sections += ['<section class="plots">', *figures, "</section>"]
        of = f" of {tables.title(each.metric).split(' (')[0]}" if len(readings) > 1 else ""
        sections += [f"<section><h2>Optima{html.escape(of)}</h2>{_table(table)}</section>"]
        if index == 0:
            records_lib.write_file(workdir / "figure.png", _png(optima, each, beside))
    page = _page(sweep, records, missing, sections)
    records_lib.write_file(workdir / "report.html", page)
    return workdir / "report.html"


def table_names(readings: Sequence[protocols.Protocol]) -> list[str]:
    """The file names, without ending, of the tables of some protocols: `table`, `table_2`, ..."""
    return ["table", *(f"table_{number}" for number in range(2, len(readings) + 1))]


def _png(optima, protocol, published):
    """The metric and the first tuned field against the row, side by side."""
    import matplotlib
    from matplotlib import figure

    with matplotlib.rc_context(style.RC):
        canvas = figure.Figure(figsize=(11, 4.2), layout="constrained", facecolor="white")
        left, right = canvas.subplots(1, 2)
        plots.plot_metric(optima, left, protocol, published)
        plots.plot_tuned(optima, right, protocol)
        file = io.BytesIO()
        canvas.savefig(file, format="png", dpi=120)
    return file.getvalue()


def _page(sweep, records, missing, sections):
    """The page as text; it needs no network and no other file."""
    heading = html.escape(str(sweep.get("title") or sweep["sweep"]))
    parts = [
        f"<header><h1>{heading}</h1>",
        f'<p class="lead">{html.escape(str(sweep.get("description") or ""))}</p>',
        _counts(records, missing),
        "</header><main>",
        *sections,
        f"<section><h2>What was swept</h2>{_definitions(_swept(records))}</section>",
        f"<section><h2>How to do it again</h2>{_again(sweep, records)}</section></main>",
    ]
    return style.PAGE.format(title=heading, css=style.CSS, body="\n".join(parts))


def _curves(workdir, optima):
    """From run_id to curve, for the runs at the optima."""
    wanted = {record["run_id"] for optimum in optima for record in optimum.best}
    return records_lib.read_curves(workdir, wanted)


def _figures(optima, protocol, published, curves, limits):
    """The figures of the page, of all series, then of each: those that have something to show."""
    metric, row = tables.title(protocol.metric).split(" (")[0], protocol.row.replace("_", " ")
    tuned = protocol.tune[0].replace("_", " ")
    hollow = "; hollow: published" * bool(published)
    yield _figure(
        f"{metric} against {row}",
        f"Mean and standard deviation at the optimum{hollow}.",
        lambda ax: plots.plot_metric(optima, ax, protocol, published),
    )
    tried = {point.values[protocol.tune[0]] for optimum in optima for point in optimum.points}
    if len(tried) != 1:
        yield _figure(
            f"best {tuned} against {row}",
            f"Bars span every {tuned} within one standard deviation of the best mean."
            + "".join(map(_regimes, limits.items())),
            lambda ax: plots.plot_tuned(optima, ax, protocol, limits),
        )
    for label in dict.fromkeys(optimum.series for optimum in optima):
        group = [optimum for optimum in optima if optimum.series == label]
        of = f", {label}" if label else ""
        if len(tried) != 1:
            yield _figure(
                f"mean {tables.title(protocol.metric)}{of}",
                "Framed: the optimum. ×: no run survived. Empty: not tried.",
                lambda ax, group=group: plots.plot_heatmap(group, ax, protocol),
            )
        epochs = (plots.load_curves(o, protocol.metric, curves)[0] for o in group)
        if any(len(evaluated) > 1 for evaluated in epochs):
            yield _figure(
                f"{metric} during training{of}",
                "At the optimum: mean and standard deviation over seeds.",
                lambda ax, group=group: plots.plot_curves(group, ax, protocol, curves),
            )


def _regimes(item):
    """Where noise stops ruling, in a sentence."""
    label, boundary = item
    what = f" The boundary between noise and curvature{f' of {label}' if label else ''} lies"
    if boundary.flags:
        beyond = {"no_plateau": "larger", "no_slope": "smaller"}[boundary.flags[0]]
        return f"{what} at {beyond} batches, if anywhere."
    interval = f" (95 %: {boundary.low:.0f} to {boundary.high:.0f})"
    return (
        f"{what} at batch size {boundary.batch_size:.0f}{interval * (boundary.low > 0)}; below it "
        f"the best temperature is {boundary.temperature:.2g}."
    )


def _figure(title, caption, draw):
    """One figure as inline SVG, with a title and a caption."""
    title = title[0].upper() + title[1:]
    return (
        f"<figure><h3>{html.escape(title)}</h3>{svg(draw, title)}"
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def svg(draw, title: str) -> str:
    """What `draw(ax)` draws, as an SVG element whose colours and font follow the page."""
    import matplotlib
    from matplotlib import figure

    with matplotlib.rc_context({**style.RC, "svg.hashsalt": title}):
        canvas = figure.Figure(figsize=(6.4, 4.5), layout="constrained")
        draw(canvas.add_subplot())
        file = io.StringIO()
        canvas.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    for color, variable in style.THEMED.items():
        text = text.replace(color, f"var({variable})")
    return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(title)}"', 1)


def _counts(records, missing):
    """Finished, diverged and missing runs, large."""
    finished = sum(record["status"] == "finished" for record in records)
    counts = {"finished": finished, "diverged": len(records) - finished, "missing": missing}
    items = (f"<div><b>{count:,}</b> {word}</div>" for word, count in counts.items())
    return f'<div class="counts">{"".join(items)}</div>'


def _table(table):
    """The table as HTML, with its notes."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in table.header)
    groups = "".join(
        f'<th class="group" colspan="{span}">{html.escape(label)}</th>'
        for label, span in table.groups
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
    return re.sub(r"2\^(-?\d+)", r"2<sup>\1</sup>", html.escape(text)).replace("<sup>-", "<sup>−")


def _mark(marks):
    return f" <small>[{html.escape(marks)}]</small>" if marks else ""


def _swept(records):
    """From the words of each field to its values in the records."""
    fields = collections.defaultdict(set)
    for record in records:
        for name, value in record["run"].items():
            fields[name].add(value)
    return {name.replace("_", " "): _listed(values) for name, values in fields.items()}


def _listed(values):
    """A few values in full, many by their ends."""
    values = sorted(values, key=lambda value: (isinstance(value, str), value))
    shown = values if len(values) <= 10 else (*values[:2], values[-1])
    texts = [value if isinstance(value, str) else tables.number(value) for value in shown]
    if len(values) <= 10:
        return ", ".join(texts)
    return f"{texts[0]}, {texts[1]}, …, {texts[2]} ({len(values)} values)"


def _again(sweep, records):
    """The command, and the machine and versions that the records name."""
    command = sweep.get("command")
    devices = sorted({str(record["device"]) for record in records if record.get("device")})
    versions = ((record.get("versions") or {}).items() for record in records)
    versions = sorted({f"{name} {version}" for items in versions for name, version in items})
    code = f"<pre>{html.escape(str(command))}</pre>" if command else ""
    facts = {
        "task": sweep["task"],
        "data": str(sweep.get("data") or ""),
        "device": "; ".join(devices),
        "versions": ", ".join(versions),
    }
    return code + _definitions(facts)


def _definitions(items):
    """A list of words and what they stand for."""
    pairs = (
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>"
        for name, text in items.items()
        if text
    )
    return f"<dl>{''.join(pairs)}</dl>"
