"""Signer & Barbier, the base learning rate: batch size 64, 30 epochs

Claim: .01 is the learning rate of best test accuracy at batch size 64, from which all rules start.
The learning rates that the authors compared are not known; here are doublings around theirs, and
more where the best is at an end.
"""

from experiments.signer2021 import common
from experiments.signer2021.common import get_task  # noqa: F401
from noisegen import sweeps


def get_config():
    """Every field that `--config.NAME=VALUE` may override."""
    config = common.make_sgd_config()
    config.grid.batch_size = (64,)
    config.grid.learning_rate = sweeps.doublings(0.00125, 0.16)
    return config


def get_runs(config):
    grid = config.grid
    points = sweeps.values(learning_rate=grid.learning_rate, batch_size=grid.batch_size)
    return common.sgd_runs(config, points)


def get_protocol(config):
    return common.get_protocol(config, max_extensions=3)


def get_published(config):
    """The learning rate chosen; of an error bar nothing is said."""
    del config
    return {("", 64): {"learning_rate": (0.01, 0.01, 0.01)}}
