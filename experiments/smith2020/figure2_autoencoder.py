"""Smith, Elsen & De, appendix E: unlimited epochs, fully connected autoencoder on MNIST

As figure2.py, for the network and the data of autoencoder.py. We had no access to the appendix.
Budgets and grids are our choice.
"""

import ml_collections

from experiments import scales, validation
from experiments.smith2020 import autoencoder, figure2
from noisegen import sweeps


def get_config(scale: str = "cpu") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    scales.check(scale, "paper", "gpu", "cpu", "test")
    config = ml_collections.ConfigDict(
        {
            "task": {
                "dataset": "mnist",
                "widths": (784, 1000, 500, 250, 30),
                "num_train": 60_000,
                "validation": 0,  # images held out of these to tune on; 0: on the test set
                "num_test": 10_000,
            },
            "run": {
                "batch_size": 64,
                "momentum": 0.9,
                "l2": 0.0,
                "gamma": 2.0,
                "num_evals": 20,
                "last_batch": "straddle",  # or "resample": draw every batch anew
            },
            "grid": {
                "seed": tuple(range(15)),
                "num_epochs": sweeps.doublings(50, 6400),
                "effective_learning_rate": sweeps.powers_of_two(2**-10, 2**-3),
            },
            "best": 12,  # of the seeds
            "search": "grid",  # or "race": train only the runs that decide the optimum
        }
    )
    if scale == "gpu":
        config.grid.update(
            seed=(0, 1, 2),
            num_epochs=sweeps.doublings(25, 200),
            effective_learning_rate=sweeps.powers_of_two(2**-9, 2**-4),
        )
        config.best = 2
    if scale in ("cpu", "test"):
        config.task.update(widths=(784, 128, 64, 32, 12), num_train=16_384, num_test=4096)
        config.run.batch_size = 32
        config.grid.update(
            seed=(0, 1, 2),
            num_epochs=sweeps.doublings(2, 32),
            effective_learning_rate=sweeps.powers_of_two(2**-8, 2**-3),
        )
        config.best = 3
    if scale == "test":
        config.task.update(num_train=5, num_test=3)
        config.run.batch_size = 2
        config.grid.update(seed=(0,), num_epochs=(2, 4), effective_learning_rate=(2**-5,))
        config.best = 1
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    return sweeps.Sweep(
        lambda: autoencoder.make_task(config),
        figure2.make_runs(config),
        make_protocols(config, metric="test_squared_error"),
    )


def make_protocols(config: ml_collections.ConfigDict, metric: str) -> list[sweeps.Protocol]:
    """Returns two protocols, which tune for a metric and for the training loss."""
    return figure2.make_protocols(
        config,
        {"mode": "min", **validation.tuned_on(config.task, metric, report=("train_loss",))},
        {"mode": "min", "metric": "train_loss", "report": (metric,)},
    )
