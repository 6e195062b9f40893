"""Small convolutional networks for images.

Call them as `model(images)` with normalized images `(N, H, W, C)`; they return logits
`(N, classes)`. Networks with dropout take `keys`, one key per example, in training. Without keys
they run in evaluation mode. Weights and biases start from PyTorch's default distribution.

>>> import jax.numpy as jnp
>>> from flax import nnx
>>> from noisegen import models
>>> models.LeNet5(rngs=nnx.Rngs(0))(jnp.zeros((2, 28, 28, 1))).shape
(2, 10)
"""

import jax
from flax import nnx

from noisegen.models._batch_last import Conv, Linear, dropout
from noisegen.models.mlp import MLP


class LeNet5(nnx.Module):
    """LeNet-5 with ReLU and max pooling, as in Signer & Barbier on MNIST: 61,706 parameters.

    Two convolutions (6 filters of 5 x 5 with padding 2, then 16 of 5 x 5), each with ReLU and 2 x 2
    max pooling, then 120, 84 and `num_classes` units. For images of 28 x 28 x 1.

    Args:
      num_classes: Number of logits.
      convolution: Implementation of convolutions, "auto", "patches" or "lax", as in `WideResNet`.
      rngs: Random streams; `params` initializes weights and biases.
    """

    def __init__(self, num_classes: int = 10, *, convolution: str = "auto", rngs: nnx.Rngs):
        self.conv1 = Conv(1, 6, 5, padding=2, convolution=convolution, rngs=rngs)
        self.conv2 = Conv(6, 16, 5, convolution=convolution, rngs=rngs)
        # 28 pixels become 28, 14, 10 and 5.
        self.head = MLP(16 * 5 * 5, (120, 84), num_classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        x = _to_batch_last(images, "LeNet5", (28, 28, 1))
        x = jax.nn.relu(self.conv1.pooled(x))
        x = jax.nn.relu(self.conv2.pooled(x))
        return self.head(x.transpose(3, 0, 1, 2))


class MnistCNN(nnx.Module):
    """Two-convolution network of PyTorch's MNIST example: 431,080 parameters at 20-50-500.

    Convolution of 5 x 5, ReLU and 2 x 2 max pooling, twice; a hidden layer with ReLU; logits. For
    images of 28 x 28 x 1. The first version of the example has sizes 10-20-50 and dropout 0.5, on
    whole channels after the second convolution and on features after the hidden layer.

    Args:
      sizes: Filters of both convolutions, and number of hidden units.
      dropout: Probability of a zero, in [0, 1).
      num_classes: Number of logits.
      convolution: Implementation of convolutions, "auto", "patches" or "lax", as in `WideResNet`.
      rngs: Random streams; `params` initializes weights and biases.
    """

    def __init__(
        self,
        sizes: tuple[int, int, int] = (20, 50, 500),
        dropout: jax.typing.ArrayLike = 0.0,
        num_classes: int = 10,
        *,
        convolution: str = "auto",
        rngs: nnx.Rngs,
    ):
        first, second, hidden = sizes
        self.dropout = dropout
        self.conv1 = Conv(1, first, 5, convolution=convolution, rngs=rngs)
        self.conv2 = Conv(first, second, 5, convolution=convolution, rngs=rngs)
        # 28 pixels become 24, 12, 8 and 4.
        self.hidden = Linear(second * 4 * 4, hidden, rngs=rngs)
        self.logits = Linear(hidden, num_classes, rngs=rngs)

    def __call__(self, images: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        x = _to_batch_last(images, "MnistCNN", (28, 28, 1))
        # ReLU after pooling gives the same, with a quarter of the work.
        x = jax.nn.relu(self.conv1.pooled(x))
        x = dropout(self.conv2.pooled(x), keys, self.dropout, stream=0, whole_channels=True)
        x = jax.nn.relu(x)
        x = jax.nn.relu(self.hidden(x.reshape(-1, x.shape[-1])))
        x = dropout(x, keys, self.dropout, stream=1)
        return self.logits(x).T


class SmallCNN(nnx.Module):
    """One convolution and one hidden layer, for images of 8 x 8 such as the data set `digits`.

    Args:
      filters: Number of 3 x 3 filters, with zero padding, followed by ReLU and 2 x 2 max pooling.
      hidden: Number of hidden units.
      num_classes: Number of logits.
      convolution: Implementation of convolutions, "auto", "patches" or "lax", as in `WideResNet`.
      rngs: Random streams; `params` initializes weights and biases.
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
        x = _to_batch_last(images, "SmallCNN", (8, 8, 1))
        x = jax.nn.relu(self.conv.pooled(x))
        return self.head(x.transpose(3, 0, 1, 2))


def _to_batch_last(images: jax.Array, network: str, shape: tuple[int, int, int]) -> jax.Array:
    """Transposes images `(N, H, W, C)` to `(C, H, W, N)`, after a check of their size."""
    if images.shape[1:] != shape:
        expected = ", ".join(map(str, shape))
        raise ValueError(f"{network} takes images (N, {expected}), got {images.shape}.")
    return images.transpose(3, 1, 2, 0)
