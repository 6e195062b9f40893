"""Flax NNX networks, and the layers they are made of."""

from noisegen.models.autoencoder import Autoencoder, sparse_normal
from noisegen.models.image import MLP, LeNet5, MnistCNN, SmallCNN
from noisegen.models.language import LSTM
from noisegen.models.layers import Conv, Linear, dropout, max_pool, uniform_fan_in
from noisegen.models.normalization import GhostBatchNorm
from noisegen.models.residual import ResNet18, ResNet50, WideResNet

__all__ = [
    "LSTM",
    "MLP",
    "Autoencoder",
    "Conv",
    "GhostBatchNorm",
    "LeNet5",
    "Linear",
    "MnistCNN",
    "ResNet18",
    "ResNet50",
    "SmallCNN",
    "WideResNet",
    "dropout",
    "max_pool",
    "sparse_normal",
    "uniform_fan_in",
]
