"""Draws the accuracy between minima of a small and larger batches (run with `python -m`).

    python -m experiments.jaiswal2020.plots.figure6 DIRECTORY --out=PNG

DIRECTORY is that of a sweep of figure4.py, trained with --keep_params. Evaluates training accuracy
(without augmentation) and test accuracy along the line

    (1 - alpha) small + alpha large

at 25 values of alpha from -1 to 2, where `small` are the parameters of the smallest batch size and
`large` those of a larger one, of equal seed and decay. Batch statistics are recomputed at every
point. Lines are means over the seeds, bands span them. Prints, for every larger batch size, the
accuracies at both ends, the lowest between them, and the width of each minimum: the distance from
it, away from the other one, at which the training accuracy has fallen by ten points.

Claim of Jaiswal & Taura's Figure 6: the minima at an equal ratio of learning rate to batch size are
similar; one sees no sharp one beside a flat one.
"""

import argparse
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from noisegen import diagnostics, storage, sweeps, training
from noisegen.reports import style

ALPHAS = np.linspace(-1, 2, 25)
SPLITS = ("train", "test")


def load(workdir: str, decay_rate: float) -> dict[int, dict[str, np.ndarray]]:
    """Returns, for every larger batch size, the accuracies of both splits.

    Args:
      workdir: Directory of the sweep.
      decay_rate: Decay of the runs to compare.

    Returns:
      batch size -> split -> accuracies in percent, `(seeds, 25)`.

    Raises:
      ValueError: If there are no two batch sizes to compare.
      FileNotFoundError: If parameters were not kept.
    """
    sweep = sweeps.Sweep.open(workdir)
    finished = {}
    for record in sweep.records():
        if record.status == "finished" and record.hparams["decay_rate"] == decay_rate:
            finished[record.hparams["batch_size"], record.hparams["seed"]] = record
    sizes = sorted({size for size, _ in finished})
    if len(sizes) < 2:
        raise ValueError(f"{workdir} has runs of batch sizes {sizes}; two are needed.")
    smallest, *larger = sizes
    seeds = sorted(seed for size, seed in finished if size == smallest)

    # The ghost batches of the smallest batch size are used throughout.
    task = sweep.task_of(finished[smallest, seeds[0]].hparams)
    like = jax.eval_shape(task.init, training.make_key(0))[0]
    accuracies = _accuracies_of(task)

    @jax.jit
    def along(small, large):
        return diagnostics.evaluate_on_line(accuracies, small, large, ALPHAS)

    curves = {}
    for size in larger:
        by_split = {split: [] for split in SPLITS}
        for seed in seeds:
            if (size, seed) not in finished:
                continue
            small = storage.load_params(workdir, finished[smallest, seed].run_id, like)
            large = storage.load_params(workdir, finished[size, seed].run_id, like)
            on_line = along(small, large)
            for split in SPLITS:
                by_split[split].append(100 * np.asarray(on_line[split]))
        curves[size] = {split: np.array(values) for split, values in by_split.items()}
    return curves


def table(curves: Mapping[int, Mapping[str, np.ndarray]]) -> list[str]:
    """Returns a table in Markdown: means over the seeds."""
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
    """Returns the distance from `at` within which the accuracy falls by `fall` points at most.

    Args:
      accuracy: Accuracy at `ALPHAS`, in percent.
      at: The alpha to start from.
      direction: 1 for larger alphas, -1 for smaller ones.
      fall: Points of accuracy.

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
    for color, (size, accuracies) in zip(style.COLORS, curves.items(), strict=False):
        for look, (split, values) in zip(("-", "--"), accuracies.items(), strict=True):
            ax.plot(ALPHAS, values.mean(0), look, color=color, label=f"batch size {size}, {split}")
            ax.fill_between(ALPHAS, values.min(0), values.max(0), color=color, alpha=0.15, lw=0)
    ax.set(xlabel="alpha (0: small batch, 1: large batch)", ylabel="accuracy (%)")
    ax.legend()
    return ax


def _accuracies_of(task):
    """Returns a function from parameters to the accuracies of both splits.

    Of the training images only the middles count, as in the test set.
    """
    # A microbatch holds whole ghost batches, and about 64 examples.
    ghost = task.ghost_size
    microbatch = ghost * math.ceil(64 / ghost)
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
