"""The LSTM language model of Zaremba et al."""

import jax
import jax.numpy as jnp
from flax import nnx

from noisegen import _validate
from noisegen.models.layers import dropout


class LSTM(nnx.Module):
    """Language model: embedding, LSTM layers with dropout between them, logits of the next token.

    Called as `model(tokens, carry)`, tokens int32 `(N, T)`; returns logits `(N, T, vocabulary)` and
    the carry after the last token, from which the next window goes on. Dropout is on everything
    that goes up (embeddings, outputs of a layer), never on what goes on in time.

    The defaults are the "medium" model (Penn Treebank, 10,000 words): 19,775,200 parameters, which
    start in U(-0.05, 0.05).

    Args:
      vocabulary: number of tokens.
      hidden: width of the embedding and of each layer.
      layers: number of LSTM layers.
      dropout: probability of a zero, in [0, 1).
      scale: bound of the uniform distribution that all parameters start from.
      rngs: stream `params` initialises.

    Raises:
      ValueError: an argument is out of its range.

    Examples:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from noisegen import models
      >>> model = models.LSTM(100, hidden=8, rngs=nnx.Rngs(0))
      >>> logits, carry = model(jnp.zeros((4, 35), int), model.initial_carry(4))
      >>> logits.shape, carry.shape
      ((4, 35, 100), (2, 2, 4, 8))

    References:
      Zaremba, Sutskever & Vinyals, Recurrent Neural Network Regularization, 2014,
      https://arxiv.org/abs/1409.2329
    """

    def __init__(
        self,
        vocabulary: int = 10_000,
        hidden: int = 650,
        layers: int = 2,
        dropout: float = 0.5,
        scale: float = 0.05,
        *,
        rngs: nnx.Rngs,
    ):
        _validate.positive(vocabulary=vocabulary, hidden=hidden, layers=layers, scale=scale)
        _validate.in_range(0, 1, dropout=dropout)
        self.hidden, self.dropout = hidden, dropout

        def uniform(*shape):
            return nnx.Param(jax.random.uniform(rngs.params(), shape, minval=-scale, maxval=scale))

        self.embedding = uniform(vocabulary, hidden)
        self.kernels = nnx.List(uniform(2 * hidden, 4 * hidden) for _ in range(layers))
        self.biases = nnx.List(uniform(4 * hidden) for _ in range(layers))
        self.head, self.head_bias = uniform(hidden, vocabulary), uniform(vocabulary)

    def initial_carry(self, num_streams: int) -> jax.Array:
        """Cell and output of every layer before the first token: zeros `(layers, 2, N, hidden)`."""
        return jnp.zeros((len(self.kernels), 2, num_streams, self.hidden))

    def __call__(
        self, tokens: jax.Array, carry: jax.Array, keys: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        x_TxNxH = self._dropped(self.embedding[...][tokens.T], keys, 0)
        after = []
        for index, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            last, x_TxNxH = _lstm(kernel[...], bias[...], carry[index], x_TxNxH)
            x_TxNxH = self._dropped(x_TxNxH, keys, index + 1)
            after.append(last)
        logits = x_TxNxH @ self.head[...] + self.head_bias[...][None, None]
        return logits.swapaxes(0, 1), jnp.stack(after)

    def _dropped(self, x_TxNxH, keys, stream):
        x = dropout(jnp.moveaxis(x_TxNxH, 1, -1), keys, self.dropout, stream)
        return jnp.moveaxis(x, -1, 1)


def _lstm(kernel, bias, carry, x_TxNxH):
    """One layer over time: the carry after it, and its outputs `(T, N, H)`.

    The products with the inputs are made for all times at once, before the loop.
    """
    hidden = x_TxNxH.shape[-1]
    inputs = x_TxNxH @ kernel[:hidden] + bias[None, None]

    def step(carry, x):
        cell, output = carry
        gates = x + output @ kernel[hidden:]
        into, forget, new, out = jnp.split(gates, 4, axis=-1)
        cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(into) * jnp.tanh(new)
        output = jax.nn.sigmoid(out) * jnp.tanh(cell)
        return (cell, output), output

    last, outputs = jax.lax.scan(step, (carry[0], carry[1]), inputs)
    return jnp.stack(last), outputs
