"""Smith, Elsen & De, Figure 2: unlimited epochs at a small batch, without normalization

Claims: as for figure2.py, but without normalization (Regularized SkipInit) the best test accuracy
falls beyond 400 epochs, and the learning rate that maximizes it does not change at all with the
number of epochs. We had no access to the dropout probability of Regularized SkipInit: .5 is our
choice.
"""

import ml_collections

from experiments.smith2020 import figure2
from noisegen import sweeps


def get_config(scale: str = "cpu") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    config = figure2.get_config(scale)
    config.task.update(ghost_size=0, dropout=0.5)
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    return figure2.get_sweep(config)
