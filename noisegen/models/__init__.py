"""Flax NNX networks, and the layers they are made of."""

from noisegen.models.image import MLP, LeNet5, MnistCNN, SmallCNN
from noisegen.models.layers import Conv, Linear, dropout, max_pool, uniform_fan_in

__all__ = [
    "MLP",
    "Conv",
    "LeNet5",
    "Linear",
    "MnistCNN",
    "SmallCNN",
    "dropout",
    "max_pool",
    "uniform_fan_in",
]
