"""Compares two ways to find the boundary between noise and curvature (run with `python -m`).

    python -m experiments.smith2020.plots.regimes FIGURE1 STABILITY

The arguments are directories of sweeps of figure1.py and stability.py at the same scale. The first
gives the fitted boundary, with its 95 % interval. The second gives the largest stable effective
learning rate. Divided by the best temperature (that of the smallest batch size of the first), it is
the batch size that section 8 of Smith, Elsen & De advises.
"""

import math
import sys

from experiments.smith2020 import figure1
from noisegen import sweeps

CHANCE = math.log(10)  # nats: the loss of guessing among ten classes


def compare(whole: str, cheap: str) -> list[dict]:
    """Returns one row for SGD and one for momentum, if both sweeps have them.

    Args:
      whole: Directory of a sweep of figure1.py.
      cheap: Directory of a sweep of stability.py.

    Raises:
      ValueError: If the sweeps are of different tasks, or have too few records.
    """
    whole_sweep, cheap_sweep = sweeps.Sweep.open(whole), sweeps.Sweep.open(cheap)
    if whole_sweep.state.task_name != cheap_sweep.state.task_name:
        raise ValueError(
            f"{whole} and {cheap} are sweeps of different tasks; give two of one scale."
        )
    optima = whole_sweep.optima()
    boundaries = sweeps.boundaries(optima, whole_sweep.protocols[0])
    rows = []
    for label, momentum in zip(figure1.LABELS, (0.0, 0.9), strict=True):
        short_runs = [
            record for record in cheap_sweep.records() if record.hparams["momentum"] == momentum
        ]
        of_series = [optimum for optimum in optima if optimum.series == label and optimum.n]
        if not short_runs or not of_series or label not in boundaries:
            continue
        smallest = of_series[0]  # as rows are sorted
        best_rate = sweeps.effective_learning_rate_of(smallest.counted[0].hparams)
        rows.append(
            {
                "series": label,
                "boundary": boundaries[label],
                "stable": sweeps.largest_stable(short_runs, limit=CHANCE),
                "best": best_rate / smallest.row,
            }
        )
    if not rows:
        raise ValueError(f"{whole} and {cheap} have too few finished runs to compare.")
    return rows


def main(whole: str, cheap: str) -> None:
    """Prints a table in Markdown."""
    print("| | boundary fitted (95 %) | largest stable rate | best temperature | predicted |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for row in compare(whole, cheap):
        fit = row["boundary"]
        interval = f" ({fit.low:.0f} to {fit.high:.0f})" if fit.low > 0 else ""
        flags = f" {', '.join(fit.flags)}" if fit.flags else ""
        print(
            f"| {row['series']} | {fit.batch_size:.0f}{interval}{flags} "
            f"| {row['stable']:g} | {row['best']:.2g} | {row['stable'] / row['best']:.0f} |"
        )


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
