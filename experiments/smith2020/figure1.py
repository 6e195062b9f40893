"""Smith, Elsen & De, Figure 1: constant epoch budget, SGD with and without momentum

Claims: at a constant number of epochs, with the learning rate tuned for each batch size, (a) the
test accuracy does not depend on the batch size up to about 512 and falls beyond; momentum changes
nothing below and helps above; (b) likewise the training loss; (c) the optimal effective learning
rate is proportional to the batch size where that is small, and constant where it is large.

The paper prints no numbers of this figure, nor the batch sizes and learning rates that it tried.
"""

from experiments.smith2020 import common, wide_resnet
from experiments.smith2020.common import get_runs  # noqa: F401
from experiments.smith2020.wide_resnet import get_task  # noqa: F401
from noisegen import sweeps

LABELS = ("SGD", "momentum .9")
_BY_SCALE = {
    "paper": {
        "num_epochs": 200.0,
        "batch_size": sweeps.powers_of_two(16, 8192),
        "effective_learning_rate": sweeps.powers_of_two(2**-4, 32),
        "seeds": 15,
        "best": 12,
    },
    "gpu": {
        "num_epochs": 50.0,
        "batch_size": (64, 256, 1024, 4096),
        "effective_learning_rate": sweeps.powers_of_two(1, 16),
        "seeds": 3,
        "best": 2,
    },
    "cpu": {
        "num_epochs": 20.0,
        "batch_size": sweeps.powers_of_two(16, 2048),
        "effective_learning_rate": sweeps.powers_of_two(2**-5, 4),
        "seeds": 3,
        "best": 3,
    },
}


def get_config(scale="cpu", **task):
    """Every field that `--config.NAME=VALUE` may override."""
    config = wide_resnet.make_config(scale, _BY_SCALE, **task)
    config.grid.momentum = (0.0, 0.9)
    return config


def get_protocol(config, **fields):
    return common.get_protocol(
        config, series=lambda run: LABELS[run["momentum"] > 0], labels=LABELS, **fields
    )
