"""Draws what every kind of noise gives, beside the small batch, a panel for each sweep.

    python -m experiments.matched_noise.compare DIRECTORY ... --out=PNG

Each directory is that of a sweep of one of the experiments beside this file. Points are means at
the best learning rate and eta, with standard deviations, one for each kind of run and batch size;
the band is the small batch. Means further below the large batches without noise than these are
below the small batch are not drawn to scale, but written at the lower edge.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.matched_noise import common
from launch import experiment
from noisegen import sweeps
from noisegen._math import ceil_div
from noisegen.reports import plots, style

SMALL, *KINDS = common.LABELS
Point = tuple[float, float]  # mean and standard deviation, percent


def load(workdir: str) -> tuple[str, dict[str, dict[int, Point]]]:
    """The title of a sweep, and its points: kind -> batch size -> point.

    Raises:
      FileNotFoundError: there is no sweep in the directory, or its experiment is not here.
    """
    exp = experiment.load_from_workdir(workdir)
    protocol, found = exp.protocols[0], {}
    for optimum in sweeps.select(sweeps.read(workdir, curves=False), protocol):
        if optimum.n:
            point = 100 * optimum.mean, 100 * optimum.std
            found.setdefault(optimum.series, {})[optimum.row] = point
    return exp.title, found


def plot(points: Mapping[str, Mapping[int, Point]], ax: Any, title: str = "") -> Any:
    """Draws one sweep into Matplotlib axes, and returns these."""
    [(reference, small)] = points[SMALL].items()
    sizes = sorted({size for kind in KINDS for size in points.get(kind, {})})
    worst = min(mean for mean, _ in points["no noise"].values())
    floor = max(0.0, worst - max(1.0, small[0] - worst))
    ax.axhspan(small[0] - small[1], small[0] + small[1], color=plots.FAINT, alpha=0.25, lw=0)
    ax.axhline(small[0], color=plots.FAINT, linewidth=1.5, label=f"batch size {reference}")
    for index, size in enumerate(sizes):
        color, marker = plots.COLORS[index], plots.MARKERS[index]
        look = {"color": color, "marker": marker, "linestyle": "", "capsize": 4}
        places = [at + 0.18 * (index - (len(sizes) - 1) / 2) for at in range(len(KINDS))]
        shown = [
            (x, *points[kind][size])
            for x, kind in zip(places, KINDS, strict=True)
            if size in points.get(kind, {})
        ]
        drawn = [each for each in shown if each[1] >= floor] or [(0, float("nan"), 0)]
        ax.errorbar(*zip(*drawn, strict=True), **look, label=f"batch size {size}")
        for x, mean, _ in shown:
            if mean < floor:
                ax.text(
                    x, floor, f"{mean:.0f} ↓", color=color, ha="center", rotation=90, va="bottom"
                )
    ax.set_xticks(range(len(KINDS)), KINDS, rotation=20, ha="right")
    ax.set(ylabel="test accuracy (%)", title=title)
    ax.set(ylim=(floor, None), xlim=(-0.6, len(KINDS) - 0.4))
    ax.legend()
    return ax


def main(workdirs: Sequence[str], out: str) -> None:
    """Draws the figure."""
    import matplotlib
    from matplotlib import figure

    with matplotlib.rc_context(style.RC):
        columns = min(len(workdirs), 2)
        rows = ceil_div(len(workdirs), columns)
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
