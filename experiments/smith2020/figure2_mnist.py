"""Smith, Elsen & De, Figure 2 on a network that fits its images: unlimited epochs, MNIST

Claims: at a small batch size the best test accuracy rises with the number of epochs and saturates.
The best training loss falls steadily. The learning rate that minimizes the training loss falls by
much more than the one that maximizes the test accuracy: there is an optimal temperature.

Learning rates are chosen twice from the same runs, for test accuracy and for training loss. The
batch size is 8, at which the accuracy of `table1_mnist.py` is limited by the number of updates.
"""

import ml_collections

from experiments import scales, validation
from experiments.smith2020 import figure2, mnist_mlp
from noisegen import sweeps


def get_config(scale: str = "cpu") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    scales.check(scale, "cpu", "test")
    config = ml_collections.ConfigDict(
        {
            "task": mnist_mlp.task_fields(),
            "run": {
                "batch_size": 8,
                "momentum": 0.9,
                "l2": 0.0,
                "gamma": 2.0,
                "num_evals": 5,
                "last_batch": "straddle",  # or "resample": draw every batch anew
            },
            "grid": {
                "seed": tuple(range(15)),
                "num_epochs": sweeps.doublings(5, 320),
                "effective_learning_rate": sweeps.powers_of_two(2**-8, 2),
            },
            "best": 12,  # of the seeds
            "search": "race",  # or "grid": train every run
        }
    )
    if scale == "test":
        config.task.update(num_train=7, num_test=3)
        config.run.batch_size = 4
        config.grid.update(seed=(0,), num_epochs=(12, 13), effective_learning_rate=(2**-5,))
        config.best = 1
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    reported = ("clean_train_loss", "clean_train_accuracy")
    protocols = figure2.make_protocols(
        config,
        {"mode": "max", **validation.tuned_on(config.task, "test_accuracy", report=reported)},
        {"mode": "min", "metric": "clean_train_loss", "report": ("test_accuracy",)},
    )
    return sweeps.Sweep(lambda: mnist_mlp.make_task(config), figure2.make_runs(config), protocols)
