"""Sweeps on a real Slurm, started for these tests: cancelled, preempted, at the time limit."""

import os
import pathlib
import re
import socket
import subprocess
import time
import types

import pytest

from launch import jobs
from noisegen import sweeps
from tests.launch.harness import LONG, metrics, num_lines, tables

START = pathlib.Path(__file__).with_name("start_slurm.sh")
SECONDS = 240  # the longest that anything here is waited for
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """A Slurm with three nodes; the value of SLURM_CONF."""
    directory = tmp_path_factory.mktemp("slurm")
    try:
        command = [START, directory, "3"]
        started = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if started.returncode:
            pytest.skip(f"no Slurm can be started here: {started.stderr.strip()[-300:]}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_CONF", str(directory / "slurm.conf"))
            yield str(directory / "slurm.conf")
    finally:
        if (directory / "stop").exists():
            subprocess.run([directory / "stop"], timeout=120)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where submitit's files lie."""
    return tmp_path_factory.mktemp("folder") / "of" / "submitit"


@pytest.fixture(scope="module")
def submit(slurm, call, folder):
    """submit(workdir, *flags) gives the sweep to Slurm and returns what was said."""

    def run(workdir, *flags, **variables):
        own = ("--launcher=slurm", f"--slurm.folder={folder}", f"--workdir={workdir}")
        done = call("sweep", *flags, *own, SLURM_CONF=slurm, **variables)
        assert done.returncode == 0, done.stderr
        return done

    return run


