"""Layers with the batch last: features `(C, N)`, images `(C, H, W, N)`.

With the examples on the fastest axis every slice, maximum and broadcast of a small network reads
contiguous memory. Networks take and return the usual `(N, ...)` and transpose once at each end.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from noisegen import _validate

CONVOLUTIONS = ("auto", "patches", "lax")
_WIDE = 64  # channels from which XLA's own convolution is the faster one
_MANY = 16  # channels from which arithmetic costs more than memory: see `Conv.pooled`


def uniform_fan_in(key: jax.Array, shape: tuple[int, ...], fan_in: int) -> jax.Array:
    r"""Draws from :math:`U(\pm 1/\sqrt{\text{fan in}})`, PyTorch's default for all parameters."""
    if min(*shape, fan_in) < 1:
        raise ValueError(f"Every size of a layer must be at least 1, got {shape}, {fan_in=}.")
    bound = 1 / math.sqrt(fan_in)
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


class Linear(nnx.Module):
    """Affine map of features `(in, N)` to `(out, N)`.

    Args:
      in_features: features of an example.
      out_features: features after the map.
      rngs: stream `params` initialises.

    Examples:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from noisegen import models
      >>> models.Linear(3, 5, rngs=nnx.Rngs(0))(jnp.ones((3, 7))).shape
      (5, 7)
    """

    def __init__(self, in_features: int, out_features: int, *, rngs: nnx.Rngs):
        self.kernel = nnx.Param(
            uniform_fan_in(rngs.params(), (out_features, in_features), in_features)
        )
        self.bias = nnx.Param(uniform_fan_in(rngs.params(), (out_features,), in_features))

    def __call__(self, x: jax.Array) -> jax.Array:
        in_features = self.kernel.shape[1]
        if len(x) != in_features:
            raise ValueError(
                f"This layer takes {in_features} features an example, got {len(x)}: make the "
                "network for inputs of this size."
            )
        return self.kernel[...] @ x + self.bias[...][:, None]


