"""One temperature schedule, two ways: decaying the learning rate, growing the batch

Claim of Smith et al., Don't Decay the Learning Rate, Increase the Batch Size (2018): the
temperature, effective learning rate over batch size, is what matters while noise dominates, so
that dividing the learning rate by a factor and multiplying the batch size by it give the same
curves and accuracy after the same number of epochs, the second in far fewer updates.

The schedules here fall by a factor of 4 after 10, 14 and 17 of 20 epochs; the last batch is then 64
times the first. Factors and epochs are our choice. Not one of the paper's figures: it stands for no
published table.
"""

import ml_collections
import optax

import noisegen
from experiments.smith2020 import common, wide_resnet
from experiments.smith2020.common import get_runs  # noqa: F401
from noisegen import sweeps
from noisegen._math import ceil_div

LABELS = ("decaying the learning rate", "growing the batch")
DROPS = (10, 14, 17)  # twentieths of the run, whole so that host and device compute alike
FACTOR = 4
_BY_SCALE = {
    "paper": {
        "num_epochs": 200.0,
        "batch_size": 64,
        "effective_learning_rate": sweeps.powers_of_two(2**-2, 4),
        "seeds": 15,
        "best": 12,
    },
    "gpu": {
        "num_epochs": 100.0,
        "batch_size": 64,
        "effective_learning_rate": sweeps.powers_of_two(2**-1, 2),
        "seeds": 5,
        "best": 4,
    },
    "cpu": {
        "num_epochs": 20.0,
        "batch_size": 16,
        "effective_learning_rate": sweeps.powers_of_two(2**-6, 1),
        "seeds": 5,
        "best": 4,
    },
}


def get_config(scale="cpu"):
    """Every field that `--config.NAME=VALUE` may override."""
    config = wide_resnet.make_config(scale, _BY_SCALE)
    del config.run.gamma
    config.grid.growth = (1, FACTOR)
    return config


def get_task(config: ml_collections.ConfigDict):
    return wide_resnet.get_task(config, make_optimizer, batch_size=batch_size)


def batch_size(hparams):
    """The batch size as a function of the update count: it grows when the temperature falls."""
    ends = _ends(hparams)

    def at(count):
        size = hparams["batch_size"]
        for end in ends:
            size = size * (1 + (hparams["growth"] - 1) * (count >= end))
        return size

    return at


def make_optimizer(hparams, key):
    del key
    momentum, ends = hparams["momentum"], _ends(hparams)
    initial = hparams["effective_learning_rate"] / hparams["batch_size"]

    def temperature(count):
        value = initial
        for end in ends:
            value = value / (1 + (FACTOR - 1) * (count >= end))
        return value

    return optax.chain(
        optax.add_decayed_weights(hparams["l2"]),
        optax.trace(momentum),
        noisegen.scale_by_temperature(temperature, batch_size(hparams), momentum),
    )


def _ends(hparams):
    """The update counts at which the temperature falls, whichever way."""
    ends, size, before, last = [], hparams["batch_size"], 0, 0
    total = hparams["num_epochs"] * hparams["num_examples"]
    for drop in DROPS:
        examples = (drop - last) * total / 20
        before = before + ceil_div(examples, size)
        ends.append(before)
        size, last = size * hparams["growth"], drop
    return ends


def get_protocol(config):
    return common.get_protocol(
        config,
        series=lambda run: LABELS[run["growth"] > 1],
        labels=LABELS,
        report=("train_loss", "clean_train_loss", "num_updates"),
    )
