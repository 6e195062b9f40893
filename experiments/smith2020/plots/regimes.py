"""The boundary between noise and curvature, found in two ways: from a whole sweep and a cheap one.

    python -m experiments.smith2020.regimes FIGURE1 STABILITY

The arguments are directories of sweeps of figure1.py and stability.py at the same scale. From the
first comes the fitted boundary, with its 95 % interval; from the second the largest stable
effective learning rate, which divided by the best temperature (that of the smallest batch size of
the first) is the batch size that section 8 of Smith, Elsen & De advises.
"""

import math
import sys

from experiments.smith2020 import figure1
from launch import experiment
from noisegen import sweeps

CHANCE = math.log(10)  # nats: the loss of guessing among ten classes


def compare(whole: str, cheap: str) -> list[dict]:
    """One row for SGD and one for momentum, for those that both sweeps have.

    Raises:
      ValueError: the sweeps are of different tasks, or have too few records.
    """
    (records, protocol), (short, _) = _read(whole), _read(cheap)
    if sweeps.read_sweep(whole)["task"] != sweeps.read_sweep(cheap)["task"]:
        raise ValueError(
            f"{whole} and {cheap} are sweeps of different tasks; give two of one scale."
        )
    optima = sweeps.select(records, protocol)
    boundaries = sweeps.boundaries(optima, protocol)
    rows = []
    for label, momentum in zip(figure1.LABELS, (0.0, 0.9), strict=True):
        alike = [record for record in short if record["run"]["momentum"] == momentum]
        first = next((o for o in optima if o.series == label and o.n), None)
        if alike and first and label in boundaries:
            stable = sweeps.largest_stable(alike, limit=CHANCE)
            best = sweeps.effective_learning_rate(first.best[0]["run"]) / first.row
            rows.append(
                {"series": label, "boundary": boundaries[label], "stable": stable, "best": best}
            )
    if not rows:
        raise ValueError(f"{whole} and {cheap} have too few finished runs to compare.")
    return rows


def _read(workdir):
    """The records of the sweep that the directory was last used for, and their protocol."""
    exp = experiment.load_from_workdir(workdir)
    records = sweeps.read(workdir, curves=False)
    task = sweeps.read_sweep(workdir)["task"]
    wanted = sweeps.wanted(task, sweeps.by_run_id(task, exp.runs), exp.protocols, records)
    return [record for record in records if record["run_id"] in wanted], exp.protocols[0]


def main(whole: str, cheap: str) -> None:
    """Prints a table."""
    print("| | boundary fitted (95 %) | largest stable rate | best temperature | predicted |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for row in compare(whole, cheap):
        fit = row["boundary"]
        flags = f" {', '.join(fit.flags)}" if fit.flags else ""
        interval = f" ({fit.low:.0f} to {fit.high:.0f})"
        print(
            f"| {row['series']} | {fit.batch_size:.0f}{interval * (fit.low > 0)}{flags} "
            f"| {row['stable']:g} | {row['best']:.2g} | {row['stable'] / row['best']:.0f} |"
        )


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
