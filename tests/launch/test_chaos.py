"""Workers killed at random moments; the same command then completes the sweep as if nothing was.

Ten of a short sweep die, and 60 of a sweep eight times as long.
"""

import collections
import pathlib
import subprocess
import sys
import types

import pytest

from noisegen import storage
from tests.launch.harness import DIGITS, ONE_CORE, ONE_LANE, ROOT, metrics, tables

pytestmark = pytest.mark.slow
CHAOS = pathlib.Path(__file__).with_name("chaos.py")
FLAGS = (
    DIGITS,
    "--config.grid.batch_size=(16, 64)",
    "--config.grid.learning_rate=(0.00390625, 0.0078125, 0.015625)",
    "--config.best=2",
    "--config.run.eval_every=20.0",
    *ONE_LANE,
    "--checkpoint_minutes=0.002",
)


def ordeal(call, environment, tmp_path, deaths, seed, seeds, epochs, search="grid"):
    """A sweep whose workers die, completed by one that does not, and the same in peace."""
    size = (f"--config.grid.seed={tuple(range(seeds))}", f"--config.run.num_epochs={epochs}")
    flags = (*FLAGS, *size, f"--config.search={search}")
    died = subprocess.run(
        [sys.executable, CHAOS, str(deaths), str(seed), *flags, f"--workdir={tmp_path / 'chaos'}"],
        cwd=ROOT,
        env=environment | ONE_CORE | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60 * deaths,
    )
    last = call("sweep", *flags, f"--workdir={tmp_path / 'chaos'}", **ONE_CORE)
    calm = (f"--workdir={tmp_path / 'peace'}", "--checkpoint_minutes=0")
    peace = call("sweep", *flags, *calm, **ONE_CORE)
    return types.SimpleNamespace(
        moments=[line.rsplit(": ", 1) for line in died.stdout.splitlines()],
        stderr=died.stderr,
        codes=(died.returncode, last.returncode, peace.returncode),
        chaos=tmp_path / "chaos",
        peace=tmp_path / "peace",
    )


def check(found, deaths):
    assert found.codes == (0, 0, 0), found.stderr
    assert "Traceback" not in found.stderr
    statuses = collections.Counter(status for _, status in found.moments)
    # The last may have found nothing left to do.
    assert statuses["-9"] >= 0.6 * deaths and statuses.keys() <= {"-9", "0"}
    kinds = ("after", "record", "claim", "compilation", "checkpoint")
    assert all(any(kind in name for name, _ in found.moments) for kind in kinds)
    assert metrics(found.chaos) == metrics(found.peace)
    assert tables(found.chaos) == tables(found.peace)
    left = {path.name for path in found.chaos.iterdir()} - {
        path.name for path in found.peace.iterdir()
    }
    assert left == set()  # no claims, no checkpoints
    assert len(metrics(found.chaos)) > 12  # the grid has grown


def test_workers_killed_at_random_moments_cost_nothing_but_time(call, environment, tmp_path):
    check(ordeal(call, environment, tmp_path, deaths=10, seed=124, seeds=3, epochs=40.0), 10)


def test_a_race_whose_workers_are_killed_trains_the_same_runs(call, environment, tmp_path):
    found = ordeal(call, environment, tmp_path, 10, seed=7, seeds=8, epochs=40.0, search="race")
    check(found, 10)
    # Some learning rates were dropped before they had all of their seeds.
    records = storage.read_records(found.peace)
    values = [(each.hparams["batch_size"], each.hparams["learning_rate"]) for each in records]
    assert min(collections.Counter(values).values()) < 8


def test_many_more_workers_killed_at_random_moments(call, environment, tmp_path):
    check(ordeal(call, environment, tmp_path, deaths=60, seed=1, seeds=6, epochs=160.0), 60)
