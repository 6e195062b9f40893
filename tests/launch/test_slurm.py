"""Sweeps on a real Slurm, started for these tests: cancelled, preempted, at the time limit."""

import os
import pathlib
import re
import socket
import subprocess
import types

import pytest

from launch import slurm as launcher
from noisegen import storage
from tests.launch.harness import (
    LONG,
    SECONDS,
    TINY,
    changed,
    last_error,
    metrics,
    num_lines,
    tables,
    wait_until,
)

pytestmark = pytest.mark.slow
START = pathlib.Path(__file__).with_name("start_slurm.sh")
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


def arrays(workdir):
    """The ids of the arrays that were submitted for a sweep, the oldest first."""
    return list(launcher._submitted(workdir))


def wait_for_the_end(workdir, seconds=SECONDS):
    """The states, by job, in which the jobs of a sweep ended."""

    def ended():
        states = launcher._states(arrays(workdir))
        return states if all(state in ENDED for state, _ in states.values()) else None

    return {name: state for name, (state, _) in wait_until(ended, seconds=seconds).items()}


def logs(workdir):
    """What the jobs of a sweep printed."""
    return "".join(path.read_text() for path in sorted(workdir.glob("logs/slurm-*.log")))


def slurms(*command):
    """What one of Slurm's commands prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def ordeal(submit, folder, tmp_path_factory):
    """The tiny sweep on two nodes: cancelled in the middle, submitted again, reported."""
    workdir = tmp_path_factory.mktemp("ordeal") / "sweep"
    flags = (*TINY, "--workers=2", "--slurm.partition=main", "--slurm.cpus_per_task=1")
    dry = submit(workdir, *flags, "--dry_run")
    first = submit(workdir, *flags)
    wait_until(lambda: num_lines(workdir) >= 3)
    slurms("scancel", arrays(workdir)[0])
    cancelled = wait_for_the_end(workdir)
    after_cancel = metrics(workdir)
    submit(workdir, *flags)
    states = wait_for_the_end(workdir)
    last = submit(workdir, *flags)
    return types.SimpleNamespace(**locals())


def test_a_dry_run_lists_what_is_submitted(ordeal):
    assert "Submits 2 jobs" in ordeal.dry.stdout
    assert "partition='main'" in ordeal.dry.stdout and "cpus_per_task=1" in ordeal.dry.stdout
    [script] = ordeal.folder.glob(f"*/{arrays(ordeal.workdir)[0]}_submission.sh")
    text = script.read_text()
    for line in ("array=0-1%2", "partition=main", "requeue", "signal=USR2@120", "time=240"):
        assert f"#SBATCH --{line}\n" in text


def test_submitting_returns_at_once_and_says_how_to_follow(ordeal):
    job = arrays(ordeal.workdir)[0]
    assert ordeal.first.stdout.startswith(f"Submitted Slurm job {job}; ")
    assert f"{ordeal.workdir}/logs/slurm-{job}_*.log" in ordeal.first.stdout
    assert f"python -m launch.status --workdir={ordeal.workdir}\n" in ordeal.first.stdout
    assert "warning" not in ordeal.first.stderr
    assert len(arrays(ordeal.workdir)) == 2


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
    assert list(ordeal.folder.glob("*/*_submitted.pkl"))
    assert not list(ordeal.workdir.rglob("*.pkl"))
    assert not list(ordeal.workdir.glob("workers/*"))


def test_the_sweep_remembers_the_users_command(ordeal):
    command = storage.read_sweep(ordeal.workdir)["command"]
    assert "--launcher=slurm" in command and "--share" not in command


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
    job = arrays(workdir)[0]
    wait_until(lambda: "Restarts=1" in slurms("scontrol", "show", "job", job))
    said = call("status", f"--workdir={workdir}", SLURM_CONF=slurm).stdout
    assert wait_for_the_end(workdir) == {job: "COMPLETED"}
    state = r"(running|completing|pending \(\w+\))"
    assert re.search(rf"Slurm job {job}, 1 worker: 1 {state}\n", said), said
    assert "2 of 2 runs resume from a checkpoint" in logs(workdir)
    assert metrics(workdir) == results


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
    records = storage.read_records(workdir)
    assert len(records) == num_lines(workdir) == 2
    assert {record.settings["lane_devices"] for record in records} == {2}


def test_a_job_at_its_time_limit_keeps_its_runs_and_is_requeued(submit, longer, tmp_path):
    # The signal comes 15 seconds after the start, before the sweep can be over.
    flags = changed(longer[0], num_epochs=2000.0)
    workdir = tmp_path / "sweep"
    submit(workdir, *flags, "--slurm.timeout_min=1", "--slurm.signal_delay_s=45")
    job = arrays(workdir)[0]
    assert wait_for_the_end(workdir, 3 * SECONDS) == {job: "COMPLETED"}
    assert "Restarts=0" not in slurms("scontrol", "show", "job", job)
    assert "9999 remaining timeouts" in logs(workdir)
    assert "2 of 2 runs resume from a checkpoint" in logs(workdir)
    assert len(storage.read_records(workdir)) == num_lines(workdir) == 2


def test_the_error_of_a_worker_is_in_the_status(submit, slurm, call, tmp_path):
    workdir = tmp_path / "sweep"
    submit(workdir, *TINY, "--pool.batch_devices=16", "--pool.eval_batch=16", "--workers=2")
    assert set(wait_for_the_end(workdir).values()) == {"FAILED"}
    said = call("status", f"--workdir={workdir}", SLURM_CONF=slurm).stdout
    job = arrays(workdir)[0]
    assert f"Slurm job {job}, 2 workers: 2 failed" in said
    assert re.search(rf"{job}_0 and 1 more failed: .*batch_devices=16", said), said


def test_what_slurm_refuses_is_one_line(slurm, call, folder, tmp_path):
    flags = (*TINY, f"--workdir={tmp_path / 'sweep'}", f"--slurm.folder={folder}")
    done = call("sweep", *flags, "--launcher=slurm", "--slurm.partition=night", SLURM_CONF=slurm)
    assert "invalid partition specified: night" in last_error(done)
    assert len(done.stderr.splitlines()) == 1
    assert not arrays(tmp_path / "sweep")


def test_a_folder_open_to_others_is_refused(slurm, call, tmp_path):
    (tmp_path / "open").mkdir(mode=0o755)
    os.chmod(tmp_path / "open", 0o755)
    flags = (*TINY, f"--workdir={tmp_path / 'sweep'}", f"--slurm.folder={tmp_path / 'open'}")
    done = call("sweep", *flags, "--launcher=slurm", SLURM_CONF=slurm)
    assert f"chmod 700 {tmp_path / 'open'}" in last_error(done)
    assert not (tmp_path / "sweep").exists()
