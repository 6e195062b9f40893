"""Draws test accuracy by epoch over the published curves (run with `python -m`).

    python -m experiments.signer2021.plots.curves DIRECTORY ... --published=FILE --out=PNG

Each directory is that of a sweep of one of the experiments of signer2021. Every batch size has a
panel. Lines are means over the runs, the band spans all of them. The published curves, of one run
each, are dashed. Then prints the final test accuracy of every sweep and batch size, published and
measured, in percent, and the difference in points.

FILE is optional: a table of the published curves, separated by commas, with the columns
`figure` (`Fig1` to `Fig6`), `batch_size`, `momentum`, `epoch` and `test_accuracy` (a fraction).
"""

import argparse
import csv
import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from noisegen import sweeps
from noisegen.reports import plots, style

METRIC = "test_accuracy"
FIGURES = {f"figure{number}": f"Fig{number}" for number in range(1, 7)} | {
    # Not in the report; its curves are those of nine epochs at the base learning rate.
    "constant_warmup": "unreported_warmup_probably_constant"
}
NEEDED = {"figure", "batch_size", "momentum", "epoch", METRIC}
COLUMNS = 4  # of panels
COLORS = style.COLORS

Published = Mapping[tuple[str, int, float], tuple[Sequence[float], Sequence[float]]]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Curves:
    """The runs of one sweep, series and batch size.

    Attributes:
      sweep: Name of the experiment.
      series: Label of the protocol's series, or ''.
      batch_size: Number of examples in an update.
      momentum: Momentum of the runs, 0 if they have none.
      epochs: Epochs at which the test set was evaluated, `(T,)`.
      accuracy: Test accuracy of the runs that finished, in percent, `(runs, T)`.
      tried: Number of runs, diverged ones included.
      published: Final test accuracy in percent, or None.
    """

    sweep: str
    series: str
    batch_size: int
    momentum: float
    epochs: np.ndarray
    accuracy: np.ndarray
    tried: int
    published: float | None

    @property
    def label(self) -> str:
        """Returns the name that distinguishes it among the curves of its batch size."""
        return ", ".join(filter(None, (self.sweep, self.series)))


def load(workdir: str) -> list[Curves]:
    """Returns the curves of a sweep, of its best learning rates if these are tuned.

    Raises:
      FileNotFoundError: If there is no sweep in the directory, or its experiment is not here.
    """
    sweep = sweeps.Sweep.open(workdir)
    return [_curves(sweep, optimum) for optimum in sweep.optima()]


