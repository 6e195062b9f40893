"""Smith, Elsen & De, appendix C.2: constant epoch budget without normalisation

As figure1.py, but with Regularized SkipInit in place of ghost batch norm. The appendix was not at
hand, nor any number of it.
"""

from experiments.smith2020 import figure1, wide_resnet
from experiments.smith2020.figure1 import get_protocol, get_runs, get_task  # noqa: F401


def get_config(scale="cpu"):
    """Every field that `--config.NAME=VALUE` may override."""
    return figure1.get_config(scale, **wide_resnet.SKIPINIT)
