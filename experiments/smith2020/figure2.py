"""Smith, Elsen & De, Figure 2: unlimited epochs at a small batch, with ghost batch norm

Claims: at a small batch size the best test accuracy rises with the number of epochs and saturates
(after 800 with batch normalisation); the best training loss falls steadily; the learning rate that
minimises the training loss falls by much more than the one that maximises the test accuracy, which
changes by a factor of 2 over budgets from 50 to 6400 epochs: there is an optimal temperature.

Learning rates are chosen twice from the same runs, for test accuracy and for training loss. The
paper prints no numbers of this figure.
"""

from experiments.smith2020 import common, wide_resnet
from experiments.smith2020.common import get_runs  # noqa: F401
from experiments.smith2020.wide_resnet import get_task  # noqa: F401
from noisegen import sweeps

_BY_SCALE = {
    "paper": {
        "batch_size": 64,
        "num_epochs": sweeps.doublings(50, 6400),
        "effective_learning_rate": sweeps.powers_of_two(2**-4, 4),
        "seeds": 15,
        "best": 12,
    },
    "gpu": {
        "batch_size": 64,
        "num_epochs": sweeps.doublings(25, 200),
        "effective_learning_rate": sweeps.powers_of_two(2**-2, 2),
        "seeds": 3,
        "best": 2,
    },
    "cpu": {
        "batch_size": 16,
        "num_epochs": sweeps.doublings(20, 640),
        "effective_learning_rate": sweeps.powers_of_two(2**-6, 1),
        "seeds": 3,
        "best": 3,
    },
}


def get_config(scale="cpu", **task):
    """Every field that `--config.NAME=VALUE` may override."""
    few = {"num_train": 1024} if scale == "cpu" else {}  # which the small network can fit
    return wide_resnet.make_config(scale, _BY_SCALE, **few, **task)


def get_protocol(config):
    return [
        common.get_protocol(config, row="num_epochs"),
        common.get_protocol(config, row="num_epochs", **wide_resnet.LEAST_LOSS),
    ]
