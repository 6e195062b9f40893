"""Smith, Elsen & De, appendix C.3: constant epoch budget, LSTM language model

As figure1.py, for the network and the texts of lstm.py. We had no access to the appendix. One of
its models does not obey the linear scaling rule, but we do not know which. Budgets and grids are
our choice.
"""

import ml_collections

from experiments import scales
from experiments.smith2020 import figure1, lstm
from noisegen import sweeps


def get_config(scale: str = "cpu") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    scales.check(scale, "paper", "gpu", "cpu", "test")
    config = ml_collections.ConfigDict(
        {
            "task": lstm.task_fields(scale),
            "run": {
                "num_epochs": 40.0,
                "momentum": 0.0,  # not read: the grid has both
                "l2": 0.0,
                "gamma": 2.0,
                "num_evals": 20,
            },
            "grid": {
                "seed": tuple(range(15)),
                "batch_size": sweeps.powers_of_two(4, 1024),
                "effective_learning_rate": sweeps.powers_of_two(2**-4, 16),
                "momentum": (0.0, 0.9),
            },
            "best": 12,  # of the seeds
            "search": "grid",  # or "race": train only the runs that decide the optimum
        }
    )
    if scale == "gpu":
        config.run.num_epochs = 10.0
        config.grid.update(
            seed=(0,),
            batch_size=(16, 64, 256),
            effective_learning_rate=sweeps.powers_of_two(2**-1, 8),
        )
        config.best = 1
    if scale == "cpu":
        config.run.num_epochs = 2.0
        config.grid.update(
            seed=(0, 1, 2),
            batch_size=sweeps.powers_of_two(8, 256),
            effective_learning_rate=sweeps.powers_of_two(2**-4, 2),
        )
        config.best = 3
    if scale == "test":
        config.run.num_epochs = 2.0
        config.grid.update(seed=(0,), batch_size=(4,), effective_learning_rate=(2**-5,))
        config.best = 1
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    return sweeps.Sweep(
        lstm.task_maker(config),
        figure1.make_runs(config),
        figure1.make_protocol(config, metric="test_loss", mode="min"),
        static=("batch_size",),
    )
