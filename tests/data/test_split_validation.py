"""Tests validation splits: counts per class, dependence on the labels alone, refusals."""

import numpy as np
import pytest

from noisegen import data

DIGITS = data.load("digits")


def made(label, images=None):
    """Returns a data set whose images are the numbers of the examples, unless others are given."""
    label = np.array(label, np.int32)
    images = np.arange(len(label)) if images is None else images
    train = {"image": np.asarray(images, np.uint8).reshape(-1, 1, 1, 1), "label": label}
    test = {name: array[:2] for name, array in train.items()}
    return data.Dataset("made", train, test, 4, (0.5,), (0.5,), "00ff", "made up")


def held_out(dataset, num_examples):
    """The numbers of the examples that are held out of a made data set."""
    return data.split_validation(dataset, num_examples).valid["image"].ravel().tolist()


LABELS = np.random.RandomState(3).permutation(np.repeat([0, 1, 2], [40, 20, 10]))


def test_classes_are_held_out_in_proportion_to_their_size():
    split = data.split_validation(made(LABELS), 14)
    assert np.bincount(split.valid["label"]).tolist() == [8, 4, 2]
    assert np.bincount(split.train["label"]).tolist() == [32, 16, 8]


def test_every_example_stays_once_with_its_label_and_in_its_order():
    split = data.split_validation(made(LABELS), 14)
    parts = [part["image"].ravel() for part in (split.train, split.valid)]
    assert sorted(np.concatenate(parts).tolist()) == list(range(70))
    for part, numbers in zip((split.train, split.valid), parts, strict=True):
        assert (np.diff(numbers.astype(int)) > 0).all()
        np.testing.assert_array_equal(LABELS[numbers], part["label"])


def test_the_split_is_the_same_in_every_version():
    # Other examples would make other tasks of the same name.
    assert held_out(made(LABELS), 6) == [22, 26, 27, 30, 48, 59]


def test_the_split_follows_from_labels_and_number_alone():
    pixels = np.random.RandomState(0).permutation(70)
    one, other = made(LABELS), made(LABELS, pixels)
    assert pixels[held_out(one, 14)].tolist() == held_out(other, 14)
    assert set(held_out(one, 14)) < set(held_out(one, 15))


def test_a_split_data_set_is_another_one():
    split = data.split_validation(DIGITS, 200)
    assert DIGITS.valid is None and len(split.valid["label"]) == 200
    assert split.valid["image"].shape[1:] == DIGITS.train["image"].shape[1:]
    assert split.test is DIGITS.test and (split.mean, split.std) == (DIGITS.mean, DIGITS.std)
    assert "200 training images held out" in split.description
    prints = [data.split_validation(DIGITS, number).fingerprint for number in (200, 200, 201)]
    assert prints[0] == prints[1] and len({DIGITS.fingerprint, *prints}) == 3
    for part in (split.train, split.valid):
        with pytest.raises(ValueError, match="read-only"):
            part["image"][0] = 0


@pytest.mark.parametrize(
    "number, message",
    [
        (0, "num_examples=0 must be from"),
        (9, "num_examples=9 must be from"),  # of ten classes
        (1428, "num_examples=1428 must be from"),
        (2000, "num_examples=2000 must be from"),
        (-1, "whole number"),
        (2.5, "whole number"),
    ],
)
def test_a_class_without_examples_on_either_side_is_refused(number, message):
    with pytest.raises(ValueError, match=message):
        data.split_validation(DIGITS, number)


def test_the_limits_that_the_message_names_are_exact():
    with pytest.raises(ValueError, match="must be from") as refused:
        data.split_validation(made(LABELS), 0)
    words = str(refused.value).replace(",", "").split()
    least, most = int(words[4]), int(words[6])
    for number in (least, most):
        split = data.split_validation(made(LABELS), number)
        for part in (split.train, split.valid):
            assert set(part["label"].tolist()) == {0, 1, 2}
    for number in (least - 1, most + 1):
        with pytest.raises(ValueError, match=f"num_examples={number} must be"):
            data.split_validation(made(LABELS), number)


def test_a_class_of_one_example_is_refused():
    with pytest.raises(ValueError, match="class of one training example"):
        data.split_validation(made([0, 0, 0, 1]), 2)


def test_a_split_comes_once_and_last():
    split = data.split_validation(DIGITS, 200)
    with pytest.raises(ValueError, match="validation split of 200 examples already"):
        data.split_validation(split, 100)
    with pytest.raises(ValueError, match="call subsample_and_downscale before"):
        data.subsample_and_downscale(split, 512, 100, 4)
    small = data.split_validation(data.subsample_and_downscale(DIGITS, 512, 100, 4), 64)
    assert small.valid["image"].shape == (64, 4, 4, 1) and len(small.train["label"]) == 448
