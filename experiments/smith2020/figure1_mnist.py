"""Smith, Elsen & De, Figure 1 on a network that fits its images: constant epoch budget, MNIST

Claims: at a constant number of epochs, with the learning rate tuned for each batch size, (a) the
test accuracy does not depend on small batch sizes and falls at large ones; momentum changes nothing
below and helps above; (b) likewise the training loss; (c) the optimal effective learning rate is
proportional to the batch size when that is small, and constant when it is large.
"""

import ml_collections

from experiments import scales
from experiments.smith2020 import figure1, mnist_mlp
from noisegen import sweeps


def get_config(scale: str = "cpu") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    scales.check(scale, "cpu", "test")
    config = ml_collections.ConfigDict(
        {
            "task": mnist_mlp.task_fields(),
            "run": {
                "num_epochs": 64.0,
                "momentum": 0.9,  # not read: the grid has both
                "l2": 0.0,
                "gamma": 2.0,
                "num_evals": 5,
                "last_batch": "straddle",  # or "resample": draw every batch anew
            },
            "grid": {
                "seed": tuple(range(15)),
                "batch_size": sweeps.powers_of_two(4, 1024),
                "effective_learning_rate": sweeps.powers_of_two(2**-6, 4),
                "momentum": (0.0, 0.9),
            },
            "best": 12,  # of the seeds
            "search": "race",  # or "grid": train every run
        }
    )
    if scale == "test":
        config.task.update(num_train=7, num_test=3)
        config.run.num_epochs = 5.0
        config.grid.update(seed=(0,), batch_size=(4,), effective_learning_rate=(2**-5,))
        config.best = 1
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    protocol = figure1.make_protocol(
        config,
        metric="test_accuracy",
        mode="max",
        report=("clean_train_loss", "clean_train_accuracy"),
    )
    return sweeps.Sweep(lambda: mnist_mlp.make_task(config), figure1.make_runs(config), protocol)
