"""Named data sets of images.

>>> from noisegen import data
>>> digits = data.load("digits")
>>> len(digits.train["label"]), len(digits.test["label"])
(1437, 360)

`digits` comes with scikit-learn. All others are prepared once by tensorflow-datasets
(`python -m noisegen.data.tfds_prepare mnist`), decoded once into a cache, and memory-mapped.
"""

import difflib
import os
import warnings
import zlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from noisegen import _validate
from noisegen.data import cache, digits, tfds_reader


class Dataset(NamedTuple):
    """A data set in host memory, as read-only arrays that may be memory-mapped.

    The splits of one that `stream` or `image_folder` returns are sources of the same examples.
    """

    name: str
    train: dict[str, np.ndarray]  # 'image': uint8 (N, H, W, C); 'label': int32 (N,)
    test: dict[str, np.ndarray]
    num_classes: int
    mean: tuple[float, ...]  # Per channel, of images scaled to [0, 1] by 1/255.
    std: tuple[float, ...]
    fingerprint: str  # 16 hexadecimal digits, equal for equal arrays whatever their encoding.
    description: str  # One line: version and description, for example that images are lossy.
    valid: dict[str, np.ndarray] | None = None  # Like `train`, see `split_validation`.


class Spec(NamedTuple):
    """Facts about a data set that its files do not state."""

    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    test: str = "test"  # Split used for testing; it must have labels.
    varied: bool = False  # Whether images differ in size.
    name: str | None = None  # Field of the images' names, if we make the split ourselves.


