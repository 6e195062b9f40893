"""Fixtures: tiny prepared data sets, in the format of tensorflow-datasets."""

import io
import json
import os
import pathlib

import numpy as np
import pytest

SHAPES = {"mnist": (28, 28, 1), "fashion_mnist": (28, 28, 1)}
IMAGENET = ("imagenet2012", "imagenet_resized/32x32", "imagenet_resized/64x64")
NUM_CLASSES = {"cifar100": 100, "caltech101": 102} | dict.fromkeys(IMAGENET, 1000)


@pytest.fixture
def write_prepared():
    """Returns write(data_dir, name, ...) -> the arrays that `load` must return."""
    return _write_prepared


@pytest.fixture(scope="session")
def shared_data_dir():
    """Returns the directory of real prepared data; skips the test if there is none."""
    path = os.environ.get("TFDS_DATA_DIR") or _beside_repository("tensorflow_datasets")
    if not os.path.isdir(path):
        pytest.skip(f"no prepared data: set TFDS_DATA_DIR ({path} is not a directory)")
    return str(path)


@pytest.fixture(scope="session")
def mnist_archives():
    """Returns the directory of the original MNIST archives; skips the test if there is none."""
    path = os.environ.get("NOISEGEN_MNIST_ARCHIVES") or _beside_repository("archives", "mnist")
    if not os.path.isdir(path):
        pytest.skip(f"no MNIST archives: set NOISEGEN_MNIST_ARCHIVES ({path} is not a directory)")
    return str(path)


@pytest.fixture(scope="session")
def session_cache_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


def _beside_repository(*parts):
    return pathlib.Path(__file__).parents[2].joinpath("..", "shared", *parts).resolve()


def _write_prepared(
    data_dir,
    name="mnist",
    *,
    seed=0,
    version="3.0.1",
    shape=None,
    compress_level=6,
    sizes=None,
    named=None,
):
    """Writes a prepared data set; `named` holds (class, name) of the examples of each split."""
    rng = np.random.RandomState(seed)
    directory = pathlib.Path(data_dir) / name / version
    directory.mkdir(parents=True)
    shape = shape or SHAPES.get(name, (32, 32, 3))
    num_classes = NUM_CLASSES.get(name, 10)
    arrays = {}
    for split, size in (("train", 7), ("validation" if name in IMAGENET else "test", 3)):
        size = len(named[split]) if named else size
        shapes = [(*sizes[k % len(sizes)], 3) for k in range(size)] if sizes else [shape] * size
        images = [rng.randint(0, 256, each).astype(np.uint8) for each in shapes]
        images = images if sizes else np.stack(images)
        labels = rng.randint(0, num_classes, size).astype(np.int32)
        labels[0] = num_classes - 1
        names = [None] * size
        if named:
            labels, names = (
                np.array([label for label, _ in named[split]]),
                [n for _, n in named[split]],
            )
            images[0] = images[0][..., 0]  # a gray one
        path = directory / _shard(name, split)
        _write_records(path, images, labels, names, compress_level)
        arrays[split] = {"image": images, "label": labels}
    shape = (None, None, 3) if sizes else shape
    (directory / "features.json").write_text(json.dumps(_features(shape, num_classes, named)))
    info = _info(name, version, {split: len(a["label"]) for split, a in arrays.items()})
    (directory / "dataset_info.json").write_text(json.dumps(info))
    return {"train": arrays["train"], "test": arrays.get("test") or arrays["validation"]}


def _shard(name, split):
    return f"{name.partition('/')[0]}-{split}.array_record-00000-of-00001"


def _write_records(path, images, labels, names, compress_level):
    from array_record.python import array_record_module

    writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
    for each in zip(images, labels, names, strict=True):
        writer.write(_example(*each, compress_level))
    writer.close()


def _example(image, label, name, compress_level):
    from PIL import Image
    from tensorflow_datasets.proto import tf_example_pb2

    file = io.BytesIO()
    Image.fromarray(image.squeeze()).save(file, "PNG", compress_level=compress_level)
    example = tf_example_pb2.Example()
    example.features.feature["image"].bytes_list.value.append(file.getvalue())
    example.features.feature["label"].int64_list.value.append(int(label))
    if name:
        example.features.feature["image/file_name"].bytes_list.value.append(name.encode())
    return example.SerializeToString()


def _features(shape, num_classes, named):
    module = "tensorflow_datasets.core.features."
    image = {"dtype": "uint8", "shape": {"dimensions": [str(n or -1) for n in shape]}}
    features = {
        "image": {"image": image, "pythonClassName": module + "image_feature.Image"},
        "label": {
            "classLabel": {"numClasses": str(num_classes)},
            "pythonClassName": module + "class_label_feature.ClassLabel",
        },
    }
    if named:
        text = {"text": {}, "pythonClassName": module + "text_feature.Text"}
        features["image/file_name"] = text
    return {
        "featuresDict": {"features": features},
        "pythonClassName": module + "features_dict.FeaturesDict",
    }


def _info(name, version, sizes):
    splits = [
        {
            "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            "name": split,
            "numBytes": "1000",
            "shardLengths": [str(size)],
        }
        for split, size in sizes.items()
    ]
    return {
        "description": "Random pixels.\nFor tests.",
        "fileFormat": "array_record",
        "moduleName": "tests",
        "name": name.partition("/")[0],
        "splits": splits,
        "version": version,
    }
