"""The Wide-ResNets of the paper, with their data.

Readings, when the paper leaves them open: images are padded by reflection. The training loss is of
augmented images. Evaluation uses the running statistics of Hoffer et al., whose weight is .9 a
ghost batch. Recorded besides: `clean_train_loss`, of the training images without augmentation, in
evaluation mode, and `squared_norm`, of the parameters, which gives the L2 term.
"""

from collections.abc import Callable
from typing import Any

import ml_collections

from experiments import validation
from experiments.smith2020 import optimizers
from noisegen import data, models, tasks, training

_MEAN = (125.3 / 255, 123.0 / 255, 113.9 / 255)  # as Zagoruyko & Komodakis normalize CIFAR-10
_STD = (63.0 / 255, 62.1 / 255, 66.7 / 255)


def make_task(
    config: ml_collections.ConfigDict,
    make_optimizer: Callable[..., Any] = optimizers.hold_then_decay,
    batch_size: Callable[..., Any] | None = None,
    dataset: data.Dataset | None = None,
) -> training.Task:
    """Returns the task of an experiment with Wide-ResNets.

    Args:
      config: Config of the experiment.
      make_optimizer: Optimizer of a run.
      batch_size: Batch size of a run as a function of the update, if it is not constant.
      dataset: Images to train on, by default the data set of the config.
    """
    fields = config.task
    dataset = data.subsample_and_downscale(
        dataset or _load(fields.dataset), fields.num_train, fields.num_test, fields.pixels
    )
    dataset = validation.hold_out(dataset, fields)

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
        name=f"smith2020 {validation.to_json(fields)}",
    )


def _load(name: str) -> data.Dataset:
    dataset = data.load(name)
    if name == "cifar10":
        return dataset._replace(mean=_MEAN, std=_STD)
    return dataset
