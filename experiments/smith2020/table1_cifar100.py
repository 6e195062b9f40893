"""Smith, Elsen & De, appendix D: constant step budget, CIFAR-100, Wide-ResNet 28-10

As table1.py on CIFAR-100, with ghost batch norm; without it by `--config.task.ghost_size=0
--config.task.dropout=0.5`. Claim of the main text: the test accuracy drops at very large batches
here too. The appendix was not at hand, nor any number of it; schedule and grid are those of
table1.py.
"""

from experiments.smith2020 import table1
from experiments.smith2020.table1 import get_protocol, get_runs, get_task  # noqa: F401


def get_config(scale="cpu"):
    """Every field that `--config.NAME=VALUE` may override."""
    size = {} if scale == "cpu" else {"depth": 28, "width": 10}
    return table1.get_config(scale, dataset="cifar100", **size)
