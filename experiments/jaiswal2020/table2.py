"""Jaiswal & Taura, Table 2: noise of variance 1e-5 / (1 + t)^.55 on the gradient

Claim: noise on the gradient before each update closes part of the gap that larger batches leave at
constant learning rate over batch size: 70.29 becomes 72.07 % at batch size 64, 67.86 becomes 71.01
± .42 % at 128 (of two runs; the others are single ones).

The control of Figure 4 is `--config.grid.decay_rate=0.9,`. Other readings, and what the scales are,
in constant_ratio.py.
"""

import ml_collections

from experiments.jaiswal2020 import constant_ratio, figure4
from noisegen import sweeps


def get_config(scale: str = "cpu") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    config = figure4.get_config(scale)
    config.grid.update(decay_rate=(0.1,), variance=(0.0, constant_ratio.VARIANCE))
    if scale != "test":
        config.grid.batch_size = (64, 128)
    return config


# Validation accuracy in percent.
_PUBLISHED = {
    ("no noise", 64): (figure4.ACCURACIES[64], None),
    ("no noise", 128): (figure4.ACCURACIES[128], None),
    ("noise", 64): (72.07, None),
    ("noise", 128): (71.01, 0.42),
}


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    is_published = constant_ratio.is_published(config, get_config("paper"))
    return sweeps.Sweep(
        constant_ratio.task_maker(config),
        constant_ratio.make_runs(config),
        constant_ratio.make_protocol(config),
        published=_PUBLISHED if is_published else None,
        static=("batch_size",),
    )
