"""Additive gradient noise, Table 2 with ghost batches: CIFAR-10, normalised over 64 examples

As table2.py in all but the batch normalisation, which is over ghost batches of 64 at every batch
size (16 at the scale cpu), so that the noise of normalisation does not shrink as the batch grows.
Not in the draft: it tells what whole batches change about normalisation from what they change about
the gradient.
"""

from experiments.additive_noise import table2
from experiments.additive_noise.table2 import get_protocol, get_runs, get_task  # noqa: F401


def get_config(scale="cpu"):
    """Every field that `--config.NAME=VALUE` may override."""
    return table2.get_config(scale, ghost_size=16 if scale == "cpu" else 64)
