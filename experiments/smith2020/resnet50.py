"""Smith, Elsen & De, appendix C.3: ResNet-50 on ImageNet, constant epoch budget

The appendix was not at hand, nor any number of it but the ghost batch of 256 (from the authors'
slides): as in figure1.py, the test accuracy should not depend on small batch sizes and fall at
large ones, with momentum better there. 90 epochs and random resized crops are those of Goyal et al.
(2017); grids and the L2 coefficient of 1e-4 on all parameters are our choice.

Images of 224 pixels would not fit an accelerator's memory: at the scale paper training crops and
the middle of the test images have 128 of 146 pixels (84 GB in all). The scale gpu takes a tenth of
the training images at 64 pixels (`imagenet_resized/64x64`); cpu, where ImageNet was not at hand, a
ResNet of two blocks and a few CIFAR-10 images: it shows that the experiment runs, no more.
"""

from experiments.smith2020 import common
from experiments.smith2020.common import get_runs  # noqa: F401
from experiments.smith2020.figure1 import get_protocol  # noqa: F401
from noisegen import data, models, sweeps, tasks

_PAPER = {
    "dataset": "imagenet2012",
    "decoded": 146,  # pixels; None where the images have a size of their own
    "pixels": 146,
    "crop": 128,
    "least_area": 0.08,
    "num_train": 1_281_167,
    "num_test": 50_000,
    "stages": (3, 4, 6, 3),
    "ghost_size": 256,
    "dtype": "float32",
}
_GPU = {
    "dataset": "imagenet_resized/64x64",
    "decoded": None,
    "pixels": 64,
    "crop": 64,
    "num_train": 131_072,
    "dtype": "bfloat16",
}
_CPU = {
    "dataset": "cifar10",
    "decoded": None,
    "pixels": 16,
    "crop": 16,
    "least_area": 0.5,
    "num_train": 1024,
    "num_test": 512,
    "stages": (1, 1),
    "ghost_size": 16,
}
_TASKS = {"paper": _PAPER, "gpu": _PAPER | _GPU, "cpu": _PAPER | _CPU}
_BY_SCALE = {
    "paper": {
        "num_epochs": 90.0,
        "batch_size": sweeps.powers_of_two(256, 32768),
        "effective_learning_rate": sweeps.powers_of_two(2**-3, 64),
        "seeds": 15,
        "best": 12,
    },
    "gpu": {
        "num_epochs": 15.0,
        "batch_size": (256, 1024, 4096),
        "effective_learning_rate": sweeps.powers_of_two(1, 8),
        "seeds": 1,
        "best": 1,
    },
    "cpu": {
        "num_epochs": 10.0,
        "batch_size": (16, 64, 256),
        "effective_learning_rate": sweeps.powers_of_two(2**-4, 1),
        "seeds": 1,
        "best": 1,
    },
}


def get_config(scale="cpu"):
    """Every field that `--config.NAME=VALUE` may override."""
    config = common.make_config(
        scale,
        _TASKS,
        _BY_SCALE,
        convolution="patches" if scale == "cpu" else "lax",  # speed only
        gpu_examples_per_second=20_000,  # assumed, from the network's size
    )
    config.run.l2 = 1e-4
    config.grid.momentum = (0.0, 0.9)
    return config


def get_task(config):
    fields = config.task
    dataset = data.subsample_and_downscale(
        data.load(fields.dataset, pixels=fields.decoded),
        fields.num_train,
        fields.num_test,
        fields.pixels,
    )
    edge = (fields.pixels - fields.crop) // 2
    middle = slice(edge, edge + fields.crop)
    images = dataset.test["image"][:, middle, middle]
    dataset = dataset._replace(test={"image": images, "label": dataset.test["label"]})

    def make_model(rngs):
        return models.ResNet50(
            dataset.num_classes,
            stages=fields.stages,
            ghost_size=fields.ghost_size,
            dtype=fields.dtype,
            convolution=config.convolution,
            rngs=rngs,
        )

    def augment(key, image):
        area = (fields.least_area, 1.0)
        return data.random_resized_crop(key, image, fields.crop, area=area)

    return tasks.image_classification(
        dataset,
        make_model,
        common.hold_then_halve,
        augment=augment,
        name=common.task_name(fields),
    )
