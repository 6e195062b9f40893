"""Smith, Elsen & De, Figure 2: unlimited epochs at a small batch, with ghost batch norm

Claims: at a small batch size the best test accuracy rises with the number of epochs and saturates
(after 800 with batch normalization). The best training loss falls steadily. The learning rate that
minimizes the training loss falls by much more than the one that maximizes the test accuracy, which
changes by a factor of 2 over budgets from 50 to 6400 epochs: there is an optimal temperature.

Learning rates are chosen twice from the same runs, for test accuracy and for training loss. The
paper prints no numbers of this figure.
"""

from collections.abc import Mapping
from typing import Any

import ml_collections

from experiments import scales, validation
from experiments.smith2020 import runs, wide_resnet
from noisegen import sweeps


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
                "batch_size": 64,
                "momentum": 0.9,
                "l2": 5e-4,
                "gamma": 2.0,
                "num_evals": 20,
                "last_batch": "straddle",  # or "resample": draw every batch anew
            },
            "grid": {
                "seed": tuple(range(15)),
                "num_epochs": sweeps.doublings(50, 6400),
                "effective_learning_rate": sweeps.powers_of_two(2**-4, 4),
            },
            "best": 12,  # of the seeds
            "search": "grid",  # or "race": train only the runs that decide the optimum
            "convolution": "lax",  # or "patches": speed only
        }
    )
    if scale == "gpu":
        config.task.dtype = "bfloat16"
        config.grid.update(
            seed=(0, 1, 2),
            num_epochs=sweeps.doublings(25, 200),
            effective_learning_rate=sweeps.powers_of_two(2**-2, 2),
        )
        config.best = 2
    if scale in ("cpu", "test"):
        # So few images that the small network can fit them.
        config.task.update(
            num_train=1024, num_test=2048, pixels=8, depth=10, width=1, ghost_size=16
        )
        config.run.batch_size = 16
        config.grid.update(
            seed=(0, 1, 2),
            num_epochs=sweeps.doublings(20, 640),
            effective_learning_rate=sweeps.powers_of_two(2**-6, 1),
        )
        config.best = 3
        config.convolution = "patches"
    if scale == "test":
        config.task.update(dataset="digits", num_train=64, num_test=32)
        config.grid.update(seed=(0,), num_epochs=(5, 6), effective_learning_rate=(2**-5,))
        config.best = 1
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    protocols = make_protocols(
        config,
        {
            "mode": "max",
            **validation.tuned_on(config.task, "test_accuracy", report=("train_loss",)),
        },
        {
            "mode": "min",
            "metric": "train_loss",
            "report": ("clean_train_loss", "test_accuracy"),
        },
    )
    return sweeps.Sweep(lambda: wide_resnet.make_task(config), make_runs(config), protocols)


def make_runs(config: ml_collections.ConfigDict) -> sweeps.Grid:
    """Returns the runs; one seed of everything comes first."""
    grid = config.grid
    points = sweeps.grid(
        seed=grid.seed,
        effective_learning_rate=grid.effective_learning_rate,
        num_epochs=grid.num_epochs,
    )
    return points * runs.fixed(config.run)


def make_protocols(
    config: ml_collections.ConfigDict, *goals: Mapping[str, Any]
) -> list[sweeps.Protocol]:
    """Returns a protocol for each goal: `metric`, `mode` and `report`, as `Protocol` takes them."""
    shared = {
        "row": "num_epochs",
        "tune": ("effective_learning_rate",),
        "best": config.best,
        "search": config.search,
        "of": len(config.grid.seed),
    }
    return [sweeps.Protocol(**goal, **shared) for goal in goals]
