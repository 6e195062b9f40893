"""Smith, Elsen & De, appendix C.3: ResNet-50 on ImageNet, constant epoch budget

Claims as in figure1.py: the test accuracy should not depend on small batch sizes and fall at large
ones, with momentum better there. We had no access to the appendix; the ghost batch of 256 is from
the authors' slides. 90 epochs and random resized crops are those of Goyal et al. (2017). Grids and
the L2 coefficient of 1e-4 on all parameters are our choice.

Images of 224 pixels do not fit an accelerator's memory: at the scale paper training crops and the
middle of the test images have 128 of 146 pixels (84 GB in all). At the scale streamed they have 224
of 256 pixels, and every image is decoded when it is needed. Images are those that
tensorflow-datasets has prepared. With `--config.directory=DIR` they are the files
`DIR/train/CLASS/FILE` and `DIR/val/CLASS/FILE`. The scale gpu takes a tenth of the training images
at 64 pixels (`imagenet_resized/64x64`). The scale cpu, for machines without ImageNet, has a ResNet
of two blocks and a few CIFAR-10 images. It shows only that the experiment runs.
"""

import ml_collections

from experiments import scales, validation
from experiments.smith2020 import figure1, optimizers
from noisegen import data, models, sweeps, tasks, training


def get_config(scale: str = "cpu") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    scales.check(scale, "paper", "streamed", "gpu", "cpu", "test")
    config = ml_collections.ConfigDict(
        {
            "task": {
                "dataset": "imagenet2012",
                "decoded": 146,  # pixels; None if the images have a size of their own
                "pixels": 146,
                "crop": 128,
                "least_area": 0.08,
                "num_train": 1_281_167,
                "validation": 0,  # images held out of these to tune on; 0: on the test set
                "num_test": 50_000,
                "stages": (3, 4, 6, 3),
                "ghost_size": 256,
                "dtype": "float32",
            },
            "run": {
                "num_epochs": 90.0,
                "momentum": 0.9,  # not read: the grid has both
                "l2": 1e-4,
                "gamma": 2.0,
                "num_evals": 20,
                "last_batch": "straddle",  # or "resample": draw every batch anew
            },
            "grid": {
                "seed": tuple(range(15)),
                "batch_size": sweeps.powers_of_two(256, 32768),
                "effective_learning_rate": sweeps.powers_of_two(2**-3, 64),
                "momentum": (0.0, 0.9),
            },
            "best": 12,  # of the seeds
            "search": "grid",  # or "race": train only the runs that decide the optimum
            "convolution": "lax",  # or "patches": speed only
            "stream": False,  # decode images when they are needed, rather than all at first
            "directory": "",  # of image files to stream; empty: as tensorflow-datasets has them
        }
    )
    if scale == "streamed":
        config.task.update(decoded=256, pixels=256, crop=224)
        config.stream = True
    if scale == "gpu":
        config.task.update(
            dataset="imagenet_resized/64x64",
            decoded=None,
            pixels=64,
            crop=64,
            num_train=131_072,
            dtype="bfloat16",
        )
        config.run.num_epochs = 15.0
        config.grid.update(
            seed=(0,),
            batch_size=(256, 1024, 4096),
            effective_learning_rate=sweeps.powers_of_two(1, 8),
        )
        config.best = 1
    if scale in ("cpu", "test"):
        config.task.update(
            dataset="cifar10",
            decoded=None,
            pixels=16,
            crop=16,
            least_area=0.5,
            num_train=1024,
            num_test=512,
            stages=(1, 1),
            ghost_size=16,
        )
        config.run.num_epochs = 10.0
        config.grid.update(
            seed=(0,),
            batch_size=(16, 64, 256),
            effective_learning_rate=sweeps.powers_of_two(2**-4, 1),
        )
        config.best = 1
        config.convolution = "patches"
    if scale == "test":
        config.task.update(num_train=7, num_test=3, stages=(1,), ghost_size=4)
        config.run.num_epochs = 5.0
        config.grid.update(batch_size=(4,), effective_learning_rate=(2**-5,), momentum=(0.9,))
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    return sweeps.Sweep(
        lambda: make_task(config),
        figure1.make_runs(config),
        figure1.make_protocol(config, metric="test_accuracy", mode="max"),
    )


def make_task(config: ml_collections.ConfigDict) -> training.Task:
    """Returns the task: random crops for training, the middle of the test images."""
    fields = config.task
    dataset = _stream(config) if config.stream else _load(fields)

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
        optimizers.hold_then_decay,
        augment=augment,
        name=f"smith2020 {validation.to_json(fields)}",
    )


def _load(fields: ml_collections.ConfigDict) -> data.Dataset:
    """Returns the data set as arrays."""
    dataset = data.subsample_and_downscale(
        data.load(fields.dataset, pixels=fields.decoded),
        fields.num_train,
        fields.num_test,
        fields.pixels,
    )
    dataset = validation.hold_out(dataset, fields)
    edge = (fields.pixels - fields.crop) // 2
    middle = slice(edge, edge + fields.crop)

    def crop(examples):
        return {"image": examples["image"][:, middle, middle], "label": examples["label"]}

    return dataset._replace(
        test=crop(dataset.test), valid=None if dataset.valid is None else crop(dataset.valid)
    )


def _stream(config: ml_collections.ConfigDict) -> data.Dataset:
    """Returns the data set as sources, which decode images when they are read."""
    fields = config.task
    if fields.validation:
        raise ValueError(
            f"task.validation={fields.validation} needs images that are decoded at first: give "
            "stream=False."
        )
    numbers = {
        "pixels": fields.pixels,
        "test_pixels": fields.crop,
        "num_train": fields.num_train,
        "num_test": fields.num_test,
    }
    if config.directory:
        return data.image_folder(config.directory, **numbers)
    return data.stream(fields.dataset, **numbers)
