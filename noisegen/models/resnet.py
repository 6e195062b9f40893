"""Residual networks: Wide-ResNet and ResNet-18 for small images, ResNet-50 for large ones.

Call them as `model(images)` with normalized images `(N, H, W, C)`; they return logits
`(N, classes)` in float32. Internally the batch is the last axis. In training they take `keys`, one
per example, for dropout, and `mask`, the examples that count in the statistics of ghost batch
normalization.

>>> import jax.numpy as jnp
>>> from flax import nnx
>>> from noisegen import models
>>> net = models.WideResNet(depth=10, width=1, ghost_size=2, rngs=nnx.Rngs(0))
>>> net(jnp.zeros((4, 32, 32, 3))).shape
(4, 10)
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from noisegen import _validate
from noisegen.models._batch_last import Conv, Linear, dropout
from noisegen.models.ghost_batch_norm import GhostBatchNorm

_HE = nnx.initializers.he_normal()


class WideResNet(nnx.Module):
    """Wide-ResNet `depth`-`width`, with ghost batch normalization or with SkipInit.

    A convolution leads to 16 channels. Three stages follow, of (depth - 4) / 6 blocks with 16, 32
    and 64 times `width` channels, the second and third at half the resolution of the stage before.
    The end is normalization, ReLU, mean over positions and logits. A block is

    skip + conv(relu(norm(conv(a)))), a = relu(norm(x)).

    The skip is x, or a 1 x 1 convolution of a if the shape changes. All other convolutions are
    3 x 3. They have a bias only without normalization.

    Kernels of convolutions start from He's normal distribution of the fan in, and those of the
    logits from LeCun's, of 1 / sqrt(2) times the deviation. Zagoruyko's PyTorch code has He's there
    as well, and his Lua code takes the fan out of convolutions.

    SkipInit removes normalization and multiplies each residual branch by a learned scalar that
    starts at 0. Regularized SkipInit adds dropout before the logits.

    Args:
      depth: Number of layers, 6 n + 4, such as 16 or 28. WRN-16-4 has 2,748,890 parameters.
      width: Factor of the number of channels.
      num_classes: Number of logits.
      channels: Channels of the images.
      ghost_size: Examples in a ghost batch, or None for SkipInit.
      dropout: Probability of a zero before the logits, in [0, 1).
      recompute: Whether running statistics are plain averages, to be recomputed before evaluation.
        See `GhostBatchNorm` and `noisegen.training.Task`.
      dtype: Type of convolutions and activations. Parameters and statistics are float32.
      convolution: Implementation of convolutions; results agree up to rounding. "patches" is a
        matrix product over patches, fast for few channels on a CPU and for many runs at once. "lax"
        is XLA's, for one network on an accelerator. "auto" chooses by the platform, the number of
        networks on a device and the number of channels.
      rngs: Random streams; `params` initializes all parameters.

    Raises:
      ValueError: If an argument is out of its range.

    References:
      Zagoruyko & Komodakis, Wide Residual Networks, 2016, https://arxiv.org/abs/1605.07146;
      De & Smith, Batch Normalization Biases Residual Blocks Towards the Identity Function in Deep
      Networks (SkipInit), 2020, https://arxiv.org/abs/2002.10444
    """

    def __init__(
        self,
        depth: int = 16,
        width: int = 4,
        num_classes: int = 10,
        *,
        channels: int = 3,
        ghost_size: int | None = 64,
        dropout: jax.typing.ArrayLike = 0.0,
        recompute: bool = False,
        dtype: jax.typing.DTypeLike = jnp.float32,
        convolution: str = "auto",
        rngs: nnx.Rngs,
    ):
        num_blocks, rest = divmod(depth - 4, 6)
        if num_blocks < 1 or rest or width < 1:
            raise ValueError(
                f"A Wide-ResNet has depth 6 n + 4 (10, 16, 22, 28, ...) and a width of at least 1, "
                f"got depth={depth}, width={width}."
            )
        _validate.in_range(0, 1, dropout=dropout)
        make = _Layers(ghost_size, recompute, dtype, convolution, rngs)
        self.dropout = dropout
        self.stem = make.conv(channels, 16, 3)
        blocks = []
        inputs = 16
        for outputs, stride in _widths_and_strides([num_blocks] * 3, 16 * width):
            blocks.append(_WideBlock(make, inputs, outputs, stride))
            inputs = outputs
        self.blocks = nnx.List(blocks)
        self.norm = make.norm(inputs)
        self.logits = nnx.Linear(inputs, num_classes, rngs=rngs)

    def __call__(
        self, images: jax.Array, keys: jax.Array | None = None, mask: jax.Array | None = None
    ) -> jax.Array:
        x = self.stem(images.transpose(3, 1, 2, 0))
        for block in self.blocks:
            x = block(x, mask)
        x = _normalized_relu(self.norm, x, mask)
        # In float32, since a sum in bfloat16 would lose digits. Logits are float32 in any case.
        x = jnp.mean(x, (1, 2), dtype=jnp.float32)
        # The last layer is Flax's, which takes examples first.
        return self.logits(dropout(x, keys, self.dropout, stream=0).T)


class ResNet18(nnx.Module):
    """ResNet-18 for CIFAR-10, with ghost batch normalization: 11,173,962 parameters.

    A 3 x 3 convolution without pooling is followed by four stages of two blocks, with 1, 2, 4 and 8
    times `width` channels. Each stage after the first has half the resolution of the one before.
    The end is the mean over positions and logits. A block adds two normalized 3 x 3 convolutions to
    its input, followed by ReLU. If the shape changes, the input passes through a normalized 1 x 1
    convolution. Parameters start from PyTorch's default distribution.

    Args:
      num_classes: Number of logits.
      width: Channels of the first stage.
      stages: Number of blocks in each stage.
      channels: Channels of the images.
      ghost_size: Examples in a ghost batch. The size of the whole batch gives ordinary batch
        normalization.
      recompute: See `WideResNet`.
      dtype: See `WideResNet`.
      convolution: See `WideResNet`.
      rngs: Random streams; `params` initializes all parameters.

    Raises:
      ValueError: If an argument is out of its range.

    Examples:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from noisegen import models
      >>> net = models.ResNet18(width=4, stages=(1, 1), ghost_size=2, rngs=nnx.Rngs(0))
      >>> net(jnp.zeros((4, 8, 8, 3))).shape
      (4, 10)

    References:
      He et al., Deep Residual Learning for Image Recognition, 2015,
      https://arxiv.org/abs/1512.03385
    """

    def __init__(
        self,
        num_classes: int = 10,
        *,
        width: int = 64,
        stages: Sequence[int] = (2, 2, 2, 2),
        channels: int = 3,
        ghost_size: int = 64,
        recompute: bool = False,
        dtype: jax.typing.DTypeLike = jnp.float32,
        convolution: str = "auto",
        rngs: nnx.Rngs,
    ):
        _validate.positive(width=width, ghost_size=ghost_size)
        make = _Layers(ghost_size, recompute, dtype, convolution, rngs, kernel_init=None)
        self.stem = make.conv(channels, width, 3)
        self.norm = make.norm(width)
        blocks = []
        inputs = width
        for outputs, stride in _widths_and_strides(stages, width):
            blocks.append(_BasicBlock(make, inputs, outputs, stride))
            inputs = outputs
        self.blocks = nnx.List(blocks)
        self.logits = Linear(inputs, num_classes, rngs=rngs)

    def __call__(self, images: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        x = self.norm(self.stem(images.transpose(3, 1, 2, 0)), mask=mask, relu=True)
        for block in self.blocks:
            x = block(x, mask)
        return self.logits(jnp.mean(x, (1, 2), dtype=jnp.float32)).T


class ResNet50(nnx.Module):
    """ResNet-50 for large images, with ghost batch normalization: 25,557,032 parameters.

    A 7 x 7 convolution of stride 2 leads to 64 channels, followed by 3 x 3 max pooling of stride 2
    and four stages of bottleneck blocks. The end is the mean over positions and logits. A block has
    convolutions of 1 x 1, 3 x 3 and 1 x 1, the last to four times the channels, each normalized.
    The 3 x 3 convolution has the block's stride. The last normalization of a block starts at scale
    0, so that every block starts as its skip (Goyal et al.). Kernels start as in `WideResNet`.

    Args:
      num_classes: Number of logits.
      stages: Number of blocks in each stage, which gives deeper and shallower variants.
      ghost_size: Examples in a ghost batch. Smith, Elsen & De use 256.
      recompute: See `WideResNet`.
      dtype: See `WideResNet`.
      convolution: See `WideResNet`.
      rngs: Random streams; `params` initializes all parameters.

    Raises:
      ValueError: If an argument is out of its range.

    References:
      He et al., Deep Residual Learning for Image Recognition, 2015,
      https://arxiv.org/abs/1512.03385; Goyal et al., 2017, https://arxiv.org/abs/1706.02677
    """

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        stages: Sequence[int] = (3, 4, 6, 3),
        ghost_size: int = 256,
        recompute: bool = False,
        dtype: jax.typing.DTypeLike = jnp.float32,
        convolution: str = "auto",
        rngs: nnx.Rngs,
    ):
        _validate.positive(ghost_size=ghost_size)
        make = _Layers(ghost_size, recompute, dtype, convolution, rngs)
        self.stem = make.conv(3, 64, 7, 2)
        self.norm = make.norm(64)
        blocks = []
        inputs = 64
        for width, stride in _widths_and_strides(stages, 64):
            blocks.append(_Bottleneck(make, inputs, width, stride))
            inputs = 4 * width
        self.blocks = nnx.List(blocks)
        self.logits = nnx.Linear(inputs, num_classes, rngs=rngs)

    def __call__(self, images: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        x = self.norm(self.stem(images.transpose(3, 1, 2, 0)), mask=mask, relu=True)
        # 3 x 3 max pooling of stride 2, padded by -inf.
        padding = ((0, 0), (1, 1), (1, 1), (0, 0))
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding)
        for block in self.blocks:
            x = block(x, mask)
        return self.logits(jnp.mean(x, (1, 2), dtype=jnp.float32).T)


class _Layers:
    """Factory for the layers of a network, which share their options."""

    def __init__(
        self,
        ghost_size: int | None,
        recompute: bool,
        dtype: jax.typing.DTypeLike,
        convolution: str,
        rngs: nnx.Rngs,
        kernel_init: nnx.Initializer | None = _HE,
    ):
        self.has_norm = ghost_size is not None
        self._conv = functools.partial(
            Conv,
            # Normalization subtracts the mean, and any bias with it.
            use_bias=not self.has_norm,
            kernel_init=kernel_init,
            dtype=dtype,
            convolution=convolution,
            rngs=rngs,
        )
        self._norm = functools.partial(
            GhostBatchNorm,
            ghost_size=ghost_size,
            momentum=None if recompute else 0.9,
            axis=0,
            batch_axis=-1,
            rngs=rngs,
        )

    def conv(self, inputs: int, outputs: int, size: int, stride: int = 1) -> Conv:
        """Makes a convolution that keeps height and width, but for its stride."""
        return self._conv(inputs, outputs, size, stride=stride, padding=size // 2)

    def norm(self, features: int, **options: Any) -> GhostBatchNorm | None:
        """Makes a normalization, or None in a network without."""
        return self._norm(features, **options) if self.has_norm else None


# In the blocks below, the order in which layers are made decides their random initialization.


class _WideBlock(nnx.Module):
    """Pre-activated block of two 3 x 3 convolutions."""

    def __init__(self, make: _Layers, inputs: int, outputs: int, stride: int):
        self.norm1 = make.norm(inputs)
        self.conv1 = make.conv(inputs, outputs, 3, stride)
        self.norm2 = make.norm(outputs)
        self.conv2 = make.conv(outputs, outputs, 3)
        same_shape = inputs == outputs and stride == 1
        self.shortcut = None if same_shape else make.conv(inputs, outputs, 1, stride)
        # SkipInit: at the start every block is its skip.
        self.gain = None if make.has_norm else nnx.Param(jnp.zeros(()))

    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        active = _normalized_relu(self.norm1, x, mask)
        # A shortcut takes the activation that the branch takes, as in Zagoruyko's code.
        skip = x if self.shortcut is None else self.shortcut(active)
        x = _normalized_relu(self.norm2, self.conv1(active), mask)
        x = self.conv2(x)
        if self.gain is not None:
            x = x * self.gain[...].astype(x.dtype)
        return skip + x


class _BasicBlock(nnx.Module):
    """Block of two 3 x 3 convolutions, each normalized."""

    def __init__(self, make: _Layers, inputs: int, outputs: int, stride: int):
        self.conv1 = make.conv(inputs, outputs, 3, stride)
        self.norm1 = make.norm(outputs)
        self.conv2 = make.conv(outputs, outputs, 3)
        self.norm2 = make.norm(outputs)
        same_shape = inputs == outputs and stride == 1
        self.shortcut = None if same_shape else make.conv(inputs, outputs, 1, stride)
        self.shortcut_norm = None if same_shape else make.norm(outputs)

    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        skip = x
        if self.shortcut is not None:
            skip = self.shortcut_norm(self.shortcut(x), mask=mask)
        x = self.norm1(self.conv1(x), mask=mask, relu=True)
        return jax.nn.relu(skip + self.norm2(self.conv2(x), mask=mask))


class _Bottleneck(nnx.Module):
    """Block of three convolutions, each normalized."""

    def __init__(self, make: _Layers, inputs: int, width: int, stride: int):
        outputs = 4 * width
        self.conv1 = make.conv(inputs, width, 1)
        self.norm1 = make.norm(width)
        self.conv2 = make.conv(width, width, 3, stride)
        self.norm2 = make.norm(width)
        self.conv3 = make.conv(width, outputs, 1)
        # At the start every block is its skip, which allows larger learning rates (Goyal et al.).
        self.norm3 = make.norm(outputs, scale_init=nnx.initializers.zeros)
        same_shape = inputs == outputs and stride == 1
        self.shortcut = None if same_shape else make.conv(inputs, outputs, 1, stride)
        self.shortcut_norm = None if same_shape else make.norm(outputs)

    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        skip = x
        if self.shortcut is not None:
            skip = self.shortcut_norm(self.shortcut(x), mask=mask)
        x = self.norm1(self.conv1(x), mask=mask, relu=True)
        x = self.norm2(self.conv2(x), mask=mask, relu=True)
        return jax.nn.relu(skip + self.norm3(self.conv3(x), mask=mask))


def _widths_and_strides(stages: Sequence[int], width: int) -> list[tuple[int, int]]:
    """Returns width and stride of every block.

    Each stage doubles the channels of the one before. Its first block halves the resolution.
    """
    blocks = []
    for stage, num_blocks in enumerate(stages):
        for block in range(num_blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            blocks.append((width * 2**stage, stride))
    return blocks


def _normalized_relu(
    norm: GhostBatchNorm | None, x: jax.Array, mask: jax.Array | None
) -> jax.Array:
    """Returns the ReLU of x, normalized if the network has normalization."""
    return jax.nn.relu(x) if norm is None else norm(x, mask=mask, relu=True)
