"""Sweeps that end badly say so, in the log and in the table."""

import json
import sys

import pytest

from launch import cli
from noisegen import sweeps
from tests.launch.harness import DIGITS, TWO_LANES

FLAGS = (
    DIGITS,
    "--config.grid.batch_size=(64,)",
    "--config.grid.seed=(0,1)",
    "--config.best=2",
    "--config.run.num_epochs=1.0",
    *TWO_LANES,
)


@pytest.fixture(scope="module")
def run(call, tmp_path_factory):
    """Runs the small sweep at some learning rates; returns its directory and what it said."""

    def sweep(rates):
        workdir = tmp_path_factory.mktemp("outcome") / "sweep"
        done = call("sweep", *FLAGS, f"--config.grid.learning_rate={rates}", f"--workdir={workdir}")
        assert done.returncode == 0, done.stderr
        return workdir, done

    return sweep


def row(table, batch_size):
    return next(line for line in table.splitlines() if line.split()[:1] == [str(batch_size)])


def extensions(done):
    return [line for line in done.stderr.splitlines() if line.startswith("The grid is extended")]


@pytest.mark.slow
def test_all_seeds_diverge_at_every_rate(run):
    _, done = run("(1e20, 2e20)")
    assert row(done.stdout, 64).split()[1:] == ["-", "diverged", "[a]"]
    assert "[a] Every run diverged." in done.stdout
    for line, rate in zip(extensions(done), ("5e+19", "2.5e+19", "1.25e+19"), strict=True):
        assert f"{rate} at batch size 64. There every run diverged." in line


@pytest.mark.slow
def test_an_optimum_that_stays_at_the_edge_and_too_few_runs(run, call):
    workdir, done = run("(1e-6, 2e-6)")  # at which hardly anything is learned
    assert row(done.stdout, 64).endswith("[a]")
    assert f"[a] {sweeps.FLAGS['at_boundary']}" in done.stdout
    assert len(extensions(done)) == 3  # as many as are allowed

    for path in workdir.glob("records/*.jsonl"):
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if json.loads(line)["run"]["seed"] == 0))
    again = call("report", f"--workdir={workdir}")
    assert "(1)" in row(again.stdout, 64) and row(again.stdout, 64).endswith("[a,b]")
    assert "[b] Chosen with fewer runs than the protocol asks for." in again.stdout
    assert (workdir / "report.html").read_text().count("fewer runs than the protocol asks for")


def test_the_command_to_resume_is_the_one_that_was_typed(monkeypatch, capsys):
    for typed, shown in (
        (["python3", "/venv/bin/noisegen", "sweep", "mine.py"], "noisegen sweep mine.py"),
        (["python3", "-m", "launch.sweep", "a b"], "python3 -m launch.sweep 'a b'"),
    ):
        monkeypatch.setattr(sys, "orig_argv", typed)
        with pytest.raises(SystemExit) as ended:
            cli.stopped("Stopped.")
        assert ended.value.code == cli.INTERRUPTED
        assert capsys.readouterr().err.splitlines()[-1].strip() == shown
