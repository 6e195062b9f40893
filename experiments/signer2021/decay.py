"""Signer & Barbier, section V: the scaling rules with a learning rate that falls every epoch

The report suggests this against the instability at large learning rates, and leaves it open. Our
choice is a factor of .9 after every one of the first 29 epochs, so that the thirtieth has a
twentieth of the rule's learning rate. Figures 1, 2 and 3 show the same rules without decay. At
batch size 64 the rules agree, and the run stands in the first column.
"""

from collections.abc import Mapping
from typing import Any

import ml_collections
import optax

import noisegen
from experiments import scales
from experiments.signer2021 import scaling_rules
from noisegen import sweeps

EPOCHS = range(1, 30)  # after which the learning rate falls


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
                "decay": 0.9,
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
        lambda: scaling_rules.make_task(config, make_optimizer, "SGD with decay"),
        scaling_rules.make_runs(config, points),
        scaling_rules.make_rule_protocol(config),
    )


def make_optimizer(hparams: Mapping[str, Any], key: Any) -> optax.GradientTransformation:
    """Returns SGD whose learning rate falls after every epoch."""
    del key  # The only noise is that of the batches.
    schedule = noisegen.step_decay_schedule(
        hparams["learning_rate"], EPOCHS, hparams["decay"], hparams["updates_per_epoch"]
    )
    return optax.sgd(schedule, hparams["momentum"])
