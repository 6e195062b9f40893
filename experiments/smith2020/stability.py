"""The largest stable learning rate, from a cheap sweep of a few epochs

Smith, Elsen & De advise in their section 8 to find the boundary between noise and curvature by
first looking for the largest stable learning rate in a sweep of a few epochs, and then scaling the
batch size. Here at a constant learning rate; `experiments.smith2020.regimes` compares what this
sweep predicts with the boundary that a finished sweep of figure1.py shows.
"""

from experiments.smith2020 import common, wide_resnet
from experiments.smith2020.common import get_runs  # noqa: F401
from experiments.smith2020.wide_resnet import get_task  # noqa: F401
from noisegen import sweeps

_LARGE = {
    "num_epochs": 4.0,
    "batch_size": 1024,
    "effective_learning_rate": sweeps.powers_of_two(1, 256),
    "seeds": 3,
    "best": 3,
}
_SMALL = {"batch_size": 256, "effective_learning_rate": sweeps.powers_of_two(2**-3, 64)}
_BY_SCALE = {"paper": _LARGE, "gpu": _LARGE, "cpu": _LARGE | _SMALL}


def get_config(scale="cpu"):
    """Every field that `--config.NAME=VALUE` may override."""
    config = wide_resnet.make_config(scale, _BY_SCALE)
    config.run.gamma = 1.0  # a constant learning rate
    config.grid.momentum = (0.0, 0.9)
    return config


def get_protocol(config):
    return common.get_protocol(
        config,
        series=lambda run: f"momentum {run['momentum']:g}",
        **wide_resnet.LEAST_LOSS,
        max_extensions=0,  # where it ends in divergence, the answer is inside
    )
