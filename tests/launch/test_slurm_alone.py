"""Launching on Slurm on a machine without Slurm: a job's process, the checks, the status."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap

import pytest

from launch import slurm
from launch.driver import WorkerCommand
from noisegen import storage
from noisegen.sweeps.worker import WorkerOptions
from tests.launch.harness import ROOT

# A job as submitit runs it: submitit calls the job, and requeues it at SIGUSR2. The worker notes
# each stop that it hears of, and takes a while to checkpoint its runs.
JOB = """
import signal, sys, time
from launch import cli, slurm, worker
from launch.driver import WorkerCommand
from noisegen.sweeps import signals
from noisegen.sweeps.worker import WorkerOptions

def work(workdir, experiment, options):
    print("share", options["share"], flush=True)
    end = sys.argv[1]
    if end == "error":
        raise cli.UsageError("no such data")
    if end == "stop":
        stopping = []
        with signals.on_stop(stopping.append):
            print("training", flush=True)
            while not stopping:
                time.sleep(0.01)
            time.sleep(0.3)
            print("stops", len(set(stopping)), flush=True)
        raise KeyboardInterrupt

def requeue(*_):
    print("requeued", job.checkpoint().function is job, flush=True)
    sys.exit(9)

worker.work = work
job = slurm.Job(WorkerCommand(workdir=".", experiment="", options=WorkerOptions()), 1, 2, False)
signal.signal(signal.SIGUSR2, requeue)
job()
signal.raise_signal(signal.SIGUSR2)  # too late: the job has ended well
"""


def script(path, text):
    """Writes a program that can be run by its name."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def job(tmp_path, monkeypatch):
    """job(end) starts a job whose worker ends so; squeue says what is in the file `state`."""
    script(tmp_path / "squeue", f'echo "7_3|$(cat {tmp_path / "state"})|None"')
    (tmp_path / "state").write_text("RUNNING")
    variables = {"JOB_ID": "7", "ARRAY_JOB_ID": "7", "ARRAY_TASK_ID": "3", "PROCID": "0"}
    variables = {f"SLURM_{name}": value for name, value in variables.items()}
    path = f"{tmp_path}:{os.environ['PATH']}"
    environment = os.environ | variables | {"SUBMITIT_EXECUTOR": "slurm", "PATH": path}
    started = []

    def start(end):
        words = [sys.executable, "-c", JOB, end]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(words, cwd=ROOT, env=environment, text=True, **pipes)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_job_ends_as_its_worker_does(job):
    done = job("done")
    out, _ = done.communicate(timeout=60)
    assert (done.returncode, out) == (0, "share (1, 2)\n")
    failed = job("error")
    _, err = failed.communicate(timeout=60)
    assert (failed.returncode, err.splitlines()[-1]) == (1, "error: no such data")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("state", "signals", "requeued"),
    [
        ("RUNNING", [signal.SIGUSR2], True),
        ("RUNNING", [signal.SIGTERM], True),
        ("RUNNING", [signal.SIGTERM, signal.SIGUSR2], True),
        ("CANCELLED", [signal.SIGTERM], False),
    ],
)
def test_a_stopped_job_checkpoints_and_is_requeued_unless_cancelled(
    job, tmp_path, state, signals, requeued
):
    (tmp_path / "state").write_text(state)
    process = job("stop")
    assert [process.stdout.readline() for _ in range(2)] == ["share (1, 2)\n", "training\n"]
    for number in signals:
        process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    stops, *rest = out.splitlines()
    assert stops == f"stops {len(signals)}"  # the worker ignores all but the first
    assert rest == (["requeued True"] if requeued else [])
    assert process.returncode == (9 if requeued else 130)


def array(workdir="sweep", num_workers=1, **fields):
    command = WorkerCommand(workdir=str(workdir), experiment="x.py", options=WorkerOptions())
    return slurm.SlurmArray(command, slurm.SlurmConfig(**fields), num_workers)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"timeout_min": 2}, ["--slurm.timeout_min=2", "120 seconds"]),
        ({"folder": "sweep/jobs"}, ["--slurm.folder=", "lies in --workdir"]),
        ({"options": "-w n3"}, ["--slurm.options: '-w'", "--exclude=n3"]),
        ({"options": "'"}, ['--slurm.options: "\'"']),
    ],
)
def test_what_makes_no_sense_is_refused(fields, words):
    with pytest.raises(ValueError) as error:
        array(**fields)
    assert not [word for word in words if word not in str(error.value)], error.value


@pytest.mark.parametrize("name", ["a\nb", "a\\b"])
def test_paths_that_slurm_would_misread_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="new line or a backslash"):
        array(tmp_path / name)


