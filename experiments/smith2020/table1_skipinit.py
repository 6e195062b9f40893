"""Smith, Elsen & De, appendix D: constant step budget without normalisation

As table1.py, but with Regularized SkipInit in place of ghost batch norm. Claim of the main text:
the test accuracy drops at very large batches here too. The appendix was not at hand, nor any number
of it.
"""

from experiments.smith2020 import table1, wide_resnet
from experiments.smith2020.table1 import get_protocol, get_runs, get_task  # noqa: F401


def get_config(scale="cpu"):
    """Every field that `--config.NAME=VALUE` may override."""
    return table1.get_config(scale, **wide_resnet.SKIPINIT)
