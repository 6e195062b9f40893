"""Turns the oscillation of a test accuracy over epochs into two numbers.

python -m experiments.additive_noise.oscillation experiments/results/additive_noise/figure1

For every kind of run: the largest drop of the test accuracy from one epoch to the next, and the
standard deviation of the last five epochs, both in points, as mean and standard deviation over
runs; then the final test accuracy.
"""

import sys

import numpy as np

from experiments.additive_noise import table1
from noisegen import sweeps


def oscillation(accuracy: np.ndarray) -> tuple[float, float]:
    """Largest drop from one epoch to the next (0 if none), and the last five epochs' deviation.

    >>> oscillation(np.array([0.5, 0.9, 0.4, 0.9, 0.9, 0.9, 0.9, 0.9]))
    (0.5, 0.0)
    """
    drop = max(0.0, -np.diff(accuracy).min())
    return float(drop), float(np.std(accuracy[-5:], ddof=1))


def main(workdir: str) -> None:
    """Prints one line for each kind of run in a sweep's directory."""
    kinds: dict[str, list] = {}
    for record in sweeps.read(workdir):
        accuracy = 100 * np.array(record["curve"]["test_accuracy"])
        numbers = (*oscillation(accuracy), accuracy[-1])
        kinds.setdefault(table1.LABELS[record["run"]["eta"] > 0], []).append(numbers)
    for kind, numbers in sorted(kinds.items()):
        means, deviations = np.mean(numbers, 0), np.std(numbers, 0, ddof=1)
        drop, late, final = (f"{m:.1f} ± {s:.1f}" for m, s in zip(means, deviations, strict=True))
        print(f"{kind} ({len(numbers)}): largest drop {drop}, last epochs {late}, final {final}")


if __name__ == "__main__":
    main(*sys.argv[1:])
