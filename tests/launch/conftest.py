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
def call(environment, tmp_path_factory):
    """call(module, *flags) runs `python -m launch.<module>` and waits for it.

    It is forked from a process that has imported all packages, which saves two seconds of
    processor time a command. If the test changes variables that Python or JAX read when they
    start, it is a new process.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        forks = harness.Forks(tmp_path_factory.mktemp("printed"))

    def run(module, *flags, **more):
        words = harness.command(module, *flags)
        if any(name.startswith(("JAX_", "PYTHON")) for name in more):
            pipes = {"capture_output": True, "text": True}
            return subprocess.run(
                words, cwd=harness.ROOT, env=environment | more, **pipes, timeout=harness.SECONDS
            )
        return forks.run(words, environment | more)

    return run


@pytest.fixture(scope="session")
def finished(environment, tmp_path_factory):
    """The workdir of the tiny sweep, trained without an interruption, and what it printed."""
    workdir = tmp_path_factory.mktemp("finished") / "sweep"
    words = harness.command("sweep", *harness.TINY, "--keep_params", f"--workdir={workdir}")
    pipes = {"capture_output": True, "text": True}
    done = subprocess.run(
        words, cwd=harness.ROOT, env=environment, **pipes, timeout=harness.SECONDS
    )
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
