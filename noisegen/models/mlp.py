"""Multilayer perceptron.

>>> import jax.numpy as jnp
>>> from flax import nnx
>>> from noisegen import models
>>> models.MLP(rngs=nnx.Rngs(0))(jnp.zeros((2, 8, 8, 1))).shape
(2, 10)
"""

import jax
from flax import nnx

from noisegen.models._batch_last import Linear


class MLP(nnx.Module):
    """Fully connected ReLU network.

    Call it as `model(images)` with normalized images `(N, H, W, C)`; it returns logits
    `(N, classes)`. Weights and biases start from PyTorch's default distribution.

    Args:
      in_features: Height times width times channels of the images.
      hidden: Widths of the hidden layers.
      num_classes: Number of logits.
      rngs: Random streams; `params` initializes weights and biases.
    """

    def __init__(
        self,
        in_features: int = 64,
        hidden: tuple[int, ...] = (64, 64),
        num_classes: int = 10,
        *,
        rngs: nnx.Rngs,
    ):
        layers = []
        for out_features in (*hidden, num_classes):
            layers.append(Linear(in_features, out_features, rngs=rngs))
            in_features = out_features
        self.layers = nnx.List(layers)

    def __call__(self, images: jax.Array) -> jax.Array:
        x = images.reshape(len(images), -1).T
        for layer in self.layers[:-1]:
            x = jax.nn.relu(layer(x))
        return self.layers[-1](x).T
