"""Jaiswal & Taura, future work: other networks and data, with and without noise

The paper plans to try its noise on networks "like MLP, GoogleNet and AlexNet" and on MNIST,
CIFAR-10 and CIFAR-100, among others. It prints no number. ResNet-18 stands in for GoogLeNet and
AlexNet; Caltech-256 and ImageNet are not among ours. Here, with learning rate over batch size
constant as in Table 2: LeNet-5 on MNIST, or, by overrides,

    --config.task.network=mlp (or resnet18, of which task.width is the width)
    --config.task.dataset=cifar10 (or cifar100) --config.task.mirror=True

LeNet-5 takes MNIST only. `task.crop` is the side of the images, 28 or 32, or less for random
windows of them. The batch sizes and the other amounts of noise are our choice; other readings in
constant_ratio.py. The scale cpu trains on 8192 images, for a quarter of the epochs.
"""

import ml_collections

from experiments import scales
from experiments.jaiswal2020 import constant_ratio
from noisegen import sweeps


def get_config(scale: str = "cpu") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    scales.check(scale, "paper", "gpu", "cpu", "test")
    config = ml_collections.ConfigDict(
        {
            "task": {
                "dataset": "mnist",
                "decoded": 0,
                "num_train": 0,  # 0: all, as they are
                "num_test": 0,
                "pixels": 28,
                "crop": 28,
                "mirror": False,
                "network": "lenet5",  # or mlp, resnet18
                "width": 64,  # of resnet18; units of a layer of mlp
                "dtype": "float32",
                "decay_epochs": (25.0, 40.0, 50.0, 60.0, 70.0),
            },
            "base_learning_rate": 0.01,  # at batch size 32
            "run": {"num_epochs": 80.0, "momentum": 0.9, "gamma": 0.55, "num_evals": 20},
            "grid": {
                "seed": (0, 1, 2, 3, 4),
                "decay_rate": (0.1,),
                "variance": (0.0, constant_ratio.VARIANCE),
                "batch_size": sweeps.powers_of_two(32, 1024),
            },
            "convolution": "lax",  # or "patches": speed only
        }
    )
    if scale == "gpu":
        config.grid.seed = (0, 1)
    if scale in ("cpu", "test"):
        config.task.update(
            num_train=8192, num_test=10_000, decay_epochs=(6.25, 10.0, 12.5, 15.0, 17.5)
        )
        config.run.num_epochs = 20.0
        config.convolution = "patches"
    if scale == "test":
        config.task.update(num_train=7, num_test=3, network="mlp", width=2)
        config.run.update(num_epochs=5.0, num_evals=2)
        config.grid.update(seed=(0,), batch_size=(4,))
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    make_task = constant_ratio.task_maker(config)
    # Only networks that normalize over the batch need a task for each batch size.
    is_normalized = config.task.network.startswith("resnet")
    return sweeps.Sweep(
        make_task if is_normalized else lambda: make_task(1),
        constant_ratio.make_runs(config),
        constant_ratio.make_protocol(config),
        static=("batch_size",) if is_normalized else (),
    )
