"""Small networks for images.

All are called as `model(images)`, images `(N, H, W, C)` (already normalised), and return logits
`(N, classes)`. One with dropout takes a second argument, `keys`, one an example; without them it
evaluates.
Weights and biases start as PyTorch's do by default.

>>> import jax.numpy as jnp
>>> from flax import nnx
>>> from noisegen import models
>>> models.LeNet5(rngs=nnx.Rngs(0))(jnp.zeros((2, 28, 28, 1))).shape
(2, 10)
"""

import itertools

import jax
from flax import nnx

from noisegen.models.layers import Conv, Linear, dropout


class MLP(nnx.Module):
    """Fully connected ReLU network.

    Args:
      in_features: height times width times channels of the images.
      hidden: widths of the hidden layers.
      num_classes: number of logits.
      rngs: stream `params` initialises.
    """

    def __init__(
        self,
        in_features: int = 64,
        hidden: tuple[int, ...] = (64, 64),
        num_classes: int = 10,
        *,
        rngs: nnx.Rngs,
    ):
        widths = (in_features, *hidden, num_classes)
        self.layers = nnx.List([Linear(i, o, rngs=rngs) for i, o in itertools.pairwise(widths)])

    def __call__(self, images: jax.Array) -> jax.Array:
        x = images.reshape(len(images), -1).T
        for layer in self.layers[:-1]:
            x = jax.nn.relu(layer(x))
        return self.layers[-1](x).T


class LeNet5(nnx.Module):
    """LeNet-5 with ReLU and max pooling, as Signer & Barbier train it on MNIST: 61,706 parameters.

    Two convolutions (6 filters of 5 x 5 with 2 zeros of padding, 16 of 5 x 5), each with ReLU and
    2 x 2 max pooling, then 120, 84 and `num_classes` units. For images of 28 x 28 x 1.

    Args:
      num_classes: number of logits.
      convolution: see `noisegen.models.Conv`.
      rngs: stream `params` initialises.
    """

    def __init__(self, num_classes: int = 10, *, convolution: str = "auto", rngs: nnx.Rngs):
        self.conv1 = Conv(1, 6, 5, padding=2, convolution=convolution, rngs=rngs)
        self.conv2 = Conv(6, 16, 5, convolution=convolution, rngs=rngs)
        self.head = MLP(16 * 5 * 5, (120, 84), num_classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        x = _batch_last(images, "LeNet5", (28, 28, 1))
        x = jax.nn.relu(self.conv1.pooled(x))
        x = jax.nn.relu(self.conv2.pooled(x))
        return self.head(x.transpose(3, 0, 1, 2))


class MnistCNN(nnx.Module):
    """The two-convolution MNIST network of PyTorch's example: 431,080 parameters at 20-50-500.

    Convolution of 5 x 5, ReLU, 2 x 2 max pooling, twice; a hidden layer with ReLU; logits. For
    images of 28 x 28 x 1. The example's first version had the sizes 10-20-50 and dropout 0.5, on
    whole channels after the second convolution and on features after the hidden layer.

    Args:
      sizes: filters of the two convolutions, and hidden units.
      dropout: probability of a zero, in [0, 1).
      num_classes: number of logits.
      convolution: see `noisegen.models.Conv`.
      rngs: stream `params` initialises.
    """

    def __init__(
        self,
        sizes: tuple[int, int, int] = (20, 50, 500),
        dropout: float = 0.0,
        num_classes: int = 10,
        *,
        convolution: str = "auto",
        rngs: nnx.Rngs,
    ):
        first, second, hidden = sizes
        self.dropout = dropout
        self.conv1 = Conv(1, first, 5, convolution=convolution, rngs=rngs)
        self.conv2 = Conv(first, second, 5, convolution=convolution, rngs=rngs)
        self.hidden = Linear(second * 4 * 4, hidden, rngs=rngs)
        self.logits = Linear(hidden, num_classes, rngs=rngs)

    def __call__(self, images: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        x = _batch_last(images, "MnistCNN", (28, 28, 1))
        x = jax.nn.relu(self.conv1.pooled(x))
        x = dropout(self.conv2.pooled(x), keys, self.dropout, stream=0, whole_channels=True)
        x = jax.nn.relu(x)
        x = jax.nn.relu(self.hidden(x.reshape(-1, x.shape[-1])))
        x = dropout(x, keys, self.dropout, stream=1)
        return self.logits(x).T


class SmallCNN(nnx.Module):
    """One convolution and one hidden layer, for images of 8 x 8 such as the data set `digits`.

    Args:
      filters: of 3 x 3, with zero padding; then ReLU and 2 x 2 max pooling.
      hidden: units of the hidden layer.
      num_classes: number of logits.
      convolution: see `noisegen.models.Conv`.
      rngs: stream `params` initialises.
    """

    def __init__(
        self,
        filters: int = 16,
        hidden: int = 64,
        num_classes: int = 10,
        *,
        convolution: str = "auto",
        rngs: nnx.Rngs,
    ):
        self.conv = Conv(1, filters, 3, padding=1, convolution=convolution, rngs=rngs)
        self.head = MLP(filters * 4 * 4, (hidden,), num_classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        x = _batch_last(images, "SmallCNN", (8, 8, 1))
        x = jax.nn.relu(self.conv.pooled(x))
        return self.head(x.transpose(3, 0, 1, 2))


def _batch_last(images, network, shape):
    """Images `(N, H, W, C)` as `(C, H, W, N)`, if they are of the network's size."""
    if images.shape[1:] != shape:
        raise ValueError(
            f"{network} takes images (N, {', '.join(map(str, shape))}), got {images.shape}."
        )
    return images.transpose(3, 1, 2, 0)
