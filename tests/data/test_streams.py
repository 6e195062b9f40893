"""Images that are decoded when they are read."""

from concurrent import futures

import numpy as np
import pytest
from PIL import Image

from noisegen import data, tasks, training

SIZES = ((30, 40), (41, 28), (32, 32))


@pytest.fixture
def folder(tmp_path):
    """Writes files of two classes; those of a class have a color of their own."""
    for split, count in (("train", 5), ("val", 3)):
        for label, name in enumerate(("bee", "ant")):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                height, width = SIZES[i % 3]
                image = np.full((height, width, 3), 40 * i, np.uint8)
                image[..., label] = 255
                Image.fromarray(image).save(tmp_path / split / name / f"{i}.JPEG", quality=95)
    (tmp_path / "train" / "ant" / "notes.txt").write_text("no image")
    return tmp_path


def read_all(source):
    return source[np.arange(len(source))]


def test_files_become_squares_with_the_labels_of_their_folders(folder):
    dataset = data.image_folder(folder, pixels=24, test_pixels=16)
    train, test = read_all(dataset.train), read_all(dataset.test)
    assert train["image"].shape == (10, 24, 24, 3) and test["image"].shape == (6, 16, 16, 3)
    assert train["image"].dtype == np.uint8 and train["label"].dtype == np.int32
    assert train["label"].tolist() == 5 * [0] + 5 * [1]  # The class "ant" comes first.
    assert test["label"].tolist() == 3 * [0] + 3 * [1]
    assert dataset.num_classes == 2 and dataset.name == folder.name
    for examples in (train, test):
        colors = examples["image"].mean((1, 2))
        assert (colors[examples["label"] == 0, 1] > 240).all()  # green
        assert (colors[examples["label"] == 1, 0] > 240).all()  # red
    assert train["image"][2, ..., 2].mean() == pytest.approx(80, abs=3)


def test_the_middle_of_an_image_is_resized(tmp_path):
    image = np.zeros((20, 60, 3), np.uint8)
    image[:, 20:40] = 200  # the middle square
    for split in ("train", "test"):
        (tmp_path / split / "a").mkdir(parents=True)
        Image.fromarray(image).save(tmp_path / split / "a" / "image.png")
    dataset = data.image_folder(tmp_path, pixels=10, test_pixels=4)
    inner = slice(1, -1)  # At its edges the filter of the resizing takes pixels beyond them.
    assert (read_all(dataset.train)["image"][:, :, inner] == 200).all()
    assert (read_all(dataset.test)["image"] == 200).all()


def test_the_fingerprint_follows_from_files_and_sizes(folder):
    def fingerprint(**options):
        return data.image_folder(folder, **{"pixels": 24} | options).fingerprint

    first = fingerprint()
    assert first == fingerprint() == fingerprint(executor=futures.ThreadPoolExecutor(1))
    others = [fingerprint(pixels=25), fingerprint(test_pixels=20), fingerprint(num_train=4)]
    (folder / "train" / "ant" / "0.JPEG").rename(folder / "train" / "ant" / "9.JPEG")
    assert len({first, *others, fingerprint()}) == 5


def test_hidden_folders_and_files_are_left_out(folder):
    before = data.image_folder(folder, pixels=8)
    for path in ("train/.checkpoints/0.JPEG", "val/.checkpoints/0.JPEG", "train/ant/._0.JPEG"):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(b"no image")
    after = data.image_folder(folder, pixels=8)
    assert after.num_classes == 2 and after.fingerprint == before.fingerprint
    np.testing.assert_array_equal(read_all(after.train)["label"], read_all(before.train)["label"])


def test_a_part_is_a_random_choice_that_stays(folder):
    [first, second] = [
        read_all(data.image_folder(folder, pixels=8, num_train=4, num_test=2).train)
        for _ in range(2)
    ]
    np.testing.assert_array_equal(first["image"], second["image"])
    assert set(first["label"]) == {0, 1}  # and not the first folder alone
    with pytest.raises(ValueError, match="num_test=7 must be between 1 and the 6 images"):
        data.image_folder(folder, pixels=8, num_test=7)


