"""Data sets from a user's own arrays.

>>> import numpy as np
>>> from noisegen import data
>>> random = np.random.default_rng(0)
>>> split = {"image": random.random((20, 8, 8, 1)), "label": np.arange(20) % 4}
>>> mine = data.from_arrays("mine", split, split)
>>> mine.num_classes, mine.description
(4, 'mine: 20 training and 20 test images of 8 x 8 x 1, given as arrays')
"""

from collections.abc import Mapping

import numpy as np

from noisegen import _validate
from noisegen.data import cache
from noisegen.data.datasets import Dataset

_FIELDS = ("image", "label")
_CHUNK = 1024  # images in double precision at a time


def from_arrays(
    name: str,
    train: Mapping[str, np.ndarray],
    test: Mapping[str, np.ndarray],
    *,
    valid: Mapping[str, np.ndarray] | None = None,
    num_classes: int | None = None,
) -> Dataset:
    """Makes a data set of images from arrays, as the tasks of images take it.

    Each split has two arrays. 'image' is (N, H, W, C). Its values are whole numbers from 0 to 255,
    or floats in units in which black is 0 and white is 1. Floats may lie outside that range if they
    are to be classified. They are kept as float32, multiplied by 255. 'label' holds N whole numbers
    from 0 to `num_classes` - 1.

    Mean and standard deviation per channel are those of all pixels of the training images. An array
    of the right type is not copied, so do not change it afterwards.

    Arrays of other kinds need no data set: `noisegen.tasks.from_nnx` takes them as they are.

    Args:
      name: Name of the data set, part of the name of its tasks.
      train, test: Arrays by name.
      valid: Like `test`, to choose hyperparameters on. `split_validation` holds out training
        examples instead.
      num_classes: Number of classes. By default one more than the largest label, and every class
        must then have a training example.

    Returns:
      A `Dataset`, whose fingerprint follows from the arrays.

    Raises:
      ValueError: If the name is no text, an array is missing, empty, or has another shape or type,
        a value is NaN or infinite, or a label is no class.
    """
    _validate.text(name=name)
    given = {"train": train, "test": test}
    if valid is not None:
        given["valid"] = valid
    splits = {split: _examples(split, arrays) for split, arrays in given.items()}
    shape = splits["train"]["image"].shape[1:]
    for split, examples in splits.items():
        if examples["image"].shape[1:] != shape:
            raise ValueError(
                f"{split}['image'] has images of shape {examples['image'].shape[1:]}, but those of "
                f"train['image'] have {shape}."
            )
    num_classes = _num_classes(splits, num_classes)
    entry = cache.in_memory(
        {
            f"{split}_{field}": array
            for split, examples in splits.items()
            for field, array in examples.items()
        }
    )
    mean, std = _moments(splits["train"]["image"])
    counts = {split: f"{len(examples['label']):,}" for split, examples in splits.items()}
    held_out = f", {counts['valid']} validation" if valid is not None else ""
    return Dataset(
        name=name,
        train=splits["train"],
        test=splits["test"],
        num_classes=num_classes,
        mean=mean,
        std=std,
        fingerprint=entry.fingerprint,
        description=f"{name}: {counts['train']} training{held_out} and {counts['test']} test "
        f"images of {' x '.join(map(str, shape))}, given as arrays",
        valid=splits.get("valid"),
    )


