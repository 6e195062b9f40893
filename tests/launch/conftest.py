"""Real commands in processes of their own, sharing one compilation cache."""

import importlib.util
import os
import subprocess

import pytest

from tests.launch import harness


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """Variables of the processes: one cache for all, two devices whatever the machine."""
    return os.environ | {
        "NOISEGEN_CACHE_DIR": str(tmp_path_factory.mktemp("cache")),
        "JAX_NUM_CPU_DEVICES": "2",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "TFDS_DATA_DIR": str(tmp_path_factory.mktemp("no_data")),
    }


@pytest.fixture(scope="session")
def call(environment):
    """call(module, *flags) runs `python -m launch.<module>` and waits for it."""

    def run(module, *flags, **more):
        return subprocess.run(
            harness.command(module, *flags),
            cwd=harness.ROOT,
            env=environment | more,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture(scope="session")
def finished(call, tmp_path_factory):
    """The workdir of the tiny sweep, trained without an interruption, and what it printed."""
    workdir = tmp_path_factory.mktemp("finished") / "sweep"
    done = call("sweep", *harness.TINY, "--keep_params", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return workdir, done


@pytest.fixture
def made_mnist(tmp_path):
    """A directory with ten made-up images, prepared as tensorflow-datasets prepares MNIST."""
    path = harness.ROOT / "tests" / "data" / "conftest.py"
    spec = importlib.util.spec_from_file_location("made_data", path)
    made_data = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made_data)
    made_data._write_prepared(tmp_path / "data", "mnist")
    return str(tmp_path / "data")
