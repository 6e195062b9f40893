"""Commands where there is no home directory, or no place for what is kept between starts."""

import os

import jax
import pytest

from launch import cli


@pytest.fixture
def compilation_cache():
    """A function that prepares the devices and returns where compiled programs are kept."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)

    def prepared():
        cli.prepare_devices()
        return jax.config.jax_compilation_cache_dir

    yield prepared
    jax.config.update("jax_compilation_cache_dir", before)


def test_programs_are_kept_in_the_cache_directory_which_nothing_makes_yet(
    compilation_cache, monkeypatch, tmp_path
):
    monkeypatch.setenv("NOISEGEN_CACHE_DIR", str(tmp_path / "deep" / "cache"))
    assert compilation_cache() == str(tmp_path / "deep" / "cache" / "xla")
    assert list(tmp_path.iterdir()) == []


def test_without_a_place_for_programs_they_are_compiled_anew(
    compilation_cache, monkeypatch, tmp_path
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NOISEGEN_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="compiled again .*file/cache.* with NOISEGEN_CACHE_DIR"):
        assert compilation_cache() is None


def test_without_a_home_directory_commands_work(compilation_cache, monkeypatch, tmp_path):
    for name in ("NOISEGEN_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as of a user without a name
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert compilation_cache() == str(tmp_path / f"noisegen-{os.getuid()}" / "xla")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nothing"))
    with pytest.warns(UserWarning, match="compiled again at each start: .*NOISEGEN_CACHE_DIR"):
        assert cli._compilation_cache() is None
