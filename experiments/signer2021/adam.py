"""Signer & Barbier, section V: do the scaling rules hold for Adam?

Asked there and left open. Our choices: the base learning rate .001 at batch size 64, decay rates .9
and .999 and epsilon 1e-8, Adam's own defaults; all three rules. At 64, where the rules agree, the
run stands in the first column.
"""

import optax

from experiments.signer2021 import common
from experiments.signer2021.common import rule_protocol as get_protocol  # noqa: F401


def get_config():
    """Every field that `--config.NAME=VALUE` may override."""
    return common.make_config(0.001, b1=0.9, b2=0.999, eps=1e-8)


def get_task(config):
    return common.make_task(config, make_optimizer, "Adam")


def make_optimizer(hparams, key):
    del key
    return optax.adam(*(hparams[name] for name in ("learning_rate", "b1", "b2", "eps")))


def get_runs(config):
    return common.make_runs(config, common.rule_points(config, *common.RULES.values()))
