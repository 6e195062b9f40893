"""Smith, Elsen & De, section 6: a very large batch with fewer updates

Claim: batch size 16384, which loses to 2048 at 9765 updates, does not reach a higher test accuracy
with a smaller step budget: it is not overtrained. No numbers are printed.
"""

from experiments.smith2020 import common, wide_resnet
from experiments.smith2020.common import get_runs  # noqa: F401
from experiments.smith2020.wide_resnet import get_task  # noqa: F401
from noisegen import sweeps

_BY_SCALE = {
    "paper": {
        "batch_size": 16384,
        "num_updates": (1220, 2441, 4882, 9765),
        "effective_learning_rate": sweeps.powers_of_two(1, 64),
        "seeds": 15,
        "best": 12,
    },
    "gpu": {
        "batch_size": 16384,
        "num_updates": (1220, 2441),
        "effective_learning_rate": (8, 16, 32),
        "seeds": 1,
        "best": 1,
    },
    "cpu": {
        "batch_size": 1024,
        "num_updates": (62, 125, 250, 500),
        "effective_learning_rate": sweeps.powers_of_two(2**-2, 8),
        "seeds": 3,
        "best": 3,
    },
}


def get_config(scale="cpu"):
    """Every field that `--config.NAME=VALUE` may override."""
    return wide_resnet.make_config(scale, _BY_SCALE)


def get_protocol(config):
    return common.get_protocol(config, row="num_updates")
