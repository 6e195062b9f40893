"""Matched noise on MNIST at equal epochs

Batch sizes of up to three quarters of the training set get as many epochs as a small batch, and so
far fewer updates. The learning rate is tuned for each kind of run; matched noise makes up for what
is lacking at that learning rate to the temperature of the small batch at the reference's rate, and
has nothing else to tune. The rules start from that rate, and are not tuned either. LeNet-5; tuned
on the test set.
"""

from experiments.matched_noise import common
from experiments.matched_noise.common import get_protocol, get_runs  # noqa: F401
from experiments.matched_noise.common import lenet5 as get_task  # noqa: F401
from noisegen import sweeps

_TASK = {"dataset": "mnist", "num_test": 10_000, "pixels": 28}
BY_SCALE = {
    "gpu": {
        "task": _TASK | {"num_train": 60_000, "noise_group": 32},
        "base": {"batch_size": 64, "learning_rate": 2**-3},
        "grid": {
            "seed": (0, 1, 2, 3, 4),
            "eta": (0.3, 0.1, 0.03, 0.01),
            "learning_rate": sweeps.powers_of_two(2**-6, 2),
            "batch_size": (1024, 8192, 45_000),
        },
        "run": {"num_epochs": 15.0},
    },
    "cpu": {
        "task": _TASK | {"num_train": 1024, "noise_group": 8},
        "base": {"batch_size": 16, "learning_rate": 2**-4},
        "grid": {
            "seed": (0, 1, 2),
            "eta": (0.3, 0.1, 0.03, 0.01),
            "learning_rate": sweeps.powers_of_two(2**-6, 1),
            "batch_size": (128, 384, 768),
        },
        "run": {"num_epochs": 20.0},
    },
}


def get_config(scale="cpu"):
    """Every field that `--config.NAME=VALUE` may override."""
    return common.make_config(scale, BY_SCALE)
