"""Defines the input and the answer of the contenders. Needs NumPy only."""

import json
import sys
import time

import numpy as np

MEAN, STD = 0.1307, 0.3081  # of the training images of MNIST
EVALUATION_BATCH = 1000


def read_spec() -> dict:
    """Reads the specification of the work.

    `images` (path), `momentum`, `seed`, `threads`, `runs` (pairs of batch size and learning rate)
    and `started` (time at which the process was).
    """
    return json.loads(sys.argv[1])


def load(spec: dict) -> list[np.ndarray]:
    """Loads images and labels, training set first: float32 (N, 28, 28, 1), int32 (N,)."""
    names = ("train_image", "train_label", "test_image", "test_label")
    with np.load(spec["images"]) as arrays:
        loaded = [arrays[name] for name in names]
    return [
        (a / np.float32(255) - np.float32(MEAN)) / np.float32(STD) if a.ndim > 1 else a
        for a in loaded
    ]


def run(
    batch_size: int, learning_rate: float, updates: int, accuracy: float, evaluations: int = 1
) -> dict:
    """Returns the answer for one run."""
    return {
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "num_updates": updates,
        "num_examples": updates * batch_size,
        "num_evaluations": evaluations,
        "test_accuracy": accuracy,
    }


def say(text: str) -> None:
    """Prints one line of progress."""
    print(f"  {text}", file=sys.stderr, flush=True)


def answer(runs: list[dict], ended: float | None = None, **more) -> None:
    """Prints the answer; `ended` is the time at which the last run was done, by default now."""
    print(json.dumps({"runs": runs, "ended": ended or time.time(), **more}))