def wait_until(true):
    """Waits until something is so, and returns what it is."""
    deadline = time.monotonic() + SECONDS
    while not (found := true()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def wait_for_the_end(workdir):
    """The states, by job, in which the jobs of a sweep ended."""

    def ended():
        found = jobs.states(jobs.submitted(workdir))
        return found if all(state.word in ENDED for state in found.values()) else None

    return {name: state.word for name, state in wait_until(ended).items()}


def logs(workdir):
    """What the jobs of a sweep printed."""
    return "".join(path.read_text() for path in sorted(workdir.glob("logs/slurm-*.log")))


def slurms(*command):
    """What one of Slurm's commands prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def ordeal(submit, folder, tiny, tmp_path_factory):
    """The tiny sweep on two nodes: cancelled in the middle, submitted again, reported."""
    workdir = tmp_path_factory.mktemp("ordeal") / "sweep"
    flags = (*tiny, "--slurm.array=2", "--slurm.partition=main", "--slurm.cpus_per_task=1")
    dry = submit(workdir, *flags, "--dry_run")
    first = submit(workdir, *flags)
    wait_until(lambda: num_lines(workdir) >= 3)
    slurms("scancel", jobs.submitted(workdir)[0].job)
    cancelled = wait_for_the_end(workdir)
    after_cancel = metrics(workdir)
    submit(workdir, *flags)
    states = wait_for_the_end(workdir)
    last = submit(workdir, *flags)
    return types.SimpleNamespace(**locals())


def test_a_dry_run_prints_what_is_submitted_and_what_each_job_runs(ordeal):
    text, _, command = ordeal.dry.stdout.partition("\nEach job runs\n  ")
    script = ordeal.folder / f"{jobs.submitted(ordeal.workdir)[0].job}_submission.sh"
    assert text == script.read_text()
    assert command.split()[-3:] == ["--workers=", "--share=INDEX/2", "--noreport"]
    assert "--dry_run" not in command


def test_submitting_returns_at_once_and_says_how_to_follow(ordeal):
    job = jobs.submitted(ordeal.workdir)[0].job
    assert ordeal.first.stdout.startswith(f"Submitted Slurm job {job}; ")
    assert f"{ordeal.workdir}/logs/slurm-{job}_*.log" in ordeal.first.stdout
    assert f"python -m launch.status --workdir={ordeal.workdir}\n" in ordeal.first.stdout
    assert "warning" not in ordeal.first.stderr
    assert len(jobs.submitted(ordeal.workdir)) == 2


def test_cancelled_jobs_lose_nothing_and_the_same_command_goes_on(ordeal):
    assert set(ordeal.cancelled.values()) == {"CANCELLED"}
    assert 3 <= len(ordeal.after_cancel) < 24
    assert sorted(ordeal.states.values()) == ["CANCELLED"] * 2 + ["COMPLETED"] * 2
    found = metrics(ordeal.workdir)
    assert all(found[name] == kept for name, kept in ordeal.after_cancel.items())


def test_the_table_is_that_of_one_undisturbed_process(ordeal, finished):
    assert "Report: " in ordeal.last.stdout and "Submitted" not in ordeal.last.stdout
    assert metrics(ordeal.workdir) == metrics(finished[0])
    assert tables(ordeal.workdir) == tables(finished[0])


def test_what_the_jobs_execute_lies_in_a_private_directory(ordeal):
    assert ordeal.folder.stat().st_mode & 0o777 == 0o700
    assert list(ordeal.folder.glob("*_submitted.pkl"))
    assert not list(ordeal.workdir.rglob("*.pkl"))
    assert not list(ordeal.workdir.glob("workers/*"))


def test_the_sweep_remembers_the_users_command(ordeal):
    command = sweeps.read_sweep(ordeal.workdir)["command"]
    assert "--launcher=slurm" in command and "--share" not in command


def changed(flags, **numbers):
    """The flags, with other numbers of the runs."""
    given = {f"--config.run.{name}": value for name, value in numbers.items()}
    kept = [flag for flag in flags if flag.partition("=")[0] not in given]
    assert len(kept) == len(flags) - len(given)
    return [*kept, *(f"{name}={value}" for name, value in given.items())]


@pytest.fixture(scope="module")
def longer(call, tmp_path_factory):
    """Flags of a sweep that is long enough to be disturbed, and its undisturbed results."""
    flags = changed(LONG, num_epochs=1000.0)
    workdir = tmp_path_factory.mktemp("longer") / "sweep"
    done = call("sweep", *flags, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return (*flags, "--checkpoint_minutes=0.01"), metrics(workdir)


def test_a_preempted_job_keeps_its_runs_and_is_requeued(submit, slurm, longer, call, tmp_path):
    flags, results = longer
    workdir = tmp_path / "sweep"
    submit(workdir, *flags, "--slurm.partition=main")
    wait_until(lambda: [*workdir.glob("checkpoints/*/[0-9]*")])
    slurms("sbatch", "--partition=urgent", "--nodes=3", "--output=/dev/null", "--wrap=true")
    job = jobs.submitted(workdir)[0].job
    wait_until(lambda: "Restarts=1" in slurms("scontrol", "show", "job", job))
    said = call("status", f"--workdir={workdir}", SLURM_CONF=slurm).stdout
    assert wait_for_the_end(workdir) == {job: "COMPLETED"}
    assert re.search(rf"Slurm job {job}, 1 worker: 1 (running|pending \(\w+\))\n", said), said
    assert "2 of 2 runs have a checkpoint" in logs(workdir)
    assert metrics(workdir) == results


@pytest.mark.slow
def test_a_worker_may_be_spread_over_two_nodes(submit, longer, tmp_path):
    flags = changed(longer[0], num_epochs=20.0, eval_every=10.0)
    workdir = tmp_path / "sweep"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    meeting = f"127.0.0.1:{port}"  # the names of the nodes lead nowhere here
    one_each = {"JAX_NUM_CPU_DEVICES": "1", "JAX_COORDINATOR_ADDRESS": meeting}
    submit(workdir, *flags, "--slurm.nodes=2", **one_each)
    [state] = wait_for_the_end(workdir).values()
    assert state == "COMPLETED", logs(workdir)
    records = sweeps.read(workdir)
    assert len(records) == num_lines(workdir) == 2
    assert {record["settings"]["lane_devices"] for record in records} == {2}


@pytest.mark.slow  # a minute is the shortest time limit
def test_a_job_at_its_time_limit_keeps_its_runs_and_is_requeued(submit, longer, tmp_path):
    flags = changed(longer[0], num_epochs=4000.0)
    workdir = tmp_path / "sweep"
    submit(workdir, *flags, "--slurm.time=1", "--slurm.signal_delay_s=45")
    job = jobs.submitted(workdir)[0].job
    assert wait_for_the_end(workdir) == {job: "COMPLETED"}
    assert "Restarts=0" not in slurms("scontrol", "show", "job", job)
    assert "9999 remaining timeouts" in logs(workdir)
    assert "2 of 2 runs have a checkpoint" in logs(workdir)
    assert len(sweeps.read(workdir)) == num_lines(workdir) == 2


def test_the_error_of_a_worker_is_in_the_status(submit, slurm, tiny, call, tmp_path):
    workdir = tmp_path / "sweep"
    submit(workdir, *tiny, "--pool.batch_devices=16", "--pool.eval_batch=16", "--slurm.array=2")
    assert set(wait_for_the_end(workdir).values()) == {"FAILED"}
    said = call("status", f"--workdir={workdir}", SLURM_CONF=slurm).stdout
    job = jobs.submitted(workdir)[0].job
    assert f"Slurm job {job}, 2 workers: 2 failed" in said
    assert (
        f"{job}_0 and 1 more failed: --pool.lane_devices=2 times --pool.batch_devices=16 is 32"
        in said
    ), said


def test_what_slurm_refuses_is_one_line(slurm, call, tiny, folder, tmp_path):
    flags = (*tiny, f"--workdir={tmp_path / 'sweep'}", f"--slurm.folder={folder}")
    done = call("sweep", *flags, "--launcher=slurm", "--slurm.partition=night", SLURM_CONF=slurm)
    assert done.returncode == 1
    assert done.stderr.startswith("error: Slurm refuses the jobs: "), done.stderr
    assert "invalid partition specified: night" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not jobs.submitted(tmp_path / "sweep")


def test_a_folder_open_to_others_is_refused(slurm, call, tiny, tmp_path):
    (tmp_path / "open").mkdir(mode=0o755)
    os.chmod(tmp_path / "open", 0o755)
    flags = (*tiny, f"--workdir={tmp_path / 'sweep'}", f"--slurm.folder={tmp_path / 'open'}")
    done = call("sweep", *flags, "--launcher=slurm", SLURM_CONF=slurm)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert f"chmod 700 {tmp_path / 'open'}" in done.stderr
    assert not (tmp_path / "sweep").exists()
