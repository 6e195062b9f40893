"""Finds and reads array_record data prepared by tensorflow-datasets, without TensorFlow.

`find` looks at the files only, so that starts from the cache do not import tensorflow-datasets.
`decode` decodes every image, and `encoded` reads images without decoding them.
"""

import contextlib
import hashlib
import json
import logging
import os
import pathlib
import re
import shlex
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import numpy as np

from noisegen._errors import one_line
from noisegen.data import cache

_CHUNK = 64  # Examples per call of the reader.
_WHOLE = 2**31  # Bytes up to which the fingerprint of a data set covers all of its content.


class Prepared(NamedTuple):
    """A prepared data set on disk."""

    name: str
    version: str  # For example '3.0.1'.
    directory: pathlib.Path
    description: str  # First line of its description.
    fingerprint: str  # 16 hexadecimal digits: a hash of all files, or of their beginnings.


def find(name: str, data_dir: str | None = None) -> Prepared:
    """Finds the newest prepared version of a data set.

    Args:
      name: Name of the data set.
      data_dir: Directory of prepared data sets, see `data_directory`.

    Raises:
      FileNotFoundError: If the data set is not prepared; the message holds the command to run.
      ValueError: If it is damaged, or prepared in another file format.
    """
    root = data_directory(data_dir)
    paths = [info.parent for info in (root / name).glob("*/dataset_info.json")]
    # While it prepares, tensorflow-datasets writes to directories of other names.
    versions = [path for path in paths if re.fullmatch(r"\d+\.\d+\.\d+", path.name)]
    if not versions:
        raise FileNotFoundError(
            f"{name} is not prepared in {root}; run: {prepare_command(name, root)} "
            "(add --manual_dir=DIR if its archives are already on disk), "
            "or name the directory where it is with data_dir or TFDS_DATA_DIR"
        )
    # Compared as numbers, as 10.0.0 is newer than 9.0.0.
    directory = max(versions, key=lambda path: [int(part) for part in path.name.split(".")])
    info = _read_info(name, directory)
    description = info.get("description", "").strip().split("\n")[0]
    return Prepared(name, directory.name, directory, description, _fingerprint(directory))


def data_directory(data_dir: str | None = None) -> pathlib.Path:
    """Returns the directory of prepared data: the argument, $TFDS_DATA_DIR, ~/tensorflow_datasets.

    Raises:
      FileNotFoundError: If there is no home directory.
    """
    chosen = data_dir or os.environ.get("TFDS_DATA_DIR")
    if chosen:
        return cache.in_home(chosen)
    try:
        return cache.in_home("~/tensorflow_datasets")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            "no home directory is known, so name the directory of prepared data with data_dir or "
            "TFDS_DATA_DIR"
        ) from error


def decode(
    prepared: Prepared,
    splits: Mapping[str, str],
    pixels: int | None = None,
    name: str | None = None,
) -> dict[str, np.ndarray]:
    """Decodes the arrays '<split>_image', '<split>_label' and, if requested, '<split>_name'.

    Args:
      prepared: Data set on disk.
      splits: Map from our names of splits to those on disk.
      pixels: Side of the square cut out of the middle of each image, after its shorter side is
        resized to this length. None leaves images as they are.
      name: Field of the names of examples, or None if they have none.

    Returns:
      Images as uint8 (N, H, W, C), labels as int32 (N,) and names as bytes (N,), in the order on
      disk.

    Raises:
      ImportError: If tensorflow-datasets is missing.
      MemoryError: If the images do not fit into memory.
      OSError: If the files cannot be read; the message holds the remedy.
    """
    with _explained(prepared, pixels):
        decoded = _decode_splits(prepared.directory, splits, pixels, name)
    arrays = {}
    for split, fields in decoded.items():
        for field, array in fields.items():
            arrays[f"{split}_{field}"] = array
    return arrays


def encoded(prepared: Prepared, split: str) -> Sequence[Mapping[str, Any]]:
    """Returns the examples of a split by index, with their images as the bytes of their files.

    Args:
      prepared: Data set on disk.
      split: Its split on disk.

    Raises:
      ImportError: If tensorflow-datasets is missing.
      OSError: If the files cannot be read; the message holds the remedy.
    """
    with _explained(prepared), quiet():
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(prepared.directory)
        _check_shards(builder.info.splits[split])
        return builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})


def square(image: Any, pixels: int) -> np.ndarray:
    """Returns the middle of an image of PIL, after its shorter side is resized to `pixels`."""
    from PIL import Image

    width, height = image.size
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    # Cutting out and resizing in one step, so that half a pixel is not lost to rounding.
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((pixels, pixels), Image.Resampling.BILINEAR, box))


