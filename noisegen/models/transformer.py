"""Transformer language model, decoder only."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from noisegen import _validate
from noisegen.models.dropout import Dropout

# Of Flax's layers.
_KERNEL_INIT = nnx.initializers.lecun_normal()
_EMBED_INIT = nnx.initializers.variance_scaling(1, "fan_in", "normal", out_axis=0)


class Transformer(nnx.Module):
    """Language model whose logits at a position follow from the tokens up to it.

    Call it as `model(tokens)` with tokens `(N, T)`, whole numbers. It returns logits
    `(N, T, vocabulary)` of the next token, in float32. T may be any length.

        x = sqrt(width) embedding[tokens]
        x = x + attention(norm(x)); x = x + mlp(norm(x))      in every layer
        logits = norm(x) head, or norm(x) embedding^T if tied

        norm(x) = gain x / sqrt(mean(x^2))
        attention: softmax(q k^T / sqrt(d)) v over the token itself and those before it, for each
            head of d features; q and k are turned by `rotary`
        mlp: (silu(x A) * x B) C for "swiglu", gelu(x A) C for "gelu"

    Parameters are annotated with the axis "model": its devices share the heads, the features inside
    the mlp and the vocabulary, which must be multiples of their number.

    There are no biases. In training mode dropout applies to embeddings and to the results of
    attention and mlp. The entries of a weight matrix start from a normal distribution of variance
    1 / inputs (truncated at two standard deviations, but for the embedding). At the end of
    attention and mlp it is divided by 2 layers, so that the sum x keeps its size.

    Args:
      vocabulary: Number of tokens.
      width: Features of a token, a multiple of `heads`, with an even number d for each head.
      layers: Number of layers.
      heads: Number of heads.
      mlp: "swiglu" or "gelu".
      mlp_width: Features inside the mlp. By default 4 width for "gelu", and 8/3 width (rounded up)
        for "swiglu", which has three matrices, not two.
      dropout: Probability of a zero, in [0, 1), which may be a number of the run.
      tied: Whether embedding and head share their weights.
      dtype: Type of activations. Parameters are float32.
      rngs: Random streams; `params` initializes all parameters, `dropout` draws the zeros.

    Raises:
      ValueError: If an argument is out of its range.

    Examples:
      >>> model = Transformer(100, width=16, layers=2, heads=2, rngs=nnx.Rngs(0))
      >>> model(jnp.zeros((4, 10), int)).shape
      (4, 10, 100)

    References:
      Vaswani et al., Attention Is All You Need, 2017; Xiong et al., On Layer Normalization in the
      Transformer Architecture, 2020 (norm first); Zhang & Sennrich, Root Mean Square Layer
      Normalization, 2019; Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding,
      2021; Shazeer, GLU Variants Improve Transformer, 2020; Press & Wolf, Using the Output
      Embedding to Improve Language Models, 2017; Radford et al., Language Models are Unsupervised
      Multitask Learners, 2019 (scale at the ends of the layers)
    """

    def __init__(
        self,
        vocabulary: int,
        width: int = 128,
        layers: int = 4,
        heads: int = 4,
        *,
        mlp: str = "swiglu",
        mlp_width: int | None = None,
        dropout: jax.typing.ArrayLike = 0.0,
        tied: bool = True,
        dtype: jax.typing.DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        _validate.whole(1, vocabulary=vocabulary, width=width, layers=layers, heads=heads)
        if width % (2 * heads):
            raise ValueError(
                f"width={width} must be a multiple of {2 * heads}, an even number for each of "
                f"heads={heads}."
            )
        if mlp not in ("swiglu", "gelu"):
            raise ValueError(f"mlp must be 'swiglu' or 'gelu', but it is {mlp!r}.")
        if mlp_width is None:
            mlp_width = 4 * width if mlp == "gelu" else math.ceil(8 * width / 3)
        _validate.whole(1, mlp_width=mlp_width)
        # Annotations are for a pool to read. Without this, Flax would look for a mesh at once.
        with nnx.use_eager_sharding(False):
            embed_init = nnx.with_partitioning(_EMBED_INIT, ("model", None))
            self.embedding = nnx.Embed(
                vocabulary, width, embedding_init=embed_init, dtype=dtype, rngs=rngs
            )
            shape = (width, heads, mlp, mlp_width, layers, dtype)
            self.blocks = nnx.List(_Block(*shape, rngs) for _ in range(layers))
            self.norm = nnx.RMSNorm(width, dtype=dtype, rngs=rngs)
            init = nnx.with_partitioning(_KERNEL_INIT, (None, "model"))
            options = {"use_bias": False, "kernel_init": init, "dtype": dtype, "rngs": rngs}
            self.head = None if tied else nnx.Linear(width, vocabulary, **options)
        # Last, so that it changes no initial weight. Without dropout the model has no random
        # streams, and the examples of a batch are computed together.
        has_dropout = isinstance(dropout, jax.Array) or dropout != 0
        self.dropout = Dropout(dropout, rngs=rngs) if has_dropout else None

    def __call__(self, tokens: jax.Array) -> jax.Array:
        drop = self.dropout or (lambda x: x)
        x = drop(self.embedding(tokens) * math.sqrt(self.embedding.features))
        for block in self.blocks:
            x = block(x, drop)
        x = self.norm(x)
        logits = self.embedding.attend(x) if self.head is None else self.head(x)
        return logits.astype(jnp.float32)


def rotary(x_NxTxHxD: jax.Array, base: float = 10_000.0) -> jax.Array:
    """Turns pairs of features by angles in proportion to the token's position.

    At position t features i and i + D/2 are turned by t base^(-2 i / D). The product of a query and
    a key then depends on their distance only.

    Args:
      x_NxTxHxD: Queries or keys, D even.
      base: The last pair turns by about 1 / base radians a token.

    Returns:
      An array of the same shape and type.
    """
    half = x_NxTxHxD.shape[-1] // 2
    position = jnp.arange(x_NxTxHxD.shape[-3], dtype=jnp.float32)
    angles = position[:, None] * base ** (-jnp.arange(half)[None] / half)
    cos, sin = (f(angles)[None, :, None].astype(x_NxTxHxD.dtype) for f in (jnp.cos, jnp.sin))
    first, second = x_NxTxHxD[..., :half], x_NxTxHxD[..., half:]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1)


def _attend(query, key, value, **_):
    """Returns causal attention with rotary positions; Flax gives more arguments than it needs."""
    return jax.nn.dot_product_attention(rotary(query), rotary(key), value, is_causal=True)


class _Block(nnx.Module):
    """A layer: attention and mlp, each added to its input."""

    def __init__(self, width, heads, mlp, mlp_width, layers, dtype, rngs):
        last_init = nnx.initializers.variance_scaling(
            1 / (2 * layers), "fan_in", "truncated_normal"
        )
        by_head = nnx.with_partitioning(_KERNEL_INIT, (None, "model", None))
        self.attention_norm = nnx.RMSNorm(width, dtype=dtype, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            heads,
            width,
            use_bias=False,
            decode=False,
            attention_fn=_attend,
            kernel_init=by_head,
            out_kernel_init=nnx.with_partitioning(last_init, ("model", None, None)),
            dtype=dtype,
            rngs=rngs,
        )
        self.mlp = mlp
        self.mlp_norm = nnx.RMSNorm(width, dtype=dtype, rngs=rngs)
        inner = mlp_width if mlp == "gelu" else 2 * mlp_width  # A and B side by side
        self.up = nnx.Linear(
            width,
            inner,
            use_bias=False,
            kernel_init=nnx.with_partitioning(_KERNEL_INIT, (None, "model")),
            dtype=dtype,
            rngs=rngs,
        )
        self.down = nnx.Linear(
            mlp_width,
            width,
            use_bias=False,
            kernel_init=nnx.with_partitioning(last_init, ("model", None)),
            dtype=dtype,
            rngs=rngs,
        )

    def __call__(self, x, drop):
        x = x + drop(self.attention(self.attention_norm(x)))
        hidden = self.up(self.mlp_norm(x))
        if self.mlp == "gelu":
            hidden = jax.nn.gelu(hidden)
        else:
            gate, value = jnp.split(hidden, 2, axis=-1)
            hidden = jax.nn.silu(gate) * value
        return x + drop(self.down(hidden))
