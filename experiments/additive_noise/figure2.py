"""Additive gradient noise, Figure 2: MNIST, full-batch gradient descent with and without noise

Claims of the draft "Even larger batch size with additive gradient noise": with the whole training
set as the batch, noise of eta = 1 "significantly accelerates" training, and after 100 epochs, which
are 100 updates, the test accuracy is "higher by 5%". No number is printed.

Readings as in Table 1, momentum .5 included. The learning rate of .01 is the draft's. It shows one
run of each kind; here are three. Each sees 6 million images, which takes a processor core minutes.
"""

import ml_collections

from experiments.additive_noise import table1
from noisegen import sweeps


def get_config(scale: str = "paper") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    config = table1.get_config(scale)
    config.grid.eta = (0.0, 1.0)
    if scale == "paper":
        config.run.num_epochs = 100.0
        config.grid.update(learning_rate=(0.01,), batch_size=(60_000,))
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    return sweeps.Sweep(
        lambda: table1.make_task(config), table1.make_runs(config), table1.make_protocol(config)
    )
