"""Signer & Barbier, section V: the scaling rules with a learning rate that falls every epoch

Suggested there, against the instability at large learning rates, and left open. Our choice: a
factor of .9 after every one of the first 29 epochs, so that the thirtieth has a twentieth of the
rule's learning rate. Figures 1, 2 and 3 are the same without. At batch size 64, where the rules
agree, the run stands in the first column.
"""

import optax

import noisegen
from experiments.signer2021 import common
from experiments.signer2021.common import rule_protocol as get_protocol  # noqa: F401

EPOCHS = range(1, 30)  # after which the learning rate falls


def get_config():
    """Every field that `--config.NAME=VALUE` may override."""
    return common.make_config(0.01, momentum=0.0, decay=0.9)


def get_task(config):
    return common.make_task(config, make_optimizer, "SGD with decay")


def make_optimizer(hparams, key):
    del key
    numbers = (hparams[name] for name in ("learning_rate", "decay", "updates_per_epoch"))
    initial, decay_rate, per_epoch = numbers
    schedule = noisegen.step_decay_schedule(initial, EPOCHS, decay_rate, per_epoch)
    return optax.sgd(schedule, hparams["momentum"])


def get_runs(config):
    return common.make_runs(config, common.rule_points(config, *common.RULES.values()))
