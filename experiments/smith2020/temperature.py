"""One temperature schedule, two ways: decaying the learning rate, growing the batch

Claim of Smith et al., Don't Decay the Learning Rate, Increase the Batch Size (2018): the
temperature, effective learning rate over batch size, determines training while noise dominates.
Dividing the learning rate by a factor, or multiplying the batch size by it, then gives the same
curves and accuracy after the same number of epochs, the second in far fewer updates.

The schedules here fall by a factor of 4 after 10, 14 and 17 of 20 epochs, so that the last batch is
64 times the first. Factors and epochs are our choice. This is not one of the paper's figures: it
reproduces no published table.
"""

from collections.abc import Callable, Mapping
from typing import Any

import ml_collections
import optax

import noisegen
from experiments import scales, validation
from experiments.smith2020 import wide_resnet
from noisegen import sweeps

LABELS = ("decaying the learning rate", "growing the batch")
DROPS = (10, 14, 17)  # twentieths of the run, whole so that host and device compute alike
FACTOR = 4


def get_config(scale: str = "cpu") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    scales.check(scale, "paper", "gpu", "cpu", "test")
    config = ml_collections.ConfigDict(
        {
            "task": {
                "dataset": "cifar10",
                "num_train": 50_000,
                "validation": 0,  # images held out of these to tune on; 0: on the test set
                "num_test": 10_000,
                "pixels": 32,
                "depth": 16,
                "width": 4,
                "ghost_size": 64,  # 0: no normalization, SkipInit
                "dropout": 0.0,
                "dtype": "float32",
            },
            "run": {
                "num_epochs": 200.0,
                "batch_size": 64,
                "momentum": 0.9,
                "l2": 5e-4,
                "num_evals": 20,
            },
            "grid": {
                "seed": tuple(range(15)),
                "effective_learning_rate": sweeps.powers_of_two(2**-2, 4),
                "growth": (1, FACTOR),  # of the batch, each time that the temperature falls
            },
            "best": 12,  # of the seeds
            "search": "grid",  # or "race": train only the runs that decide the optimum
            "convolution": "lax",  # or "patches": speed only
        }
    )
    if scale == "gpu":
        config.task.dtype = "bfloat16"
        config.run.num_epochs = 100.0
        config.grid.update(
            seed=(0, 1, 2, 3, 4), effective_learning_rate=sweeps.powers_of_two(2**-1, 2)
        )
        config.best = 4
    if scale in ("cpu", "test"):
        config.task.update(
            num_train=4096, num_test=2048, pixels=8, depth=10, width=1, ghost_size=16
        )
        config.run.update(num_epochs=20.0, batch_size=16)
        config.grid.update(
            seed=(0, 1, 2, 3, 4), effective_learning_rate=sweeps.powers_of_two(2**-6, 1)
        )
        config.best = 4
        config.convolution = "patches"
    if scale == "test":
        config.task.update(dataset="digits", num_train=64, num_test=32)
        config.run.update(num_epochs=1.0, batch_size=1)
        config.grid.update(seed=(0,), effective_learning_rate=(2**-5,))
        config.best = 1
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    grid = config.grid
    points = sweeps.grid(
        seed=grid.seed, effective_learning_rate=grid.effective_learning_rate, growth=grid.growth
    )
    protocol = sweeps.Protocol(
        series=_label,
        labels=LABELS,
        tune=("effective_learning_rate",),
        best=config.best,
        search=config.search,
        of=len(grid.seed),
        **validation.tuned_on(
            config.task, "test_accuracy", report=("train_loss", "clean_train_loss", "num_updates")
        ),
    )
    return sweeps.Sweep(
        lambda: wide_resnet.make_task(config, make_optimizer, batch_size=batch_size),
        points * sweeps.fixed(**config.run),
        protocol,
    )


def _label(run):
    grows = run["growth"] > 1
    return LABELS[1] if grows else LABELS[0]


def batch_size(hparams: Mapping[str, Any]) -> Callable[[Any], Any]:
    """Returns the batch size by update; it grows when the temperature falls."""
    ends = _ends(hparams)

    def at(count):
        size = hparams["batch_size"]
        for end in ends:
            size = size * (1 + (hparams["growth"] - 1) * (count >= end))
        return size

    return at


def make_optimizer(hparams: Mapping[str, Any], key: Any) -> Any:
    """Returns SGD with momentum at a temperature that falls in steps."""
    del key  # The only noise is that of the batches.
    momentum = hparams["momentum"]
    ends = _ends(hparams)
    initial = hparams["effective_learning_rate"] / hparams["batch_size"]

    def temperature(count):
        value = initial
        for end in ends:
            value = value / (1 + (FACTOR - 1) * (count >= end))
        return value

    return optax.chain(
        optax.add_decayed_weights(hparams["l2"]),
        optax.trace(momentum),
        noisegen.scale_by_temperature(temperature, batch_size(hparams), momentum),
    )


def _ends(hparams):
    """Returns the update counts at which the temperature falls, at constant or growing batch."""
    total = hparams["num_epochs"] * hparams["num_examples"]
    ends = []
    size = hparams["batch_size"]
    num_updates = 0
    last_drop = 0
    for drop in DROPS:
        examples = (drop - last_drop) * total / 20
        # Rounded up. Plain operators work on the host's numbers and on the device's.
        num_updates = num_updates + -(-examples // size)
        ends.append(num_updates)
        size = size * hparams["growth"]
        last_drop = drop
    return ends
