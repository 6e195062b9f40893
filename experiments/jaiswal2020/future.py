"""Jaiswal & Taura, future work: other networks and data, with and without noise

The paper plans to try its noise on networks "like MLP, GoogleNet and AlexNet" and on MNIST,
CIFAR-10 and CIFAR-100, among others; there is no number. For GoogLeNet and AlexNet ResNet-18 stands
in; Caltech-256 and ImageNet are not among ours. Here, with learning rate over batch size constant
as in Table 2: LeNet-5 on MNIST, or, by overrides,

    --config.task.network=mlp (or resnet18, of which task.width is the width)
    --config.task.dataset=cifar10 (or cifar100) --config.task.mirror=True

LeNet-5 takes MNIST only. `task.crop` is the side of the images, 28 or 32, or less for random
windows of them. The batch sizes and the other amounts of noise are our choice; other readings in
common.py. The scale cpu trains on 8192 images, for a quarter of the epochs.
"""

from experiments.jaiswal2020 import common
from experiments.jaiswal2020.common import get_protocol, get_runs  # noqa: F401
from experiments.scales import at_scale
from noisegen import sweeps

_TASK = {
    "dataset": "mnist",
    "decoded": 0,
    "pixels": 28,
    "crop": 28,
    "mirror": False,
    "network": "lenet5",
    "width": 64,
    "dtype": "float32",
}
_SIZES = {"paper": {}, "gpu": {}, "cpu": {"num_train": 8192, "num_test": 10_000}}


def get_config(scale="cpu"):
    """Every field that `--config.NAME=VALUE` may override."""
    config = common.make_config(scale, **_TASK, **at_scale(scale, _SIZES))
    config.grid.variance = (0.0, common.VARIANCE)
    config.grid.batch_size = sweeps.powers_of_two(32, 1024)
    config.gpu_examples_per_second = 200_000  # assumed, from the network's size
    return config


def get_task(config):
    """One task for all batch sizes, unless the network normalises over the batch."""
    make_task = common.get_task(config)
    return make_task if config.task.network.startswith("resnet") else make_task(1)
