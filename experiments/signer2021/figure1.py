"""Signer & Barbier, Figure 1: the same learning rate, .01, at every batch size

Claim: the larger the batch, the slower LeNet-5 learns MNIST and the worse is the minimum that it
has reached after 30 epochs.
"""

import noisegen
from experiments.signer2021 import common
from experiments.signer2021.common import get_protocol, get_task  # noqa: F401


def get_config():
    """Every field that `--config.NAME=VALUE` may override."""
    return common.make_sgd_config()


def get_runs(config):
    return common.sgd_runs(config, common.rule_points(config, noisegen.constant_rule))


def get_published(config):
    """Final test accuracy in percent."""
    del config
    return common.published(99.08, 98.45, 98.21, 97.40, 96.38, 92.66, 87.00, 44.77)