def read_published(path: str | pathlib.Path) -> Published:
    """Returns the published curves by figure, batch size and momentum.

    Returns:
      For each a list of epochs and a list of accuracies in percent.

    Raises:
      ValueError: If a column is missing.
    """
    curves: dict[tuple, tuple[list, list]] = {}
    with open(path, newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        missing = NEEDED - set(rows.fieldnames or ())
        if missing:
            raise ValueError(
                f"{path} lacks {', '.join(sorted(missing))}; give a table with the columns "
                f"{', '.join(sorted(NEEDED))}."
            )
        for row in rows:
            if row["figure"] in FIGURES.values():
                key = row["figure"], int(row["batch_size"]), float(row["momentum"])
                epochs, accuracies = curves.setdefault(key, ([], []))
                epochs.append(float(row["epoch"]))
                accuracies.append(100 * float(row[METRIC]))
    return curves


def plot(curves: Sequence[Curves], canvas: Any, published: Published | None = None) -> Any:
    """Draws a panel for each batch size into a Matplotlib figure, and returns the figure."""
    sizes = sorted({each.batch_size for each in curves})
    labels = list(dict.fromkeys(each.label for each in curves))
    columns = min(COLUMNS, len(sizes))
    panels = list(canvas.subplots(math.ceil(len(sizes) / columns), columns, squeeze=False).flat)
    for panel in panels[len(sizes) :]:
        panel.remove()
    for panel, size in zip(panels, sizes, strict=False):
        panel.set(title=f"batch size {size}", xlabel="epoch", ylabel="test accuracy (%)")
        panel.grid(color=style.FAINT, alpha=0.25, linewidth=0.8)
        for each in curves:
            if each.batch_size == size:
                _draw(panel, each, COLORS[labels.index(each.label) % len(COLORS)])
                _draw_published(panel, each, published or {})
    _legend(canvas)
    return canvas


def table(curves: Sequence[Curves]) -> list[str]:
    """Returns a table in Markdown: mean and standard deviation of the final test accuracy."""
    lines = [
        "| | batch size | published | measured | difference |",
        "|---|---:|---:|---:|---:|",
    ]
    for each in curves:
        printed = "-" if each.published is None else f"{each.published:.2f}"
        cells = (each.label, str(each.batch_size), printed, *_measured(each))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _curves(sweep, optimum):
    """Returns the runs at an optimum; none if all diverged."""
    curves = sweep.curves(record.run_id for record in optimum.counted)
    epochs, accuracy = plots.load_curves(optimum, METRIC, curves)
    beside = sweep.published.get((optimum.series, optimum.row))
    return Curves(
        sweep=sweep.name,
        series=optimum.series,
        batch_size=optimum.row,
        momentum=optimum.points[0].run.get("momentum", 0.0),
        epochs=epochs,
        accuracy=accuracy,
        tried=max(point.tried for point in optimum.points),
        published=beside[0] if isinstance(beside, tuple) else None,
    )


def _draw(panel, curves, color):
    """Draws mean and range of the runs."""
    if not curves.accuracy.size:
        # All runs diverged. A line without points puts them into the legend all the same.
        panel.plot([], [], color=color, label=curves.label)
        return
    panel.plot(curves.epochs, curves.accuracy.mean(0), color=color, label=curves.label)
    low, high = curves.accuracy.min(0), curves.accuracy.max(0)
    panel.fill_between(curves.epochs, low, high, color=color, alpha=0.2, linewidth=0)


def _draw_published(panel, curves, published):
    """Draws the published run, in the color of ours."""
    key = FIGURES.get(curves.sweep), curves.batch_size, curves.momentum
    if key in published:
        look = {"color": panel.lines[-1].get_color(), "label": f"{curves.label}, published"}
        panel.plot(*published[key], "--", **look)


def _legend(canvas):
    """Draws one legend for all panels."""
    lines = {line.get_label(): line for panel in canvas.axes for line in panel.lines}
    canvas.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=COLUMNS)


def _measured(curves):
    """Returns the measured cell of the table, and that of the difference."""
    count = len(curves.accuracy)
    if not count:
        return "diverged", "-"
    final = curves.accuracy[:, -1]
    spread = f" ± {final.std(ddof=1):.2f}" if count > 1 else ""
    of = f" of {curves.tried}" if count < curves.tried else ""
    known = curves.published is not None
    difference = f"{final.mean() - curves.published:+.2f}" if known else "-"
    return f"{final.mean():.2f}{spread} ({count}{of})", difference


def main(workdirs: Sequence[str], published: str | None, out: str) -> None:
    """Draws the figure and prints the table."""
    import matplotlib
    from matplotlib import figure

    curves = [each for workdir in workdirs for each in load(workdir)]
    with matplotlib.rc_context(style.RC):
        canvas = figure.Figure(figsize=(16, 8), layout="constrained", facecolor="white")
        plot(curves, canvas, read_published(published) if published else None)
        canvas.savefig(out, dpi=100)
    print("\n".join(table(curves)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("workdirs", nargs="+", metavar="DIRECTORY", help="of a sweep")
    parser.add_argument("--published", metavar="FILE", help="the published curves, if at hand")
    parser.add_argument("--out", metavar="PNG", required=True, help="the figure")
    given = parser.parse_args()
    main(given.workdirs, given.published, given.out)
