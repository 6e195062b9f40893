"""Matched noise on CIFAR-10 at equal steps

As on MNIST; network as at equal epochs.
"""

from experiments.matched_noise import cifar10_epochs, common
from experiments.matched_noise.common import get_protocol, get_runs  # noqa: F401
from experiments.matched_noise.common import wide_resnet as get_task  # noqa: F401

_NUM_UPDATES = {"gpu": 5000, "cpu": 640}


def get_config(scale="cpu"):
    """Every field that `--config.NAME=VALUE` may override."""
    config = common.make_config(scale, cifar10_epochs.BY_SCALE, l2=5e-4)
    del config.run.num_epochs
    config.run.num_updates = _NUM_UPDATES[scale]
    config.run.last_batch = "resample"  # else the noise of small batches adds up to 0 in an epoch
    config.grid.learning_rate = (config.base.learning_rate,)
    return config
