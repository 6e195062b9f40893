"""Smith, Elsen & De, appendix E: unlimited epochs, LSTM language model

As figure2.py, for the network and the texts of lstm.py. The appendix was not at hand, nor any
number of it. Budgets and grids are our choice.
"""

from experiments.smith2020 import figure2_autoencoder, lstm
from experiments.smith2020.lstm import get_runs, get_task  # noqa: F401
from noisegen import sweeps

_BY_SCALE = {
    "paper": {
        "batch_size": 16,
        "num_epochs": sweeps.doublings(5, 160),
        "effective_learning_rate": sweeps.powers_of_two(2**-4, 8),
        "seeds": 15,
        "best": 12,
    },
    "gpu": {
        "batch_size": 16,
        "num_epochs": sweeps.doublings(5, 20),
        "effective_learning_rate": sweeps.powers_of_two(2**-2, 4),
        "seeds": 1,
        "best": 1,
    },
    "cpu": {
        "batch_size": 16,
        "num_epochs": sweeps.doublings(1, 16),
        "effective_learning_rate": sweeps.powers_of_two(2**-4, 2),
        "seeds": 3,
        "best": 3,
    },
}


def get_config(scale="cpu"):
    """Every field that `--config.NAME=VALUE` may override."""
    return lstm.get_config(scale, _BY_SCALE)


def get_protocol(config):
    return figure2_autoencoder.get_protocol(config, metric="test_loss")
