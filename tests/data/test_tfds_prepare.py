"""Tests the command that prepares data, for real if TensorFlow and archives exist."""

import importlib.util
import subprocess
import sys
import types

import pytest

from noisegen import data
from noisegen.data import tfds_prepare

MNIST_FINGERPRINT = "ee235ea7725b52f9"


def run(capsys, *args):
    """Returns exit code, standard output and error of the command, run in this process."""
    code = tfds_prepare.main(args)
    return code, *capsys.readouterr()


@pytest.fixture
def without_tensorflow_check(monkeypatch):
    """Skips the import of TensorFlow, which the tested code does not reach."""
    monkeypatch.setattr(tfds_prepare, "_require_tensorflow", lambda: None)


def test_without_tensorflow(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    code, _, error = run(capsys, "mnist", f"--data_dir={tmp_path}")
    assert code == 1 and error.count("\n") == 1
    assert "pip install 'noisegen[build-data]'" in error


def test_unknown_name_lists_the_right_ones(capsys):
    with pytest.raises(SystemExit) as caught:
        tfds_prepare.main(["digits"])  # Not prepared: it comes with scikit-learn.
    assert caught.value.code == 2
    assert "fashion_mnist" in capsys.readouterr().err


def test_missing_archives_are_named(capsys, tmp_path, without_tensorflow_check):
    (tmp_path / "train-images-idx3-ubyte.gz").touch()
    code, _, error = run(capsys, "mnist", f"--data_dir={tmp_path}/d", f"--manual_dir={tmp_path}")
    assert code == 1 and error.count("\n") == 1
    assert f"{tmp_path} lacks t10k-images-idx3-ubyte.gz, t10k-labels" in error
    assert "train-images" not in error


def test_no_network(capsys, tmp_path, monkeypatch, without_tensorflow_check):
    import tensorflow_datasets as tfds

    def unreachable(self, **_):
        raise ConnectionError("host\nunreachable")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", unreachable)
    code, _, error = run(capsys, "cifar10", f"--data_dir={tmp_path}")
    assert code == 1 and error.count("\n") == 1
    assert "ConnectionError: host unreachable" in error
    assert "(cifar-10-binary.tar.gz)" in error and "--manual_dir" in error


def test_prepared_data_needs_no_tensorflow(capsys, tmp_path, monkeypatch, write_prepared):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    write_prepared(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    code, output, error = run(capsys, "mnist")
    assert (code, error) == (0, "")
    assert output.endswith(f"mnist 3.0.1 is ready in {tmp_path}/mnist/3.0.1\n")


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None,
    reason="needs TensorFlow: pip install 'noisegen[build-data]'",
)
def test_mnist_from_its_archives(mnist_archives, tmp_path):
    command = [sys.executable, "-m", "noisegen.data.tfds_prepare", "mnist"]
    command += [f"--data_dir={tmp_path}/data", f"--manual_dir={mnist_archives}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"mnist 3.0.1 is ready in {tmp_path}/data/mnist/3.0.1\n")
    mnist = data.load("mnist", data_dir=f"{tmp_path}/data", cache_dir=f"{tmp_path}/cache")
    assert mnist.fingerprint == MNIST_FINGERPRINT


class _Info:
    """Stands in for the facts that tensorflow-datasets has on an archive."""

    def __init__(self, filename):
        self.filename = filename


@pytest.mark.parametrize("config, named", [(None, r" \(b\.tar\)"), ("64x64", "")])
def test_archives_without_names_or_of_other_configurations_are_not_required(
    monkeypatch, tmp_path, config, named
):
    """ImageNet's have none, a former one of Caltech-101 is called 'view', and `imagenet_resized`
    lists those of all its sizes."""
    import tensorflow_datasets as tfds

    def fail(**_):
        raise OSError("no network")

    builder = types.SimpleNamespace(
        builder_config=config,
        url_infos={"a": _Info(None), "b": _Info("b.tar"), "c": _Info("view")},
        download_and_prepare=fail,
    )
    monkeypatch.setattr(tfds, "builder", lambda *_, **__: builder)
    (tmp_path / "b.tar").touch()
    with pytest.raises(OSError, match=f"put the original archives{named} in a directory"):
        tfds_prepare.prepare("imagenet2012", str(tmp_path), str(tmp_path))
