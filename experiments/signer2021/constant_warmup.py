"""Signer & Barbier, section II: the linear rule after a constant warm-up

Described there but not plotted: the first epochs at the learning rate of the smallest batch size,
then at that of the linear rule. They name no number of epochs; nine, as many as the gradual
warm-up of Figure 4 takes to arrive, is our choice.
"""

import noisegen
from experiments.signer2021 import common
from experiments.signer2021.common import get_protocol, get_task  # noqa: F401


def get_config():
    """Every field that `--config.NAME=VALUE` may override."""
    return common.make_sgd_config(warmup_epochs=9.0, warmup_rise=0.0)


def get_runs(config):
    return common.sgd_runs(config, common.rule_points(config, noisegen.linear_rule))
