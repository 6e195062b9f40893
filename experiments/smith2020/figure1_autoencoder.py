"""Smith, Elsen & De, appendix C.3: constant epoch budget, fully connected autoencoder on MNIST

As figure1.py, for the network and the data of autoencoder.py. We had no access to the appendix. One
of its models does not obey the linear scaling rule, but we do not know which. Budgets and grids are
our choice.
"""

import ml_collections

from experiments import scales
from experiments.smith2020 import autoencoder, figure1
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
                "num_epochs": 200.0,
                "momentum": 0.9,  # not read: the grid has both
                "l2": 0.0,
                "gamma": 2.0,
                "num_evals": 20,
                "last_batch": "straddle",  # or "resample": draw every batch anew
            },
            "grid": {
                "seed": tuple(range(15)),
                "batch_size": sweeps.powers_of_two(16, 8192),
                "effective_learning_rate": sweeps.powers_of_two(2**-12, 2**-1),
                "momentum": (0.0, 0.9),
            },
            "best": 12,  # of the seeds
            "search": "grid",  # or "race": train only the runs that decide the optimum
        }
    )
    if scale == "gpu":
        config.run.num_epochs = 100.0
        config.grid.update(
            seed=(0, 1, 2),
            batch_size=(64, 256, 1024, 4096),
            effective_learning_rate=sweeps.powers_of_two(2**-10, 2**-3),
        )
        config.best = 2
    if scale in ("cpu", "test"):
        config.task.update(widths=(784, 128, 64, 32, 12), num_train=16_384, num_test=4096)
        config.run.num_epochs = 4.0
        config.grid.update(
            seed=(0, 1, 2),
            batch_size=sweeps.powers_of_two(16, 2048),
            effective_learning_rate=sweeps.powers_of_two(2**-9, 2**-2),
        )
        config.best = 3
    if scale == "test":
        config.task.update(num_train=5, num_test=3)
        config.run.num_epochs = 2.0
        config.grid.update(seed=(0,), batch_size=(4,), effective_learning_rate=(2**-5,))
        config.best = 1
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    return sweeps.Sweep(
        lambda: autoencoder.make_task(config),
        figure1.make_runs(config),
        figure1.make_protocol(config, metric="test_squared_error", mode="min"),
    )
