"""Tests load: digits, prepared data, intact and damaged caches."""

import pathlib
import subprocess
import sys
import warnings

import numpy as np
import pytest
from sklearn import datasets as sklearn_datasets

from noisegen import data
from noisegen.data import cache, tfds_reader

# Of the original archives: equal for every faithful copy of MNIST that tensorflow-datasets wrote.
MNIST_FINGERPRINT = "ee235ea7725b52f9"
DIGITS_FINGERPRINT = "93b8b10e32de65a3"


def assert_equal(dataset, arrays):
    for split in ("train", "test"):
        for field in ("image", "label"):
            found = getattr(dataset, split)[field]
            np.testing.assert_array_equal(found, arrays[split][field], strict=True)
            assert not found.flags.writeable


@pytest.fixture
def load(tmp_path):
    """Returns `load` bound to directories of this test."""

    def bound(name="mnist", **kwargs):
        directories = {"data_dir": str(tmp_path / "data"), "cache_dir": str(tmp_path / "cache")}
        return data.load(name, **{**directories, **kwargs})

    return bound


class TestDigits:
    def test_is_scikit_learns_data(self):
        digits, bunch = data.load("digits"), sklearn_datasets.load_digits()
        images = np.concatenate([digits.train["image"], digits.test["image"]])[..., 0]
        labels = np.concatenate([digits.train["label"], digits.test["label"]])
        found = np.column_stack([np.rint(images.reshape(-1, 64) * (16 / 255)), labels])
        expected = np.column_stack([bunch.data, bunch.target])
        np.testing.assert_array_equal(np.unique(found, axis=0), np.unique(expected, axis=0))
        assert len(found) == len(expected) == 1797

    def test_split_is_fixed_and_stratified(self):
        digits = data.load("digits")
        assert digits.train["image"].shape == (1437, 8, 8, 1)
        assert digits.train["image"].dtype == np.uint8 and digits.train["label"].dtype == np.int32
        np.testing.assert_array_equal(np.bincount(digits.test["label"]), [36] * 10)
        assert digits.fingerprint == DIGITS_FINGERPRINT
        # Shuffled: neighbors share a class as often as chance has it, 1 in 10.
        label = digits.train["label"]
        assert 0.06 < np.mean(label[1:] == label[:-1]) < 0.14
        with pytest.raises(ValueError, match="read-only"):
            digits.train["label"][0] = 0

    def test_stated_mean_and_std(self):
        digits = data.load("digits")
        scaled = digits.train["image"] / 255
        np.testing.assert_allclose(digits.mean, scaled.mean((0, 1, 2)), atol=5e-5)
        np.testing.assert_allclose(digits.std, scaled.std((0, 1, 2)), atol=5e-5)

    def test_without_scikit_learn(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "sklearn", None)
        with pytest.raises(ImportError, match=r"pip install 'noisegen\[sweeps\]'"):
            data.load("digits")


