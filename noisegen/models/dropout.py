"""Dropout whose rate may be a number of a run."""

import jax
import jax.numpy as jnp
from flax import nnx

from noisegen import _validate


class Dropout(nnx.Module):
    """Dropout with a rate that may be traced.

    A rate that differs between the runs of one program is traced, and `nnx.Dropout` accepts only a
    Python number. Given the same keys and rate, both layers drop the same features.

    Args:
      rate: Probability of a zero, in [0, 1). The other features are scaled by 1 / (1 - rate).
      rngs: Random streams; `dropout` draws the zeros in training mode.

    Raises:
      ValueError: If the rate is out of its range. A traced rate is not checked.

    Examples:
      >>> layer = Dropout(0.5, rngs=nnx.Rngs(0))
      >>> layer.eval()
      >>> layer(jnp.ones(3)).tolist()
      [1.0, 1.0, 1.0]
    """

    def __init__(self, rate: jax.typing.ArrayLike, *, rngs: nnx.Rngs):
        _validate.in_range(0, 1, rate=rate)
        self.rate = nnx.data(rate) if isinstance(rate, jax.Array) else rate
        self.deterministic = False  # Set by `train` and `eval`.
        self.rngs = rngs.dropout.fork()

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.deterministic:
            return x
        keep = 1 - self.rate
        return jnp.where(jax.random.bernoulli(self.rngs(), keep, x.shape), x / keep, 0)
