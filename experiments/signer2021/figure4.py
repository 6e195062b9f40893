"""Signer & Barbier, Figure 4: the linear rule after a gradual warm-up

Claims: while the learning rate rises large batches learn well, then they diverge as before; the
warm-up is no significant improvement.

Reading: as the authors coded it, not as they print it. Both rise by a tenth of the way from .01 to
the rule's learning rate after every epoch, but the coded one has arrived in the tenth epoch, where
the printed formula is a tenth short (--config.run.warmup_epochs=10 --config.run.warmup_rise=1).
"""

import noisegen
from experiments.signer2021 import common
from experiments.signer2021.common import get_protocol, get_task  # noqa: F401


def get_config():
    """Every field that `--config.NAME=VALUE` may override."""
    return common.make_sgd_config(warmup_epochs=9.0, warmup_rise=0.9)


def get_runs(config):
    return common.sgd_runs(config, common.rule_points(config, noisegen.linear_rule))


def get_published(config):
    """Final test accuracy in percent."""
    del config
    return common.published(98.82, 98.91, 98.28, 98.04, 98.81, 94.22, 93.51, 11.35)
