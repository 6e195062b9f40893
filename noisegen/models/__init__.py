"""Networks as Flax NNX modules, and layers that Flax lacks."""

from noisegen.models.autoencoder import Autoencoder, sparse_normal
from noisegen.models.cnn import LeNet5, MnistCNN, SmallCNN
from noisegen.models.dropout import Dropout
from noisegen.models.ghost_batch_norm import GhostBatchNorm
from noisegen.models.lstm import LSTM
from noisegen.models.mlp import MLP
from noisegen.models.resnet import ResNet18, ResNet50, WideResNet
from noisegen.models.transformer import Transformer

__all__ = [
    "LSTM",
    "MLP",
    "Autoencoder",
    "Dropout",
    "GhostBatchNorm",
    "LeNet5",
    "MnistCNN",
    "ResNet18",
    "ResNet50",
    "SmallCNN",
    "Transformer",
    "WideResNet",
    "sparse_normal",
]
