"""Additive gradient noise, Table 2 with ghost batches: CIFAR-10, normalized over 64 examples

As table2.py except for the batch normalization, which is over ghost batches of 64 at every batch
size (16 at the scale cpu). The noise of normalization then does not shrink as the batch grows. Not
in the draft: it separates the effect of whole batches on normalization from that on the gradient.
"""

import ml_collections

from experiments.additive_noise import table2
from noisegen import sweeps


def get_config(scale: str = "cpu") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    config = table2.get_config(scale)
    ghost_sizes = {"paper": 64, "gpu": 64, "cpu": 16, "test": 4}
    config.task.ghost_size = ghost_sizes[scale]
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    return table2.get_sweep(config)
