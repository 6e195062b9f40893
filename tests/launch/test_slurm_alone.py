"""What launching on Slurm does where there is none: a job's process, the checks, the status."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import types

import pytest

from launch import jobs, slurm, slurm_job
from noisegen import sweeps

ROOT = pathlib.Path(__file__).parents[2]

# A worker: writes down each signal that reaches it, and stops as a worker does at the first.
WORKER = """
import os, signal, sys, time
def note(number, _):
    print(signal.Signals(number).name, flush=True)
    time.sleep(0.3)  # keeps its runs; a second signal would be noted meanwhile
    sys.exit(130)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
    if signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, note)
print("worker", os.getpid(), flush=True)
time.sleep(60)
"""

# What submitit does with a job: it calls it, and has it checkpoint at SIGUSR2.
JOB = """
import signal, sys
from launch import slurm_job
job = slurm_job.Job(sys.argv[1:], ".", 20)
def requeue(*_):
    again = job.checkpoint()
    print("again", again.function.command == sys.argv[1:], flush=True)
    sys.exit(9)
signal.signal(signal.SIGUSR2, requeue)
job()
"""


def script(path, text):
    """Writes a program that can be run by its name."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def job(tmp_path, monkeypatch):
    """job(*command) starts a job that runs a command; squeue says what is in the file `state`."""
    script(tmp_path / "squeue", f"[ $3 = --jobs=7_3 ] && cat {tmp_path / 'state'}")
    script(tmp_path / "scontrol", 'echo "$@"')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    variables = {"JOB_ID": "7", "ARRAY_JOB_ID": "7", "ARRAY_TASK_ID": "3", "PROCID": "0"}
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    started = []

    def start(*command):
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", JOB, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("command", "code"), [("exit 0", 0), ("exit 1", 1), ("exit 130", 130), ("kill -9 $$", 137)]
)
def test_a_job_ends_as_its_worker_does(job, command, code):
    assert job("sh", "-c", command).wait(60) == code


def test_a_requeued_job_stops_its_worker_once_whoever_else_gets_the_signal(job):
    process = job(sys.executable, "-c", WORKER)
    _, worker = process.stdout.readline().split()
    os.kill(int(worker), signal.SIGUSR2)  # as Slurm signals all processes of a job
    process.send_signal(signal.SIGUSR2)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[0].split() == ["SIGINT", "again", "True"]
    assert process.returncode == 9


def test_a_signal_within_another_does_not_tell_the_worker_once_more():
    job, told = slurm_job.Job([], ".", 1), []

    def send_signal(number):
        told.append(number)
        if len(told) < 3:
            job._stop()  # as a signal that comes at this moment does

    job._worker = types.SimpleNamespace(send_signal=send_signal)
    job._stop()
    assert told == [signal.SIGINT]


@pytest.mark.parametrize(("state", "requeued"), [("RUNNING", "requeue 7_3\n"), ("CANCELLED", "")])
def test_a_job_that_is_told_to_end_is_requeued_unless_cancelled(job, tmp_path, state, requeued):
    (tmp_path / "state").write_text(f"{state}\n")
    process = job(sys.executable, "-c", WORKER)
    _, worker = process.stdout.readline().split()
    os.kill(int(worker), signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[0] == f"SIGINT\n{requeued}"
    assert process.returncode == 130


def test_only_the_first_process_of_a_worker_is_told(job, monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "1")
    process = job(sys.executable, "-c", WORKER)
    _, worker = process.stdout.readline().split()
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    os.kill(int(worker), signal.SIGINT)  # stands for what the first one tells it
    assert process.stdout.readline() == "SIGINT\n"
    with pytest.raises(subprocess.TimeoutExpired):  # as it would end the first one, too
        process.wait(1)


def array(workdir="sweep", **fields):
    defaults = {name: flag.default for name, flag in slurm.FLAGS.items()}
    return slurm.Array(defaults | fields, str(workdir))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"time": "4h"}, ["--slurm.time=4h", "hours:minutes:seconds", "4:00:00"]),
        ({"time": ""}, ["--slurm.time=", "4:00:00"]),
        ({"time": "2:00"}, ["--slurm.time=2:00", "120 seconds", "minutes and seconds"]),
        ({"folder": "sweep/jobs"}, ["--slurm.folder=", "lies in --workdir"]),
        ({"options": "-w n3"}, ["--slurm.options: '-w'", "--exclude=n3"]),
        ({"options": "'"}, ['--slurm.options: "\'"']),
    ],
)
def test_what_makes_no_sense_is_refused(fields, words):
    with pytest.raises(ValueError) as error:
        array(**fields)
    assert not [word for word in words if word not in str(error.value)], error.value


