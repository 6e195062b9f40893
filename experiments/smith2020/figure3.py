"""Smith, Elsen & De, Figure 3: initial and final learning rate tuned independently

Claims: with both tuned, for epoch budgets at a batch size of 64, the initial learning rate that
maximises the test accuracy is constant beyond 400 epochs while the final one decays, with larger
error bars; the initial one is higher, and the final one lower, than those that minimise the
training loss. The best 5 of 7 runs count. The paper prints no numbers of this figure.
"""

import noisegen
from experiments.smith2020 import common, wide_resnet
from experiments.smith2020.common import get_runs  # noqa: F401
from noisegen import sweeps

TUNED = ("effective_learning_rate", "final_effective_learning_rate")
_BY_SCALE = {
    "paper": {
        "batch_size": 64,
        "num_epochs": sweeps.doublings(50, 6400),
        "effective_learning_rate": sweeps.powers_of_two(2**-4, 4),
        "final_effective_learning_rate": sweeps.powers_of_two(2**-15, 2**-4),
        "seeds": 7,
        "best": 5,
    },
    "gpu": {
        "batch_size": 64,
        "num_epochs": (25, 50),
        "effective_learning_rate": sweeps.powers_of_two(2**-1, 2),
        "final_effective_learning_rate": (2**-13, 2**-11, 2**-9, 2**-7),
        "seeds": 1,
        "best": 1,
    },
    "cpu": {
        "batch_size": 16,
        "num_epochs": (20, 80, 320),
        "effective_learning_rate": sweeps.powers_of_two(2**-5, 2**-1),
        "final_effective_learning_rate": (2**-14, 2**-11, 2**-8, 2**-5),
        "seeds": 3,
        "best": 3,
    },
}


def get_config(scale="cpu"):
    """Every field that `--config.NAME=VALUE` may override."""
    few = {"num_train": 1024} if scale == "cpu" else {}  # as figure2.py
    config = wide_resnet.make_config(scale, _BY_SCALE, **few)
    del config.run.gamma  # which follows from the two learning rates
    return config


def get_task(config):
    return wide_resnet.get_task(config, make_optimizer)


def make_optimizer(hparams, key):
    del key
    initial, final = (
        noisegen.learning_rate_from_effective(hparams[name], hparams["momentum"]) for name in TUNED
    )
    schedule = noisegen.hold_then_decay_to_schedule(initial, hparams["num_updates"], final)
    return common.sgd(schedule, hparams)


def get_protocol(config):
    """Test accuracy, then training loss; each with bars of the initial, then the final rate."""
    return [
        common.get_protocol(
            config,
            row="num_epochs",
            tune=tune,
            domains={tune[1]: sweeps.Domain("fixed")},  # It grows in the reading with its bars.
            **goal,
        )
        for goal in ({}, wide_resnet.LEAST_LOSS)
        for tune in (TUNED, TUNED[::-1])
    ]