class Conv(nnx.Module):
    """Convolution: `(C, H, W, N)` to `(out, H', W', N)`.

    Args:
      in_channels: channels C.
      out_channels: filters.
      kernel_size: height and width of a filter.
      padding: zeros added on each side.
      stride: steps between two places of a filter.
      use_bias: whether a number is added to each filter's output.
      kernel_init: initialises the weights, by flax's convention of shapes `(size, size, C, out)`;
        by default `uniform_fan_in`, for weights and biases. With it biases start at zero.
      dtype: of the product and of what is returned; by default what input and parameters promote
        to. The parameters are float32.
      convolution: how it is computed, to rounding the same: `"patches"` as one matrix product over
        patches (fast for few channels, and stays one batched product when `vmap` runs over the
        weights), `"lax"` as `jax.lax.conv_general_dilated`, `"auto"` by the number of channels.
      rngs: stream `params` initialises.

    Raises:
      ValueError: for an unknown `convolution`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from noisegen import models
      >>> models.Conv(1, 6, 5, padding=2, rngs=nnx.Rngs(0))(jnp.ones((1, 28, 28, 3))).shape
      (6, 28, 28, 3)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        padding: int = 0,
        stride: int = 1,
        use_bias: bool = True,
        kernel_init: nnx.Initializer | None = None,
        dtype: jax.typing.DTypeLike | None = None,
        convolution: str = "auto",
        rngs: nnx.Rngs,
    ):
        if convolution not in CONVOLUTIONS:
            raise ValueError(
                f"convolution={convolution!r} must be one of {', '.join(CONVOLUTIONS)}."
            )
        if convolution == "auto":
            convolution = "patches" if in_channels < _WIDE else "lax"
        self.padding, self.stride, self.dtype = padding, stride, dtype
        self.convolve = _convolve_patches if convolution == "patches" else _convolve_lax
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        fan_in = in_channels * kernel_size**2
        if kernel_init is None:
            self.kernel = nnx.Param(uniform_fan_in(rngs.params(), shape, fan_in))
            bias = uniform_fan_in(rngs.params(), (out_channels,), fan_in)
        else:
            kernel = kernel_init(rngs.params(), shape[:1:-1] + shape[1::-1])
            self.kernel = nnx.Param(kernel.transpose(3, 2, 0, 1))
            bias = jnp.zeros(out_channels)
        self.bias = nnx.Param(bias) if use_bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        return self._shifted(self.convolve(*self._operands(x), self.stride))

    def pooled(self, x: jax.Array) -> jax.Array:
        """`max_pool(self(x))`, to rounding; from patches of few channels in about half the time.

        The four outputs of a pooling window are computed from one patch, so that there are fewer
        patches and the maximum needs no strided reads. A filter of 5 x 5 then takes 36 products,
        which pays while there are few channels.
        """
        padded, kernel = self._operands(x)
        even = padded.shape[1] % 2 == padded.shape[2] % 2 == 0 and self.kernel.shape[-1] % 2
        even = even and self.stride == 1
        if self.convolve is not _convolve_patches or not even or len(x) >= _MANY:
            return max_pool(self(x))
        return self._shifted(_max_first(_convolve_windows(padded, kernel)))

    def _operands(self, x):
        """Padded images and kernel, of one dtype."""
        dtype = self.dtype or jnp.promote_types(x.dtype, self.kernel.dtype)
        pad = (self.padding, self.padding)
        padded = jnp.pad(x.astype(dtype), ((0, 0), pad, pad, (0, 0)))
        return padded, self.kernel[...].astype(dtype)

    def _shifted(self, y):
        if self.bias is None:
            return y
        bias = self.bias[...].astype(self.dtype or self.bias.dtype)
        return y + bias[:, None, None, None]


def max_pool(x: jax.Array) -> jax.Array:
    """Maximum over 2 x 2 windows: `(C, H, W, N)` to `(C, H/2, W/2, N)`.

    Raises:
      ValueError: H or W is odd.
    """
    if x.shape[1] % 2 or x.shape[2] % 2:
        raise ValueError(f"max_pool halves height and width, which must be even, got {x.shape}.")
    x = jnp.maximum(x[:, 0::2], x[:, 1::2])
    return jnp.maximum(x[:, :, 0::2], x[:, :, 1::2])


def dropout(
    x: jax.Array, keys: jax.Array | None, rate: float, stream: int, *, whole_channels: bool = False
) -> jax.Array:
    """Zeroes features of `(..., N)` with probability `rate` and scales the others by 1/(1 - rate).

    Args:
      x: features, examples last.
      keys: `(N,)` keys, one an example, so that the draw does not depend on which examples are
        computed together; None (evaluation) leaves `x` as it is.
      rate: probability of a zero, in [0, 1).
      stream: number of the layer; layers with the same keys draw differently.
      whole_channels: one draw a channel (the first axis) instead of one a feature.

    Returns:
      Features of the same shape and dtype.

    Raises:
      ValueError: `rate` is out of its range.
    """
    _validate.in_range(0, 1, rate=rate)
    if keys is None or rate == 0:
        return x
    shape = (x.shape[0],) + (1,) * (x.ndim - 2) if whole_channels else x.shape[:-1]

    def keep(key):
        return jax.random.bernoulli(jax.random.fold_in(key, stream), 1 - rate, shape)

    return jnp.where(jax.vmap(keep, out_axes=-1)(keys), x / (1 - rate), 0)


def _convolve_patches(x, kernel, stride):
    """Windows are cut along the width, then along the height: fewer, longer copies than at once."""
    (out, channels, size, _), (_, height, width, n) = kernel.shape, x.shape
    h, w = ((side - size) // stride + 1 for side in (height, width))
    x = jnp.stack([x[:, :, j : j + stride * w : stride] for j in range(size)], 1)
    x = jnp.stack([x[:, :, i : i + stride * h : stride] for i in range(size)], 1)
    y = kernel.reshape(out, -1) @ x.reshape(channels * size**2, h * w * n)
    return y.reshape(out, h, w, n)


def _convolve_windows(x, kernel):
    """The four outputs of every 2 x 2 window: `(4, out, H' / 2, W' / 2, N)`."""
    (out, channels, size, _), (_, height, width, n) = kernel.shape, x.shape
    h, w = (height - size + 1) // 2, (width - size + 1) // 2
    places = range(size + 1)
    x = x.reshape(channels, height, width // 2, 2, n)
    x = jnp.stack([x[:, :, j // 2 : j // 2 + w, j % 2] for j in places], 1)
    x = x.reshape(channels, size + 1, height // 2, 2, w, n)
    x = jnp.stack([x[:, :, i // 2 : i // 2 + h, i % 2] for i in places], 1)
    shifts = [(0, 1), (1, 0)]  # zeros before and after the kernel, within the patch
    kernels = jnp.stack([jnp.pad(kernel, ((0, 0), (0, 0), i, j)) for i in shifts for j in shifts])
    y = kernels.reshape(4 * out, -1) @ x.reshape(channels * (size + 1) ** 2, h * w * n)
    return y.reshape(4, out, h, w, n)


@jax.custom_vjp
def _max_first(y):
    """Maximum over the first axis, of 4; the gradient goes to the first of equals.

    Its own derivative, because XLA's is slow on the CPU.
    """
    return y.max(0)


def _max_first_forward(y):
    upper, lower = jnp.maximum(y[0], y[1]), jnp.maximum(y[2], y[3])
    place = jnp.where(y[0] >= y[1], 0, 1), jnp.where(y[2] >= y[3], 2, 3)
    return jnp.maximum(upper, lower), jnp.where(upper >= lower, *place).astype(jnp.int8)


def _max_first_backward(place, gradient):
    places = jnp.arange(4, dtype=place.dtype).reshape(4, *[1] * place.ndim)
    return (jnp.where(place[None] == places, gradient[None], 0),)


_max_first.defvjp(_max_first_forward, _max_first_backward)


def _convolve_lax(x, kernel, stride):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "VALID", dimension_numbers=("CHWN", "OIHW", "CHWN")
    )
