"""Draws how lanes and microbatches train runs of several batch sizes; run with `-m`.

python -m experiments.lanes_drawing experiments/results/lanes.svg
"""

import sys

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "lanes"  # the same file at each call
matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text, which is smaller

from matplotlib import patches  # noqa: E402
from matplotlib import pyplot as plt  # noqa: E402

from noisegen import training  # noqa: E402

MICROBATCH = 16
NUM_STEPS = 14
# The runs of each lane, one after the other: batch size and number of updates.
LANES = (((16, 14),), ((40, 5),), ((64, 1), (24, 5)), ((112, 2),))
COLORS = ("#3b6fb6", "#c8762b")


def micro_steps(batch_size: int, num_updates: int) -> list[tuple[int, bool]]:
    """Returns the examples of each micro-step of a run, and whether it completes a batch."""
    run = {"batch_size": batch_size, "num_updates": num_updates, "seed": 0}
    found = []
    for size in training.plan(run, num_examples=60_000).batch_sizes:
        while size > 0:
            examples = min(MICROBATCH, int(size))
            size -= examples
            found.append((examples, size == 0))
    return found


def draw(path: str) -> None:
    """Writes the drawing."""
    figure, axes = plt.subplots(figsize=(9, 3.1))
    for lane, runs in enumerate(LANES):
        step, top = 0, len(LANES) - lane
        for index, (batch_size, num_updates) in enumerate(runs):
            color = COLORS[index % 2]
            axes.text(step + 0.05, top + 0.68, f"B = {batch_size}", color=color, fontsize=8)
            for examples, completes in micro_steps(batch_size, num_updates):
                _draw_step(axes, step, top, examples / MICROBATCH, color)
                if completes:
                    axes.plot(step + 0.92, top + 0.3, ">", color="black", markersize=5)
                step += 1
                if step == NUM_STEPS:
                    break
        axes.text(-0.2, top + 0.3, f"lane {lane}", ha="right", va="center", fontsize=9)
    axes.set(xlim=(-1.4, NUM_STEPS + 0.2), ylim=(0.2, len(LANES) + 1))
    axes.text(
        NUM_STEPS / 2,
        0.62,
        "micro-steps of 16 examples a lane, all lanes at once →",
        ha="center",
        fontsize=9,
    )
    axes.text(
        NUM_STEPS / 2,
        0.3,
        "filled: examples that count; empty: masked; ▶: the batch is "
        "complete, one optimizer update",
        ha="center",
        fontsize=8,
        color="#555555",
    )
    axes.axis("off")
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})


def _draw_step(axes, step, top, filled, color):
    """Draws one micro-step of a lane, filled as far as its examples count."""
    frame = (step + 0.05, top)
    axes.add_patch(patches.Rectangle(frame, 0.8, 0.6, fill=False, edgecolor=color, linewidth=1))
    axes.add_patch(patches.Rectangle(frame, 0.8 * filled, 0.6, facecolor=color, alpha=0.45))


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    draw(sys.argv[1])
