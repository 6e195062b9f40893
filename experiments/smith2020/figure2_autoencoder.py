"""Smith, Elsen & De, appendix E: unlimited epochs, fully connected autoencoder on MNIST

As figure2.py, for the network and the data of autoencoder.py. The appendix was not at hand, nor any
number of it. Budgets and grids are our choice.
"""

from experiments.smith2020 import autoencoder, common
from experiments.smith2020.autoencoder import get_runs, get_task  # noqa: F401
from noisegen import sweeps

_BY_SCALE = {
    "paper": {
        "batch_size": 64,
        "num_epochs": sweeps.doublings(50, 6400),
        "effective_learning_rate": sweeps.powers_of_two(2**-10, 2**-3),
        "seeds": 15,
        "best": 12,
    },
    "gpu": {
        "batch_size": 64,
        "num_epochs": sweeps.doublings(25, 200),
        "effective_learning_rate": sweeps.powers_of_two(2**-9, 2**-4),
        "seeds": 3,
        "best": 2,
    },
    "cpu": {
        "batch_size": 32,
        "num_epochs": sweeps.doublings(2, 32),
        "effective_learning_rate": sweeps.powers_of_two(2**-8, 2**-3),
        "seeds": 3,
        "best": 3,
    },
}


def get_config(scale="cpu"):
    """Every field that `--config.NAME=VALUE` may override."""
    return autoencoder.get_config(scale, _BY_SCALE)


def get_protocol(config, metric="test_squared_error"):
    least_loss = {"metric": "train_loss", "report": (metric,)}
    return [
        common.get_protocol(config, row="num_epochs", mode="min", **reading)
        for reading in ({"metric": metric}, least_loss)
    ]
