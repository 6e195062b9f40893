"""Smith, Elsen & De, appendix E: unlimited epochs, LSTM language model

As figure2.py, for the network and the texts of lstm.py. We had no access to the appendix. Budgets
and grids are our choice.
"""

import ml_collections

from experiments import scales
from experiments.smith2020 import figure2, figure2_autoencoder, lstm
from noisegen import sweeps


def get_config(scale: str = "cpu") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    scales.check(scale, "paper", "gpu", "cpu", "test")
    config = ml_collections.ConfigDict(
        {
            "task": lstm.task_fields(scale),
            "run": {
                "batch_size": 16,
                "momentum": 0.9,  # as the paper; Zaremba et al. have 0
                "l2": 0.0,
                "gamma": 2.0,
                "num_evals": 20,
            },
            "grid": {
                "seed": tuple(range(15)),
                "num_epochs": sweeps.doublings(5, 160),
                "effective_learning_rate": sweeps.powers_of_two(2**-4, 8),
            },
            "best": 12,  # of the seeds
            "search": "grid",  # or "race": train only the runs that decide the optimum
        }
    )
    if scale == "gpu":
        config.grid.update(
            seed=(0,),
            num_epochs=sweeps.doublings(5, 20),
            effective_learning_rate=sweeps.powers_of_two(2**-2, 4),
        )
        config.best = 1
    if scale == "cpu":
        config.grid.update(
            seed=(0, 1, 2),
            num_epochs=sweeps.doublings(1, 16),
            effective_learning_rate=sweeps.powers_of_two(2**-4, 2),
        )
        config.best = 3
    if scale == "test":
        config.run.batch_size = 4
        config.grid.update(seed=(0,), num_epochs=(2, 4), effective_learning_rate=(2**-5,))
        config.best = 1
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    return sweeps.Sweep(
        lstm.task_maker(config),
        figure2.make_runs(config),
        figure2_autoencoder.make_protocols(config, metric="test_loss"),
        static=("batch_size",),
    )
