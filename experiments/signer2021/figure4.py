"""Signer & Barbier, Figure 4: the linear rule after a gradual warm-up

Claims: while the learning rate rises large batches learn well, then they diverge as before; the
warm-up is no significant improvement.

Reading: as the authors coded it, not as they print it. Both rise by a tenth of the way from .01 to
the rule's learning rate after every epoch, but the coded one has arrived in the tenth epoch, where
the printed formula is a tenth short (--config.run.warmup_epochs=10 --config.run.warmup_rise=1).
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
                "warmup_rise": 0.9,
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
        # Final test accuracy in percent.
        published=scaling_rules.published(98.82, 98.91, 98.28, 98.04, 98.81, 94.22, 93.51, 11.35),
    )
