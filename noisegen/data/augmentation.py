"""Augmentation of one image at a time, inside the compiled program.

Each function takes ONE example and its key, and is vmapped over a batch with one key per
example: what happens to an example then depends on its key alone, never on which examples
share its microbatch.

>>> import jax
>>> from noisegen import data
>>> image_BxHxWxC = data.load("digits").train["image"][:4]
>>> key_B = jax.random.split(jax.random.key(0), 4)
>>> jax.vmap(data.pad_crop_flip)(key_B, image_BxHxWxC).shape
(4, 8, 8, 1)
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

_MODES = ("reflect", "constant")


def pad_crop_flip(
    key: ArrayLike,
    image_HxWxC: ArrayLike,
    *,
    padding: int = 4,
    mode: Literal["reflect", "constant"] = "reflect",
    flip: bool = True,
) -> jax.Array:
    r"""Shifts an image by up to `padding` pixels and mirrors it with probability 1/2.

    The image is padded to :math:`(H + 2p) \times (W + 2p)`, a window of the original size is cut
    out at an offset drawn uniformly from :math:`\{0, \dots, 2p\}^2`, and its columns are reversed
    with probability one half.

    Args:
      key: random key of this example.
      image_HxWxC: one image of any dtype, which is kept.
      padding: `p`, pixels added on every side; at least 0, and for 'reflect' less than H and W.
      mode: 'reflect' repeats the image mirrored about its edge pixels, 'constant' adds zeros
        (which are black in an image of bytes, and the mean in a standardised one).
      flip: whether to mirror left and right. False for digits and letters.

    Returns:
      An image of the same shape and dtype, a pure function of `key` and `image_HxWxC`.

    Raises:
      ValueError: for an image that is not (H, W, C), an unknown mode, or a padding out of range.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from noisegen import data
      >>> image = jnp.arange(9, dtype=jnp.uint8).reshape(3, 3, 1)
      >>> out = data.pad_crop_flip(jax.random.key(0), image, padding=1, mode="constant")
      >>> out.shape, out.dtype
      ((3, 3, 1), dtype('uint8'))

    References:
      Lee et al., `Deeply-Supervised Nets <https://arxiv.org/abs/1409.5185>`_, 2015 (zero padding);
      Zagoruyko and Komodakis, `Wide Residual Networks <https://arxiv.org/abs/1605.07146>`_, 2016
      (reflection).
    """
    image_HxWxC = jnp.asarray(image_HxWxC)
    _validate(image_HxWxC.shape, padding, mode)
    offset_key, flip_key = jax.random.split(key)
    padded = jnp.pad(image_HxWxC, ((padding, padding), (padding, padding), (0, 0)), mode)
    row, column = jax.random.randint(offset_key, (2,), 0, 2 * padding + 1)
    cropped = lax.dynamic_slice(padded, (row, column, 0), image_HxWxC.shape)
    if not flip:
        return cropped
    return jnp.where(jax.random.bernoulli(flip_key), cropped[:, ::-1], cropped)


def random_resized_crop(
    key: ArrayLike,
    image_HxWxC: ArrayLike,
    pixels: int,
    *,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    flip: bool = True,
) -> jax.Array:
    r"""Cuts out a rectangle of random size, shape and place, and brings it to a square.

    The rectangle has width :math:`\sqrt{a H W r}` and height :math:`\sqrt{a H W / r}`, no more than
    the image's, with :math:`a` uniform in `area` and :math:`\log r` uniform between the logarithms
    of `ratio`; its place is uniform. Pixels are interpolated linearly, and mirrored left and right
    with probability one half.

    Args:
      key: random key of this example.
      image_HxWxC: one image of any dtype.
      pixels: side of the square.
      area: least and largest share of the image's area, in (0, 1].
      ratio: least and largest ratio of width to height, positive.
      flip: whether to mirror.

    Returns:
      A float32 image `(pixels, pixels, C)`, a pure function of `key` and `image_HxWxC`.

    Raises:
      ValueError: for an image that is not (H, W, C), or a range that is empty or out of bounds.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from noisegen import data
      >>> data.random_resized_crop(jax.random.key(0), jnp.zeros((40, 50, 3)), 32).shape
      (32, 32, 3)

    References:
      Szegedy et al., `Going Deeper with Convolutions <https://arxiv.org/abs/1409.4842>`_, 2014;
      Goyal et al., `Accurate, Large Minibatch SGD <https://arxiv.org/abs/1706.02677>`_, 2017.
    """
    image_HxWxC = jnp.asarray(image_HxWxC)
    if image_HxWxC.ndim != 3 or pixels < 1:
        raise ValueError(
            f"expected one image of shape (H, W, C) and pixels of at least 1, got shape "
            f"{image_HxWxC.shape} and pixels={pixels}"
        )
    if not 0 < area[0] <= area[1] <= 1 or not 0 < ratio[0] <= ratio[1]:
        raise ValueError(
            f"area must be a range in (0, 1] and ratio one of positive numbers, got area={area} "
            f"and ratio={ratio}"
        )
    area_key, ratio_key, place_key, flip_key = jax.random.split(key, 4)
    whole = jnp.array(image_HxWxC.shape[:2], jnp.float32)
    share = jax.random.uniform(area_key, minval=area[0], maxval=area[1])
    shape = jnp.exp(
        jax.random.uniform(ratio_key, minval=math.log(ratio[0]), maxval=math.log(ratio[1]))
    )
    size = jnp.minimum(jnp.sqrt(share * whole.prod() * jnp.stack([1 / shape, shape])), whole)
    start = jax.random.uniform(place_key, (2,)) * (whole - size)
    scale = pixels / size
    cropped = jax.image.scale_and_translate(
        image_HxWxC.astype(jnp.float32),
        (pixels, pixels, image_HxWxC.shape[2]),
        (0, 1),
        scale,
        -start * scale,
        method="linear",
        antialias=True,
    )
    if not flip:
        return cropped
    return jnp.where(jax.random.bernoulli(flip_key), cropped[:, ::-1], cropped)


def _validate(shape: tuple[int, ...], padding: int, mode: str) -> None:
    """Raises ValueError unless an image of `shape` can be padded so."""
    if len(shape) != 3:
        raise ValueError(
            f"expected one image of shape (H, W, C), got shape {shape}; for a batch use "
            "jax.vmap(pad_crop_flip) with one key per image"
        )
    if mode not in _MODES:
        raise ValueError(f"mode must be 'reflect' or 'constant', got {mode!r}")
    limit = min(shape[:2]) - 1 if mode == "reflect" else None
    if padding < 0 or (limit is not None and padding > limit):
        most = "" if limit is None else f" and at most {limit} ({mode!r}, image of shape {shape})"
        raise ValueError(f"padding must be at least 0{most}, got {padding}")
