"""The deep autoencoder of Hinton & Salakhutdinov, as Sutskever et al. train it."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from noisegen import _validate


class Autoencoder(nnx.Module):
    """Fully connected autoencoder 784-1000-500-250-30-250-500-1000-784: 2,837,314 parameters.

    Sigmoid units, a linear code and logits of the pixels. Called as `model(images)` with images
    `(N, H, W, C)` in [0, 1]; returns logits `(N, H * W * C)`. Weights start sparse: every unit has
    `incoming` weights from a standard normal distribution, the others are zero; biases are zero.

    Args:
      widths: of the input, of the hidden layers, of the code; the decoder mirrors them.
      incoming: weights of a unit that are not zero, or None for all (as Glorot & Bengio have it).
      rngs: stream `params` initialises.

    Raises:
      ValueError: fewer than two widths.

    Examples:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from noisegen import models
      >>> model = models.Autoencoder((64, 20, 5), rngs=nnx.Rngs(0))
      >>> model(jnp.zeros((2, 8, 8, 1))).shape
      (2, 64)

    References:
      Hinton & Salakhutdinov, Reducing the Dimensionality of Data with Neural Networks, 2006;
      Sutskever et al., On the importance of initialization and momentum in deep learning, 2013
    """

    def __init__(
        self,
        widths: Sequence[int] = (784, 1000, 500, 250, 30),
        incoming: int | None = 15,
        *,
        rngs: nnx.Rngs,
    ):
        if len(widths) < 2:
            raise ValueError(f"An autoencoder needs an input and a code, got widths={widths}.")
        init = nnx.initializers.glorot_uniform() if incoming is None else sparse_normal(incoming)
        self.code = len(widths) - 2
        self.layers = nnx.List(
            nnx.Linear(inputs, outputs, kernel_init=init, rngs=rngs)
            for inputs, outputs in itertools.pairwise([*widths, *widths[-2::-1]])
        )

    def __call__(self, images: jax.Array) -> jax.Array:
        x = images.reshape(len(images), -1)
        for index, layer in enumerate(self.layers):
            x = layer(x)
            if index not in (self.code, len(self.layers) - 1):
                x = jax.nn.sigmoid(x)
        return x


def sparse_normal(incoming: int) -> nnx.Initializer:
    """Initialises a kernel `(in, out)` with `incoming` standard normal weights a unit, others 0.

    A unit of fewer inputs has them all.

    Raises:
      ValueError: `incoming` is not positive.

    References:
      Martens, Deep learning via Hessian-free optimization, 2010
    """

    _validate.positive(incoming=incoming)

    def init(key, shape, dtype=jnp.float32, out_sharding=None):
        place_key, value_key = jax.random.split(key)
        rank = jax.random.uniform(place_key, shape).argsort(0).argsort(0)
        return jnp.where(rank < incoming, jax.random.normal(value_key, shape, dtype), 0)

    return init
