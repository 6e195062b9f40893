"""Every experiment, and made-up data in place of what must be downloaded."""

import importlib.util
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def made_data(tmp_path, monkeypatch):
    """Ten made-up images, prepared as tensorflow-datasets does, are `mnist`, ten `cifar10`.

    Of the texts that the experiments name there are made-up ones.
    """
    path = ROOT / "tests" / "data" / "conftest.py"
    spec = importlib.util.spec_from_file_location("made_data", path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    for name in ("mnist", "cifar10"):
        made._write_prepared(tmp_path / "data", name)
    (tmp_path / "texts").mkdir()
    for name in ("wiki.valid.tokens", "wiki.test.tokens"):
        (tmp_path / "texts" / name).write_text("the cat sat on the mat\n" * 20)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("NOISEGEN_CACHE_DIR", str(tmp_path / "cache"))
