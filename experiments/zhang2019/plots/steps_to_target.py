"""Compares a sweep of the noisy quadratic model with its exact values (run with `python -m`).

    python -m experiments.zhang2019.plots.steps_to_target DIRECTORY --out=PNG

DIRECTORY is that of a sweep of noisy_quadratic.py. Targets are 10 % and 5 % of the first loss.
Prints two tables. The first has, for each target and batch size, the updates to the target: the
mean of the runs' first crossings, the first crossing of their mean curve, and the exact updates of
the expected loss, over the learning rates of the sweep and over all. The second has the critical
batch size of each, and the gradient noise scale, measured and exact.
"""

import argparse
import pathlib
from typing import Any

from experiments.zhang2019 import noisy_quadratic
from noisegen import reports, sweeps

FRACTIONS = (0.1, 0.05)


def load(workdir: str) -> tuple[sweeps.Sweep, dict[str, list[sweeps.RowTarget]]]:
    """Returns the sweep of a directory, and its steps to targets in two ways.

    Args:
      workdir: Directory of the sweep.

    Returns:
      The sweep, and the steps of the "first crossings" and of the "mean curve".
    """
    sweep = sweeps.Sweep.open(workdir)
    records = sweep.records()
    curves = sweep.curves(record.run_id for record in records)
    first = float(noisy_quadratic.make_model(sweep.origin.config).loss(0))
    targets = [fraction * first for fraction in FRACTIONS]
    [protocol] = sweep.protocols
    return sweep, {
        name: sweeps.steps_to_target(records, protocol, targets, curves, mean_curve=mean_curve)
        for name, mean_curve in (("first crossings", False), ("mean curve", True))
    }


def compare_steps(sweep: sweeps.Sweep, steps: dict[str, list[sweeps.RowTarget]]) -> Any:
    """Returns measured and exact updates as a DataFrame, a line for each target and batch size."""
    import pandas as pd

    model = noisy_quadratic.make_model(sweep.origin.config)
    rates = sweep.origin.config.grid.learning_rate
    lines = []
    for runs, mean in zip(steps["first crossings"], steps["mean curve"], strict=True):
        exact, rate = model.steps_to_target(runs.target, runs.row, rates)
        lines.append(
            {
                "target": runs.target,
                "batch size": runs.row,
                "first crossings": runs.updates.value,
                "low": runs.updates.low,
                "high": runs.updates.high,
                "mean curve": mean.updates.value,
                "exact": exact,
                "exact, any rate": model.steps_to_target(runs.target, runs.row)[0],
                "rate of mean curve": mean.values.get("learning_rate"),
                "exact rate": rate,
            }
        )
    return pd.DataFrame(lines)


def compare_critical(sweep: sweeps.Sweep, steps: dict[str, list[sweeps.RowTarget]]) -> Any:
    """Returns critical batch sizes and noise scales as a DataFrame, a line for each target.

    The noise scale is that of the batch size nearest to the critical one.
    """
    import pandas as pd

    model = noisy_quadratic.make_model(sweep.origin.config)
    rates = sweep.origin.config.grid.learning_rate
    lines = []
    for fits in zip(*(sweeps.critical_batch_sizes(rows) for rows in steps.values()), strict=True):
        target = fits[0].target
        rows = [row for row in steps["mean curve"] if row.target == target and row.n]
        exact = [model.steps_to_target(target, row.row, rates) for row in rows]
        exact_fit = sweeps.fit_critical_batch(
            [updates for updates, _ in exact],
            [updates * row.row for (updates, _), row in zip(exact, rows, strict=True)],
        )
        [beside] = sweeps.critical_batch_frame([fits[1]], sweeps.noise_scales(rows)).to_dict(
            "records"
        )
        [(updates, rate)] = [
            found for found, row in zip(exact, rows, strict=True) if row.row == beside["noise_row"]
        ]
        scale, ratio_of_means = model.noise_scale(updates, rate, beside["noise_row"])
        lines.append(
            {
                "target": target,
                "E_min / S_min": model.fewest_examples(target) / model.fewest_updates(target),
                "fit to exact": exact_fit.batch_size.value,
                "fit to mean curve": fits[1].batch_size.value,
                "low": fits[1].batch_size.low,
                "high": fits[1].batch_size.high,
                "fit to first crossings": fits[0].batch_size.value,
                "noise scale": beside["noise_scale"],
                "exact noise scale": scale,
                "ratio of means": beside["ratio_of_means"],
                "exact ratio of means": ratio_of_means,
            }
        )
    return pd.DataFrame(lines)


def plot(sweep: sweeps.Sweep, steps: dict[str, list[sweeps.RowTarget]], ax: Any) -> Any:
    """Draws the steps of the mean curves into Matplotlib axes, and returns these."""
    rows = steps["mean curve"]
    fits = sweeps.critical_batch_sizes(rows)
    scalings = sweeps.scaling_regions(rows)
    return reports.plot_steps_to_target(rows, ax, sweep.protocols[0], scalings, fits)


def main(workdir: str, out: str) -> None:
    """Draws the figure and prints the tables."""
    import matplotlib
    from matplotlib import figure

    from noisegen.reports import style

    sweep, steps = load(workdir)
    with matplotlib.rc_context(style.RC):
        canvas = figure.Figure(figsize=(8, 5), layout="constrained", facecolor="white")
        plot(sweep, steps, canvas.subplots())
        canvas.savefig(pathlib.Path(out), dpi=100)
    for table in (compare_steps(sweep, steps), compare_critical(sweep, steps)):
        print(table.to_string(index=False, float_format="%.4g"), end="\n\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("workdir", metavar="DIRECTORY", help="of a sweep of noisy_quadratic.py")
    parser.add_argument("--out", metavar="PNG", required=True, help="the figure")
    given = parser.parse_args()
    main(given.workdir, given.out)
