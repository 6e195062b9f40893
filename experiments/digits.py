"""How large can the batch be? Handwritten digits

The embedded example: scikit-learn's 1,797 images of 8 x 8, a small convolutional network, 30
epochs of SGD with momentum at every batch size, the learning rate tuned for each. It reproduces no
published table. It shows the shape of the curves of Smith, Elsen & De (2020) in about a minute on
two cores.
"""

import ml_collections
import optax

from experiments import scales, validation
from noisegen import data, models, sweeps, tasks, training


def get_config(scale: str = "cpu") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    scales.check(scale, "cpu", "test")
    config = ml_collections.ConfigDict(
        {
            "task": {
                "dataset": "digits",
                "validation": 0,  # training images held out to tune on; 0: on the test set
                "filters": 16,
                "hidden": 64,
            },
            # What all runs share.
            "run": {"num_epochs": 30.0, "momentum": 0.9, "eval_every": 3.0},
            # What is swept: every combination is a run.
            "grid": {
                "batch_size": sweeps.powers_of_two(16, 1024),
                "learning_rate": sweeps.powers_of_two(2**-8, 1),
                "seed": (0, 1, 2, 3, 4),
            },
            "best": 4,  # of the runs that differ in the seed only
            "search": "grid",  # or "race": train only the runs that decide the optimum
            "convolution": "auto",  # or "patches", "lax": speed only
        }
    )
    if scale == "test":
        config.run.num_epochs = 1.0
        config.grid.update(batch_size=(64,), learning_rate=(0.25, 0.5), seed=(0,))
        config.best = 1
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    runs = sweeps.grid(**config.grid) * sweeps.fixed(**config.run)
    num_seeds = len(config.grid.seed)
    protocol = sweeps.Protocol(
        best=min(config.best, num_seeds),
        of=num_seeds,
        search=config.search,
        **validation.tuned_on(config.task, "test_accuracy"),
    )
    return sweeps.Sweep(lambda: make_task(config), runs, protocol)


def make_task(config: ml_collections.ConfigDict) -> training.Task:
    """Returns the task: model, data and optimizer."""

    def make_model(rngs):
        return models.SmallCNN(
            config.task.filters, config.task.hidden, convolution=config.convolution, rngs=rngs
        )

    def make_optimizer(hparams, key):
        del key  # The only noise is that of the batches.
        return optax.sgd(hparams["learning_rate"], hparams["momentum"])

    return tasks.image_classification(
        validation.hold_out(data.load(config.task.dataset), config.task),
        make_model,
        make_optimizer,
        # The name is part of every run's identity. Change it when the code above trains something
        # else, or old records are reused. In a copy of this file, name the network and the
        # optimizer too.
        name=f"digits {validation.to_json(config.task)}",
    )
