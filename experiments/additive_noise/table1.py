"""Additive gradient noise, Table 1: MNIST, final test accuracy with and without noise

Claim of the draft "Even larger batch size with additive gradient noise": noise added to the
gradient, of standard deviation eta / (1 + t)^0.55, improves the test accuracy that very large
batches reach in 15 epochs, and does not help small ones.

Readings, when the draft leaves them open: the 20-50-500 network of PyTorch's MNIST example, without
dropout. eta is a standard deviation. Noise is added to the mean gradient, before momentum, and t
counts updates from 0. The ragged last batch of an epoch is kept. Learning rate and eta are tuned on
the test set, as in the draft.

The draft names neither the number of seeds nor the learning rates between its ends .01 and .6, nor
the eta that won. The etas are the draft's; `--config.grid.eta=0.,0.3,0.1,0.03,0.01,0.005` adds .03
and .1. The cell "with noise" at batch size 4096 is blank in the draft.
"""

from collections.abc import Mapping
from typing import Any

import ml_collections
import optax

import noisegen
from experiments import scales
from noisegen import data, models, sweeps, tasks, training

LABELS = ("no noise", "noise")


def get_config(scale: str = "paper") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    scales.check(scale, "paper", "test")
    config = ml_collections.ConfigDict(
        {
            "task": {"dataset": "mnist", "sizes": (20, 50, 500), "dropout": 0.0},
            "run": {
                "num_epochs": 15.0,
                "momentum": 0.5,
                "gamma": 0.55,
                "last_batch": "keep",
                "eval_every": 1.0,
            },
            "grid": {
                "seed": (0, 1, 2),
                "learning_rate": (0.1, 0.2, 0.3, 0.05, 0.6, 0.02, 0.01),  # the likely optima first
                "eta": (0.0, 0.3, 0.01, 0.005),
                "batch_size": (45000, 32768, 16384, 8192, 4096, 2048),
            },
            "search": "grid",  # or "race": train only the runs that decide the optimum
            "convolution": "auto",  # or "patches", "lax": speed only
        }
    )
    if scale == "test":
        config.task.sizes = (2, 3, 4)
        config.run.num_epochs = 2.0
        config.grid.update(seed=(0,), learning_rate=(0.1,), batch_size=(5,))
    return config


# Final test accuracy in percent, by batch size.
_WITHOUT_NOISE = {
    2048: 98.61,
    4096: 96.45,
    8192: 95.66,
    16384: 94.37,
    32768: 86.08,
    45000: 86.48,
}
_WITH_NOISE = {2048: 98.59, 8192: 96.53, 16384: 95.72, 32768: 92.51, 45000: 92.19}


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    plain, noisy = LABELS
    published = {(plain, size): (value, None) for size, value in _WITHOUT_NOISE.items()}
    published |= {(noisy, size): (value, None) for size, value in _WITH_NOISE.items()}
    return sweeps.Sweep(
        lambda: make_task(config), make_runs(config), make_protocol(config), published=published
    )


def make_runs(config: ml_collections.ConfigDict) -> sweeps.Grid:
    """Returns the runs; one seed of everything comes first."""
    grid = config.grid
    points = sweeps.grid(
        seed=grid.seed,
        learning_rate=grid.learning_rate,
        eta=grid.eta,
        batch_size=grid.batch_size,
    )
    return points * sweeps.fixed(**config.run)


def make_protocol(
    config: ml_collections.ConfigDict, metric: str = "test_accuracy", mode: str = "max"
) -> sweeps.Protocol:
    """Returns the protocol: learning rate and eta tuned, all seeds counted."""
    num_seeds = len(config.grid.seed)
    return sweeps.Protocol(
        metric=metric,
        mode=mode,
        series=_label,
        labels=LABELS,
        tune=("learning_rate", "eta"),
        best=num_seeds,
        of=num_seeds,
        search=config.get("search", "grid"),  # Figures that tune nothing lack it.
        max_extensions=0,  # The draft gives the range of learning rates.
    )


def _label(run):
    has_noise = run["eta"] > 0
    return LABELS[1] if has_noise else LABELS[0]


def make_task(config: ml_collections.ConfigDict) -> training.Task:
    """Returns the task of all experiments on MNIST."""

    def make_model(rngs):
        return models.MnistCNN(
            config.task.sizes, config.task.dropout, convolution=config.convolution, rngs=rngs
        )

    return tasks.image_classification(
        data.load(config.task.dataset),
        make_model,
        make_optimizer,
        name=f"additive_noise {config.task.to_json(sort_keys=True)}",
    )


def make_optimizer(hparams: Mapping[str, Any], key: Any) -> Any:
    """Returns SGD with momentum, with decaying noise on the gradient."""
    stddev = noisegen.power_decay_schedule(hparams["eta"], hparams["gamma"])
    return optax.chain(
        noisegen.add_gradient_noise(stddev, key),
        optax.sgd(hparams["learning_rate"], hparams["momentum"]),
    )
