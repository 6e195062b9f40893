"""Data sets of images that are decoded when they are read, for those larger than memory.

Both functions return a `Dataset` whose splits are sources, see `noisegen.data.one_by_one`. Images
of any size become squares of bytes, which the host sends to the device. Random crops are made
there, see `noisegen.data.random_resized_crop`.
"""

import functools
import hashlib
import io
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import numpy as np

from noisegen import _validate
from noisegen.data import cache, tfds_reader
from noisegen.data.datasets import Dataset, spec_of
from noisegen.data.sources import OneByOne, one_by_one

_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
_TEST_FOLDERS = ("test", "val", "validation")
_IMAGENET = spec_of("imagenet2012")


def image_folder(
    directory: str | os.PathLike,
    *,
    pixels: int,
    test_pixels: int | None = None,
    num_train: int | None = None,
    num_test: int | None = None,
    mean: tuple[float, ...] = _IMAGENET.mean,
    std: tuple[float, ...] = _IMAGENET.std,
    executor: futures.Executor | None = None,
) -> Dataset:
    """Returns a data set of image files, decoded when they are read.

    The directory holds `train/CLASS/FILE` and `test/CLASS/FILE` (or `val/...`), as those of
    ImageNet are usually unpacked. Class k is the k-th folder of `train` by name. Folders and files
    whose names begin with a dot are left out, as `.ipynb_checkpoints` is. The fingerprint follows
    from the names of classes and files.

    Args:
      directory: The directory, whose name becomes that of the data set.
      pixels: Side of the squares in pixels. The shorter side of an image is resized to it, and the
        middle is cut out.
      test_pixels: Side of the middle of the squares of test images, by default all of them.
      num_train, num_test: Number of examples to keep, a random choice that is always the same. By
        default all.
      mean, std: Mean and standard deviation per channel of images scaled to [0, 1], by default
        those of ImageNet in common use.
      executor: Decodes several images at once, by default threads.

    Returns:
      A `Dataset`, whose splits are sources of `{"image": uint8 (H, W, 3), "label": int32}`.

    Raises:
      FileNotFoundError: If there is no such directory, or no images in it.
      ValueError: If a number makes no sense, a class of `train` has no images, or a class of the
        test set is not in `train`.
    """
    _check_moments(mean, std)
    root = cache.in_home(os.fspath(directory))
    folders = {"train": root / "train", "test": _test_folder(root)}
    classes = _folders(folders["train"])
    files = {split: _Files(folder, classes) for split, folder in folders.items()}
    lacking = sorted(set(range(len(classes))) - set(files["train"].labels))
    if lacking:
        raise ValueError(
            f"The class {classes[lacking[0]]} has no images in {folders['train']}: remove the "
            "folder, or put images into it."
        )
    digest = hashlib.sha256(repr([each.names for each in files.values()]).encode())
    return _dataset(
        files,
        _read_file,
        _Sizes(pixels, test_pixels, num_train, num_test),
        executor,
        name=root.name,
        num_classes=len(classes),
        mean=mean,
        std=std,
        fingerprint=digest.hexdigest()[:16],
        description=f"image files of {len(classes):,} classes in {root.name}",
    )


def stream(
    name: str,
    *,
    pixels: int,
    test_pixels: int | None = None,
    num_train: int | None = None,
    num_test: int | None = None,
    data_dir: str | None = None,
    executor: futures.Executor | None = None,
) -> Dataset:
    """Returns a prepared data set of images, decoded when they are read.

    The examples are those of `load(name, pixels=pixels)`, but nothing is cached.

    Args:
      name: Name of the data set, such as "imagenet2012". It must have been prepared, see `load`.
      pixels, test_pixels, num_train, num_test, executor: As for `image_folder`.
      data_dir: Directory of prepared data, by default `$TFDS_DATA_DIR`.

    Returns:
      A `Dataset`, whose splits are sources.

    Raises:
      OSError: If the data set is not prepared, or cannot be read; the message holds the remedy.
      ValueError: If there is no such data set, its images are not in color, or a number makes no
        sense.
    """
    spec = spec_of(name)
    if len(spec.mean) != 3 or spec.name:
        raise ValueError(f"{name} cannot be decoded when it is read: use data.load.")
    prepared = tfds_reader.find(name, data_dir)
    records = {
        "train": tfds_reader.encoded(prepared, "train"),
        "test": tfds_reader.encoded(prepared, spec.test),
    }
    return _dataset(
        records,
        _read_record,
        _Sizes(pixels, test_pixels, num_train, num_test),
        executor,
        name=name,
        num_classes=spec.num_classes,
        mean=spec.mean,
        std=spec.std,
        fingerprint=prepared.fingerprint,
        description=f"{name} {prepared.version}: {prepared.description}",
    )


class _Sizes(NamedTuple):
    """Sizes of the images and of the splits, as `image_folder` takes them."""

    pixels: int
    test_pixels: int | None
    num_train: int | None
    num_test: int | None


