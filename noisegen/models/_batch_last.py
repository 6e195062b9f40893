"""Layers with the batch on the last axis: features `(C, N)`, images `(C, H, W, N)`.

With examples on the fastest axis, every slice, maximum and broadcast of a small network reads
contiguous memory. Networks take and return the usual `(N, ...)`, and transpose at both ends.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from noisegen import _traced_for, _validate

CONVOLUTIONS = ("auto", "patches", "lax")
_WIDE = 64  # Number of channels from which XLA's own convolution is faster on a CPU.
_MANY = 16  # Number of channels from which arithmetic costs more than memory, see `Conv.pooled`.


def uniform_fan_in(key: jax.Array, shape: tuple[int, ...], fan_in: int) -> jax.Array:
    """Draws from U(-b, b) with b = 1 / sqrt(fan_in), PyTorch's default for all parameters.

    Raises:
      ValueError: If a size is less than 1.
    """
    if min(*shape, fan_in) < 1:
        raise ValueError(f"Every size of a layer must be at least 1, got {shape}, {fan_in=}.")
    bound = 1 / math.sqrt(fan_in)
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


class Linear(nnx.Module):
    """Affine map of features `(in, N)` to `(out, N)`.

    Args:
      in_features: Number of input features.
      out_features: Number of output features.
      rngs: Random streams; `params` initializes weights and biases.

    Examples:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> Linear(3, 5, rngs=nnx.Rngs(0))(jnp.ones((3, 7))).shape
      (5, 7)
    """

    def __init__(self, in_features: int, out_features: int, *, rngs: nnx.Rngs):
        # (out, in), so that the kernel multiplies from the left and examples stay on the last axis.
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
    """Convolution of images `(C, H, W, N)` to `(out, H', W', N)`.

    Args:
      in_channels: Number of input channels C.
      out_channels: Number of filters.
      kernel_size: Height and width of a filter.
      padding: Zeros added on each side.
      stride: Distance between neighboring positions of a filter.
      use_bias: Whether to add a bias to each filter's output.
      kernel_init: Initializer of the weights, in Flax's shapes `(size, size, C, out)`. With it,
        biases start at zero. The default is `uniform_fan_in` for weights and biases.
      dtype: Type of the product and the result. The default is the type to which input and
        parameters promote. Parameters are float32.
      convolution: Implementation; results agree up to rounding. "patches" is one matrix product
        over patches. It is fast for few channels, and stays one batched product under `vmap` over
        weights. "lax" is `jax.lax.conv_general_dilated`. "auto" is "lax" for 64 channels or more,
        and for fewer if an accelerator trains a single network. Else it is "patches".
      rngs: Random streams; `params` initializes weights and biases.

    Raises:
      ValueError: If `convolution` is unknown, or a size is less than 1.

    Examples:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> Conv(1, 6, 5, padding=2, rngs=nnx.Rngs(0))(jnp.ones((1, 28, 28, 3))).shape
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
        self.convolution = convolution
        self.padding = padding
        self.stride = stride
        self.dtype = dtype
        # The product over patches reads the kernel as a matrix (out, C * size**2) without a copy.
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        if kernel_init is None:
            fan_in = in_channels * kernel_size**2
            kernel = uniform_fan_in(rngs.params(), shape, fan_in)
            bias = uniform_fan_in(rngs.params(), (out_channels,), fan_in)
        else:
            # Initializers such as He's take the fans from Flax's order of axes.
            flax_shape = (kernel_size, kernel_size, in_channels, out_channels)
            kernel = kernel_init(rngs.params(), flax_shape).transpose(3, 2, 0, 1)
            bias = jnp.zeros(out_channels)
        self.kernel = nnx.Param(kernel)
        self.bias = nnx.Param(bias) if use_bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        x, kernel = self._operands(x)
        convolve = _convolve_patches if self._takes_patches() else _convolve_lax
        return self._add_bias(convolve(x, kernel, self.stride, self.padding))

    def pooled(self, x: jax.Array) -> jax.Array:
        """Returns `max_pool(self(x))` up to rounding, in about half the time for few channels.

        The four outputs of a pooling window are computed from one patch. There are fewer patches,
        and the maximum needs no strided reads. In exchange a filter of 5 x 5 takes 36 products
        instead of 25, which pays off if there are few channels.
        """
        operand, kernel = self._operands(x)
        padded = _pad(operand, self.padding)
        _, height, width, _ = padded.shape
        # An odd filter on even sides gives even sides, which windows of 2 x 2 cover exactly.
        fits = height % 2 == 0 and width % 2 == 0 and kernel.shape[-1] % 2 == 1
        by_patches = self._takes_patches() and self.stride == 1
        if not fits or not by_patches or len(x) >= _MANY:
            return max_pool(self(x))
        # The bias is equal within a window, so it may follow the maximum.
        return self._add_bias(_max_first(_convolve_windows(padded, kernel)))

    def _takes_patches(self) -> bool:
        """Returns whether this call is a product over patches."""
        if self.convolution != "auto":
            return self.convolution == "patches"
        devices = _traced_for.current()
        # An accelerator's memory bounds the product, and patches move several times the bytes. But
        # several networks make XLA's a grouped convolution, which is slow.
        if devices.platform != "cpu" and devices.num_networks == 1:
            return False
        return self.kernel.shape[1] < _WIDE

    def _operands(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns images and the kernel, of one type."""
        dtype = self.dtype or jnp.promote_types(x.dtype, self.kernel.dtype)
        return x.astype(dtype), self.kernel[...].astype(dtype)

    def _add_bias(self, y: jax.Array) -> jax.Array:
        """Adds the bias to images `(out, H, W, N)`, if the layer has one."""
        if self.bias is None:
            return y
        bias = self.bias[...].astype(self.dtype or self.bias.dtype)
        return y + bias[:, None, None, None]


def max_pool(x: jax.Array) -> jax.Array:
    """Takes the maximum over 2 x 2 windows: `(C, H, W, N)` to `(C, H/2, W/2, N)`.

    Raises:
      ValueError: If H or W is odd.
    """
    if x.shape[1] % 2 or x.shape[2] % 2:
        raise ValueError(f"max_pool halves height and width, which must be even, got {x.shape}.")
    # Rows first: they are contiguous, and half as many columns are left to read with a stride.
    x = jnp.maximum(x[:, 0::2], x[:, 1::2])
    return jnp.maximum(x[:, :, 0::2], x[:, :, 1::2])


def dropout(
    x: jax.Array,
    keys: jax.Array | None,
    rate: jax.typing.ArrayLike,
    stream: int,
    *,
    whole_channels: bool = False,
) -> jax.Array:
    """Zeroes features with probability `rate`, and scales the others by 1 / (1 - rate).

    Args:
      x: Features `(..., N)`, examples last.
      keys: Keys `(N,)`, one per example, so that the draw does not depend on the other examples of
        the microbatch. None (evaluation) returns `x`.
      rate: Probability of a zero, in [0, 1). It may be traced.
      stream: Number of the layer. Layers with the same keys and other numbers draw independently.
      whole_channels: Whether to draw once per channel (first axis) instead of once per feature.

    Returns:
      Features of the same shape and type.

    Raises:
      ValueError: If the rate is out of its range. A traced rate is not checked.
    """
    _validate.in_range(0, 1, rate=rate)
    # A traced rate cannot be compared. The hyperparameters of runs are traced.
    if keys is None or (not isinstance(rate, jax.Array) and rate == 0):
        return x
    shape = x.shape[:-1]  # Of one example.
    if whole_channels:
        shape = (x.shape[0],) + (1,) * (x.ndim - 2)

    def keep(key: jax.Array) -> jax.Array:
        return jax.random.bernoulli(jax.random.fold_in(key, stream), 1 - rate, shape)

    return jnp.where(jax.vmap(keep, out_axes=-1)(keys), x / (1 - rate), 0)


def _pad(x: jax.Array, padding: int) -> jax.Array:
    """Adds zeros on each side of images `(C, H, W, N)`."""
    return jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))


def _convolve_patches(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """Convolves by one matrix product over patches.

    Patches are cut along the width, then along the height. That makes fewer and longer copies than
    cutting both at once.
    """
    x = _pad(x, padding)
    out, channels, size, _ = kernel.shape
    _, height, width, n = x.shape
    h = (height - size) // stride + 1
    w = (width - size) // stride + 1
    # (C, j, H, W', N), then (C, i, j, H', W', N). Axis 2 is the width, then the height.
    x = jnp.stack([x[:, :, j : j + stride * w : stride] for j in range(size)], 1)
    x = jnp.stack([x[:, :, i : i + stride * h : stride] for i in range(size)], 1)
    y = kernel.reshape(out, -1) @ x.reshape(channels * size**2, h * w * n)
    return y.reshape(out, h, w, n)


def _convolve_windows(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns the four outputs of every 2 x 2 window: `(4, out, H' / 2, W' / 2, N)`."""
    out, channels, size, _ = kernel.shape
    _, height, width, n = x.shape
    h = (height - size + 1) // 2
    w = (width - size + 1) // 2
    offsets = range(size + 1)  # A window and its filter need a patch of size + 1.
    # Even and odd columns (rows) get an axis of their own, so that patches are plain slices.
    x = x.reshape(channels, height, width // 2, 2, n)
    x = jnp.stack([x[:, :, j // 2 : j // 2 + w, j % 2] for j in offsets], 1)
    x = x.reshape(channels, size + 1, height // 2, 2, w, n)
    x = jnp.stack([x[:, :, i // 2 : i // 2 + h, i % 2] for i in offsets], 1)
    # The filter at the four positions in the patch, by zeros before and after it.
    shifts = [(0, 1), (1, 0)]
    kernels = jnp.stack([jnp.pad(kernel, ((0, 0), (0, 0), i, j)) for i in shifts for j in shifts])
    y = kernels.reshape(4 * out, -1) @ x.reshape(channels * (size + 1) ** 2, h * w * n)
    return y.reshape(4, out, h, w, n)


@jax.custom_vjp
def _max_first(y: jax.Array) -> jax.Array:
    """Takes the maximum over the first axis, of length 4; the gradient goes to the first of equals.

    The derivative is custom because XLA's is slow on CPUs.
    """
    return y.max(0)


def _max_first_forward(y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the maximum, and its index for the backward pass."""
    # `>=` prefers the first of equals. An index of one byte takes a quarter of a value's memory.
    upper, lower = jnp.maximum(y[0], y[1]), jnp.maximum(y[2], y[3])
    upper_index = jnp.where(y[0] >= y[1], 0, 1)
    lower_index = jnp.where(y[2] >= y[3], 2, 3)
    index = jnp.where(upper >= lower, upper_index, lower_index).astype(jnp.int8)
    return jnp.maximum(upper, lower), index


def _max_first_backward(index: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    """Sends the gradient to the maximum, and zeros to the other three."""
    indices = jnp.arange(4, dtype=index.dtype).reshape(4, *[1] * index.ndim)
    return (jnp.where(index[None] == indices, gradient[None], 0),)


_max_first.defvjp(_max_first_forward, _max_first_backward)


def _convolve_lax(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """Convolves by XLA's own operation, in the same order of axes.

    It gets the padding, because the gradient of images padded beforehand is computed at their
    padded size on GPUs.
    """
    pad = [(padding, padding)] * 2
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), pad, dimension_numbers=("CHWN", "OIHW", "CHWN")
    )
