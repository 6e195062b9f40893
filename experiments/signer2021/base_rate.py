"""Signer & Barbier, the base learning rate: batch size 64, 30 epochs

Claim: .01 is the learning rate of best test accuracy at batch size 64, from which all rules start.
We do not know the learning rates that the authors compared. Here are doublings around theirs, and
more when the best is at an end.
"""

import ml_collections

from experiments import scales
from experiments.signer2021 import scaling_rules
from noisegen import sweeps


def get_config(scale: str = "paper") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    scales.check(scale, "paper", "test")
    config = ml_collections.ConfigDict(
        {
            "task": {"dataset": "mnist"},
            "base": {"batch_size": 64, "learning_rate": 0.01},
            "run": {
                "num_epochs": 30.0,
                "last_batch": "keep",
                "eval_every": 1.0,
                "momentum": 0.0,
                "warmup_epochs": 0.0,
                "warmup_rise": 0.0,
            },
            "grid": {
                "seed": (0, 1, 2),
                "batch_size": (64,),
                "learning_rate": sweeps.doublings(0.00125, 0.16),
            },
            "search": "grid",  # or "race": train only the runs that decide the optimum
            "convolution": "auto",  # or "patches", "lax": speed only
        }
    )
    if scale == "test":
        config.run.num_epochs = 2.0
        config.grid.update(seed=(0,), batch_size=(5,), learning_rate=(0.01, 0.02))
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    grid = config.grid
    points = sweeps.grid(learning_rate=grid.learning_rate, batch_size=grid.batch_size)
    return sweeps.Sweep(
        lambda: scaling_rules.make_task(config),
        scaling_rules.make_sgd_runs(config, points),
        scaling_rules.make_protocol(config, max_extensions=3, search=config.search),
        # The learning rate chosen. The report gives no error bar.
        published={("", 64): {"learning_rate": (0.01, 0.01, 0.01)}},
    )
