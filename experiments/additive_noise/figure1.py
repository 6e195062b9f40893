"""Additive gradient noise, Figure 1: MNIST, test accuracy at every epoch

Claim of the draft "Even larger batch size with additive gradient noise": at batch size 16384 and
learning rate .1 the test accuracy "oscillates wildly" without noise, with a drop of 50 points,
before it settles in the low 90s; noise of eta = .3 smooths it out completely.

Readings as in Table 1. The draft shows one run of each kind; here are five.
`experiments.additive_noise.plots.oscillation` measures the oscillation of a finished sweep.
"""

import ml_collections

from experiments.additive_noise import table1
from noisegen import sweeps


def get_config(scale: str = "paper") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    config = table1.get_config(scale)
    config.grid.eta = (0.0, 0.3)
    if scale == "paper":
        config.grid.update(seed=(0, 1, 2, 3, 4), learning_rate=(0.1,), batch_size=(16384,))
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    return sweeps.Sweep(
        lambda: table1.make_task(config), table1.make_runs(config), table1.make_protocol(config)
    )