def test_without_a_home_directory_a_folder_must_be_named(monkeypatch):
    def unknown(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(slurm.pathlib.Path, "expanduser", unknown)
    with pytest.raises(ValueError, match="--slurm.folder=.*there is no home directory"):
        array()


def test_fields_reach_sbatch(tmp_path, monkeypatch):
    """With programs in Slurm's place that keep what they are given."""
    programs = tmp_path / "bin"
    programs.mkdir()
    script(programs / "srun", "true")
    script(programs / "sbatch", f'cp "$1" {tmp_path / "submitted"}; echo Submitted batch job 7')
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    jobs = array(
        tmp_path / "a b%c",
        num_workers=32,
        folder=str(tmp_path / "folder"),
        **{"array_parallelism": 8, "partition": "gpu", "gpus_per_node": 1, "cpus_per_task": 4},
        **{"mem": "16G", "setup": "module load cuda"},
        options="--account=me --exclude=n[1-2] --exclusive --job-name=mine",
    )
    assert jobs.submit() == "7"
    text = (tmp_path / "submitted").read_text()
    for line in """
        array=0-31%8|partition=gpu|gpus-per-node=1|cpus-per-task=4|mem=16G|account=me
        exclude='n[1-2]'|exclusive|requeue|signal=USR2@120|time=240|job-name=mine
    """.replace("\n", "|").split("|"):
        assert not line.strip() or f"#SBATCH --{line.strip()}\n" in text, text
    assert "wckey" not in text and text.count("job-name") == 1
    assert "\nmodule load cuda\n" in text and "--cpus-per-task=4" in text
    assert "a b%%c/logs/slurm-%A_%a.log" in text
    assert slurm.describe_jobs(tmp_path / "a b%c")[0].startswith("Slurm job 7")
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o700


def test_jobs_that_slurm_refuses_leave_no_files(tmp_path, monkeypatch):
    programs = tmp_path / "bin"
    programs.mkdir()
    script(programs / "srun", "true")
    script(programs / "sbatch", "echo 'sbatch: error: invalid partition' >&2; exit 1")
    monkeypatch.setenv("PATH", str(programs), prepend=os.pathsep)
    jobs = array(tmp_path / "sweep", folder=str(tmp_path / "folder"))
    with pytest.raises(ValueError, match="Slurm refuses the jobs: .*invalid partition"):
        jobs.submit()
    assert not (tmp_path / "folder").exists()


def test_what_is_not_installed_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no sbatch here: .*--dry_run"):
        array(folder=str(tmp_path / "folder")).check()
    assert not (tmp_path / "folder").exists()
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ImportError, match="needs submitit: pip install"):
        array()


@pytest.fixture
def known(tmp_path, monkeypatch):
    """A sweep's directory with three arrays and files that are none; squeue in `bin`, alone."""
    (tmp_path / "jobs").mkdir()
    for job, size in (("7", 3), ("12", 2), ("5", 1)):
        slurm._remember(tmp_path, job, size)
    (tmp_path / "jobs" / "slurm-8.json").write_text("{")
    (tmp_path / "jobs" / "slurm-9.json").write_text('{"job": "9; ls", "size": 1, "at": ""}')
    (tmp_path / "bin").mkdir()
    (tmp_path / "logs").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return tmp_path


def answer(known, text):
    lines = textwrap.dedent(text).strip().replace("\n", "\\n")
    script(known / "bin" / "squeue", f"echo \"$@\" > {known / 'asked'}\nprintf '{lines}\\n'")


def test_status_says_what_became_of_the_jobs(known):
    answer(
        known,
        """
        12_0|PENDING|Priority
        12_1|RUNNING|None
        7_0|FAILED|NonZeroExitCode
        7_1|FAILED|NonZeroExitCode
        7_2|OUT_OF_MEMORY|OutOfMemory
        """,
    )
    for index in range(2):
        (known / "logs" / f"slurm-7_{index}.log").write_text("0/2 runs\nerror: no such data\nsrun:")
    assert slurm.describe_jobs(known) == [
        "Slurm job 5, 1 worker: 1 ended some time ago",
        "Slurm job 7, 3 workers: 2 failed, 1 out of memory",
        "  7_0 and 1 more failed: no such data",
        f"  7_2 failed: see {known}/logs/slurm-7_2.log",
        "Slurm job 12, 2 workers: 1 pending (Priority), 1 running",
    ]
    assert "--jobs=5,7,12" in (known / "asked").read_text()
    assert slurm.describe_jobs(known / "logs") == []  # of a sweep without jobs, not all there are


def test_status_says_when_it_cannot_know(known):
    script(known / "bin" / "squeue", "echo 'slurm_load_jobs error: Invalid job id' >&2; exit 1")
    assert len(slurm.describe_jobs(known)) == 3
    script(known / "bin" / "squeue", "echo 'error: Unable to contact controller' >&2; exit 1")
    [line] = slurm.describe_jobs(known)
    assert "5, 7, 12" in line and "state unknown" in line and "contact controller" in line


@pytest.mark.slow
def test_without_slurm_status_shows_the_workers_all_the_same(finished, call, tmp_path):
    workdir = finished[0]
    (workdir / "jobs").mkdir()
    note = {"job": "7", "size": 3, "at": "2026-11-29T00:00:00+00:00"}
    (workdir / "jobs" / "slurm-7.json").write_text(json.dumps(note))
    with storage.Claims(workdir) as claims:
        claims.claim_all(["a0"])
        claims.heartbeat("training")
        said = call("status", f"--workdir={workdir}", PATH=str(tmp_path))
    (workdir / "jobs" / "slurm-7.json").unlink()
    (workdir / "jobs").rmdir()
    assert said.returncode == 0, said.stderr
    worker = rf"Worker {claims.name}: training 1 run, last heartbeat \d:\d\d ago"
    assert re.search(worker, said.stdout), said.stdout
    assert "Slurm job 7: state unknown here, as there is no squeue on this machine." in said.stdout
