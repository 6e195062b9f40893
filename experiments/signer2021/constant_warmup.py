"""Signer & Barbier, section II: the linear rule after a constant warm-up

The report describes this warm-up but does not plot it: the first epochs have the learning rate of
the smallest batch size, the others that of the linear rule. It gives no number of epochs. Nine, as
many as the gradual warm-up of Figure 4 takes to arrive, are our choice.
"""

import ml_collections

import noisegen
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
                "warmup_epochs": 9.0,
                "warmup_rise": 0.0,
            },
            "grid": {"seed": (0, 1, 2), "batch_size": scaling_rules.SIZES},
            "convolution": "auto",  # or "patches", "lax": speed only
        }
    )
    if scale == "test":
        config.run.num_epochs = 2.0
        config.grid.update(seed=(0,), batch_size=(5,))
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    points = scaling_rules.rule_points(config, noisegen.linear_rule)
    return sweeps.Sweep(
        lambda: scaling_rules.make_task(config),
        scaling_rules.make_sgd_runs(config, points),
        scaling_rules.make_protocol(config),
    )
