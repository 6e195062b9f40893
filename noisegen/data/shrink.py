"""Smaller data sets made of larger ones, for experiments on small machines."""

import numpy as np

from noisegen.data import cache
from noisegen.data.datasets import Dataset


def shrink(dataset: Dataset, num_train: int, num_test: int, pixels: int) -> Dataset:
    """The first examples of a data set, their images averaged over square blocks of pixels.

    Args:
      dataset: of square images.
      num_train: training examples that are kept.
      num_test: test examples that are kept.
      pixels: height and width of the new images, a divisor of the old ones.

    Returns:
      A `Dataset` with a fingerprint of its own, whose source says what was done; the data set
      itself where nothing shrinks. Mean and standard deviation a channel stay those of the original
      images.

    Raises:
      ValueError: there are fewer examples, or the images are not whole blocks.

    Examples:
      >>> from noisegen import data
      >>> small = data.shrink(data.load("digits"), num_train=512, num_test=100, pixels=4)
      >>> small.train["image"].shape, small.test["label"].shape
      ((512, 4, 4, 1), (100,))
    """
    splits = {"train": dataset.train, "test": dataset.test}
    sizes = {"train": num_train, "test": num_test}
    shapes = {split: arrays["image"].shape for split, arrays in splits.items()}
    if all(shapes[split][:3] == (sizes[split], pixels, pixels) for split in splits):
        return dataset
    arrays = {}
    for split, (size, height, width, _) in shapes.items():
        if not 1 <= sizes[split] <= size:
            raise ValueError(
                f"num_{split}={sizes[split]} must be between 1 and the {size} examples of "
                f"{dataset.name}."
            )
        if pixels < 1 or height != width or height % pixels:
            raise ValueError(
                f"pixels={pixels} must divide height and width of the images of {dataset.name}, "
                f"which are {height} x {width}."
            )
        arrays[f"{split}_image"] = _averaged(splits[split]["image"][: sizes[split]], pixels)
        arrays[f"{split}_label"] = np.array(splits[split]["label"][: sizes[split]])
    entry = cache.in_memory(arrays)
    train, test = (
        {field: entry.arrays[f"{split}_{field}"] for field in ("image", "label")}
        for split in splits
    )
    return dataset._replace(
        train=train,
        test=test,
        fingerprint=entry.fingerprint,
        source=f"{dataset.source}; of these the first {num_train:,} training and {num_test:,} test "
        f"images, averaged to {pixels} x {pixels} pixels",
    )


def _averaged(images_NxHxWxC, pixels):
    """Means over blocks, rounded to bytes."""
    n, height, _, channels = images_NxHxWxC.shape
    block = height // pixels
    blocks = images_NxHxWxC.reshape(n, pixels, block, pixels, block, channels)
    return np.round(blocks.mean((2, 4), dtype=np.float32)).astype(np.uint8)
