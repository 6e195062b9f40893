"""Additive gradient noise, Table 2: CIFAR-10, final test accuracy with and without noise

Claims of the draft "Even larger batch size with additive gradient noise": noise added to the
gradient of a ResNet-18 improves the test accuracy that large batches reach in 20 epochs, the more
so the larger they are, and costs some at small ones. The draft marks the table as unfinished.

Readings, when the draft leaves them open: noise, momentum and t as in Table 1. The network is the
ResNet-18 of CIFAR-10 (3 x 3 stem, no pooling), with PyTorch's initial weights. Images are crops out
of 4 pixels of zeros and left-right flips. There is no weight decay and no schedule. Batch
normalization is ordinary: over the whole batch, and over the ragged last one of an epoch by itself.
The task therefore depends on the batch size, which is its microbatch. table2_ghost.py normalizes
over ghost batches of 64. Learning rate and eta are tuned on the test set. Between the draft's ends
of .01 and .2 the learning rates are our choice.

The scale gpu has bfloat16 and one seed. The scale cpu has an eighth of the width, 4096 images of
8 x 8 pixels, and batches that are about the same shares of the training set.
"""

import functools
from collections.abc import Callable

import ml_collections

from experiments import scales
from experiments.additive_noise import table1
from noisegen import data, models, sweeps, tasks, training


def get_config(scale: str = "cpu") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    scales.check(scale, "paper", "gpu", "cpu", "test")
    config = ml_collections.ConfigDict(
        {
            "task": {
                "dataset": "cifar10",
                "num_train": 50_000,
                "num_test": 10_000,
                "pixels": 32,
                "width": 64,
                "ghost_size": 0,  # 0: the whole batch
                "dtype": "float32",
            },
            "run": {
                "num_epochs": 20.0,
                "momentum": 0.5,
                "gamma": 0.55,
                "last_batch": "keep",
                "eval_every": 1.0,
            },
            "grid": {
                "seed": (0, 1, 2),
                "learning_rate": (0.1, 0.05, 0.2, 0.02, 0.01),  # the likely optima first
                "eta": (0.0, 0.3, 0.01, 0.005),
                "batch_size": (8192, 4096, 2048, 1024),
            },
            "search": "grid",  # or "race": train only the runs that decide the optimum
            "convolution": "lax",  # or "patches": speed only
        }
    )
    if scale == "gpu":
        config.task.dtype = "bfloat16"
        config.grid.seed = (0,)
    if scale in ("cpu", "test"):
        config.task.update(num_train=4096, num_test=2048, pixels=8, width=8)
        config.grid.batch_size = (512, 256, 128, 64)
        config.convolution = "patches"
    if scale == "test":
        config.task.update(num_train=7, num_test=3, width=2)
        config.run.num_epochs = 2.0
        config.grid.update(seed=(0,), learning_rate=(0.1,), eta=(0.0, 0.3), batch_size=(4,))
    return config


# Final test accuracy in percent, without and with noise.
_PUBLISHED = {
    1024: (86.36, 84.88),
    2048: (84.54, 84.16),
    4096: (79.33, 82.28),
    8192: (65.64, 71.08),
}


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    make_task = task_maker(config)
    ghost_size = config.task.ghost_size
    return sweeps.Sweep(
        # Ghost batches make one task serve all batch sizes.
        (lambda: make_task(ghost_size)) if ghost_size else make_task,
        table1.make_runs(config),
        table1.make_protocol(config),
        published=_published(config),
        static=() if ghost_size else ("batch_size",),
    )


def task_maker(config: ml_collections.ConfigDict) -> Callable[[int], training.Task]:
    """Returns a function from the size of a ghost batch to a task."""
    fields = config.task

    @functools.cache
    def load():  # once for all batch sizes
        dataset = data.load(fields.dataset)
        return data.subsample_and_downscale(
            dataset, fields.num_train, fields.num_test, fields.pixels
        )

    def augment(key, image):
        return data.pad_crop_flip(key, image, padding=fields.pixels // 8, mode="constant")

    def make_task(ghost_size):
        dataset = load()

        def make_model(rngs):
            return models.ResNet18(
                dataset.num_classes,
                width=fields.width,
                ghost_size=ghost_size,
                dtype=fields.dtype,
                convolution=config.convolution,
                rngs=rngs,
            )

        return tasks.image_classification(
            dataset,
            make_model,
            table1.make_optimizer,
            augment=augment,
            name=f"additive_noise {fields.to_json(sort_keys=True)}",
        )

    return make_task


def _published(config):
    """Returns the published numbers, if the config is of the published experiment."""
    paper = get_config("paper")
    paper.task.dtype = config.task.dtype  # which changes rounding only
    if config.task != paper.task or config.run != paper.run:
        return None
    published = {}
    for batch_size, (plain, noisy) in _PUBLISHED.items():
        published["no noise", batch_size] = (plain, None)
        published["noise", batch_size] = (noisy, None)
    return published
