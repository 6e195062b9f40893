"""Draws the accuracy between the minima of a small and of larger batches.

    python -m experiments.jaiswal2020.figure6 DIRECTORY --out=PNG

DIRECTORY is that of a sweep of figure4.py beside this file, trained with --keep_params. Along the
line (1 - alpha) times the parameters of the smallest batch size plus alpha times those of a larger
one, of equal seed and decay, at 25 points from -1 to 2: training accuracy (without augmentation)
and test accuracy, with batch statistics gathered anew at every point. Lines are means over the
seeds, bands span them. Prints, for every larger batch size, the accuracies at both ends, the lowest
between them, and how wide each minimum is: how far one can go from it, away from the other one,
before the training accuracy has fallen by ten points.

Claim of Jaiswal & Taura's Figure 6: the minima at an equal ratio of learning rate to batch size are
similar; one sees no sharp one beside a flat one.
"""

import argparse
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from launch import experiment
from noisegen import diagnostics, sweeps, training
from noisegen._math import ceil_div
from noisegen.reports import plots, style

ALPHAS = np.linspace(-1, 2, 25)
SPLITS = ("train", "test")


def load(workdir: str, decay_rate: float) -> dict[int, dict[str, np.ndarray]]:
    """For every larger batch size the accuracies `(seeds, 25)` of both splits, in percent.

    Raises:
      ValueError: there are no two batch sizes to compare.
      FileNotFoundError: parameters were not kept.
    """
    exp = experiment.load_from_workdir(workdir)
    planned = sweeps.by_run_id(sweeps.read_sweep(workdir)["task"], exp.runs)
    names = {
        (r["run"]["batch_size"], r["run"]["seed"]): r["run_id"]
        for r in sweeps.read(workdir, curves=False)
        if r["run_id"] in planned and r["status"] == "finished"
        if r["run"]["decay_rate"] == decay_rate
    }
    sizes = sorted({size for size, _ in names})
    if len(sizes) < 2:
        raise ValueError(f"{workdir} has runs of batch sizes {sizes}; two are needed.")
    task = _task(exp, sizes[0])
    like = jax.eval_shape(task.init, training.make_key(0))[0]
    line = jax.jit(lambda *ends: diagnostics.evaluate_on_line(_measure(task), *ends, ALPHAS))
    found: dict[int, dict[str, list]] = {size: {s: [] for s in SPLITS} for size in sizes[1:]}
    for (size, seed), name in sorted(names.items()):
        if size == sizes[0] or (sizes[0], seed) not in names:
            continue
        small = sweeps.load_params(workdir, names[sizes[0], seed], like)
        accuracies = line(small, sweeps.load_params(workdir, name, like))
        for split in SPLITS:
            found[size][split].append(100 * np.asarray(accuracies[split]))
    return {size: {s: np.array(v) for s, v in each.items()} for size, each in found.items()}


def table(curves: Mapping[int, Mapping[str, np.ndarray]]) -> list[str]:
    """The lines of a table in Markdown: means over the seeds."""
    lines = [
        "| batch size | split | at 0 | at 1 | lowest between | width at 0 | width at 1 |",
        "|---:|---|---:|---:|---:|---:|---:|",
    ]
    for size, accuracies in curves.items():
        for split, values in accuracies.items():
            mean = values.mean(0)
            between = (ALPHAS >= 0) & (ALPHAS <= 1)
            ends = (mean[ALPHAS == 0][0], mean[ALPHAS == 1][0], mean[between].min())
            numbers = " | ".join(f"{number:.1f}" for number in ends)
            widths = f"{width(mean, 0, -1):.2f} | {width(mean, 1, 1):.2f}"
            lines.append(f"| {size} | {split} | {numbers} | {widths} |")
    return lines


def width(accuracy: np.ndarray, at: float, direction: int, fall: float = 10.0) -> float:
    """How far from `at` the accuracy stays within `fall` points of its value there.

    >>> width(np.where(abs(ALPHAS) < 0.3, 90.0, 20.0), at=0, direction=-1)
    0.25
    """
    outward = ALPHAS[::direction]
    values = accuracy[::direction]
    beyond = (outward - at) * direction >= 0
    outward, values = outward[beyond], values[beyond]
    fallen = np.flatnonzero(values < values[0] - fall)
    last = fallen[0] - 1 if fallen.size else len(values) - 1
    return float(abs(outward[last] - at))


def plot(curves: Mapping[int, Mapping[str, np.ndarray]], ax: Any) -> Any:
    """Draws the curves into Matplotlib axes, and returns these."""
    for color, (size, accuracies) in zip(plots.COLORS, curves.items(), strict=False):
        for look, (split, values) in zip(("-", "--"), accuracies.items(), strict=True):
            ax.plot(ALPHAS, values.mean(0), look, color=color, label=f"batch size {size}, {split}")
            ax.fill_between(ALPHAS, values.min(0), values.max(0), color=color, alpha=0.15, lw=0)
    ax.set(xlabel="alpha (0: small batch, 1: large batch)", ylabel="accuracy (%)")
    ax.legend()
    return ax


def _task(exp, batch_size):
    """The task of the smallest batch size, whose ghost batches are used throughout."""
    run = next(run for run in exp.runs if run["batch_size"] == batch_size)
    [task] = exp.make_tasks().groups({"any": run})
    return task


def _measure(task):
    """Accuracy on both splits, of the middles of images as the test set has them."""
    ghost = task.ghost_size
    microbatch = ceil_div(64, ghost) * ghost
    edge = (task.train["image"].shape[1] - task.test["image"].shape[1]) // 2
    middle = slice(edge, edge + task.test["image"].shape[1])
    train = task.train | {"image": task.train["image"][:, middle, middle]}
    examples = {"train": train, "test": task.test}

    def accuracies(params):
        found = training.evaluate_params(task, params, examples, microbatch=microbatch)
        return {split: metrics["test_accuracy"] for split, metrics in found.items()}

    return accuracies


def main(workdir: str, out: str, decay_rate: float) -> None:
    """Draws the figure and prints the table."""
    import matplotlib
    from matplotlib import figure

    curves = load(workdir, decay_rate)
    with matplotlib.rc_context(style.RC):
        canvas = figure.Figure(figsize=(8, 5), layout="constrained", facecolor="white")
        plot(curves, canvas.subplots())
        canvas.savefig(pathlib.Path(out), dpi=100)
    print("\n".join(table(curves)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("workdir", metavar="DIRECTORY", help="of a sweep of figure4.py")
    parser.add_argument("--out", metavar="PNG", required=True, help="the figure")
    parser.add_argument("--decay_rate", type=float, default=0.1, help="of the runs to compare")
    given = parser.parse_args()
    main(given.workdir, given.out, given.decay_rate)
