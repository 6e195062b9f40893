"""Jaiswal & Taura, Table 2: noise of variance 1e-5 / (1 + t)^.55 on the gradient

Claim: noise on the gradient before each update closes part of the gap that larger batches leave at
constant learning rate over batch size: 70.29 becomes 72.07 % at batch size 64, 67.86 becomes 71.01
± .42 % at 128 (of two runs; the others are single ones).

The control of Figure 4 is `--config.grid.decay_rate=0.9,`. Other readings, and what the scales are,
in common.py.
"""

from experiments.jaiswal2020 import common, figure4
from experiments.jaiswal2020.common import get_protocol, get_runs, get_task  # noqa: F401

_NOISY = {64: (72.07, None), 128: (71.01, 0.42)}


def get_config(scale="cpu"):
    """Every field that `--config.NAME=VALUE` may override."""
    config = common.make_config(scale)
    config.grid.update({"variance": (0.0, common.VARIANCE), "batch_size": (64, 128)})
    return config


def get_published(config):
    """Validation accuracy in percent."""
    if not common.as_published(config):
        return {}
    plain, noisy = common.LABELS
    return {
        **{(plain, size): (figure4.ACCURACIES[size], None) for size in _NOISY},
        **{(noisy, size): value for size, value in _NOISY.items()},
    }
