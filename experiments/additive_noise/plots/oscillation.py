"""Turns the oscillation of a test accuracy over epochs into two numbers.

    python -m experiments.additive_noise.oscillation experiments/results/additive_noise/figure1

For every kind of run: the largest drop of the test accuracy from one epoch to the next, in all
epochs and in the last five, and the standard deviation of the last five, all in points, as mean and
standard deviation over runs; then the final test accuracy. Runs that diverged are counted and left
out.
"""

import argparse

import numpy as np

from experiments.additive_noise import table1
from noisegen import sweeps


def oscillation(accuracy: np.ndarray) -> tuple[float, float, float]:
    """Largest drop between two epochs, of all and of the last five; the deviation of these.

    >>> oscillation(np.array([0.5, 0.9, 0.4, 0.9, 0.9, 0.9, 0.9, 0.9]))
    (0.5, 0.0, 0.0)
    """
    last = accuracy[-5:]
    drops = (max(0.0, -np.diff(some).min()) for some in (accuracy, last))
    return *map(float, drops), float(np.std(last, ddof=1))


def lines(records: list[dict]) -> list[str]:
    """One line for each kind of run."""
    text = []
    for noisy, kind in enumerate(table1.LABELS):
        runs = [record for record in records if (record["run"]["eta"] > 0) == noisy]
        alive = [record for record in runs if record["status"] == "finished"]
        numbers = []
        for record in alive:
            accuracy = 100 * np.array(record["curve"]["test_accuracy"])
            numbers.append((*oscillation(accuracy), accuracy[-1]))
        if len(numbers) < 2:
            text.append(f"{kind}: {len(numbers)} of {len(runs)} runs finished; a spread needs two")
            continue
        means, deviations = np.mean(numbers, 0), np.std(numbers, 0, ddof=1)
        pairs = zip(means, deviations, strict=True)
        drop, late, spread, final = (f"{mean:.1f} ± {std:.1f}" for mean, std in pairs)
        text.append(
            f"{kind} ({len(alive)} of {len(runs)} runs): largest drop {drop}, in the last five "
            f"epochs {late}, their deviation {spread}, final {final}"
        )
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "workdir", help="directory of a sweep of experiments/additive_noise/figure1.py"
    )
    print("\n".join(lines(sweeps.read(parser.parse_args().workdir))))
