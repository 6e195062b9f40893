"""Smith, Elsen & De, appendix C.2: constant epoch budget without normalization

As figure1.py, but with Regularized SkipInit in place of ghost batch norm. We had no access to the
appendix.
"""

import ml_collections

from experiments.smith2020 import figure1
from noisegen import sweeps


def get_config(scale: str = "cpu") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    config = figure1.get_config(scale)
    config.task.update(ghost_size=0, dropout=0.5)  # SkipInit, whose dropout is our choice
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    return figure1.get_sweep(config)
