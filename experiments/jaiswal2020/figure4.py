"""Jaiswal & Taura, Figure 4: learning rate over batch size constant, without noise

Claim: with learning rate over batch size held at .01 / 32, the validation accuracy of a ResNet-50
on Caltech-101 falls as the batch grows, 74.45, 70.29 and 67.86 % at batch sizes 32, 64 and 128,
while the training accuracy is near 100 % at each.

Both readings of "decayed by 10%" are run, .1 and, as a control, .9; the published numbers stand
beside both. Other readings, and what the scales are, in common.py.
"""

from experiments.jaiswal2020 import common
from experiments.jaiswal2020.common import get_protocol, get_runs, get_task  # noqa: F401

ACCURACIES = {32: 74.45, 64: 70.29, 128: 67.86}


def get_config(scale="cpu"):
    """Every field that `--config.NAME=VALUE` may override."""
    config = common.make_config(scale)
    config.grid.decay_rate = (0.1, 0.9)
    return config


def get_published(config):
    """Validation accuracy in percent."""
    if not common.as_published(config):
        return {}
    labels = [common.label({"variance": 0, "decay_rate": rate}) for rate in config.grid.decay_rate]
    return {(label, size): (value, None) for label in labels for size, value in ACCURACIES.items()}
