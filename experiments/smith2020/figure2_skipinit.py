"""Smith, Elsen & De, Figure 2: unlimited epochs at a small batch, without normalisation

Claims: as for figure2.py, but without normalisation (Regularized SkipInit) the best test accuracy
falls beyond 400 epochs, and the learning rate that maximises it does not change at all with the
number of epochs. The dropout probability of Regularized SkipInit was not at hand: .5 is our choice.
"""

from experiments.smith2020 import figure2, wide_resnet
from experiments.smith2020.figure2 import get_protocol, get_runs, get_task  # noqa: F401


def get_config(scale="cpu"):
    """Every field that `--config.NAME=VALUE` may override."""
    return figure2.get_config(scale, **wide_resnet.SKIPINIT)
