"""Jaiswal & Taura, Figure 5: as many updates at every batch size, without noise

Claim: training with large batches "for sufficient number of iterations", otherwise as in Figure 4,
does not improve the validation accuracy. No number is printed, nor how many iterations these were;
our reading: as many as at batch size 32, with the decays after as many updates as there, so that
batches k times as large are trained for k times the epochs.

The control of Figure 4 is `--config.grid.decay_rate=0.9,`. Other readings, and what the scales are,
in common.py.
"""

from experiments.jaiswal2020 import common
from experiments.jaiswal2020.common import get_protocol, get_task  # noqa: F401
from noisegen import linear_rule


def get_config(scale="cpu"):
    """Every field that `--config.NAME=VALUE` may override."""
    return common.make_config(scale)


def get_runs(config):
    return common.get_runs(config, stretch=linear_rule)
