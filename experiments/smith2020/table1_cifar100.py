"""Smith, Elsen & De, appendix D: constant step budget, CIFAR-100, Wide-ResNet 28-10

As table1.py on CIFAR-100, with ghost batch norm. `--config.task.ghost_size=0
--config.task.dropout=0.5` trains without it. Claim of the main text: the test accuracy drops at
very large batches here too. We had no access to the appendix. Schedule and grid are those of
table1.py.
"""

import ml_collections

from experiments.smith2020 import table1
from noisegen import sweeps


def get_config(scale: str = "cpu") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    config = table1.get_config(scale)
    if scale in ("paper", "gpu"):
        config.task.update(dataset="cifar100", depth=28, width=10)
    if scale == "cpu":
        config.task.dataset = "cifar100"
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    return table1.get_sweep(config)
