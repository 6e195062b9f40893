"""Data sets and texts as arrays, named ones, the user's own and sources; augmentation of images.

>>> from noisegen import data
>>> digits = data.load("digits")
>>> digits.train["image"].shape, digits.train["image"].dtype, digits.num_classes
((1437, 8, 8, 1), dtype('uint8'), 10)

Importing this package reads no data, and imports neither tensorflow-datasets nor scikit-learn.
"""

from noisegen.data.arrays import from_arrays
from noisegen.data.augmentation import pad_crop_flip, random_resized_crop
from noisegen.data.datasets import (
    NAMES,
    Dataset,
    load,
    split_validation,
    subsample_and_downscale,
)
from noisegen.data.sources import one_by_one, token_windows
from noisegen.data.streams import image_folder, stream
from noisegen.data.text import Text, load_text, text_from_tokens

__all__ = [
    "NAMES",
    "Dataset",
    "Text",
    "from_arrays",
    "image_folder",
    "load",
    "load_text",
    "one_by_one",
    "pad_crop_flip",
    "random_resized_crop",
    "split_validation",
    "stream",
    "subsample_and_downscale",
    "text_from_tokens",
    "token_windows",
]
