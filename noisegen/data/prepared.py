"""Finds and reads data prepared by tensorflow-datasets as array_record, without TensorFlow.

`find` looks only at the files, so that a start from the cache does not pay for the import of
tensorflow-datasets; `decode` reads every image.
"""

import contextlib
import hashlib
import json
import logging
import os
import pathlib
import re
import shlex
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import numpy as np

from noisegen.data import cache

_CHUNK = 64  # Examples fetched by one call of the reader.
_WHOLE = 2**31  # Bytes of a data set up to which all of them make its fingerprint.


class Prepared(NamedTuple):
    """A data set as it lies on disk."""

    name: str
    version: str  # For example '3.0.1'.
    directory: pathlib.Path
    description: str  # The first line of its own description.
    fingerprint: str  # 16 hexadecimal digits: a hash of every file, or of its beginning.


def find(name: str, data_dir: str | None = None) -> Prepared:
    """Returns the newest prepared version of `name`, or raises FileNotFoundError or ValueError."""
    root = data_directory(data_dir)
    versions = [path.parent for path in (root / name).glob("*/dataset_info.json")]
    versions = [path for path in versions if re.fullmatch(r"\d+\.\d+\.\d+", path.name)]
    if not versions:
        raise FileNotFoundError(_not_prepared_message(name, root))
    directory = max(versions, key=lambda path: [int(part) for part in path.name.split(".")])
    info = _read_info(name, directory)
    description = info.get("description", "").strip().split("\n")[0]
    return Prepared(name, directory.name, directory, description, _fingerprint(directory))


def data_directory(data_dir: str | None = None) -> pathlib.Path:
    """Returns where prepared data lies: the argument, TFDS_DATA_DIR, ~/tensorflow_datasets.

    Raises:
      FileNotFoundError: If there is no home directory.
    """
    if chosen := data_dir or os.environ.get("TFDS_DATA_DIR"):
        return cache.in_home(chosen)
    try:
        return cache.in_home("~/tensorflow_datasets")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            "no home directory is known in which prepared data may lie; name the directory where "
            "they are with data_dir or TFDS_DATA_DIR"
        ) from error


def decode(
    prepared: Prepared,
    splits: Mapping[str, str],
    pixels: int | None = None,
    name: str | None = None,
) -> dict[str, np.ndarray]:
    """Returns the arrays '<split>_image', '<split>_label' and, if asked for, '<split>_name'.

    Images are uint8 of shape (N, H, W, C), labels int32 and names bytes of shape (N,), of every
    split, in the order on disk.

    Args:
      prepared: the data set.
      splits: from our names of the splits to its own.
      pixels: side of the square that is cut out of the middle of each image, once its shorter side
        has this length; None leaves the images as they are.
      name: field of the examples' names; None where they have none.
    """
    try:
        with quiet():
            import tensorflow_datasets as tfds

            builder = tfds.builder_from_directory(prepared.directory)
            source = builder.as_data_source()
            if missing := set(splits.values()) - set(source):
                raise ValueError(f"it has no split {', '.join(missing)}")
            for split in splits.values():
                _check_shards(builder.info.splits[split])
            decoded = {k: _decode_split(source[v], pixels, name) for k, v in splits.items()}
    except ImportError as error:
        raise ImportError(
            f"cannot read {prepared.name} ({one_line(error)}); run: pip install 'noisegen[sweeps]'"
        ) from error
    except MemoryError as error:
        raise MemoryError(
            f"{prepared.name}{f' at {pixels} pixels' if pixels else ''} does not fit the memory: "
            f"{error}; choose fewer pixels, or another data set"
        ) from error
    except Exception as error:  # Each broken file format has exceptions of its own.
        command = prepare_command(prepared.name, _root(prepared.name, prepared.directory))
        raise OSError(
            f"cannot read {prepared.name} in {prepared.directory} ({one_line(error)}); delete this "
            f"directory and run: {command}"
        ) from error
    return {
        f"{split}_{field}": array
        for split, arrays in decoded.items()
        for field, array in arrays.items()
    }


def _check_shards(split: Any) -> None:
    """Raises ValueError unless each file of a split has as many examples as its description says.

    array_record itself verifies the content of each file.
    """
    from array_record.python import array_record_module

    for path, wanted in zip(split.filepaths, split.shard_lengths, strict=True):
        reader = array_record_module.ArrayRecordReader(os.fspath(path))
        found = reader.num_records()
        reader.close()
        if found != wanted:
            raise ValueError(f"{path} has {found} examples, not the {wanted} of dataset_info.json")


