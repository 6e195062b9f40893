"""The command that exports a sweep."""

import shutil

import pandas as pd
import pytest

from tests.launch.harness import ROOT


@pytest.fixture
def workdir(tmp_path):
    """A sweep that is trained."""
    shutil.copytree(ROOT / "experiments" / "results" / "digits", tmp_path / "digits")
    return tmp_path / "digits"


@pytest.mark.parametrize("flags", [(), ("--follow",)])
def test_tables_go_to_the_directory_of_the_sweep(call, workdir, flags):
    done = call("export", str(workdir), "--to=csv", *flags)
    assert done.returncode == 0, done.stderr
    out = workdir / "export" / "csv"
    runs, curves = pd.read_csv(out / "runs.csv"), pd.read_csv(out / "curves.csv")
    exported = f"Exported {len(runs)} runs to {out}; {len(runs)} runs of the sweep have a record."
    assert exported in done.stdout
    assert set(curves["run_id"]) <= set(runs["run_id"]) and "test_accuracy" in curves
