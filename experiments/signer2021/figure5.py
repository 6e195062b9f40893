"""Signer & Barbier, Figure 5: momentum .9, learning rate .01 at every batch size

Claim: momentum makes the training converge better at every batch size.
"""

import noisegen
from experiments.signer2021 import common
from experiments.signer2021.common import get_protocol, get_task  # noqa: F401


def get_config():
    """Every field that `--config.NAME=VALUE` may override."""
    return common.make_sgd_config(momentum=0.9)


def get_runs(config):
    return common.sgd_runs(config, common.rule_points(config, noisegen.constant_rule))


def get_published(config):
    """Final test accuracy in percent."""
    del config
    return common.published(99.24, 99.04, 99.14, 99.07, 98.85, 98.64, 97.89, 96.86)
