"""What the experiments with Wide-ResNets share: network, data, optimizer, scales.

Readings, where the paper leaves them open: L2 regularisation is of all parameters, with the
gradient `l2 * w`, before momentum; images are padded by reflection; the training loss is the
cross-entropy of augmented training images in training mode, without the L2 term, over the last
twentieth of the updates, in which the learning rate is constant; batches are consecutive examples
of one stream of epochs, each in a new order; evaluation uses the running statistics of Hoffer et
al., whose weight is .9 a ghost batch.

Recorded beside it: `clean_train_loss`, of the training images as they are, in evaluation mode, and
`squared_norm`, of the parameters, from which follows the L2 term.
"""

from collections.abc import Mapping
from typing import Any

import ml_collections
import optax

import noisegen
from noisegen import data, models, sweeps, tasks

_MEAN = (125.3 / 255, 123.0 / 255, 113.9 / 255)  # as Zagoruyko & Komodakis normalise CIFAR-10
_STD = (63.0 / 255, 62.1 / 255, 66.7 / 255)
_PAPER = {
    "dataset": "cifar10",
    "num_train": 50_000,
    "num_test": 10_000,
    "pixels": 32,
    "depth": 16,
    "width": 4,
    "ghost_size": 64,  # 0: no normalisation, SkipInit
    "dropout": 0.0,
    "dtype": "float32",
}
SKIPINIT = {"ghost_size": 0, "dropout": 0.5}  # Regularized SkipInit, whose dropout is our choice
_SMALL = {"num_train": 4096, "num_test": 2048, "pixels": 8, "depth": 10, "width": 1}
_TASKS = {
    "paper": _PAPER,
    "gpu": _PAPER | {"dtype": "bfloat16"},
    "cpu": _PAPER | _SMALL | {"ghost_size": 16},
}


def make_config(
    scale: str, by_scale: Mapping[str, Mapping[str, Any]], **task
) -> ml_collections.ConfigDict:
    """The config of an experiment at one of its scales.

    Args:
      scale: "paper", "gpu" or "cpu".
      by_scale: for each scale the number of `seeds`, how many of them are the `best` that count,
        and numbers of the runs: tuples of them span the grid.
      **task: fields of the task that are others than usual.

    Raises:
      ValueError: there is no such scale.
    """
    if scale not in _TASKS:
        raise ValueError(
            f"There is no scale {scale!r}; write one of {', '.join(_TASKS)} after the colon, as in "
            "table1.py:cpu."
        )
    numbers = dict(by_scale[scale])
    grid = {"seed": tuple(range(numbers.pop("seeds")))}
    config = {
        "task": _TASKS[scale] | task,
        "run": {"momentum": 0.9, "l2": 5e-4, "gamma": 2.0, "num_evals": 20},
        "grid": grid,
        "best": numbers.pop("best"),
        "convolution": "patches" if scale == "cpu" else "lax",  # speed only
        "gpu_examples_per_second": 100_000,  # of one H200, assumed: prices a dry run, no more
    }
    for name, value in numbers.items():
        config["grid" if isinstance(value, tuple) else "run"][name] = value
    return ml_collections.ConfigDict(config)


def get_task(config, make_optimizer=None, batch_size=None, dataset=None):
    fields = config.task
    dataset = data.shrink(
        dataset or _load(fields.dataset), fields.num_train, fields.num_test, fields.pixels
    )

    def make_model(rngs):
        return models.WideResNet(
            fields.depth,
            fields.width,
            dataset.num_classes,
            channels=len(dataset.mean),
            ghost_size=fields.ghost_size or None,
            dropout=fields.dropout,
            dtype=fields.dtype,
            convolution=config.convolution,
            rngs=rngs,
        )

    def augment(key, image):
        return data.pad_crop_flip(key, image, padding=fields.pixels // 8)

    return tasks.image_classification(
        dataset,
        make_model,
        make_optimizer or hold_then_halve,
        augment=augment,
        batch_size=batch_size,
        clean_train_loss=True,
        name=f"smith2020 {fields.to_json(sort_keys=True)}",
    )


def _load(name):
    dataset = data.load(name)
    return dataset._replace(mean=_MEAN, std=_STD) if name == "cifar10" else dataset


def hold_then_halve(hparams, key):
    """The optimizer of nearly all of the paper's runs."""
    del key  # no noise but that of the batches
    learning_rate = noisegen.learning_rate_from_effective(
        hparams["effective_learning_rate"], hparams["momentum"]
    )
    steps, factor = hparams["num_updates"], hparams["gamma"]
    return sgd(noisegen.hold_then_decay(learning_rate, steps, factor), hparams)


def sgd(schedule, hparams):
    """SGD with momentum, and with L2 regularisation in the loss."""
    return optax.chain(
        optax.add_decayed_weights(hparams["l2"]), optax.sgd(schedule, hparams["momentum"])
    )


def get_runs(config):
    """One seed of everything comes first."""
    grid = config.grid
    order = ["seed", *(name for name in grid if name != "seed")]
    fixed = {name: value for name, value in config.run.items() if name not in grid}
    return sweeps.values(**{name: grid[name] for name in order}) * sweeps.fixed(**fixed)


LEAST_LOSS = {
    "metric": "train_loss",
    "mode": "min",
    "report": ("clean_train_loss", "test_accuracy"),
}


def get_protocol(config, **fields):
    fields = {"tune": ("effective_learning_rate",), "report": ("train_loss",)} | fields
    return sweeps.Protocol(best=config.best, of=len(config.grid.seed), **fields)
