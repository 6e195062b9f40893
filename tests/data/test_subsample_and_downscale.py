"""Tests smaller versions of data sets."""

import numpy as np
import pytest

from noisegen import data

DIGITS = data.load("digits")


def test_first_examples_averaged_over_blocks():
    small = data.subsample_and_downscale(DIGITS, 100, 30, 4)
    for split, size in (("train", 100), ("test", 30)):
        images, labels = getattr(small, split)["image"], getattr(small, split)["label"]
        whole = getattr(DIGITS, split)
        assert images.dtype == np.uint8 and images.shape == (size, 4, 4, 1)
        mean = whole["image"][7, 2:4, 6:8].mean()
        assert abs(float(images[7, 1, 3, 0]) - mean) <= 0.5
        assert (labels == whole["label"][:size]).all()
    assert small.fingerprint != DIGITS.fingerprint and "first 100 training" in small.description
    assert small.fingerprint == data.subsample_and_downscale(DIGITS, 100, 30, 4).fingerprint
    assert small.num_classes == 10 and small.name == "digits"


def test_equal_sizes_return_the_data_set_itself():
    assert data.subsample_and_downscale(DIGITS, 1437, 360, 8) is DIGITS


@pytest.mark.parametrize(
    "sizes, message",
    [((2000, 30, 8), "num_train=2000 must be"), ((9, 30, 3), "pixels=3 must divide")],
)
def test_invalid_sizes_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        data.subsample_and_downscale(DIGITS, *sizes)
