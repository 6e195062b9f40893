"""What the experiments with Wide-ResNets share: network and data.

Readings, where the paper leaves them open: images are padded by reflection; the training loss is of
augmented images; evaluation uses the running statistics of Hoffer et al., whose weight is .9 a
ghost batch. Recorded beside them: `clean_train_loss`, of the training images as they are, in
evaluation mode, and `squared_norm`, of the parameters, from which follows the L2 term.
"""

from experiments.smith2020 import common
from noisegen import data, models, tasks

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
_SMALL = {"num_train": 4096, "num_test": 2048, "pixels": 8, "depth": 10, "width": 1}
_TASKS = {
    "paper": _PAPER,
    "gpu": _PAPER | {"dtype": "bfloat16"},
    "cpu": _PAPER | _SMALL | {"ghost_size": 16},
}
SKIPINIT = {"ghost_size": 0, "dropout": 0.5}  # Regularized SkipInit, whose dropout is our choice
# A protocol that tunes for the training loss.
LEAST_LOSS = {
    "metric": "train_loss",
    "mode": "min",
    "report": ("clean_train_loss", "test_accuracy"),
}


def make_config(scale, by_scale, **task):
    """As `common.make_config`, with fields of the task that are others than usual."""
    config = common.make_config(
        scale,
        _TASKS,
        by_scale,
        convolution="patches" if scale == "cpu" else "lax",  # speed only
        gpu_examples_per_second=100_000,  # assumed, no more
    )
    config.task.update(task)
    config.run.l2 = 5e-4
    return config


def get_task(config, make_optimizer=common.hold_then_halve, batch_size=None, dataset=None):
    fields = config.task
    dataset = data.subsample_and_downscale(
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
        make_optimizer,
        augment=augment,
        batch_size=batch_size,
        clean_train_loss=True,
        name=common.task_name(fields),
    )


def _load(name):
    dataset = data.load(name)
    return dataset._replace(mean=_MEAN, std=_STD) if name == "cifar10" else dataset
