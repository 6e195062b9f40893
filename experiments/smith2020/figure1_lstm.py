"""Smith, Elsen & De, appendix C.3: constant epoch budget, LSTM language model

As figure1.py, for the network and the texts of lstm.py. The appendix was not at hand, nor any
number of it; it has one model that does not obey the linear scaling rule, but which is not known.
Budgets and grids are our choice.
"""

from experiments.smith2020 import figure1, lstm
from experiments.smith2020.lstm import get_runs, get_task  # noqa: F401
from noisegen import sweeps

_BY_SCALE = {
    "paper": {
        "num_epochs": 40.0,
        "batch_size": sweeps.powers_of_two(4, 1024),
        "effective_learning_rate": sweeps.powers_of_two(2**-4, 16),
        "seeds": 15,
        "best": 12,
    },
    "gpu": {
        "num_epochs": 10.0,
        "batch_size": (16, 64, 256),
        "effective_learning_rate": sweeps.powers_of_two(2**-1, 8),
        "seeds": 1,
        "best": 1,
    },
    "cpu": {
        "num_epochs": 2.0,
        "batch_size": sweeps.powers_of_two(8, 256),
        "effective_learning_rate": sweeps.powers_of_two(2**-4, 2),
        "seeds": 3,
        "best": 3,
    },
}


def get_config(scale="cpu"):
    """Every field that `--config.NAME=VALUE` may override."""
    config = lstm.get_config(scale, _BY_SCALE)
    config.grid.momentum = (0.0, 0.9)
    return config


def get_protocol(config):
    return figure1.get_protocol(config, metric="test_loss", mode="min")
