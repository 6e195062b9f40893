"""Smith, Elsen & De, appendix D: constant step budget, fully connected autoencoder on MNIST

The appendices were not at hand, nor any number of theirs: that at a constant step budget very large
batches do worse on the test set, the learning rate tuned for each, is the claim of the main text.
The network and its sparse start are those of Sutskever et al. (2013); cross-entropy of the pixels
as loss, squared error as the measure, no L2, and all budgets and grids are our choices.
"""

import functools

from experiments.smith2020 import common
from experiments.smith2020.common import get_runs  # noqa: F401
from noisegen import data, models, sweeps, tasks

_PAPER = {
    "dataset": "mnist",
    "widths": (784, 1000, 500, 250, 30),
    "num_train": 60_000,
    "num_test": 10_000,
}
_SMALL = {"widths": (784, 128, 64, 32, 12), "num_train": 16_384, "num_test": 4096}
_TASKS = {"paper": _PAPER, "gpu": _PAPER, "cpu": _PAPER | _SMALL}
_BY_SCALE = {
    "paper": {
        "num_updates": 9765,
        "batch_size": sweeps.powers_of_two(64, 32768),
        "effective_learning_rate": sweeps.powers_of_two(2**-10, 2**-1),
        "seeds": 15,
        "best": 12,
    },
    "gpu": {
        "num_updates": 9765,
        "batch_size": sweeps.powers_of_two(64, 16384),
        "effective_learning_rate": sweeps.powers_of_two(2**-9, 2**-3),
        "seeds": 3,
        "best": 2,
    },
    "cpu": {
        "num_updates": 1000,
        "batch_size": sweeps.powers_of_two(16, 2048),
        "effective_learning_rate": sweeps.powers_of_two(2**-9, 2**-2),
        "seeds": 3,
        "best": 3,
    },
}


def get_config(scale="cpu", by_scale=_BY_SCALE):
    """Every field that `--config.NAME=VALUE` may override."""
    assumed = 1_000_000  # from the network's size
    return common.make_config(scale, _TASKS, by_scale, gpu_examples_per_second=assumed)


def get_task(config):
    fields = config.task
    dataset = data.subsample_and_downscale(
        data.load(fields.dataset), fields.num_train, fields.num_test, 28
    )
    return tasks.autoencoding(
        dataset,
        lambda rngs: models.Autoencoder(fields.widths, rngs=rngs),
        common.hold_then_halve,
        name=common.task_name(fields),
    )


get_protocol = functools.partial(common.get_protocol, metric="test_squared_error", mode="min")
