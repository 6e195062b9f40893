"""Deep autoencoder of Hinton & Salakhutdinov, as trained by Sutskever et al."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from noisegen import _validate


class Autoencoder(nnx.Module):
    """Fully connected autoencoder 784-1000-500-250-30-250-500-1000-784: 2,837,314 parameters.

    It has sigmoid units, a linear code, and logits of the pixels. Call it as `model(images)` with
    images `(N, H, W, C)` in [0, 1]; it returns logits `(N, H * W * C)`. Weights start sparse: each
    unit has `incoming` standard normal weights, and all others are zero. Biases start at zero.

    Args:
      widths: Widths of the input, the hidden layers and the code. The decoder mirrors them.
      incoming: Number of nonzero weights per unit, or None for Glorot initialization.
      rngs: Random streams; `params` initializes the weights.

    Raises:
      ValueError: If there are fewer than two widths.

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
        decoder_widths = widths[-2::-1]
        all_widths = [*widths, *decoder_widths]
        self.code = len(widths) - 2  # Index of the layer whose output is the code.
        self.layers = nnx.List(
            [
                nnx.Linear(inputs, outputs, kernel_init=init, rngs=rngs)
                for inputs, outputs in zip(all_widths[:-1], all_widths[1:], strict=True)
            ]
        )

    def __call__(self, images: jax.Array) -> jax.Array:
        x = images.reshape(len(images), -1)
        for index, layer in enumerate(self.layers):
            x = layer(x)
            # The code is linear, and so are the logits of the pixels.
            if index not in (self.code, len(self.layers) - 1):
                x = jax.nn.sigmoid(x)
        return x


def sparse_normal(incoming: int) -> nnx.Initializer:
    """Initializes kernels with a fixed number of standard normal weights per unit, others zero.

    Args:
      incoming: Nonzero weights per unit. A unit with fewer inputs gets all of them.

    Returns:
      An initializer of kernels `(in, out)`.

    Raises:
      ValueError: If `incoming` is not positive.

    References:
      Martens, Deep learning via Hessian-free optimization, 2010
    """
    _validate.positive(incoming=incoming)

    # The arguments are those by which Flax calls an initializer.
    def init(
        key: jax.Array,
        shape: tuple[int, ...],
        dtype: jax.typing.DTypeLike = jnp.float32,
        out_sharding: Any = None,
    ) -> jax.Array:
        position_key, value_key = jax.random.split(key)
        # Ranks of random numbers are a random permutation of the inputs of each unit.
        rank = jax.random.uniform(position_key, shape).argsort(0).argsort(0)
        return jnp.where(rank < incoming, jax.random.normal(value_key, shape, dtype), 0)

    return init
