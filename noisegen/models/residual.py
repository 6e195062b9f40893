"""Residual networks for images: Wide-ResNet and ResNet-18 for small ones, ResNet-50 for large.

Called as `model(images)` with normalised images `(N, H, W, C)`; returns logits `(N, classes)` in
float32; in between the batch stands last. In training they take `keys`, one an example, for
dropout, and `mask`, the examples that count for the statistics of ghost batch normalisation.

>>> import jax.numpy as jnp
>>> from flax import nnx
>>> from noisegen import models
>>> net = models.WideResNet(depth=10, width=1, ghost_size=2, rngs=nnx.Rngs(0))
>>> net(jnp.zeros((4, 32, 32, 3))).shape
(4, 10)
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from noisegen import _validate
from noisegen.models.layers import Conv, Linear, dropout
from noisegen.models.normalization import GhostBatchNorm

_HE = nnx.initializers.he_normal()


class WideResNet(nnx.Module):
    r"""Wide-ResNet `depth`-`width`, with ghost batch normalisation or with SkipInit.

    A convolution to 16 channels; three stages of :math:`(\text{depth} - 4) / 6` blocks with 16, 32
    and 64 times `width` channels, the second and the third at half the resolution of the one
    before; normalisation, ReLU, mean over the positions, logits. A block is

    .. math:: \text{skip} + \text{conv}(\text{relu}(\text{norm}(\text{conv}(a)))), \quad
       a = \text{relu}(\text{norm}(x)),

    whose skip is `x`, or a 1 x 1 convolution of `a` where the shape changes. All convolutions are
    3 x 3 otherwise, start as He et al. have it, and have a bias only without normalisation.

    SkipInit is the network without normalisation in which each residual branch is multiplied by a
    scalar that is learned and starts at 0. Regularised SkipInit adds dropout before the logits.

    Args:
      depth: 6 n + 4, for instance 16 or 28: 16-4 has 2,748,890 parameters.
      width: factor of the channels.
      num_classes: number of logits.
      channels: of the images.
      ghost_size: examples of a ghost batch; None for SkipInit.
      dropout: probability of a zero before the logits, in [0, 1).
      recompute: whether the running statistics are plain averages, to be recomputed before
        evaluation: see `GhostBatchNorm` and `noisegen.training.Task`.
      dtype: of the convolutions and what is between them; parameters and statistics are float32.
      convolution: see `noisegen.models.Conv`; "lax" for wide networks on an accelerator.
      rngs: stream `params` initialises.

    Raises:
      ValueError: an argument is out of its range.

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
        dropout: float = 0.0,
        recompute: bool = False,
        dtype: jax.typing.DTypeLike = jnp.float32,
        convolution: str = "auto",
        rngs: nnx.Rngs,
    ):
        blocks, rest = divmod(depth - 4, 6)
        if blocks < 1 or rest or width < 1:
            raise ValueError(
                f"A Wide-ResNet has depth 6 n + 4 (10, 16, 22, 28, ...) and a width of at least 1, "
                f"got depth={depth}, width={width}."
            )
        _validate.in_range(0, 1, dropout=dropout)
        make = _Layers(ghost_size, recompute, dtype, convolution, rngs)
        self.dropout = dropout
        self.stem = make.conv(channels, 16, 3)
        widths = [16] + [16 * 2**stage * width for stage in range(3) for _ in range(blocks)]
        strides = [1 + (stage > 0 and block == 0) for stage in range(3) for block in range(blocks)]
        self.blocks = nnx.List(
            [_WideBlock(make, *each) for each in zip(widths, widths[1:], strides, strict=False)]
        )
        self.norm = make.norm(widths[-1])
        self.logits = nnx.Linear(widths[-1], num_classes, rngs=rngs)

    def __call__(
        self, images: jax.Array, keys: jax.Array | None = None, mask: jax.Array | None = None
    ) -> jax.Array:
        x = self.stem(images.transpose(3, 1, 2, 0))
        for block in self.blocks:
            x = block(x, mask)
        x = jax.nn.relu(_apply(self.norm, x, mask))
        x = jnp.mean(x, (1, 2), dtype=jnp.float32)
        return self.logits(dropout(x, keys, self.dropout, stream=0).T)


