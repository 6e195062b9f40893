"""How large can the batch be? Handwritten digits

The embedded example: scikit-learn's 1,797 images of 8 x 8, a small convolutional network, 30
epochs of SGD with momentum whatever the batch size, the learning rate tuned for each. It stands
for no published table; it shows the shape of the curves of Smith, Elsen & De (2020) in about a
minute on two cores.
"""

import ml_collections
import optax

from noisegen import data, models, sweeps, tasks


def get_config() -> ml_collections.ConfigDict:
    """Every field that `--config.NAME=VALUE` may override."""
    config = ml_collections.ConfigDict()
    config.task = ml_collections.ConfigDict({"dataset": "digits", "filters": 16, "hidden": 64})
    config.run = ml_collections.ConfigDict({"num_epochs": 30.0, "momentum": 0.9, "eval_every": 3.0})
    config.grid = ml_collections.ConfigDict(
        {
            "batch_size": sweeps.powers_of_two(16, 1024),
            "learning_rate": sweeps.powers_of_two(2**-8, 1),
            "seed": (0, 1, 2, 3, 4),
        }
    )
    config.best = 4  # of the runs that differ in the seed only
    config.convolution = "auto"  # or "patches", "lax": speed only
    return config


def get_task(config):
    def make_model(rngs):
        return models.SmallCNN(
            config.task.filters, config.task.hidden, convolution=config.convolution, rngs=rngs
        )

    def make_optimizer(hparams, key):
        del key  # no noise here
        return optax.sgd(hparams["learning_rate"], hparams["momentum"])

    return tasks.image_classification(
        data.load(config.task.dataset),
        make_model,
        make_optimizer,
        # Identity: change it when the code above trains something else, or old records are reused.
        # In a copy of this file, name the network and the optimizer too.
        name=f"digits {config.task.to_json(sort_keys=True)}",
    )


def get_runs(config):
    return sweeps.values(**config.grid) * sweeps.fixed(**config.run)


def get_protocol(config):
    seeds = len(config.grid.seed)
    return sweeps.Protocol(best=min(config.best, seeds), of=seeds)
