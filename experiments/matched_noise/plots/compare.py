"""Draws the accuracy with every kind of noise beside the small batch (run with `python -m`).

    python -m experiments.matched_noise.plots.compare DIRECTORY ... --out=PNG

Each directory is that of a sweep of one of the experiments of matched_noise, and has a panel.
Points are means at the best learning rate and eta, with standard deviations, one for each kind of
run and batch size; the band is the small batch. Some means are further below the large batches
without noise than these are below the small batch. They are written at the lower edge, and not
drawn to scale.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.matched_noise import kinds
from noisegen import sweeps
from noisegen.reports import style

SMALL, *KINDS = kinds.LABELS
Point = tuple[float, float]  # mean and standard deviation, percent


def load(workdir: str) -> tuple[str, dict[str, dict[int, Point]]]:
    """Returns the title of a sweep, and its points: kind -> batch size -> point.

    Raises:
      FileNotFoundError: If there is no sweep in the directory, or its experiment is not here.
    """
    sweep = sweeps.Sweep.open(workdir)
    points: dict[str, dict[int, Point]] = {}
    for optimum in sweep.optima():
        if optimum.n:
            of_kind = points.setdefault(optimum.series, {})
            of_kind[optimum.row] = 100 * optimum.mean, 100 * optimum.std
    return sweep.title, points


def plot(points: Mapping[str, Mapping[int, Point]], ax: Any, title: str = "") -> Any:
    """Draws one sweep into Matplotlib axes, and returns these."""
    [(reference, (mean, std))] = points[SMALL].items()
    worst = min(mean for mean, _ in points["no noise"].values())
    floor = max(0.0, worst - max(1.0, mean - worst))
    ax.axhspan(mean - std, mean + std, color=style.FAINT, alpha=0.25, lw=0)
    ax.axhline(mean, color=style.FAINT, linewidth=1.5, label=f"batch size {reference}")
    sizes = sorted({size for kind in KINDS for size in points.get(kind, {})})
    for index, size in enumerate(sizes):
        shift = 0.18 * (index - (len(sizes) - 1) / 2)
        _plot_size(ax, points, size, index, shift, floor)
    ax.set_xticks(range(len(KINDS)), KINDS, rotation=20, ha="right")
    ax.set(ylabel="test accuracy (%)", title=title)
    ax.set(ylim=(floor, None), xlim=(-0.6, len(KINDS) - 0.4))
    ax.legend()
    return ax


def _plot_size(ax, points, size, index, shift, floor):
    """Draws the points of one batch size, a little beside those of the others."""
    color, marker = style.COLORS[index], style.MARKERS[index]
    drawn = []
    for place, kind in enumerate(KINDS):
        if size not in points.get(kind, {}):
            continue
        mean, std = points[kind][size]
        if mean >= floor:
            drawn.append((place + shift, mean, std))
        else:
            text = f"{mean:.0f} ↓"
            look = {"color": color, "ha": "center", "va": "bottom", "rotation": 90}
            ax.text(place + shift, floor, text, **look)
    if not drawn:
        drawn = [(0, float("nan"), 0)]  # so that the legend has the batch size
    x, means, stds = zip(*drawn, strict=True)
    look = {"color": color, "marker": marker, "linestyle": "", "capsize": 4}
    ax.errorbar(x, means, stds, **look, label=f"batch size {size}")


def main(workdirs: Sequence[str], out: str) -> None:
    """Draws the figure."""
    import matplotlib
    from matplotlib import figure

    with matplotlib.rc_context(style.RC):
        columns = min(len(workdirs), 2)
        rows = math.ceil(len(workdirs) / columns)
        size = (9 * columns, 5 * rows)
        canvas = figure.Figure(figsize=size, layout="constrained", facecolor="white")
        for index, workdir in enumerate(workdirs, 1):
            title, points = load(workdir)
            plot(points, canvas.add_subplot(rows, columns, index), title)
        canvas.savefig(out, dpi=80)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("workdirs", nargs="+", metavar="DIRECTORY", help="of a sweep")
    parser.add_argument("--out", metavar="PNG", required=True, help="the figure")
    given = parser.parse_args()
    main(given.workdirs, given.out)
