"""Matched noise on CIFAR-10 at equal epochs

As on MNIST; a Wide-ResNet with ghost batch normalisation, whose statistics every kind of run
shares, and with L2 regularisation.
"""

from experiments.matched_noise import common
from experiments.matched_noise.common import get_protocol, get_runs  # noqa: F401
from experiments.matched_noise.common import wide_resnet as get_task  # noqa: F401
from noisegen import sweeps

BY_SCALE = {
    "gpu": {
        "task": {"dataset": "cifar10", "num_train": 50_000, "num_test": 10_000, "pixels": 32}
        | {"depth": 16, "width": 4, "ghost_size": 64, "noise_group": 64},
        "base": {"batch_size": 128, "learning_rate": 2**0},
        "grid": {
            "seed": (0, 1, 2),
            "eta": (0.1, 0.01, 0.001),
            "learning_rate": sweeps.powers_of_two(2**-1, 4),
            "batch_size": (1024, 8192, 37_504),
        },
        "run": {"num_epochs": 50.0},
    },
    "cpu": {
        "task": {"dataset": "cifar10", "num_train": 1024, "num_test": 2048, "pixels": 8}
        | {"depth": 10, "width": 1, "ghost_size": 16, "noise_group": 16},
        "base": {"batch_size": 32, "learning_rate": 2**-1},
        "grid": {
            "seed": (0, 1, 2),
            "eta": (0.1, 0.03, 0.01, 0.003),
            "learning_rate": sweeps.powers_of_two(2**-2, 2),
            "batch_size": (128, 384, 768),
        },
        "run": {"num_epochs": 20.0},
    },
}


def get_config(scale="cpu"):
    """Every field that `--config.NAME=VALUE` may override."""
    return common.make_config(scale, BY_SCALE, l2=5e-4)
