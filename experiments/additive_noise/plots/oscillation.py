"""Measures how much the test accuracy oscillates over epochs (run with `python -m`).

    python -m experiments.additive_noise.plots.oscillation DIRECTORY

DIRECTORY is that of a sweep of figure1.py, such as experiments/results/additive_noise/figure1.
Prints for every kind of run the largest drop of the test accuracy from one epoch to the next, in
all epochs and in the last five; the standard deviation of the last five; and the final test
accuracy. All are in points, as mean and standard deviation over runs. Runs that diverged are
counted and left out.
"""

import argparse
from collections.abc import Mapping, Sequence

import numpy as np

from experiments.additive_noise import table1
from noisegen import storage, sweeps


def oscillation(accuracy: np.ndarray) -> tuple[float, float, float]:
    """Returns the largest drop from one epoch to the next, and two numbers of the last five epochs.

    These are the largest drop among them, and their standard deviation.

    >>> oscillation(np.array([0.5, 0.9, 0.4, 0.9, 0.9, 0.9, 0.9, 0.9]))
    (0.5, 0.0, 0.0)
    """
    last = accuracy[-5:]
    return _largest_drop(accuracy), _largest_drop(last), float(np.std(last, ddof=1))


def _largest_drop(accuracy):
    return max(0.0, float(-np.diff(accuracy).min()))


def lines(
    records: Sequence[storage.Record], curves: Mapping[str, Mapping[str, Sequence[float]]]
) -> list[str]:
    """Returns one line for each kind of run.

    Args:
      records: Records of a sweep of figure1.py.
      curves: Their evaluations by run_id.
    """
    plain = [record for record in records if record.hparams["eta"] == 0]
    noisy = [record for record in records if record.hparams["eta"] > 0]
    kinds = zip(table1.LABELS, (plain, noisy), strict=True)
    return [_line(kind, runs, curves) for kind, runs in kinds]


def _line(kind, records, curves):
    finished = [record for record in records if record.status == "finished"]
    rows = []
    for record in finished:
        accuracy = 100 * np.array(curves[record.run_id]["test_accuracy"])
        rows.append((*oscillation(accuracy), accuracy[-1]))
    if len(rows) < 2:
        return f"{kind}: {len(rows)} of {len(records)} runs finished; a spread needs two"
    means, deviations = np.mean(rows, axis=0), np.std(rows, axis=0, ddof=1)
    cells = [f"{mean:.1f} ± {std:.1f}" for mean, std in zip(means, deviations, strict=True)]
    return (
        f"{kind} ({len(finished)} of {len(records)} runs): largest drop {cells[0]}, in the last "
        f"five epochs {cells[1]}, their deviation {cells[2]}, final {cells[3]}"
    )


def main(workdir: str) -> None:
    """Prints a line for each kind of run."""
    sweep = sweeps.Sweep.open(workdir)
    records = sweep.records()
    curves = sweep.curves(record.run_id for record in records)
    print("\n".join(lines(records, curves)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "workdir", help="directory of a sweep of experiments/additive_noise/figure1.py"
    )
    main(parser.parse_args().workdir)