def prepare_command(name: str, data_dir: str | os.PathLike[str]) -> str:
    """Returns the shell command that prepares a data set."""
    directory = shlex.quote(os.fspath(data_dir))
    return f"python -m noisegen.data.tfds_prepare {name} --data_dir={directory}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences warnings of tensorflow-datasets about its own installation."""
    # It logs through absl, and its dependencies warn through `warnings`.
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _decode_splits(
    directory: pathlib.Path, splits: Mapping[str, str], pixels: int | None, name: str | None
) -> dict[str, dict[str, np.ndarray]]:
    """Decodes the splits, after a check that their files are complete."""
    with quiet():
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(directory)
        source = builder.as_data_source()
        missing = set(splits.values()) - set(source)
        if missing:
            raise ValueError(f"it has no split {', '.join(missing)}")
        for split in splits.values():
            _check_shards(builder.info.splits[split])
        return {
            ours: _decode_split(source[theirs], pixels, name) for ours, theirs in splits.items()
        }


@contextlib.contextmanager
def _explained(prepared: Prepared, pixels: int | None = None) -> Iterator[None]:
    """Says in a message what to do if a data set cannot be read, see `decode`."""
    try:
        yield
    except ImportError as error:
        raise ImportError(
            f"cannot read {prepared.name} ({one_line(error)}); run: pip install 'noisegen[sweeps]'"
        ) from error
    except MemoryError as error:
        size = f" at {pixels} pixels" if pixels else ""
        raise MemoryError(
            f"{prepared.name}{size} does not fit the memory: {error}; choose fewer pixels, or "
            "another data set"
        ) from error
    except Exception as error:  # Damaged files raise many kinds of exceptions.
        command = prepare_command(prepared.name, _root(prepared.name, prepared.directory))
        raise OSError(
            f"cannot read {prepared.name} in {prepared.directory} ({one_line(error)}); delete this "
            f"directory and run: {command}"
        ) from error


def _check_shards(split: Any) -> None:
    """Raises ValueError if a file has fewer or more examples than its description says.

    array_record itself verifies the content of each file.
    """
    from array_record.python import array_record_module

    for path, expected in zip(split.filepaths, split.shard_lengths, strict=True):
        reader = array_record_module.ArrayRecordReader(os.fspath(path))
        num_examples = reader.num_records()
        reader.close()
        if num_examples != expected:
            raise ValueError(
                f"{path} has {num_examples} examples, not the {expected} of dataset_info.json"
            )


def _decode_split(
    records: Sequence[Mapping[str, Any]], pixels: int | None, name: str | None
) -> dict[str, np.ndarray]:
    """Decodes one split in threads, which write the images in place."""
    from PIL import Image

    # Threads are enough, because decoders release Python's lock.
    def decode_chunk(start: int) -> tuple[np.ndarray, list[int], list[bytes]]:
        chunk = records.__getitems__(range(start, min(start + _CHUNK, len(records))))
        images = [example["image"] for example in chunk]
        if pixels is not None:
            images = [square(Image.fromarray(image), pixels) for image in images]
        names = [example[name] for example in chunk] if name else []
        return np.stack(images), [example["label"] for example in chunk], names

    images = None  # Allocated when the shape of an image is known.
    labels = np.empty(len(records), np.int32)
    names = []
    starts = range(0, len(records), _CHUNK)
    with futures.ThreadPoolExecutor() as executor:
        # In the order of the files, whichever thread is first.
        chunks = executor.map(decode_chunk, starts)
        for start, (chunk_images, chunk_labels, chunk_names) in zip(starts, chunks, strict=True):
            if images is None:
                shape = (len(records), *chunk_images.shape[1:])
                images = np.empty(shape, chunk_images.dtype)
            stop = start + len(chunk_images)
            images[start:stop] = chunk_images
            labels[start:stop] = chunk_labels
            names += chunk_names
    arrays = {"image": images, "label": labels}
    if name:
        arrays["name"] = np.array(names, bytes)
    return arrays


def _read_info(name: str, directory: pathlib.Path) -> dict[str, Any]:
    """Returns dataset_info.json; raises ValueError if only TensorFlow could read the records."""
    path = directory / "dataset_info.json"
    try:
        info = json.loads(path.read_text())
        file_format = info.get("fileFormat", "tfrecord")  # Old versions named no format.
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


def _root(name: str, directory: pathlib.Path) -> pathlib.Path:
    """Returns the directory of prepared data sets that holds `directory`, NAME/VERSION."""
    num_name_parts = name.count("/") + 1  # A name may have a configuration: NAME/CONFIG.
    return directory.parents[num_name_parts]


def _fingerprint(directory: pathlib.Path) -> str:
    """Hashes the names and contents of all files, in 60 ms for CIFAR-10.

    In data sets larger than `_WHOLE` bytes that would take minutes. There it hashes sizes and
    beginnings of the files.
    """
    digest = hashlib.sha256()
    paths = sorted(path for path in directory.iterdir() if path.is_file())
    is_small = sum(path.stat().st_size for path in paths) <= _WHOLE
    for path in paths:
        digest.update(path.name.encode())
        with path.open("rb") as file:
            if is_small:
                digest.update(hashlib.file_digest(file, "sha256").digest())
            else:
                digest.update(path.stat().st_size.to_bytes(8) + file.read(2**16))
    return digest.hexdigest()[:16]
