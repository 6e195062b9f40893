"""Signer & Barbier, section V: do the scaling rules hold for Adam?

The report asks this and leaves it open. Our choices are all three rules, the base learning rate
.001 at batch size 64, and Adam's own defaults: decay rates .9 and .999, epsilon 1e-8. At batch size
64 the rules agree, and the run stands in the first column.
"""

from collections.abc import Mapping
from typing import Any

import ml_collections
import optax

from experiments import scales
from experiments.signer2021 import scaling_rules
from noisegen import sweeps


def get_config(scale: str = "paper") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    scales.check(scale, "paper", "test")
    config = ml_collections.ConfigDict(
        {
            "task": {"dataset": "mnist"},
            "base": {"batch_size": 64, "learning_rate": 0.001},
            "run": {
                "num_epochs": 30.0,
                "last_batch": "keep",
                "eval_every": 1.0,
                "b1": 0.9,
                "b2": 0.999,
                "eps": 1e-8,
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
    points = scaling_rules.rule_points(config, *scaling_rules.RULES.values())
    return sweeps.Sweep(
        lambda: scaling_rules.make_task(config, make_optimizer, "Adam"),
        scaling_rules.make_runs(config, points),
        scaling_rules.make_rule_protocol(config),
    )


def make_optimizer(hparams: Mapping[str, Any], key: Any) -> optax.GradientTransformation:
    """Returns Adam."""
    del key  # The only noise is that of the batches.
    return optax.adam(
        hparams["learning_rate"], b1=hparams["b1"], b2=hparams["b2"], eps=hparams["eps"]
    )
