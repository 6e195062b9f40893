"""Makes images for benchmarks of speed, which does not depend on their content."""

import pathlib

import numpy as np

from experiments.benchmarks import machine
from noisegen import data

_SHAPES = {"mnist": (60_000, 10_000, 28, 1), "cifar10": (50_000, 10_000, 32, 3)}


def load(name: str) -> data.Dataset:
    """Loads the named data set, or noise of its shapes if it is missing; `source` says which."""
    try:
        return data.load(name)
    except (FileNotFoundError, ImportError) as error:
        machine.say(f"  noise of its shapes stands in for {name}: {str(error).splitlines()[0]}")
        return noise(*_SHAPES[name])


def noise(num_train: int, num_test: int, pixels: int, channels: int) -> data.Dataset:
    """Returns uniformly random bytes and labels of 10 classes, the same at every call."""
    rng = np.random.default_rng(0)

    def split(size):
        shape = (size, pixels, pixels, channels)
        label = rng.integers(0, 10, size, np.int32)
        return {"image": rng.integers(0, 256, shape, np.uint8), "label": label}

    mean, std = (0.5,) * channels, (0.29,) * channels
    return data.Dataset(
        "noise", split(num_train), split(num_test), 10, mean, std, "", "made-up noise"
    )


def save(path: str | pathlib.Path, dataset: data.Dataset) -> None:
    """Writes the arrays as contenders read them: `train_image`, `train_label`, and of the test."""
    splits = {"train": dataset.train, "test": dataset.test}
    np.savez(
        path, **{f"{s}_{name}": a for s, arrays in splits.items() for name, a in arrays.items()}
    )
