"""Does the noise of small batches help? Handwritten digits, equal updates at every batch size

The embedded example, after Table 1 of Smith, Elsen & De (2020): a network that fits its 512 images,
500 updates of SGD with momentum at every batch size, the learning rate tuned for each. The
training loss falls as the batch grows. The test accuracy first rises and then falls, although large
batches lack nothing but noise. A second series gives them the noise of batches of 16, by random
weights on their examples. About a minute on two cores.

The images are scikit-learn's 1,797 of 8 x 8 pixels. All that are not trained on are test images.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
import optax

import noisegen
from experiments import scales
from noisegen import data, models, sweeps, tasks, training

LABELS = ("no noise added", "noise of a small batch")


def get_config(scale: str = "cpu") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    scales.check(scale, "cpu", "test")
    config = ml_collections.ConfigDict(
        {
            "task": {"num_train": 512, "hidden": (100, 100)},
            "run": {
                "num_updates": 500,
                "momentum": 0.9,
                "num_evals": 5,
                "last_batch": "resample",  # every batch is drawn anew from all images
            },
            "grid": {
                "seed": tuple(range(10)),
                "batch_size": sweeps.powers_of_two(4, 512),
                "learning_rate": sweeps.powers_of_two(2**-9, 2**-1),
            },
            # The noise of batches of this size is given to larger ones.
            "noise": {"reference_batch_size": 16, "batch_size": (256, 512)},
            "search": "race",  # or "grid": train every run
        }
    )
    if scale == "test":
        config.task.num_train = 64
        config.run.num_updates = 20
        config.grid.update(batch_size=(4, 8), learning_rate=(2**-5,), seed=(0,))
        config.noise.update(reference_batch_size=4, batch_size=(8,))
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    grid = config.grid
    points = sweeps.grid(seed=grid.seed, learning_rate=grid.learning_rate) * _batches(config)
    num_seeds = len(grid.seed)
    protocol = sweeps.Protocol(
        series=_series,
        labels=LABELS,
        best=num_seeds,
        of=num_seeds,
        search=config.search,
        report=("clean_train_loss",),
    )
    runs = points * sweeps.fixed(**config.run)
    return sweeps.Sweep(lambda: make_task(config), runs, protocol)


def _batches(config):
    """Returns every batch size without noise, and the large ones with noise."""
    plain = [{"batch_size": size, "reference_batch_size": size} for size in config.grid.batch_size]
    noise = config.noise
    noisy = [
        {"batch_size": size, "reference_batch_size": noise.reference_batch_size}
        for size in noise.batch_size
    ]
    return plain + noisy


def _series(run):
    """Returns the label of a run's series."""
    has_noise = run["reference_batch_size"] < run["batch_size"]
    return LABELS[1] if has_noise else LABELS[0]


def make_task(config: ml_collections.ConfigDict) -> training.Task:
    """Returns the task: model, data and optimizer."""

    def make_model(rngs):
        return models.MLP(hidden=tuple(config.task.hidden), rngs=rngs)

    def make_optimizer(hparams, key):
        del key  # The noise is that of the batches, or of the examples' weights.
        schedule = noisegen.hold_then_decay_schedule(
            hparams["learning_rate"], hparams["num_updates"]
        )
        return optax.sgd(schedule, hparams["momentum"])

    return tasks.image_classification(
        _load(config.task.num_train),
        make_model,
        make_optimizer,
        example_weights=example_weights,
        check_run=tasks.check_matched_noise,
        clean_train_loss=True,
        name=f"digits noise {config.task.to_json(sort_keys=True)}",
    )


def example_weights(hparams: Mapping[str, Any]) -> Callable[..., jax.Array]:
    """Returns the weights of a run's examples. They are 1 at the reference batch size."""
    reference = hparams["reference_batch_size"]
    return functools.partial(noisegen.matched_weights, reference_batch_size=reference)


def _load(num_train):
    """Returns the digits with the first images to train on, and all others to test on."""
    dataset = data.load("digits")
    train, test = {}, {}
    for name, values in dataset.train.items():
        train[name] = values[:num_train]
        test[name] = np.concatenate([values[num_train:], dataset.test[name]])
    return dataset._replace(train=train, test=test)
