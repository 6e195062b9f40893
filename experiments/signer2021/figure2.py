"""Signer & Barbier, Figure 2: the learning rate grows with the square root of the batch size

Claims: large batches learn much faster than at a fixed learning rate, and at 4096 and 8192 this
rule does better than the linear one.
"""

import noisegen
from experiments.signer2021 import common
from experiments.signer2021.common import get_protocol, get_task  # noqa: F401


def get_config():
    """Every field that `--config.NAME=VALUE` may override."""
    return common.make_sgd_config()


def get_runs(config):
    return common.sgd_runs(config, common.rule_points(config, noisegen.square_root_rule))


def get_published(config):
    """Final test accuracy in percent."""
    del config
    return common.published(98.84, 98.81, 98.72, 98.58, 98.26, 97.46, 97.37, 95.71)