_IMAGENET = Spec(1000, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "validation")
_SPECS = {
    # Of the 1437 training images.
    "digits": Spec(10, (0.3059,), (0.3762,)),
    # Of the training images, as in the PyTorch example.
    "mnist": Spec(10, (0.1307,), (0.3081,)),
    "fashion_mnist": Spec(10, (0.2860,), (0.3530,)),
    # The values in common use. The standard deviation is the mean over images of each image's own.
    # Over all pixels it is (0.2470, 0.2435, 0.2616).
    "cifar10": Spec(10, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": Spec(100, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    # The values in common use at any resolution.
    "imagenet2012": _IMAGENET._replace(varied=True),
    "imagenet_resized/32x32": _IMAGENET,
    "imagenet_resized/64x64": _IMAGENET,
    # Photographs like those of ImageNet, with its mean and deviation. The background is a class.
    "caltech101": _IMAGENET._replace(
        num_classes=102, test="test", varied=True, name="image/file_name"
    ),
}

NAMES = tuple(_SPECS)


def spec_of(name: str) -> Spec:
    """Returns the facts about a named data set that its files do not state.

    Raises:
      ValueError: If there is no such data set.
    """
    if name not in _SPECS:
        raise ValueError(_unknown_message(name))
    return _SPECS[name]


_SPLITS = ("train", "test")
_ARRAYS = tuple(f"{split}_{field}" for split in _SPLITS for field in ("image", "label"))


def load(
    name: str,
    *,
    pixels: int | None = None,
    data_dir: str | None = None,
    cache_dir: str | None = None,
) -> Dataset:
    """Loads a data set by name.

    All but `digits` must have been prepared by tensorflow-datasets as array_record. The first call
    decodes a data set, in seconds (ImageNet: hours), and caches it under its name, its version and
    a hash of the prepared files. Later calls read and verify the cache in milliseconds (ImageNet:
    about a second per gigabyte). A damaged cache is rebuilt with a warning. If the cache cannot be
    written, there is a warning, and every call decodes.

    Two data sets have images of different sizes, and need `pixels`. The test set of 'imagenet2012'
    is its validation set. All images of 'caltech101', including the background class, are split
    3 : 1 in every class.

    Args:
      name: One of `NAMES`.
      pixels: Side of the square cut out of the middle of each image, after its shorter side is
        resized to this length. Required for 'imagenet2012' and 'caltech101' only. Decoded images
        take N * pixels**2 * 3 bytes, on the host and later on the device: 63 GB for ImageNet at 128
        pixels.
      data_dir: Directory of prepared data sets. The default is $TFDS_DATA_DIR, then
        ~/tensorflow_datasets.
      cache_dir: Directory of decoded data sets. The default is $NOISEGEN_CACHE_DIR, then `noisegen`
        in $XDG_CACHE_HOME or ~/.cache.

    Returns:
      The `Dataset`: 'image' is uint8 (N, H, W, C) with values from 0 to 255, 'label' is int32 (N,)
      with values from 0 to `num_classes` - 1.

    Raises:
      ValueError: If the name is unknown, the data set is prepared in another file format, or
        `pixels` is missing or superfluous.
      FileNotFoundError: If the data set is not prepared; the message holds the command to run.
      OSError: If the prepared files cannot be read.
      ImportError: If scikit-learn (digits) or tensorflow-datasets (the others) is missing.

    Examples:
      >>> from noisegen import data
      >>> digits = data.load("digits")
      >>> x = (digits.train["image"] / 255 - digits.mean) / digits.std
      >>> abs(float(x.mean())) < 1e-3, abs(float(x.std()) - 1) < 1e-3
      (True, True)
    """
    spec = spec_of(name)
    _check_pixels(name, pixels)
    if name == "digits":
        return _make_dataset(name, cache.in_memory(digits.load()), digits.SOURCE)
    prepared = tfds_reader.find(name, data_dir)
    entry = _cached(prepared, pixels, cache_dir)
    description = f"{name} {prepared.version}: {prepared.description}"
    if pixels:
        description += f", the middle at {pixels} x {pixels} pixels"
    if spec.name:
        description += ", split 3 : 1 in every class"
    return _make_dataset(name, entry, description)


def subsample_and_downscale(
    dataset: Dataset, num_train: int, num_test: int, pixels: int
) -> Dataset:
    """Keeps the first examples of a data set, and averages images over square blocks of pixels.

    Mean and standard deviation per channel stay those of the original images.

    Args:
      dataset: Data set of square images.
      num_train: Number of training examples to keep.
      num_test: Number of test examples to keep.
      pixels: Height and width of the new images, a divisor of the old ones.

    Returns:
      A `Dataset` with its own fingerprint, and a description that names the change. If nothing
      changes, the data set itself.

    Raises:
      ValueError: If there are fewer examples, the images are not bytes or not whole blocks, or the
        data set has a validation split.

    Examples:
      >>> from noisegen import data
      >>> digits = data.load("digits")
      >>> small = data.subsample_and_downscale(digits, num_train=512, num_test=100, pixels=4)
      >>> small.train["image"].shape, small.test["label"].shape
      ((512, 4, 4, 1), (100,))
    """
    if dataset.valid is not None:
        raise ValueError(
            f"{dataset.name} has a validation split already: call subsample_and_downscale before "
            "split_validation."
        )
    if dataset.train["image"].dtype != np.uint8:
        raise ValueError(
            f"The images of {dataset.name} are floats, and only bytes can be averaged: downscale "
            "the arrays before data.from_arrays."
        )
    kept = {"train": num_train, "test": num_test}
    shapes = {"train": dataset.train["image"].shape, "test": dataset.test["image"].shape}
    if all(shapes[split][:3] == (kept[split], pixels, pixels) for split in _SPLITS):
        return dataset
    arrays = {}
    for split, examples in (("train", dataset.train), ("test", dataset.test)):
        num_examples, height, width, _ = shapes[split]
        if not 1 <= kept[split] <= num_examples:
            raise ValueError(
                f"num_{split}={kept[split]} must be between 1 and the {num_examples} examples of "
                f"{dataset.name}."
            )
        if pixels < 1 or height != width or height % pixels:
            raise ValueError(
                f"pixels={pixels} must divide height and width of the images of {dataset.name}, "
                f"which are {height} x {width}."
            )
        images = examples["image"][: kept[split]]
        arrays[f"{split}_image"] = _average_blocks(images, pixels)
        arrays[f"{split}_label"] = np.array(examples["label"][: kept[split]])
    description = (
        f"{dataset.description}; of these the first {num_train:,} training and {num_test:,} test "
        f"images, averaged to {pixels} x {pixels} pixels"
    )
    entry = cache.in_memory(arrays)
    train, test = _by_split(entry.arrays)
    return dataset._replace(
        train=train, test=test, fingerprint=entry.fingerprint, description=description
    )


def split_validation(dataset: Dataset, num_examples: int) -> Dataset:
    """Holds out training examples for validation, so that no choice need be made on the test set.

    Every class is held out in proportion to its size. The split follows from the labels and the
    number alone, by a fixed permutation, and a larger split contains every smaller one. All
    examples stay in their order. The training images are copied in host memory.

    Mean and standard deviation per channel stay those of all training images.

    Args:
      dataset: Data set, see `load`.
      num_examples: Number of training examples to hold out, at least one of each class.

    Returns:
      A `Dataset` with `valid`, fewer training examples, its own fingerprint, and a description that
      names the split. A task of it has other run ids than one of `dataset`.

    Raises:
      ValueError: If a class would have no validation or no training example, or the data set has a
        validation split already.

    Examples:
      >>> from noisegen import data
      >>> digits = data.split_validation(data.load("digits"), 200)
      >>> len(digits.train["label"]), len(digits.valid["label"]), len(digits.test["label"])
      (1237, 200, 360)
    """
    if dataset.valid is not None:
        raise ValueError(
            f"{dataset.name} has a validation split of {len(dataset.valid['label'])} examples "
            "already: split the data set that it was made of."
        )
    is_valid = _choose_validation(dataset, num_examples)
    train = {field: array[~is_valid] for field, array in dataset.train.items()}
    valid = {field: array[is_valid] for field, array in dataset.train.items()}
    test = {field: array[:] for field, array in dataset.test.items()}  # Views.
    splits = {"train": train, "valid": valid, "test": test}
    entry = cache.in_memory(
        {
            f"{split}_{field}": array
            for split, examples in splits.items()
            for field, array in examples.items()
        }
    )
    return dataset._replace(
        train=train,
        valid=valid,
        fingerprint=entry.fingerprint,
        description=f"{dataset.description}; {num_examples:,} training images held out for"
        " validation",
    )


def stratified_split(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Pools the examples of both splits, and splits them again 3 : 1 within each class.

    Of the n examples of a class, ceil(3 n / 4) are for training. Order and split follow from labels
    and names alone, not from pixels or the split that an example came from.

    Args:
      arrays: Arrays '<split>_image', '<split>_label' and '<split>_name' of the splits 'train' and
        'test'. Names are unique within a class.

    Returns:
      The arrays '<split>_image' and '<split>_label' of the new splits.
    """
    image = np.concatenate([arrays["train_image"], arrays["test_image"]])
    label = np.concatenate([arrays["train_label"], arrays["test_label"]])
    name = np.concatenate([arrays["train_name"], arrays["test_name"]])
    identities = [
        b"%d/%s" % identity for identity in zip(label.tolist(), name.tolist(), strict=True)
    ]

    # Sorting by a checksum shuffles the examples, in the same way wherever they come from. Equal
    # checksums are told apart by the identity itself.
    def by_checksum(index: int) -> tuple[int, bytes]:
        return zlib.crc32(identities[index]), identities[index]

    order = np.array(sorted(range(len(identities)), key=by_checksum))
    rank = np.empty(len(order), int)  # Position of an example among those of its class.
    for each_label in np.unique(label):
        members = order[label[order] == each_label]
        rank[members] = np.arange(len(members))
    # rank < 3 n / 4, in integers.
    is_train = 4 * rank < 3 * np.bincount(label)[label]
    train, test = order[is_train[order]], order[~is_train[order]]
    return {
        "train_image": image[train],
        "train_label": label[train],
        "test_image": image[test],
        "test_label": label[test],
    }


def _choose_validation(dataset: Dataset, num_examples: int) -> np.ndarray:
    """Returns a mask (N,) of the training examples to hold out, stratified by class."""
    [num_examples] = _validate.whole(0, num_examples=num_examples)
    label = np.asarray(dataset.train["label"])
    # The stream of RandomState is frozen. That of default_rng may change with NumPy's version.
    order = np.random.RandomState(0).permutation(len(label))
    # The examples of a class are spread evenly over the interval from 0 to 1. Those below any
    # threshold are then about the same share of every class.
    position = np.empty(len(label))
    shuffled = label[order]
    for each_label in np.unique(label):
        members = order[shuffled == each_label]
        position[members] = (np.arange(len(members)) + 0.5) / len(members)
    ranked = order[np.argsort(position[order], kind="stable")]
    # Each class must have its first example in the validation split, and its last one not in it.
    _, first = np.unique(label[ranked], return_index=True)
    _, last_from_end = np.unique(label[ranked[::-1]], return_index=True)
    least, most = first.max() + 1, len(label) - last_from_end.max() - 1
    if least > most:
        raise ValueError(
            f"{dataset.name} has a class of one training example, which cannot be in both splits: "
            "remove that class."
        )
    if not least <= num_examples <= most:
        raise ValueError(
            f"num_examples={num_examples} must be from {least} to {most}, so that each class of "
            f"{dataset.name} has examples for validation and for training."
        )
    is_valid = np.zeros(len(label), bool)
    is_valid[ranked[:num_examples]] = True
    return is_valid


def _check_pixels(name: str, pixels: int | None) -> None:
    """Raises ValueError unless `pixels` is given exactly if it is needed."""
    if not _SPECS[name].varied and pixels is not None:
        raise ValueError(
            f"the images of {name} have a size of their own: leave pixels={pixels} out, or see "
            "noisegen.data.subsample_and_downscale"
        )
    if _SPECS[name].varied and (pixels is None or pixels < 1):
        raise ValueError(
            f"the images of {name} differ in size: give pixels=..., the side of the square that "
            f"all are brought to, for example 128; got pixels={pixels}"
        )


def _cached(
    prepared: tfds_reader.Prepared, pixels: int | None, cache_dir: str | None
) -> cache.Entry:
    """Returns the arrays of a prepared data set from the cache, after decoding them if needed."""
    size = f"-{pixels}px" if pixels else ""
    name = f"{prepared.name}-{prepared.version}-{prepared.fingerprint}{size}"
    path = None
    try:
        path = cache.directory(cache_dir) / name
        entry = cache.read(path, _ARRAYS)
        if entry is not None:
            return entry
    except cache.CorruptCacheError as error:
        warnings.warn(f"corrupt data cache, rebuilt: {error}", stacklevel=3)
    except OSError as error:
        _warn_not_cached(prepared, path or name, error)
        return cache.in_memory(_decode(prepared, pixels))
    arrays = _decode(prepared, pixels)
    try:
        cache.write(path, arrays)
        # Read back, so that the first call returns mapped arrays as later ones do.
        return cache.read(path, _ARRAYS) or cache.in_memory(arrays)
    except (OSError, cache.CorruptCacheError) as error:
        _warn_not_cached(prepared, path, error)
        return cache.in_memory(arrays)


def _warn_not_cached(
    prepared: tfds_reader.Prepared, path: str | os.PathLike, error: Exception
) -> None:
    """Warns that every start will decode the data set."""
    warnings.warn(
        f"cannot keep {prepared.name} in the data cache {path} ({error}), so each start decodes it "
        "again; name a writable directory with NOISEGEN_CACHE_DIR or cache_dir",
        stacklevel=4,
    )


def _decode(prepared: tfds_reader.Prepared, pixels: int | None) -> dict[str, np.ndarray]:
    """Decodes the arrays of a prepared data set, and checks them."""
    spec = _SPECS[prepared.name]
    splits = {"train": "train", "test": spec.test}
    arrays = tfds_reader.decode(prepared, splits, pixels, spec.name)
    if spec.name:
        arrays = stratified_split(arrays)
    for split in _SPLITS:
        images, labels = arrays[f"{split}_image"], arrays[f"{split}_label"]
        has_channels = images.dtype == np.uint8 and images.shape[3:] == (len(spec.mean),)
        if not has_channels or labels.min() < 0 or labels.max() >= spec.num_classes:
            raise ValueError(
                f"{prepared.directory} is not {prepared.name}: expected uint8 images (N, H, W, "
                f"{len(spec.mean)}) and labels below {spec.num_classes}, got {images.dtype} "
                f"{images.shape} and labels {labels.min()} to {labels.max()} in {split}"
            )
    return arrays


def _make_dataset(name: str, entry: cache.Entry, description: str) -> Dataset:
    """Returns the Dataset of the four cached arrays."""
    train, test = _by_split(entry.arrays)
    spec = _SPECS[name]
    return Dataset(
        name, train, test, spec.num_classes, spec.mean, spec.std, entry.fingerprint, description
    )


def _by_split(arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], ...]:
    """Returns the arrays of the training set and those of the test set, by field."""
    return tuple(
        {"image": arrays[f"{split}_image"], "label": arrays[f"{split}_label"]} for split in _SPLITS
    )


def _average_blocks(images_NxHxWxC: np.ndarray, pixels: int) -> np.ndarray:
    """Returns means over square blocks, rounded to bytes."""
    n, height, _, channels = images_NxHxWxC.shape
    block = height // pixels
    blocks = images_NxHxWxC.reshape(n, pixels, block, pixels, block, channels)
    return np.round(blocks.mean((2, 4), dtype=np.float32)).astype(np.uint8)


def _unknown_message(name: str) -> str:
    """Returns the known names, and the one that was probably meant."""
    close = difflib.get_close_matches(str(name).lower().replace("-", "_"), NAMES, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"unknown data set {name!r}{hint}; expected one of: {', '.join(NAMES)}"
