"""Signer & Barbier, Figure 3: the learning rate grows linearly with the batch size

Claims: up to batch size 1024 this rule does better than the square-root rule; beyond that the
learning rate is too large for the training to converge. (The published run at 512 fell by three
points in its last epoch.)
"""

import noisegen
from experiments.signer2021 import common
from experiments.signer2021.common import get_protocol, get_task  # noqa: F401


def get_config():
    """Every field that `--config.NAME=VALUE` may override."""
    return common.make_sgd_config()


def get_runs(config):
    return common.sgd_runs(config, common.rule_points(config, noisegen.linear_rule))


def get_published(config):
    """Final test accuracy in percent."""
    del config
    return common.published(98.94, 98.93, 98.88, 95.77, 98.81, 96.16, 93.64, 11.35)