def test_prepared_data_are_those_that_load_decodes(write_prepared, tmp_path):
    write_prepared(tmp_path / "data", "imagenet2012", sizes=SIZES)
    loaded = data.load("imagenet2012", pixels=16, data_dir=tmp_path / "data", cache_dir=tmp_path)
    streamed = data.stream("imagenet2012", pixels=16, test_pixels=12, data_dir=tmp_path / "data")
    train, test = read_all(streamed.train), read_all(streamed.test)
    np.testing.assert_array_equal(train["image"], loaded.train["image"])
    np.testing.assert_array_equal(train["label"], loaded.train["label"])
    np.testing.assert_array_equal(test["image"], loaded.test["image"][:, 2:14, 2:14])
    same = ("name", "num_classes", "mean", "std")
    assert all(getattr(streamed, field) == getattr(loaded, field) for field in same)


def test_damaged_files_are_named(folder):
    dataset = data.image_folder(folder, pixels=8)
    path = folder / "train" / "bee" / "3.JPEG"
    path.write_bytes(path.read_bytes()[:300])
    task = training.Task(
        name="t", train=dataset.train, test=dataset.test, **dict.fromkeys(FUNCTIONS, print)
    )
    with pytest.raises(
        training.SourceError, match="index 8: OSError: .*bee/3.JPEG cannot be deco.*; replace"
    ):
        task.train[np.arange(10)]


FUNCTIONS = ("init", "loss", "metrics", "make_optimizer")


@pytest.mark.parametrize(
    "change, error, message",
    [
        (lambda folder: (folder / "val").rename(folder / "v"), FileNotFoundError, "`train` and `t"),
        (lambda folder: (folder / "train").rename(folder / "t"), FileNotFoundError, "`train` and"),
        (
            lambda folder: (folder / "val" / "ant").rename(folder / "val" / "cat"),
            ValueError,
            "has the class cat, which the training images lack",
        ),
        (
            lambda folder: [path.unlink() for path in (folder / "val").glob("*/*")],
            FileNotFoundError,
            "no images in .*val/CLASS/",
        ),
        (
            lambda folder: (folder / "train" / "cat").mkdir(),
            ValueError,
            "The class cat has no images in .*train: remove the folder",
        ),
    ],
)
def test_folders_of_another_kind_are_refused(folder, change, error, message):
    change(folder)
    with pytest.raises(error, match=message):
        data.image_folder(folder, pixels=8)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda d: data.image_folder(d, pixels=0), "pixels must be a whole number >= 1"),
        (lambda d: data.image_folder(d, pixels=8, test_pixels=9), "test_pixels=9 must be at most"),
        (lambda d: data.image_folder(d, pixels=8, num_train=1.5), "num_train must be a whole"),
        (lambda d: data.image_folder(d, pixels=8, num_test="3"), "num_test must be a whole"),
        (lambda d: data.image_folder(d, pixels=8, mean=(0.5,)), "mean must be three numbers"),
        (lambda d: data.image_folder(d, pixels=8, std="abc"), "std must be three numbers"),
        (lambda d: data.image_folder(d, pixels=8, std=(0.2, 0.2, 0)), "std must be a.*number"),
        (lambda d: data.stream("imagenet", pixels=8), "unknown data set 'imagenet'"),
        (lambda d: data.stream("mnist", pixels=8), "mnist cannot be decoded when it is read"),
    ],
)
def test_arguments_without_sense_are_refused(folder, call, message):
    with pytest.raises(ValueError, match=message):
        call(folder)


def test_what_needs_arrays_says_so(folder):
    dataset = data.image_folder(folder, pixels=8)
    for function in (
        lambda: data.split_validation(dataset, 2),
        lambda: data.subsample_and_downscale(dataset, 4, 2, 4),
        lambda: tasks.autoencoding(dataset, None, None, name="a"),
    ):
        with pytest.raises(ValueError, match="A source has no array '.*use data.load or"):
            function()
