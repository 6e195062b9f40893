"""Additive gradient noise, Table 2: CIFAR-10, final test accuracy with and without noise

Claims of the draft "Even larger batch size with additive gradient noise": noise added to the
gradient of a ResNet-18 improves the test accuracy that large batches reach in 20 epochs, the more
so the larger they are, and costs some at small ones. The draft marks the table as unfinished.

Readings, where the draft leaves them open: noise, momentum and t as in Table 1; the ResNet-18 of
CIFAR-10 (3 x 3 stem, no pooling), which starts as PyTorch's does; crops out of 4 pixels of zeros
and left-right flips; no weight decay, no schedule. Batch normalisation is ordinary: over the whole
batch, the ragged last one of an epoch over its own examples. So the task depends on the batch size,
which is its microbatch. table2_ghost.py normalises over ghost batches of 64. Learning rate and eta
are tuned on the test set; between the draft's ends of .01 and .2 the learning rates are our choice.

The scale gpu has bfloat16 and one seed; cpu an eighth of the width, 4096 images of 8 x 8 pixels,
and batches that are about the same shares of the training set.
"""

import ml_collections

from experiments import scales
from experiments.additive_noise import table1
from experiments.additive_noise.table1 import get_protocol, get_runs  # noqa: F401
from noisegen import data, models, tasks

_PAPER = {
    "dataset": "cifar10",
    "num_train": 50_000,
    "num_test": 10_000,
    "pixels": 32,
    "width": 64,
    "ghost_size": 0,  # 0: the whole batch
    "dtype": "float32",
}
_SMALL = {"num_train": 4096, "num_test": 2048, "pixels": 8, "width": 8}
_TASKS = {"paper": _PAPER, "gpu": _PAPER | {"dtype": "bfloat16"}, "cpu": _PAPER | _SMALL}
_LARGE, _FEW = (8192, 4096, 2048, 1024), (512, 256, 128, 64)
_GRIDS = {
    "paper": {"seed": (0, 1, 2), "batch_size": _LARGE},
    "gpu": {"seed": (0,), "batch_size": _LARGE},
    "cpu": {"seed": (0, 1, 2), "batch_size": _FEW},
}
_GPU_EXAMPLES_PER_SECOND = 30_000  # assumed, from the network's size


def get_config(scale="cpu", **task):
    """Every field that `--config.NAME=VALUE` may override."""
    config = table1.get_config()
    config.task = ml_collections.ConfigDict(scales.at_scale(scale, _TASKS) | task)
    config.run.num_epochs = 20.0
    config.grid.update(_GRIDS[scale])
    config.grid.eta = (0.0, 0.3, 0.01, 0.005)
    config.grid.learning_rate = (0.1, 0.05, 0.2, 0.02, 0.01)  # the likely optima first
    config.convolution = "patches" if scale == "cpu" else "lax"  # speed only
    config.gpu_examples_per_second = _GPU_EXAMPLES_PER_SECOND
    return config


def get_task(config):
    """A task for each batch size, unless ghost batches make one serve all."""
    fields = config.task
    dataset = data.subsample_and_downscale(
        data.load(fields.dataset), fields.num_train, fields.num_test, fields.pixels
    )

    def augment(key, image):
        return data.pad_crop_flip(key, image, padding=fields.pixels // 8, mode="constant")

    def make_task(ghost_size):
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

    return make_task(fields.ghost_size) if fields.ghost_size else make_task


def get_published(config):
    """Final test accuracy in percent, of this network with this normalisation."""
    paper = get_config("paper", dtype=config.task.dtype)
    if config.task != paper.task or config.run != paper.run:
        return {}
    rows = {
        1024: (86.36, 84.88),
        2048: (84.54, 84.16),
        4096: (79.33, 82.28),
        8192: (65.64, 71.08),
    }
    return {
        (label, size): (accuracy, None)
        for size, row in rows.items()
        for label, accuracy in zip(table1.LABELS, row, strict=True)
    }
