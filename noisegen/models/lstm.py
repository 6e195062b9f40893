"""LSTM language model of Zaremba et al."""

import jax
import jax.numpy as jnp
from flax import nnx

from noisegen import _validate
from noisegen.models._batch_last import dropout


class LSTM(nnx.Module):
    """Language model: embedding, LSTM layers with dropout in between, logits of the next token.

    Call it as `model(tokens, carry)` with tokens `(N, T)`, int32. It returns logits
    `(N, T, vocabulary)` and the carry after the last token, from which the next window continues.
    Dropout applies to vertical connections (embeddings and outputs of layers), never to recurrent
    ones.

    The defaults are the "medium" model (Penn Treebank, 10,000 words) with 19,775,200 parameters,
    initialized from U(-0.05, 0.05).

    Args:
      vocabulary: Number of tokens.
      hidden: Width of the embedding and of each layer.
      layers: Number of LSTM layers.
      dropout: Probability of a zero, in [0, 1).
      scale: Bound of the uniform distribution of the initial parameters.
      rngs: Random streams; `params` initializes all parameters.

    Raises:
      ValueError: If an argument is out of its range.

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
        dropout: jax.typing.ArrayLike = 0.5,
        scale: jax.typing.ArrayLike = 0.05,
        *,
        rngs: nnx.Rngs,
    ):
        _validate.positive(vocabulary=vocabulary, hidden=hidden, layers=layers, scale=scale)
        _validate.in_range(0, 1, dropout=dropout)
        self.hidden = hidden
        self.dropout = dropout

        def uniform(*shape: int) -> nnx.Param:
            return nnx.Param(jax.random.uniform(rngs.params(), shape, minval=-scale, maxval=scale))

        self.embedding = uniform(vocabulary, hidden)
        # Rows for the input and the last output, columns for the four gates.
        self.kernels = nnx.List(uniform(2 * hidden, 4 * hidden) for _ in range(layers))
        self.biases = nnx.List(uniform(4 * hidden) for _ in range(layers))
        self.head = uniform(hidden, vocabulary)
        self.head_bias = uniform(vocabulary)

    def initial_carry(self, num_streams: int) -> jax.Array:
        """Returns cell and output of every layer before the first token.

        Args:
          num_streams: Number of streams N.

        Returns:
          Zeros `(layers, 2, N, hidden)`.
        """
        return jnp.zeros((len(self.kernels), 2, num_streams, self.hidden))

    def __call__(
        self, tokens: jax.Array, carry: jax.Array, keys: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Returns logits and the next carry; `keys` `(N,)`, one per example, switch dropout on."""
        # Time comes first, because the scan over time takes slices of the first axis.
        x_TxNxH = self._drop(self.embedding[...][tokens.T], keys, stream=0)
        carries = []
        for index, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            last, x_TxNxH = _lstm(kernel[...], bias[...], carry[index], x_TxNxH)
            x_TxNxH = self._drop(x_TxNxH, keys, stream=index + 1)
            carries.append(last)
        logits = x_TxNxH @ self.head[...] + self.head_bias[...][None, None]
        return logits.swapaxes(0, 1), jnp.stack(carries)

    def _drop(self, x_TxNxH: jax.Array, keys: jax.Array | None, stream: int) -> jax.Array:
        """Applies dropout, whose function takes the examples on the last axis."""
        x = dropout(jnp.moveaxis(x_TxNxH, 1, -1), keys, self.dropout, stream)
        return jnp.moveaxis(x, -1, 1)


def _lstm(
    kernel: jax.Array, bias: jax.Array, carry: jax.Array, x_TxNxH: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Runs one layer over time; returns the carry after it, and its outputs `(T, N, H)`."""
    hidden = x_TxNxH.shape[-1]
    # The products with the inputs do not depend on the recurrence: one matmul for all times.
    inputs = x_TxNxH @ kernel[:hidden] + bias[None, None]

    def step(
        carry: tuple[jax.Array, jax.Array], x: jax.Array
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        cell, output = carry
        gates = x + output @ kernel[hidden:]
        into, forget, new, out = jnp.split(gates, 4, axis=-1)
        cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(into) * jnp.tanh(new)
        output = jax.nn.sigmoid(out) * jnp.tanh(cell)
        return (cell, output), output

    last, outputs = jax.lax.scan(step, (carry[0], carry[1]), inputs)
    return jnp.stack(last), outputs
