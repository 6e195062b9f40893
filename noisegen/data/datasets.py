"""The named data sets.

>>> from noisegen import data
>>> digits = data.load("digits")
>>> len(digits.train["label"]), len(digits.test["label"])
(1437, 360)

`digits` comes with scikit-learn and needs no download. The others are prepared once by
tensorflow-datasets (`python -m noisegen.data.prepare mnist`), decoded once into a cache, and
memory-mapped from there.
"""

import difflib
import warnings
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from noisegen.data import cache, digits, prepared, stratify


class Dataset(NamedTuple):
    """A data set in host memory; the arrays are read-only and may be memory-mapped."""

    name: str
    train: dict[str, np.ndarray]  # 'image': uint8 (N, H, W, C); 'label': int32 (N,)
    test: dict[str, np.ndarray]
    num_classes: int
    mean: tuple[float, ...]  # Per channel, of images scaled to [0, 1] by 1/255.
    std: tuple[float, ...]
    fingerprint: str  # 16 hexadecimal digits: equal for equal arrays, however they were encoded.
    source: str  # One line: version and description, for example that images are lossy.


class _Spec(NamedTuple):
    """What the files do not say."""

    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    test: str = "test"  # The split that has labels.
    varied: bool = False  # Images differ in size.
    name: str | None = None  # Field of the images' names, where the split is our own.