class _Files:
    """The files of a split: item i is a path and its label."""

    def __init__(self, folder: pathlib.Path, classes: Sequence[str]):
        found = _folders(folder)
        unknown = sorted(set(found) - set(classes))
        if unknown:
            raise ValueError(
                f"{folder} has the class {unknown[0]}, which the training images lack: the folders "
                "of both must have the same names."
            )
        self.names: list[str] = []  # of the class and of the file
        self.labels: list[int] = []
        for name in found:
            images = sorted(
                f"{name}/{file}"
                for file in os.listdir(folder / name)
                if file.lower().endswith(_SUFFIXES) and not file.startswith(".")
            )
            self.names += images
            self.labels += [classes.index(name)] * len(images)
        if not self.names:
            raise FileNotFoundError(f"There are no images in {folder}/CLASS/.")
        self._folder = os.fspath(folder)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[str, int]:
        return f"{self._folder}/{self.names[index]}", self.labels[index]


class _Chosen:
    """Some of the items of a collection."""

    def __init__(self, items: Sequence[Any], indices: np.ndarray):
        self._items, self._indices = items, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Any:
        return self._items[int(self._indices[index])]


def _dataset(
    items: Mapping[str, Sequence[Any]],
    read: Callable[..., dict[str, np.ndarray]],
    sizes: _Sizes,
    executor: futures.Executor | None,
    *,
    description: str,
    fingerprint: str,
    **fields: Any,
) -> Dataset:
    """Returns the data set of the items of both splits.

    Args:
      items: Items by split.
      read: Function `(item, pixels, middle) -> example`.
      sizes: Sizes of the images and of the splits.
      executor: As for `one_by_one`.
      description, fingerprint: Of the data set before its images are resized and chosen.
      **fields: Other fields of the data set.
    """
    [pixels] = _validate.whole(1, pixels=sizes.pixels)
    test_pixels = pixels if sizes.test_pixels is None else sizes.test_pixels
    [test_pixels] = _validate.whole(1, test_pixels=test_pixels)
    if test_pixels > pixels:
        raise ValueError(f"test_pixels={test_pixels} must be at most pixels={pixels}.")
    executor = executor or futures.ThreadPoolExecutor()
    splits: dict[str, OneByOne] = {}
    for split, number in (("train", sizes.num_train), ("test", sizes.num_test)):
        middle = test_pixels if split == "test" else pixels
        chosen = _choose(items[split], split, number)
        reader = functools.partial(read, pixels=pixels, middle=middle)
        splits[split] = one_by_one(chosen, reader, executor)
    counts = [len(each) for each in splits.values()]
    known = repr((fingerprint, pixels, test_pixels, counts)).encode()
    return Dataset(
        **fields,
        **splits,
        fingerprint=hashlib.sha256(known).hexdigest()[:16],
        description=f"{description}; {counts[0]:,} training and {counts[1]:,} test images, the "
        f"middle at {pixels} x {pixels} pixels, decoded when they are read",
    )


def _choose(items: Sequence[Any], split: str, number: int | None) -> Sequence[Any]:
    """Returns as many of the items as are asked for."""
    if number is None:
        return items
    [number] = _validate.whole(1, **{f"num_{split}": number})
    if number == len(items):
        return items
    if number > len(items):
        raise ValueError(
            f"num_{split}={number} must be between 1 and the {len(items):,} images there are."
        )
    # The stream of RandomState is frozen.
    return _Chosen(items, np.random.RandomState(0).permutation(len(items))[:number])


def _read_file(item: tuple[str, int], pixels: int, middle: int) -> dict[str, np.ndarray]:
    path, label = item
    return _example(path, path, label, pixels, middle)


def _read_record(record: dict[str, Any], pixels: int, middle: int) -> dict[str, np.ndarray]:
    image = record["image"]
    return _example(io.BytesIO(image), "an image", record["label"], pixels, middle)


def _example(
    file: str | io.BytesIO, name: str, label: int, pixels: int, middle: int
) -> dict[str, np.ndarray]:
    """Returns the example of an encoded image."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            square = tfds_reader.square(image.convert("RGB"), pixels)
    except (OSError, SyntaxError) as error:  # PIL raises both for damaged files.
        if isinstance(error, FileNotFoundError):
            raise
        raise OSError(f"{name} cannot be decoded: {error}; replace it") from error
    edge = (pixels - middle) // 2
    return {
        "image": square[edge : edge + middle, edge : edge + middle],
        "label": np.int32(label),
    }


def _folders(path: pathlib.Path) -> list[str]:
    """Returns the names of the folders in a folder, sorted, without hidden ones."""
    return sorted(
        entry.name for entry in os.scandir(path) if entry.is_dir() and entry.name[0] != "."
    )


def _check_moments(mean: Sequence[float], std: Sequence[float]) -> None:
    """Checks the mean and the standard deviation of three channels."""
    for name, values in (("mean", mean), ("std", std)):
        if np.shape(values) != (3,):
            raise ValueError(
                f"{name} must be three numbers, one for each channel, but it is {values!r}."
            )
    _validate.finite(mean=mean)
    _validate.positive(std=std)


def _test_folder(root: pathlib.Path) -> pathlib.Path:
    """Returns the folder of the test images."""
    found = [root / name for name in _TEST_FOLDERS if (root / name).is_dir()]
    if found and (root / "train").is_dir():
        return found[0]
    raise FileNotFoundError(
        f"{root} must have the folders `train` and `test` (or `val`), with a folder for each class."
    )