class ResNet18(nnx.Module):
    """ResNet-18 as it is used on CIFAR-10, with ghost batch normalisation: 11,173,962 parameters.

    A 3 x 3 convolution and no pooling; four stages of two blocks with 1, 2, 4 and 8 times `width`
    channels, every stage but the first at half the resolution of the one before; mean over the
    positions, logits. A block is two 3 x 3 convolutions, each normalised, beside its input (where
    the shape changes: a normalised 1 x 1 convolution of it), then ReLU. All parameters start as
    PyTorch's do by default.

    Args:
      num_classes: number of logits.
      width: channels of the first stage.
      stages: blocks of each stage.
      channels: of the images.
      ghost_size: examples of a ghost batch; that of the whole batch makes ordinary batch
        normalisation.
      recompute: as for `WideResNet`.
      dtype: as for `WideResNet`.
      convolution: as for `WideResNet`.
      rngs: stream `params` initialises.

    Raises:
      ValueError: an argument is out of its range.

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
        self.stem, self.norm = make.conv(channels, width, 3), make.norm(width)
        widths, strides = _widths_and_strides(stages, width)
        inputs = [width, *widths]
        self.blocks = nnx.List(
            [_BasicBlock(make, *each) for each in zip(inputs, widths, strides, strict=False)]
        )
        self.logits = Linear(inputs[-1], num_classes, rngs=rngs)

    def __call__(self, images: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        x = jax.nn.relu(self.norm(self.stem(images.transpose(3, 1, 2, 0)), mask=mask))
        for block in self.blocks:
            x = block(x, mask)
        return self.logits(jnp.mean(x, (1, 2), dtype=jnp.float32)).T


class ResNet50(nnx.Module):
    """ResNet-50 for large images, with ghost batch normalisation: 25,557,032 parameters.

    A 7 x 7 convolution of stride 2 to 64 channels and 3 x 3 max pooling of stride 2; four stages of
    bottleneck blocks (1 x 1, 3 x 3, 1 x 1 to four times the channels, each normalised; the stride
    is the 3 x 3 convolution's); mean over the positions, logits. The last normalisation of a block
    starts at scale 0, so that every block begins as its skip (Goyal et al.).

    Args:
      num_classes: number of logits.
      stages: blocks of each stage; others make the deeper and the shallower relatives.
      ghost_size: examples of a ghost batch; Smith, Elsen & De have 256.
      recompute: as for `WideResNet`.
      dtype: as for `WideResNet`.
      convolution: as for `WideResNet`.
      rngs: stream `params` initialises.

    Raises:
      ValueError: an argument is out of its range.

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
        self.stem, self.norm = make.conv(3, 64, 7, 2), make.norm(64)
        widths, strides = _widths_and_strides(stages, 64)
        inputs = [64] + [4 * width for width in widths]
        self.blocks = nnx.List(
            [_Bottleneck(make, *each) for each in zip(inputs, widths, strides, strict=False)]
        )
        self.logits = nnx.Linear(inputs[-1], num_classes, rngs=rngs)

    def __call__(self, images: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        x = jax.nn.relu(self.norm(self.stem(images.transpose(3, 1, 2, 0)), mask=mask))
        edge = ((0, 0), (1, 1), (1, 1), (0, 0))
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), edge)
        for block in self.blocks:
            x = block(x, mask)
        return self.logits(jnp.mean(x, (1, 2), dtype=jnp.float32).T)


class _Layers:
    """Makes the layers of a network, which share their settings."""

    def __init__(self, ghost_size, recompute, dtype, convolution, rngs, kernel_init=_HE):
        self.normalised = ghost_size is not None
        self._conv = functools.partial(
            Conv,
            use_bias=not self.normalised,
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

    def conv(self, inputs, outputs, size, stride=1):
        return self._conv(inputs, outputs, size, stride=stride, padding=size // 2)

    def norm(self, features, **options):
        return self._norm(features, **options) if self.normalised else None


class _WideBlock(nnx.Module):
    """Two pre-activated 3 x 3 convolutions."""

    def __init__(self, make, inputs, outputs, stride):
        self.norm1, self.conv1 = make.norm(inputs), make.conv(inputs, outputs, 3, stride)
        self.norm2, self.conv2 = make.norm(outputs), make.conv(outputs, outputs, 3)
        same = inputs == outputs and stride == 1
        self.shortcut = None if same else make.conv(inputs, outputs, 1, stride)
        self.gain = None if make.normalised else nnx.Param(jnp.zeros(()))

    def __call__(self, x, mask):
        active = jax.nn.relu(_apply(self.norm1, x, mask))
        skip = x if self.shortcut is None else self.shortcut(active)
        x = jax.nn.relu(_apply(self.norm2, self.conv1(active), mask))
        x = self.conv2(x)
        return skip + (x if self.gain is None else x * self.gain[...].astype(x.dtype))


class _BasicBlock(nnx.Module):
    """Two 3 x 3 convolutions, each followed by its normalisation."""

    def __init__(self, make, inputs, outputs, stride):
        self.conv1, self.norm1 = make.conv(inputs, outputs, 3, stride), make.norm(outputs)
        self.conv2, self.norm2 = make.conv(outputs, outputs, 3), make.norm(outputs)
        same = inputs == outputs and stride == 1
        self.shortcut = None if same else make.conv(inputs, outputs, 1, stride)
        self.shortcut_norm = None if same else make.norm(outputs)

    def __call__(self, x, mask):
        skip = x if self.shortcut is None else self.shortcut_norm(self.shortcut(x), mask=mask)
        x = jax.nn.relu(self.norm1(self.conv1(x), mask=mask))
        return jax.nn.relu(skip + self.norm2(self.conv2(x), mask=mask))


class _Bottleneck(nnx.Module):
    """Three convolutions, each followed by its normalisation."""

    def __init__(self, make, inputs, width, stride):
        outputs = 4 * width
        self.conv1, self.norm1 = make.conv(inputs, width, 1), make.norm(width)
        self.conv2, self.norm2 = make.conv(width, width, 3, stride), make.norm(width)
        self.conv3 = make.conv(width, outputs, 1)
        self.norm3 = make.norm(outputs, scale_init=nnx.initializers.zeros)
        same = inputs == outputs and stride == 1
        self.shortcut = None if same else make.conv(inputs, outputs, 1, stride)
        self.shortcut_norm = None if same else make.norm(outputs)

    def __call__(self, x, mask):
        skip = x if self.shortcut is None else self.shortcut_norm(self.shortcut(x), mask=mask)
        x = jax.nn.relu(self.norm1(self.conv1(x), mask=mask))
        x = jax.nn.relu(self.norm2(self.conv2(x), mask=mask))
        return jax.nn.relu(skip + self.norm3(self.conv3(x), mask=mask))


def _widths_and_strides(stages, width):
    """Of every block; each stage has twice the channels of the one before, and half its size."""
    places = [(stage, block) for stage, blocks in enumerate(stages) for block in range(blocks)]
    widths = [width * 2**stage for stage, _ in places]
    return widths, [1 + (stage > 0 and block == 0) for stage, block in places]


def _apply(norm, x, mask):
    """Normalised, where there is a normalisation."""
    return x if norm is None else norm(x, mask=mask)
