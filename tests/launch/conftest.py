"""Real commands in processes of their own, sharing one compilation cache."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]

# A sweep of 12 runs whose best learning rate is the largest, so that the grid must grow.
TINY = (
    "--config=experiments/digits.py",
    "--config.grid.batch_size=(64, 256)",
    "--config.grid.learning_rate=(0.00390625, 0.0078125, 0.015625)",
    "--config.grid.seed=(0, 1)",
    "--config.best=2",
    "--config.run.num_epochs=3.0",
    "--config.run.eval_every=1.0",
    # Equal speed settings give equal results, bit for bit.
    "--lanes=2",
    "--lane_devices=2",
    "--microbatch=16",
    "--eval_batch=360",
    "--lanes_per_rare_step=1",
)


@pytest.fixture(scope="session")
def tiny():
    return TINY


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
            [sys.executable, "-m", f"launch.{module}", *flags],
            cwd=ROOT,
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
    done = call("sweep", *TINY, "--keep_params", f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return workdir, done


@pytest.fixture
def made_mnist(tmp_path):
    """A directory with ten made-up images, prepared as tensorflow-datasets prepares MNIST."""
    path = ROOT / "tests" / "data" / "conftest.py"
    spec = importlib.util.spec_from_file_location("made_data", path)
    made_data = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made_data)
    made_data._write_prepared(tmp_path / "data", "mnist")
    return str(tmp_path / "data")