@pytest.mark.parametrize(
    ("time", "minutes"),
    [("30", 30), ("30:01", 31), ("4:00:00", 240), ("1-12", 2160), ("1-0:30", 1470), ("0:3:0", 3)],
)
def test_times_are_those_of_slurm(time, minutes):
    assert f"#SBATCH --time={minutes}\n" in array(time=time).text()


def test_fields_reach_sbatch(tmp_path):
    text = array(
        tmp_path / "a b%c",
        **{"array": 32, "array_parallelism": 8, "partition": "gpu", "gpus_per_node": 1},
        **{"cpus_per_task": 4, "mem": "16G", "account": "me", "qos": "low", "constraint": "h200"},
        **{"setup": "module load cuda", "options": "--exclude=n[1-2] --exclusive"},
    ).text()
    for line in """
        array=0-31%8|partition=gpu|gpus-per-node=1|cpus-per-task=4|mem=16G|account=me|qos=low
        constraint=h200|exclude='n[1-2]'|exclusive|requeue|signal=USR2@120|time=240|job-name=noisegen
    """.replace("\n", "|").split("|"):
        assert not line.strip() or f"#SBATCH --{line.strip()}\n" in text
    *_, setup, _, _, export, srun, _ = text.split("\n")
    assert setup == "module load cuda" and export == "export SUBMITIT_EXECUTOR=slurm"
    assert "--cpus-per-task=4" in srun and "a b%%c/logs/slurm-%A_%a.log'" in srun


def test_workers_of_several_processes_are_told_so():
    assert "--distributed=auto" not in array().command(0)
    assert array(nodes=2, array=3).command(1)[-3:] == [
        "--share=1/3",
        "--noreport",
        "--distributed=auto",
    ]
    assert array(ntasks_per_node=2).command(0)[-1] == "--distributed=auto"


def test_what_is_not_installed_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no sbatch here: .*--dry_run"):
        array(folder=str(tmp_path / "folder")).check()
    assert not (tmp_path / "folder").exists()
    monkeypatch.setitem(sys.modules, "submitit.slurm", None)
    with pytest.raises(ImportError, match="needs submitit: pip install"):
        array()


@pytest.fixture
def known(tmp_path, monkeypatch):
    """A sweep's directory with three arrays and things that are none; squeue in `bin`, alone."""
    for job, size in (("7", 3), ("12", 2), ("5", 1)):
        jobs.remember(tmp_path, job, size)
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
    assert jobs.describe(known) == [
        "Slurm job 5, 1 worker: 1 ended some time ago",
        "Slurm job 7, 3 workers: 2 failed, 1 out of memory",
        "  7_0 and 1 more failed: no such data",
        f"  7_2 failed: see {known}/logs/slurm-7_2.log",
        "Slurm job 12, 2 workers: 1 pending (Priority), 1 running",
    ]
    assert "--jobs=5,7,12" in (known / "asked").read_text()
    assert jobs.waiting(known) == ["12_0", "12_1"]
    assert jobs.waiting(known / "logs") == []  # of a sweep without jobs, not all there are


def test_status_says_when_it_cannot_know(known):
    script(known / "bin" / "squeue", "echo 'slurm_load_jobs error: Invalid job id' >&2; exit 1")
    assert len(jobs.describe(known)) == 3
    script(known / "bin" / "squeue", "echo 'error: Unable to contact controller' >&2; exit 1")
    assert jobs.describe(known) == [
        "Slurm job 5, 7, 12: state unknown here, as squeue does not answer: error: Unable to "
        "contact controller."
    ]
    assert jobs.waiting(known) == []


def test_without_slurm_status_shows_the_workers_all_the_same(finished, call, tmp_path):
    workdir = finished[0]
    jobs.remember(workdir, "7", 3)
    crew = sweeps.Crew(workdir)
    crew.claim("a0")
    crew.beat("training")
    said = call("status", f"--workdir={workdir}", PATH=str(tmp_path))
    crew.close()
    (workdir / "jobs" / "slurm-7.json").unlink()
    (workdir / "jobs").rmdir()
    assert said.returncode == 0, said.stderr
    assert f"Worker {crew.name}: training 1 run, heard of 0:0" in said.stdout
    assert "Slurm job 7: state unknown here, as there is no squeue on this machine." in said.stdout
