"""Updates to targets that all optimizers reach, of a sweep of transformer.py (with `python -m`).

    python -m experiments.zhang2019.plots.transformer DIRECTORY --out=PNG

DIRECTORY is that of the sweep. Prints the updates to each target, the first crossings of the mean
curve over seeds, for each optimizer and batch size, and the critical batch sizes fitted to them.
Give other targets with `--targets=3.0,2.8`.
"""

import argparse
import pathlib
from collections.abc import Sequence
from typing import Any

from noisegen import reports, sweeps


def load(
    workdir: str, targets: Sequence[float] = ()
) -> tuple[sweeps.Sweep, list[sweeps.RowTarget]]:
    """Returns the sweep of a directory and its steps to targets, by default to proposed ones."""
    sweep = sweeps.Sweep.open(workdir)
    records = sweep.records()
    curves = sweep.curves(record.run_id for record in records)
    [protocol] = sweep.protocols
    targets = targets or sweeps.propose_targets(records, protocol, curves)
    return sweep, sweeps.steps_to_target(records, protocol, targets, curves, mean_curve=True)


def plot(sweep: sweeps.Sweep, rows: Sequence[sweeps.RowTarget], ax: Any) -> Any:
    """Draws the steps to the lowest target into Matplotlib axes, and returns these."""
    lowest = min(row.target for row in rows)
    rows = [row for row in rows if row.target == lowest]
    fits = sweeps.critical_batch_sizes(rows)
    return reports.plot_steps_to_target(rows, ax, sweep.protocols[0], fits=fits)


def main(workdir: str, out: str, targets: Sequence[float] = ()) -> None:
    """Draws the figure and prints the tables."""
    import matplotlib
    from matplotlib import figure

    from noisegen.reports import style

    sweep, rows = load(workdir, targets)
    with matplotlib.rc_context(style.RC):
        canvas = figure.Figure(figsize=(8, 5), layout="constrained", facecolor="white")
        plot(sweep, rows, canvas.subplots())
        canvas.savefig(pathlib.Path(out), dpi=100)
    steps = sweeps.targets_frame(rows).drop(
        columns=["updates_low", "updates_high", "examples_low", "examples_high"]
    )
    critical = sweeps.critical_batch_frame(sweeps.critical_batch_sizes(rows))
    for table in (steps, critical):
        print(table.to_string(index=False, float_format="%.4g"), end="\n\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("workdir", metavar="DIRECTORY", help="of a sweep of transformer.py")
    parser.add_argument("--out", metavar="PNG", required=True, help="the figure")
    parser.add_argument("--targets", metavar="LOSSES", default="", help="such as 3.0,2.8")
    given = parser.parse_args()
    main(given.workdir, given.out, [float(loss) for loss in given.targets.split(",") if loss])
