"""Tests the stratified split: counts per class, independence of the order of examples."""

import numpy as np

from noisegen.data import datasets


def made(order, cut):
    """Returns 12, 7, 2 and 1 examples of four classes, with numbers for images."""
    label = np.repeat(np.arange(4, dtype=np.int32), [12, 7, 2, 1])[order]
    name = np.array([b"image_%02d" % k for n in (12, 7, 2, 1) for k in range(n)])[order]
    image = np.arange(22).astype(np.uint8)[order]
    whole = {"image": image, "label": label, "name": name}
    return {f"train_{k}": v[:cut] for k, v in whole.items()} | {
        f"test_{k}": v[cut:] for k, v in whole.items()
    }


def test_three_quarters_of_each_class_rounded_up_are_for_training():
    found = datasets.stratified_split(made(np.arange(22), 10))
    assert np.bincount(found["train_label"]).tolist() == [9, 6, 2, 1]
    assert np.bincount(found["test_label"]).tolist() == [3, 1]
    both = np.concatenate([found["train_image"], found["test_image"]])
    assert sorted(both.tolist()) == list(range(22))
    label = made(np.arange(22), 22)["train_label"]
    for split in ("train", "test"):  # every image keeps its label
        np.testing.assert_array_equal(label[found[f"{split}_image"]], found[f"{split}_label"])


def test_the_split_depends_neither_on_the_order_nor_on_the_split_before():
    one = datasets.stratified_split(made(np.arange(22), 10))
    other = datasets.stratified_split(made(np.random.RandomState(0).permutation(22), 3))
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], strict=True)


def test_classes_are_mixed():
    label = datasets.stratified_split(made(np.arange(22), 10))["train_label"]
    assert np.sum(label[1:] != label[:-1]) > 6  # sorted by class it would be 3