_IMAGENET = _Spec(1000, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "validation")
_SPECS = {
    # Of the 1437 training images.
    "digits": _Spec(10, (0.3059,), (0.3762,)),
    # Of the training images, as in the PyTorch example.
    "mnist": _Spec(10, (0.1307,), (0.3081,)),
    "fashion_mnist": _Spec(10, (0.2860,), (0.3530,)),
    # The values in common use with this data. The standard deviation is the mean over images
    # of each image's own; over all pixels it is (0.2470, 0.2435, 0.2616).
    "cifar10": _Spec(10, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": _Spec(100, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    # The values in common use, whatever the resolution.
    "imagenet2012": _IMAGENET._replace(varied=True),
    "imagenet_resized/32x32": _IMAGENET,
    "imagenet_resized/64x64": _IMAGENET,
    # Photographs like those of ImageNet, whose values are taken; the background is a class.
    "caltech101": _IMAGENET._replace(
        num_classes=102, test="test", varied=True, name="image/file_name"
    ),
}

NAMES = tuple(_SPECS)
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

    All but `digits` must have been prepared by tensorflow-datasets as array_record. They are
    decoded at the first call, which takes seconds (ImageNet: hours), and cached under a key that
    holds name, version and a hash of the prepared files; later calls read and check the cache, in
    milliseconds (ImageNet: about a second a gigabyte). A damaged cache is rebuilt, and a cache that
    cannot be written is done without; both with a warning.

    Args:
      name: one of `NAMES`.
      pixels: for a data set whose images differ in size ('imagenet2012', whose test set is the
        validation set, and 'caltech101', all of whose images, the background class included, are
        split 3 : 1 in every class): of each image the shorter side is brought to this length, and
        the middle cut out. The decoded images take N * pixels**2 * 3 bytes, in memory while they
        are decoded and later on the device: 63 GB for ImageNet at 128 pixels.
      data_dir: directory of prepared data sets; default $TFDS_DATA_DIR, then
        ~/tensorflow_datasets.
      cache_dir: directory of decoded data; default $NOISEGEN_CACHE_DIR, then noisegen in
        $XDG_CACHE_HOME or ~/.cache.

    Returns:
      The `Dataset`: 'image' is uint8 of shape (N, H, W, C) with values 0 to 255, 'label' int32 of
      shape (N,) with values 0 to `num_classes` - 1.

    Raises:
      ValueError: for an unknown name, data prepared in another file format, or `pixels` where the
        images have a size of their own (none where they have not).
      FileNotFoundError: if the data set is not prepared; the message holds the command to run.
      OSError: if the prepared files cannot be read.
      ImportError: if scikit-learn (digits) or tensorflow-datasets (the others) is missing.

    Examples:
      >>> from noisegen import data
      >>> digits = data.load("digits")
      >>> x = (digits.train["image"] / 255 - digits.mean) / digits.std
      >>> abs(float(x.mean())) < 1e-3, abs(float(x.std()) - 1) < 1e-3
      (True, True)
    """
    if name not in _SPECS:
        raise ValueError(_unknown_message(name))
    _check_pixels(name, pixels)
    if name == "digits":
        return _assemble(name, cache.in_memory(digits.load()), digits.SOURCE)
    found = prepared.find(name, data_dir)
    entry = _cached(found, pixels, cache_dir)
    size = f", the middle at {pixels} x {pixels} pixels" if pixels else ""
    size += ", split 3 : 1 in every class" if _SPECS[name].name else ""
    return _assemble(name, entry, f"{name} {found.version}: {found.description}{size}")


def _check_pixels(name: str, pixels: int | None) -> None:
    """Raises ValueError unless `pixels` is given where it is needed."""
    if not _SPECS[name].varied and pixels is not None:
        raise ValueError(
            f"the images of {name} have a size of their own: leave pixels={pixels} out, or see "
            "noisegen.data.shrink"
        )
    if _SPECS[name].varied and (pixels is None or pixels < 1):
        raise ValueError(
            f"the images of {name} differ in size: give pixels=..., the side of the square that "
            f"all are brought to, for example 128; got pixels={pixels}"
        )


def _cached(found: prepared.Prepared, pixels: int | None, cache_dir: str | None) -> cache.Entry:
    """Returns the arrays of a prepared data set, from the cache if they are there and sound.

    If the cache cannot be written, they are decoded into memory.
    """
    size = f"-{pixels}px" if pixels else ""
    name = f"{found.name}-{found.version}-{found.fingerprint}{size}"
    path = None
    try:
        path = cache.directory(cache_dir) / name
        if entry := cache.read(path, _ARRAYS):
            return entry
    except cache.CorruptCacheError as error:
        warnings.warn(f"corrupt data cache, built anew: {error}", stacklevel=3)
    except OSError as error:
        _warn_not_kept(found, path or name, error)
        return cache.in_memory(_decoded(found, pixels))
    arrays = _decoded(found, pixels)
    try:
        cache.write(path, arrays)
        return cache.read(path, _ARRAYS) or cache.in_memory(arrays)
    except (OSError, cache.CorruptCacheError) as error:
        _warn_not_kept(found, path, error)
        return cache.in_memory(arrays)


def _warn_not_kept(found, path, error):
    """Warns that a data set cannot be kept in the cache."""
    warnings.warn(
        f"cannot keep {found.name} in the data cache {path} ({error}), so each start decodes it "
        "again; name a writable directory with NOISEGEN_CACHE_DIR or cache_dir",
        stacklevel=4,
    )


def _decoded(found: prepared.Prepared, pixels: int | None) -> dict[str, np.ndarray]:
    """Decodes the arrays of a prepared data set."""
    spec = _SPECS[found.name]
    splits = {"train": "train", "test": spec.test}
    arrays = prepared.decode(found, splits, pixels, spec.name)
    arrays = stratify.split_anew(arrays) if spec.name else arrays
    _check(found, arrays)
    return arrays


def _check(found: prepared.Prepared, arrays: Mapping[str, np.ndarray]) -> None:
    """Raises ValueError unless the arrays are what the name promises."""
    spec = _SPECS[found.name]
    for split in _SPLITS:
        images, labels = arrays[f"{split}_image"], arrays[f"{split}_label"]
        channels_fit = images.dtype == np.uint8 and images.shape[3:] == (len(spec.mean),)
        if not channels_fit or labels.min() < 0 or labels.max() >= spec.num_classes:
            raise ValueError(
                f"{found.directory} is not {found.name}: expected uint8 images (N, H, W, "
                f"{len(spec.mean)}) and labels below {spec.num_classes}, got {images.dtype} "
                f"{images.shape} and labels {labels.min()} to {labels.max()} in {split}"
            )


def _assemble(name: str, entry: cache.Entry, source: str) -> Dataset:
    """Returns the Dataset of the four cached arrays."""
    train, test = (
        {field: entry.arrays[f"{split}_{field}"] for field in ("image", "label")}
        for split in _SPLITS
    )
    spec = _SPECS[name]
    return Dataset(
        name, train, test, spec.num_classes, spec.mean, spec.std, entry.fingerprint, source
    )


def _unknown_message(name: str) -> str:
    """Returns the right names, and the one that was probably meant."""
    close = difflib.get_close_matches(str(name).lower().replace("-", "_"), NAMES, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"unknown data set {name!r}{hint}; expected one of: {', '.join(NAMES)}"
