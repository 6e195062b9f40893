"""Jaiswal & Taura, Figure 5: as many updates at every batch size, without noise

Claim: training with large batches "for sufficient number of iterations", otherwise as in Figure 4,
does not improve the validation accuracy. The paper prints neither a number nor these iterations.
Our reading: as many as at batch size 32, with the decays after as many updates as there, so that
batches k times as large are trained for k times the epochs.

The control of Figure 4 is `--config.grid.decay_rate=0.9,`. Other readings, and what the scales are,
in constant_ratio.py.
"""

import ml_collections

from experiments.jaiswal2020 import constant_ratio, figure4
from noisegen import linear_rule, sweeps


def get_config(scale: str = "cpu") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    config = figure4.get_config(scale)
    config.grid.decay_rate = (0.1,)
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    return sweeps.Sweep(
        constant_ratio.task_maker(config),
        constant_ratio.make_runs(config, stretch=linear_rule),
        constant_ratio.make_protocol(config),
        static=("batch_size",),
    )
