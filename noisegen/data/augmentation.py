"""Augmentation of one image at a time, inside the compiled program.

Each function takes ONE example and its key. Under vmap, with one key per example, the augmentation
of an example depends on its key only, and never on the other examples of its microbatch.

>>> import jax
>>> from noisegen import data
>>> image_BxHxWxC = data.load("digits").train["image"][:4]
>>> key_B = jax.random.split(jax.random.key(0), 4)
>>> jax.vmap(data.pad_crop_flip)(key_B, image_BxHxWxC).shape
(4, 8, 8, 1)
"""

import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from noisegen._math import ceil_div

_MODES = ("reflect", "constant")


def pad_crop_flip(
    key: ArrayLike,
    image_HxWxC: ArrayLike,
    *,
    padding: int = 4,
    mode: Literal["reflect", "constant"] = "reflect",
    flip: bool = True,
) -> jax.Array:
    """Shifts an image by up to `padding` pixels, and mirrors it with probability 1/2.

    The image is padded to (H + 2 p, W + 2 p). A window of the original size is cut out at an offset
    drawn uniformly from {0, ..., 2 p}^2. Its columns are reversed with probability 1/2.

    Args:
      key: Random key of this example.
      image_HxWxC: One image of any type.
      padding: Pixels p added on every side, at least 0, and less than H and W for "reflect".
      mode: "reflect" repeats the image mirrored at its edge pixels. "constant" adds zeros, which
        are black in an image of bytes, and the mean in a standardized image.
      flip: Whether to mirror left and right. Use False for digits and letters.

    Returns:
      An image of the same shape and type, a pure function of `key` and `image_HxWxC`.

    Raises:
      ValueError: If the image is not (H, W, C), the mode is unknown, or the padding is out of its
        range.

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
    _check_padding(image_HxWxC.shape, padding, mode)
    # Split even if nothing is mirrored, so that `flip` does not change the shifts.
    offset_key, flip_key = jax.random.split(key)
    padded = jnp.pad(image_HxWxC, ((padding, padding), (padding, padding), (0, 0)), mode)
    row, column = jax.random.randint(offset_key, (2,), 0, 2 * padding + 1)
    cropped = lax.platform_dependent(
        padded,
        row,
        column,
        tpu=functools.partial(_window_by_selection, shape=image_HxWxC.shape),
        default=functools.partial(_window, shape=image_HxWxC.shape),
    )
    if not flip:
        return cropped
    # Both versions are computed, as there are no branches under vmap.
    return jnp.where(jax.random.bernoulli(flip_key), cropped[:, ::-1], cropped)


def _window(
    image: jax.Array, row: jax.Array, column: jax.Array, shape: tuple[int, ...]
) -> jax.Array:
    """Returns the part of an image of a static shape that begins at a row and a column."""
    return lax.dynamic_slice(image, (row, column, 0), shape)


def _window_by_selection(
    image: jax.Array, row: jax.Array, column: jax.Array, shape: tuple[int, ...]
) -> jax.Array:
    """Returns what `_window` does, bit for bit, by selections between constant slices.

    Under `vmap`, `dynamic_slice` is a gather, which a TPU makes image by image. Here each selection
    shifts the image by half of what may be left of `start`, or not at all.
    """
    for axis, start in enumerate((row, column)):
        while largest := image.shape[axis] - shape[axis]:  # The largest value of `start`.
            step = ceil_div(largest, 2)
            size = image.shape[axis] - step
            is_shifted = start >= step
            image = jnp.where(
                is_shifted,
                lax.slice_in_dim(image, step, step + size, axis=axis),
                lax.slice_in_dim(image, 0, size, axis=axis),
            )
            start = jnp.where(is_shifted, start - step, start)
    return image


def random_resized_crop(
    key: ArrayLike,
    image_HxWxC: ArrayLike,
    pixels: int,
    *,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    flip: bool = True,
) -> jax.Array:
    """Crops a rectangle of random size, shape and position, and resizes it to a square.

    The rectangle has width sqrt(a H W r) and height sqrt(a H W / r), limited by the image. Here a
    is uniform in `area`, and log(r) uniform between the logarithms of `ratio`. The position is
    uniform. Pixels are interpolated linearly, and mirrored left and right with probability 1/2.

    Args:
      key: Random key of this example.
      image_HxWxC: One image of any type.
      pixels: Side of the square, in pixels.
      area: Smallest and largest fraction of the image's area, in (0, 1].
      ratio: Smallest and largest ratio of width to height, positive.
      flip: Whether to mirror.

    Returns:
      A float32 image `(pixels, pixels, C)`, a pure function of `key` and `image_HxWxC`.

    Raises:
      ValueError: If the image is not (H, W, C), or a range is empty or out of bounds.

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
    _check_crop(image_HxWxC.shape, pixels, area, ratio)
    area_key, ratio_key, position_key, flip_key = jax.random.split(key, 4)
    image_size = jnp.array(image_HxWxC.shape[:2], jnp.float32)  # Height, width.
    share = jax.random.uniform(area_key, minval=area[0], maxval=area[1])
    log_ratio = jax.random.uniform(ratio_key, minval=math.log(ratio[0]), maxval=math.log(ratio[1]))
    width_to_height = jnp.exp(log_ratio)
    # Height and width of a rectangle of the image's area.
    height_and_width = jnp.stack([1 / width_to_height, width_to_height])
    # Limited and not drawn again, because a loop until it fits would run for the unluckiest image.
    size = jnp.minimum(jnp.sqrt(share * image_size.prod() * height_and_width), image_size)
    start = jax.random.uniform(position_key, (2,)) * (image_size - size)
    scale = pixels / size
    # The output has a static shape, whereas the rectangle's own size is traced.
    cropped = jax.image.scale_and_translate(
        image_HxWxC.astype(jnp.float32),
        (pixels, pixels, image_HxWxC.shape[2]),
        (0, 1),
        scale,
        -start * scale,  # In pixels of the output.
        method="linear",
        antialias=True,
    )
    if not flip:
        return cropped
    return jnp.where(jax.random.bernoulli(flip_key), cropped[:, ::-1], cropped)


def _check_padding(shape: tuple[int, ...], padding: int, mode: str) -> None:
    """Raises ValueError unless an image of this shape can be padded."""
    if len(shape) != 3:
        raise ValueError(
            f"expected one image of shape (H, W, C), got shape {shape}; for a batch use "
            "jax.vmap(pad_crop_flip) with one key per image"
        )
    if mode not in _MODES:
        raise ValueError(f"mode must be 'reflect' or 'constant', got {mode!r}")
    if padding < 0:
        raise ValueError(f"padding must be at least 0, got {padding}")
    # Reflection does not repeat the edge pixel, so it can add one pixel less than the image has.
    most = min(shape[:2]) - 1
    if mode == "reflect" and padding > most:
        raise ValueError(
            f"padding must be at least 0 and at most {most} ({mode!r}, image of shape {shape}), "
            f"got {padding}"
        )


def _check_crop(
    shape: tuple[int, ...], pixels: int, area: tuple[float, float], ratio: tuple[float, float]
) -> None:
    """Raises ValueError unless rectangles of these ranges can be cropped from the image."""
    if len(shape) != 3 or pixels < 1:
        raise ValueError(
            f"expected one image of shape (H, W, C) and pixels of at least 1, got shape {shape} "
            f"and pixels={pixels}"
        )
    if not 0 < area[0] <= area[1] <= 1 or not 0 < ratio[0] <= ratio[1]:
        raise ValueError(
            f"area must be a range in (0, 1] and ratio one of positive numbers, got area={area} "
            f"and ratio={ratio}"
        )