def _examples(split: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns images and labels of a split in the types of a `Dataset`, after checking them."""
    if not isinstance(arrays, Mapping) or set(arrays) != set(_FIELDS):
        found = list(arrays) if isinstance(arrays, Mapping) else _validate.kind(arrays)
        raise ValueError(
            f"{split} must be a dict with the arrays 'image' and 'label', but it is {found}."
        )
    image = _images(f"{split}['image']", _array(f"{split}['image']", arrays["image"]))
    label = _labels(f"{split}['label']", _array(f"{split}['label']", arrays["label"]))
    if len(image) != len(label) or not len(label):
        raise ValueError(
            f"{split} has {len(image)} images and {len(label)} labels: give one label each."
        )
    # Views, because the arrays of a data set are made read-only.
    return {"image": image.view(), "label": label.view()}


def _array(name: str, values: np.ndarray) -> np.ndarray:
    """Returns an array, or raises ValueError if its items differ in shape."""
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} must be one array, but its items differ in shape.") from error


def _images(name: str, image: np.ndarray) -> np.ndarray:
    """Returns images as uint8, or as float32 with white at 255."""
    if image.ndim != 4:
        hint = "; for gray images write image[..., None]" if image.ndim == 3 else ""
        raise ValueError(f"{name} must have the shape (N, H, W, C), not {image.shape}{hint}.")
    if 0 in image.shape:
        raise ValueError(f"{name} is empty: its shape is {image.shape}.")
    if image.dtype == np.uint8:
        return image
    if np.issubdtype(image.dtype, np.floating):
        with np.errstate(over="ignore"):  # Infinity is refused below.
            image = image.astype(np.float32) * np.float32(255)
        is_finite = np.isfinite(image).all((1, 2, 3))
        if not is_finite.all():
            raise ValueError(f"{name} has NaN or infinity in example {np.argmin(is_finite)}.")
        return image
    if not np.issubdtype(image.dtype, np.integer):
        raise ValueError(f"{name} must have whole numbers or floats, not {image.dtype}.")
    if image.min() < 0 or image.max() > 255:
        raise ValueError(
            f"{name} has whole numbers from {image.min()} to {image.max()}, but they must be from "
            "0 to 255; make them floats from 0 to 1."
        )
    return image.astype(np.uint8)


def _labels(name: str, label: np.ndarray) -> np.ndarray:
    """Returns labels as int32."""
    if label.ndim != 1:
        hint = "; for one-hot labels write label.argmax(1)" if label.ndim == 2 else ""
        raise ValueError(f"{name} must have the shape (N,), not {label.shape}{hint}.")
    if not np.issubdtype(label.dtype, np.integer):
        raise ValueError(f"{name} must have whole numbers, not {label.dtype}.")
    return label.astype(np.int32, copy=False)


def _num_classes(splits: Mapping[str, Mapping[str, np.ndarray]], given: int | None) -> int:
    """Returns the number of classes, after checking that every label is one."""
    largest = max(int(examples["label"].max()) for examples in splits.values())
    num_classes = largest + 1 if given is None else _validate.whole(1, num_classes=given)[0]
    for split, examples in splits.items():
        label = examples["label"]
        if label.min() < 0 or label.max() >= num_classes:
            raise ValueError(
                f"{split}['label'] has labels from {label.min()} to {label.max()}, but they must "
                f"be from 0 to num_classes - 1 = {num_classes - 1}."
            )
    if given is None:
        lacking = np.setdiff1d(np.arange(num_classes), splits["train"]["label"])
        if lacking.size:
            raise ValueError(
                f"No training example has label {lacking[0]}, though a label is {largest}: count "
                f"classes from 0, or give num_classes={num_classes}."
            )
    return num_classes


def _moments(image: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation per channel, of images scaled by 1 / 255."""
    chunks = [image[start : start + _CHUNK] for start in range(0, len(image), _CHUNK)]
    num_pixels = image[..., 0].size
    mean = sum(chunk.sum((0, 1, 2), np.float64) for chunk in chunks) / num_pixels
    squares = (((chunk - mean.reshape(1, 1, 1, -1)) ** 2).sum((0, 1, 2)) for chunk in chunks)
    std = np.sqrt(sum(squares) / num_pixels)
    # A channel that never changes carries nothing, and 0 / 1 is 0.
    is_constant = image.min((0, 1, 2)) == image.max((0, 1, 2))
    std = np.where(is_constant, 255, std)
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())
