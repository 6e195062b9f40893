"""Smith, Elsen & De, appendix C.3: constant epoch budget, fully connected autoencoder on MNIST

As figure1.py, for the network and the data of autoencoder.py. The appendix was not at hand, nor any
number of it; it has one model that does not obey the linear scaling rule, but which is not known.
Budgets and grids are our choice.
"""

from experiments.smith2020 import autoencoder, figure1
from experiments.smith2020.autoencoder import get_runs, get_task  # noqa: F401
from noisegen import sweeps

_BY_SCALE = {
    "paper": {
        "num_epochs": 200.0,
        "batch_size": sweeps.powers_of_two(16, 8192),
        "effective_learning_rate": sweeps.powers_of_two(2**-12, 2**-1),
        "seeds": 15,
        "best": 12,
    },
    "gpu": {
        "num_epochs": 100.0,
        "batch_size": (64, 256, 1024, 4096),
        "effective_learning_rate": sweeps.powers_of_two(2**-10, 2**-3),
        "seeds": 3,
        "best": 2,
    },
    "cpu": {
        "num_epochs": 4.0,
        "batch_size": sweeps.powers_of_two(16, 2048),
        "effective_learning_rate": sweeps.powers_of_two(2**-9, 2**-2),
        "seeds": 3,
        "best": 3,
    },
}


def get_config(scale="cpu"):
    """Every field that `--config.NAME=VALUE` may override."""
    config = autoencoder.get_config(scale, _BY_SCALE)
    config.grid.momentum = (0.0, 0.9)
    return config


def get_protocol(config):
    return figure1.get_protocol(config, metric="test_squared_error", mode="min")