def _root(name: str, directory: pathlib.Path) -> pathlib.Path:
    """Returns where a data set in `directory` was found; its name may be a path itself."""
    return directory.parents[name.count("/") + 1]


def prepare_command(name: str, data_dir: str | os.PathLike[str]) -> str:
    """Returns the shell command that prepares `name` under `data_dir`."""
    return f"python -m noisegen.data.prepare {name} --data_dir={shlex.quote(os.fspath(data_dir))}"


def one_line(error: Exception) -> str:
    """Returns kind and message of `error` as one line of reasonable length."""
    return textwrap.shorten(f"{type(error).__name__}: {error}", 400)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences the remarks of tensorflow-datasets on its own installation."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _decode_split(
    records: Sequence[Mapping[str, Any]], pixels: int | None, name: str | None
) -> dict[str, np.ndarray]:
    """Returns the arrays of one split; the images are written in place as threads decode them."""

    def chunk(start):
        found = records.__getitems__(range(start, min(start + _CHUNK, len(records))))
        images = [
            each["image"] if pixels is None else _square(each["image"], pixels) for each in found
        ]
        names = [each[name] for each in found] if name else []
        return np.stack(images), [each["label"] for each in found], names

    images, labels, names = None, np.empty(len(records), np.int32), []
    starts = range(0, len(records), _CHUNK)
    with futures.ThreadPoolExecutor() as executor:
        for start, (image, label, some) in zip(starts, executor.map(chunk, starts), strict=True):
            if images is None:
                images = np.empty((len(records), *image.shape[1:]), image.dtype)
            images[start : start + len(image)] = image
            labels[start : start + len(label)] = label
            names += some
    named = {"name": np.array(names, bytes)} if name else {}
    return {"image": images, "label": labels} | named


def _square(image_HxWxC: np.ndarray, pixels: int) -> np.ndarray:
    """The middle of an image whose shorter side is brought to `pixels`."""
    from PIL import Image

    height, width, _ = image_HxWxC.shape
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    resized = Image.fromarray(image_HxWxC).resize((pixels, pixels), Image.Resampling.BILINEAR, box)
    return np.asarray(resized)


def _read_info(name: str, directory: pathlib.Path) -> dict[str, Any]:
    """Returns dataset_info.json, or raises ValueError when its records need TensorFlow to read."""
    path = directory / "dataset_info.json"
    try:
        info = json.loads(path.read_text())
        file_format = info.get("fileFormat", "tfrecord")
    except (ValueError, AttributeError) as error:
        command = prepare_command(name, _root(name, directory))
        raise ValueError(
            f"{path} is not a description of a data set ({one_line(error)}); delete {directory} "
            f"and run: {command}"
        ) from error
    if file_format != "array_record":
        raise ValueError(
            f"{name} in {directory} is prepared as {file_format}, which only TensorFlow reads; "
            f"prepare it as array_record elsewhere: {prepare_command(name, 'DIRECTORY')}"
        )
    return info


def _fingerprint(directory: pathlib.Path) -> str:
    """Hashes names and contents of all files: 60 ms for CIFAR-10, and no other data slips by.

    Above `_WHOLE` that would take minutes, and sizes and beginnings of the files must do.
    """
    digest = hashlib.sha256()
    paths = sorted(path for path in directory.iterdir() if path.is_file())
    whole = sum(path.stat().st_size for path in paths) <= _WHOLE
    for path in paths:
        digest.update(path.name.encode())
        with path.open("rb") as file:
            if whole:
                digest.update(hashlib.file_digest(file, "sha256").digest())
            else:
                digest.update(path.stat().st_size.to_bytes(8) + file.read(2**16))
    return digest.hexdigest()[:16]


def _not_prepared_message(name: str, root: pathlib.Path) -> str:
    """Returns what to do when nothing is there."""
    command = prepare_command(name, root)
    return (
        f"{name} is not prepared in {root}; run: {command} "
        "(add --manual_dir=DIR if its archives are already on disk), "
        "or name the directory where it is with data_dir or TFDS_DATA_DIR"
    )