class TestPrepared:
    @pytest.mark.parametrize(
        "name",
        [name for name in data.NAMES if name not in ("digits", "imagenet2012", "caltech101")],
    )
    def test_first_and_second_load(self, load, write_prepared, tmp_path, monkeypatch, name):
        arrays = write_prepared(tmp_path / "data", name)
        first = load(name)
        monkeypatch.setattr(tfds_reader, "decode", None)  # The second load does not decode.
        second = load(name)
        for dataset in (first, second):
            assert_equal(dataset, arrays)
            assert isinstance(dataset.train["image"], np.memmap)
            classes = {"cifar100": 100, "imagenet": 1000}
            assert dataset.num_classes == classes.get(name.partition("_")[0], 10)
            assert len(dataset.mean) == len(dataset.std) == dataset.train["image"].shape[3]
            assert dataset.description == f"{name} 3.0.1: Random pixels."
        assert first.fingerprint == second.fingerprint

    def test_images_of_many_sizes_are_brought_to_one(self, load, write_prepared, tmp_path):
        sizes = [(8, 8), (12, 6), (5, 9), (4, 4)]
        arrays = write_prepared(tmp_path / "data", "imagenet2012", sizes=sizes)
        four, six = load("imagenet2012", pixels=4), load("imagenet2012", pixels=6)
        for split, length in (("train", 7), ("test", 3)):
            assert getattr(four, split)["image"].shape == (length, 4, 4, 3)
            assert getattr(six, split)["image"].shape == (length, 6, 6, 3)
            np.testing.assert_array_equal(getattr(four, split)["label"], arrays[split]["label"])
        whole = arrays["train"]["image"]
        np.testing.assert_array_equal(four.train["image"][3], whole[3])  # has this size already
        np.testing.assert_array_equal(six.train["image"][1], whole[1][3:9])  # as wide: the middle
        kernel = np.zeros((4, 8))  # a triangle of twice the pixel's width, cut off at the edges
        for row in range(4):
            kernel[row] = np.maximum(0, 1 - abs(np.arange(8) + 0.5 - 2 * (row + 0.5)) / 2)
        kernel /= kernel.sum(1, keepdims=True)
        expected = np.einsum("ah,bw,hwc->abc", kernel, kernel, whole[0])
        assert abs(four.train["image"][0] - expected).max() <= 1.01  # Pillow rounds twice
        assert four.num_classes == 1000 and "the middle at 4 x 4 pixels" in four.description
        assert four.fingerprint != six.fingerprint

    def test_caltech101_has_our_split_for_any_original_split(self, load, write_prepared, tmp_path):
        """Uses classes of 9, 5 and 1 images, of which 7, 4 and 1 are for training."""
        counts = {0: 9, 1: 5, 101: 1}
        known = [(c, f"image_{k:04}.jpg") for c, count in counts.items() for k in range(count)]
        found = []
        for directory, train in (("a", known[:4] + known[10:]), ("b", known[::2])):
            named = {"train": train, "test": [each for each in known if each not in train]}
            sizes, write = [(8, 8), (6, 12), (5, 9)], tmp_path / directory
            arrays = write_prepared(write, "caltech101", sizes=sizes, named=named)
            found.append(load("caltech101", pixels=4, data_dir=str(write)))
            for split, numbers in (("train", [7, 4, 1]), ("test", [2, 1, 0])):
                images, labels = getattr(found[-1], split).values()
                assert images.shape == (sum(numbers), 4, 4, 3) and labels.dtype == np.int32
                np.testing.assert_array_equal([np.sum(labels == c) for c in counts], numbers)
            assert arrays["train"]["image"][0].ndim == 2  # gray: of three equal channels
            images = np.concatenate([found[-1].train["image"], found[-1].test["image"]])
            assert np.sum((images == images[..., :1]).all((1, 2, 3))) == 2
        one, other = found
        assert one.num_classes == 102 and "split 3 : 1 in every class" in one.description
        for split in ("train", "test"):  # the images of the two differ
            labels = [getattr(dataset, split)["label"] for dataset in found]
            np.testing.assert_array_equal(*labels)

    @pytest.mark.parametrize(
        ("name", "pixels", "message"),
        [
            ("imagenet2012", None, r"differ in size: give pixels=\.\.\."),
            ("imagenet2012", 0, "got pixels=0"),
            ("caltech101", None, r"differ in size: give pixels=\.\.\."),
            ("cifar10", 16, "a size of their own: leave pixels=16 out"),
        ],
    )
    def test_pixels_where_they_belong(self, name, pixels, message):
        with pytest.raises(ValueError, match=message):
            data.load(name, pixels=pixels)

    def test_a_large_data_set_is_known_by_its_files_beginnings(
        self, load, write_prepared, tmp_path, monkeypatch
    ):
        write_prepared(tmp_path / "data")
        found = tfds_reader.find("mnist", str(tmp_path / "data"))
        monkeypatch.setattr(tfds_reader, "_WHOLE", 100)
        large = tfds_reader.find("mnist", str(tmp_path / "data"))
        assert large.fingerprint != found.fingerprint
        (path,) = (tmp_path / "data").glob("*/*/*train*")
        content = path.read_bytes()
        for change in (content[:-1], bytes([content[0] ^ 1]) + content[1:]):
            path.write_bytes(change)
            assert (
                tfds_reader.find("mnist", str(tmp_path / "data")).fingerprint != large.fingerprint
            )

    def test_directories_from_the_environment(self, write_prepared, tmp_path, monkeypatch):
        arrays = write_prepared(tmp_path / "data")
        monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
        monkeypatch.setenv("NOISEGEN_CACHE_DIR", str(tmp_path / "cache"))
        assert_equal(data.load("mnist"), arrays)
        assert len(list((tmp_path / "cache").iterdir())) == 1

    def test_defaults_are_in_the_home_directory(self, monkeypatch):
        for variable in ("TFDS_DATA_DIR", "NOISEGEN_CACHE_DIR"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("HOME", "/home/someone")
        assert tfds_reader.data_directory() == pathlib.Path("/home/someone/tensorflow_datasets")
        assert cache.directory() == pathlib.Path("/home/someone/.cache/noisegen")

    def test_newest_version_wins(self, load, write_prepared, tmp_path):
        write_prepared(tmp_path / "data", version="3.0.9", seed=1)
        arrays = write_prepared(tmp_path / "data", version="3.0.10", seed=2)
        (tmp_path / "data" / "mnist" / "incomplete.XY_4.0.0").mkdir()
        assert_equal(load(), arrays)

    def test_other_data_of_the_same_name_is_not_confused(self, load, write_prepared, tmp_path):
        a = write_prepared(tmp_path / "a", seed=1)
        b = write_prepared(tmp_path / "b", seed=2)
        for _ in range(2):
            assert_equal(load(data_dir=str(tmp_path / "a")), a)
            assert_equal(load(data_dir=str(tmp_path / "b")), b)

    def test_fingerprint_ignores_how_images_are_encoded(self, load, write_prepared, tmp_path):
        write_prepared(tmp_path / "a", compress_level=0)
        write_prepared(tmp_path / "b", compress_level=9)
        write_prepared(tmp_path / "c", seed=5)
        a, b, c = (load(data_dir=str(tmp_path / x)).fingerprint for x in "abc")
        assert a == b != c

    def test_quiet_and_without_tensorflow(self, write_prepared, tmp_path):
        write_prepared(tmp_path / "data")
        code = (
            "import sys\n"
            "from noisegen import data\n"
            "heavy = {'tensorflow', 'tensorflow_datasets', 'sklearn'}\n"
            "assert not heavy & set(sys.modules)\n"
            "data.load('mnist', data_dir=sys.argv[1], cache_dir=sys.argv[2])\n"
            "assert 'tensorflow' not in sys.modules\n"
            "print(heavy & set(sys.modules))\n"
        )
        command = [sys.executable, "-c", code, str(tmp_path / "data"), str(tmp_path / "cache")]
        outputs = []
        for _ in range(2):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, "")
            outputs.append(done.stdout.strip())
        assert outputs == ["{'tensorflow_datasets'}", "set()"]  # The cache needs neither.

    @pytest.mark.slow
    def test_exact_mnist(self, shared_data_dir, session_cache_dir):
        if not (pathlib.Path(shared_data_dir) / "mnist").is_dir():
            pytest.skip(f"no mnist in {shared_data_dir}")
        mnist = data.load("mnist", data_dir=shared_data_dir, cache_dir=session_cache_dir)
        assert mnist.fingerprint == MNIST_FINGERPRINT
        assert mnist.train["image"].shape == (60000, 28, 28, 1)
        assert mnist.test["image"].shape == (10000, 28, 28, 1)
        scaled = mnist.train["image"].reshape(60000, -1) / np.float32(255)
        np.testing.assert_allclose(mnist.mean, scaled.mean(dtype=np.float64), atol=5e-5)
        np.testing.assert_allclose(mnist.std, scaled.std(dtype=np.float64), atol=5e-5)

    @pytest.mark.slow
    def test_cifar10(self, shared_data_dir, session_cache_dir):
        if not (pathlib.Path(shared_data_dir) / "cifar10").is_dir():
            pytest.skip(f"no cifar10 in {shared_data_dir}")
        cifar10 = data.load("cifar10", data_dir=shared_data_dir, cache_dir=session_cache_dir)
        assert cifar10.train["image"].shape == (50000, 32, 32, 3)
        np.testing.assert_array_equal(np.bincount(cifar10.train["label"]), [5000] * 10)
        scaled = cifar10.train["image"].reshape(-1, 3) / np.float32(255)
        np.testing.assert_allclose(cifar10.mean, scaled.mean(0, dtype=np.float64), atol=1e-3)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip_last_bit(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def change_shape(path):
    np.save(path, np.load(path)[1:])


def change_dtype(path):
    np.save(path, np.load(path).astype(np.float32))


DAMAGES = {
    "truncated": ("train_image.npy", truncate),
    "one bit": ("test_label.npy", flip_last_bit),
    "shape": ("train_label.npy", change_shape),
    "dtype": ("test_image.npy", change_dtype),
    "empty": ("test_image.npy", lambda path: path.write_bytes(b"")),
    "garbage": ("test_image.npy", lambda path: path.write_bytes(b"garbage" * 100)),
    "missing": ("train_image.npy", pathlib.Path.unlink),
    "metadata torn": ("metadata.json", truncate),
    "metadata empty": ("metadata.json", lambda path: path.write_text("{}")),
    "metadata odd": ("metadata.json", lambda path: path.write_text("[1]")),
}


class TestDamagedCache:
    @pytest.mark.parametrize("damage", DAMAGES)
    def test_is_rebuilt_with_a_warning(self, load, write_prepared, tmp_path, damage):
        arrays = write_prepared(tmp_path / "data")
        load()
        file_name, break_fn = DAMAGES[damage]
        (path,) = (tmp_path / "cache").glob(f"*/{file_name}")
        break_fn(path)
        with pytest.warns(UserWarning, match=f"corrupt data cache, rebuilt: .*{file_name}") as seen:
            assert_equal(load(), arrays)
        assert len(seen) == 1 and seen[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert_equal(load(), arrays)

    def test_raises_when_the_source_cannot_be_read(
        self, load, write_prepared, tmp_path, monkeypatch
    ):
        write_prepared(tmp_path / "data")
        load()
        (path,) = (tmp_path / "cache").glob("*/train_image.npy")
        truncate(path)
        monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
        with (
            pytest.warns(UserWarning, match=r"train_image\.npy"),
            pytest.raises(ImportError, match=r"pip install 'noisegen\[sweeps\]'"),
        ):
            load()

    def test_unwritable_cache_is_done_without(self, load, write_prepared, tmp_path):
        arrays = write_prepared(tmp_path / "data")
        (tmp_path / "file").touch()
        with pytest.warns(UserWarning, match="writable directory with NOISEGEN_CACHE_DIR") as seen:
            dataset = load(cache_dir=str(tmp_path / "file" / "cache"))
        assert_equal(dataset, arrays)
        assert str(tmp_path / "file") in str(seen[0].message) and seen[0].filename == __file__
        assert dataset.fingerprint == load().fingerprint

    def test_full_disk_is_done_without(self, load, write_prepared, tmp_path, monkeypatch):
        arrays = write_prepared(tmp_path / "data")

        def full_disk(file, array):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(np, "save", full_disk)
        with pytest.warns(UserWarning, match="No space left on device"):
            assert_equal(load(), arrays)


class TestBadInput:
    @pytest.mark.parametrize(
        ("name", "hint"),
        [("MNIST", "'mnist'"), ("cifar-10", "'cifar10'"), ("fashionmnist", "'fashion_mnist'")],
    )
    def test_misspelt_name(self, name, hint):
        with pytest.raises(ValueError, match=rf"{name}.*did you mean {hint}\?.*digits, mnist"):
            data.load(name)

    def test_unknown_name(self):
        with pytest.raises(ValueError, match="unknown data set 'svhn'; expected one of: digits,"):
            data.load("svhn")

    def test_not_prepared(self, load, tmp_path):
        with pytest.raises(FileNotFoundError) as caught:
            load(data_dir=str(tmp_path / "my data"))
        message = str(caught.value)
        assert f"mnist is not prepared in {tmp_path}/my data" in message
        command = f"python -m noisegen.data.tfds_prepare mnist --data_dir='{tmp_path}/my data'"
        assert command in message and "--manual_dir" in message and "\n" not in message

    def test_prepared_as_tfrecord(self, load, write_prepared, tmp_path):
        write_prepared(tmp_path / "data")
        path = tmp_path / "data/mnist/3.0.1/dataset_info.json"
        path.write_text(path.read_text().replace("array_record", "tfrecord"))
        with pytest.raises(
            ValueError, match=r"prepared as tfrecord.*noisegen\.data\.tfds_prepare mnist"
        ):
            load()

    @pytest.mark.parametrize("text", ['{"torn', "[]"])
    def test_broken_description(self, load, write_prepared, tmp_path, text):
        write_prepared(tmp_path / "data")
        (tmp_path / "data/mnist/3.0.1/dataset_info.json").write_text(text)
        with pytest.raises(
            ValueError, match=r"dataset_info\.json is not.*noisegen\.data\.tfds_prepare"
        ):
            load()

    @pytest.mark.parametrize("break_fn", [truncate, pathlib.Path.unlink])
    def test_broken_records(self, load, write_prepared, tmp_path, break_fn):
        write_prepared(tmp_path / "data")
        (path,) = (tmp_path / "data").glob("*/*/*train*")
        break_fn(path)
        with pytest.raises(OSError, match="cannot read mnist in") as caught:
            load()
        command = f"python -m noisegen.data.tfds_prepare mnist --data_dir={tmp_path}/data"
        assert command in str(caught.value) and "\n" not in str(caught.value)

    def test_other_data_under_the_name(self, load, write_prepared, tmp_path):
        write_prepared(tmp_path / "data", shape=(8, 8, 3))
        with pytest.raises(
            ValueError, match=r"is not mnist: expected uint8 images.*\(7, 8, 8, 3\)"
        ):
            load()
