"""Named data sets as arrays, ready to be put on the device whole, and their augmentation.

>>> from noisegen import data
>>> digits = data.load("digits")
>>> digits.train["image"].shape, digits.train["image"].dtype, digits.num_classes
((1437, 8, 8, 1), dtype('uint8'), 10)

Importing this package reads nothing and needs neither tensorflow-datasets nor scikit-learn;
`load` imports the one that it needs.
"""

from noisegen.data.augmentation import pad_crop_flip, random_resized_crop
from noisegen.data.datasets import NAMES, Dataset, load
from noisegen.data.shrink import shrink
from noisegen.data.text import Text, load_text

__all__ = [
    "NAMES",
    "Dataset",
    "Text",
    "load",
    "load_text",
    "pad_crop_flip",
    "random_resized_crop",
    "shrink",
]
