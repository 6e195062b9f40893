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
from typing import Any, NamedTuple

import numpy as np

SPLITS = ("train", "test")
_CHUNK = 1024  # Examples fetched by one call of the reader.


class Prepared(NamedTuple):
    """A data set as it lies on disk."""

    name: str
    version: str  # For example '3.0.1'.
    directory: pathlib.Path
    description: str  # The first line of its own description.
    fingerprint: str  # 16 hexadecimal digits: a hash of every file.


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
    """Returns where prepared data lies: the argument, TFDS_DATA_DIR, ~/tensorflow_datasets."""
    chosen = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return pathlib.Path(chosen).expanduser()


def decode(prepared: Prepared) -> dict[str, np.ndarray]:
    """Returns the arrays {'train_image', 'train_label', 'test_image', 'test_label'}.

    Images are uint8 of shape (N, H, W, C), labels int32 of shape (N,), in the order on disk.
    """
    try:
        with quiet():
            import tensorflow_datasets as tfds

            source = tfds.builder_from_directory(prepared.directory).as_data_source()
            return {k: v for split in SPLITS for k, v in _decode_split(split, source[split])}
    except ImportError as error:
        raise ImportError(
            f"cannot read {prepared.name} ({one_line(error)}); run: pip install 'noisegen[sweeps]'"
        ) from error
    except Exception as error:  # Each broken file format has exceptions of its own.
        raise OSError(
            f"cannot read {prepared.name} in {prepared.directory} ({one_line(error)}); delete this "
            f"directory and run: {prepare_command(prepared.name, prepared.directory.parents[1])}"
        ) from error


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


def _decode_split(split: str, records: Sequence[Mapping[str, Any]]) -> list[tuple[str, np.ndarray]]:
    """Returns the named image and label arrays of one split."""
    images, labels = [], []
    for start in range(0, len(records), _CHUNK):
        for record in records.__getitems__(range(start, min(start + _CHUNK, len(records)))):
            images.append(record["image"])
            labels.append(record["label"])
    return [
        (f"{split}_image", np.stack(images)),
        (f"{split}_label", np.asarray(labels, np.int32)),
    ]


def _read_info(name: str, directory: pathlib.Path) -> dict[str, Any]:
    """Returns dataset_info.json, or raises ValueError when its records need TensorFlow to read."""
    path = directory / "dataset_info.json"
    try:
        info = json.loads(path.read_text())
        file_format = info.get("fileFormat", "tfrecord")
    except (ValueError, AttributeError) as error:
        command = prepare_command(name, directory.parents[1])
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
    """Hashes names and contents of all files: 60 ms for CIFAR-10, and no other data slips by."""
    digest = hashlib.sha256()
    for path in sorted(path for path in directory.iterdir() if path.is_file()):
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _not_prepared_message(name: str, root: pathlib.Path) -> str:
    """Returns what to do when nothing is there."""
    command = prepare_command(name, root)
    return (
        f"{name} is not prepared in {root}; run: {command} "
        "(add --manual_dir=DIR if its archives are already on disk), "
        "or name the directory where it is with data_dir or TFDS_DATA_DIR"
    )
