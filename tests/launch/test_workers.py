"""Several workers in one directory: started together, killed, stopped, hanging, launched twice."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from launch import local
from tests.launch.harness import (
    ONE_CORE,
    ONE_LANE,
    SECONDS,
    SMALL,
    TINY,
    command,
    metrics,
    num_lines,
    printed_report,
    running,
    tables,
    training,
    wait_until,
)

pytestmark = pytest.mark.slow  # Real processes are stopped and killed.

# The small sweep with longer runs, so that there is time to disturb it; a lane a worker.
FLAGS = (*SMALL, "--config.run.num_epochs=20.0", *ONE_LANE)


@pytest.fixture(scope="module")
def peace(call, tmp_path_factory):
    """The workdir of the sweep, trained without a disturbance, and what it printed."""
    workdir = tmp_path_factory.mktemp("peace") / "sweep"
    done = call("sweep", *FLAGS, f"--workdir={workdir}", **ONE_CORE)
    assert done.returncode == 0, done.stderr
    return workdir, done


@pytest.fixture
def start(environment):
    """start(*flags) begins a sweep in the background; it ends with the test."""
    with contextlib.ExitStack() as stack:

        def begin(*flags, **more):
            words = command("sweep", *flags)
            return stack.enter_context(running(words, environment | ONE_CORE | more))

        yield begin


@pytest.fixture
def flags(tmp_path):
    return (*FLAGS, f"--workdir={tmp_path / 'sweep'}")


def processes_of(workdir):
    """The processes whose command line names the directory."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            found += [path.parent.name] * (str(workdir).encode() in path.read_bytes())
    return found


def as_undisturbed(workdir, peace):
    assert metrics(workdir) == metrics(peace[0])
    assert tables(workdir) == tables(peace[0])


def test_a_worker_that_is_killed_is_started_again(start, finished, tmp_path):
    flags = (*TINY, f"--workdir={tmp_path / 'sweep'}")
    both = start(*flags, "--workers=2", JAX_NUM_CPU_DEVICES="2")
    wait_until(lambda: training(tmp_path / "sweep"), both)
    os.kill(training(tmp_path / "sweep")[0], signal.SIGKILL)
    stdout, stderr = both.communicate(timeout=SECONDS)
    assert both.returncode == 0, stderr
    assert printed_report(stdout) == printed_report(finished[1].stdout)
    assert "24/24 runs" in stderr.splitlines()[-1] and "The grid is extended" in stderr
    logs = {path.name for path in (tmp_path / "sweep" / "logs").iterdir()}
    assert logs == {"worker-0.log", "worker-1.log"} and not (tmp_path / "sweep/workers").exists()
    assert stderr.count("died with exit code -9 and is restarted") == 1
    as_undisturbed(tmp_path / "sweep", finished)


def test_a_worker_that_hangs_is_killed_and_its_runs_are_done(start, flags, peace, tmp_path):
    both = start(*flags, "--workers=2", "--heartbeat_timeout=3")
    wait_until(lambda: training(tmp_path / "sweep"), both)
    os.kill(training(tmp_path / "sweep")[0], signal.SIGSTOP)
    _, stderr = both.communicate(timeout=SECONDS)
    assert both.returncode == 0, stderr
    as_undisturbed(tmp_path / "sweep", peace)


def test_the_runs_of_one_that_hangs_elsewhere_are_done_by_others(start, flags, peace, tmp_path):
    workdir = tmp_path / "sweep"
    hanging = start(*flags, "--heartbeat_timeout=3")
    wait_until(lambda: training(workdir), hanging)
    hanging.send_signal(signal.SIGSTOP)
    other = start(*flags, "--heartbeat_timeout=3")
    other.communicate(timeout=SECONDS)
    assert other.returncode == 0
    as_undisturbed(workdir, peace)
    hanging.send_signal(signal.SIGCONT)  # and when it wakes up
    _, stderr = hanging.communicate(timeout=SECONDS)
    assert hanging.returncode == 0, stderr
    as_undisturbed(workdir, peace)


def test_two_launches_at_once_share_the_runs(start, flags, peace, tmp_path):
    pair = [start(*flags) for _ in range(2)]
    for process in pair:
        _, stderr = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, stderr
    as_undisturbed(tmp_path / "sweep", peace)
    assert num_lines(tmp_path / "sweep") == 24


def test_ctrl_c_stops_all_workers(start, flags, tmp_path):
    workdir = tmp_path / "sweep"
    both = start(*flags, "--workers=2")
    wait_until(lambda: training(workdir), both)
    assert len(processes_of(workdir)) >= 2  # this one and the first worker
    both.send_signal(signal.SIGINT)
    _, stderr = both.communicate(timeout=SECONDS)
    assert both.returncode == 130
    assert "give the same command again" in stderr and "--workers=2" in stderr
    assert "Traceback" not in stderr
    assert processes_of(workdir) == []
    assert not (workdir / "workers").exists()


def test_an_error_that_the_user_can_mend_ends_all_with_one_line(start, flags, tmp_path):
    both = start(*flags, "--workers=2")
    wait_until(lambda: (tmp_path / "sweep" / "sweep.json").exists(), both)
    records = tmp_path / "sweep" / "records"
    records.rmdir()
    records.write_text("")  # so that no record can be written
    _, stderr = both.communicate(timeout=SECONDS)
    assert both.returncode == 1
    last = stderr.splitlines()[-1]
    assert last.startswith("error: worker ") and str(tmp_path / "sweep") in last
    assert "Traceback" not in stderr


def test_a_worker_that_always_dies_is_given_up(start, flags, tmp_path):
    # A preloaded module that ends the workers, and them alone.
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "if 'launch.worker' in sys.orig_argv: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    both = start(*flags, "--workers=2", PYTHONPATH=str(tmp_path))
    _, stderr = both.communicate(timeout=SECONDS)
    assert both.returncode == 1
    assert stderr.splitlines()[-1].startswith("error: 12 runs left")
    assert stderr.count("and is restarted") == 6
    assert stderr.count("and is not restarted") == 2


@pytest.mark.parametrize("workers", ["0", "two"])
def test_a_number_of_workers_that_is_none_is_refused(call, flags, workers, tmp_path):
    done = call("sweep", *flags, f"--workers={workers}")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: --workers={workers} must be 'auto' or a number")
    assert not (tmp_path / "sweep").exists()


def test_cores_are_dealt_out_group_by_group():
    groups = [(0, 1, 2, 3), (4, 5, 6, 7)]
    assert local._deal(groups, 2) == groups
    assert local._deal(groups, 4) == [(0, 1), (2, 3), (4, 5), (6, 7)]
    assert local._deal(groups, 3) == [(0, 1, 2), (3, 4, 5), (6, 7)]
    assert local._deal([(0, 1)], 3) == [(0,), (1,), (0,)]
    assert local._deal([()], 3) == [(), (), ()]  # where cores cannot be chosen


def test_auto_is_a_worker_for_each_group_of_cores():
    found = local.detect_slots("auto")
    assert [core for slot in found for core in slot.cores] == sorted(os.sched_getaffinity(0))
    assert all(slot.environment == {} for slot in found)


@pytest.mark.parametrize("index, gpu", list(enumerate("5656")))
def test_accelerators_are_shown_one_by_one_and_shared_memory_is_split(monkeypatch, index, gpu):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,6")
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    found = local._accelerator(index, 4, 2)
    assert found["CUDA_VISIBLE_DEVICES"] == gpu
    assert found["XLA_CLIENT_MEM_FRACTION"] == "0.450"
    assert "XLA_CLIENT_MEM_FRACTION" not in local._accelerator(index, 2, 2)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.2")  # with both JAX raises
    assert "XLA_CLIENT_MEM_FRACTION" not in local._accelerator(index, 4, 2)


def test_cores_are_those_of_the_processes_started_meanwhile():
    mine = os.sched_getaffinity(0)
    code = "import json, os; print(json.dumps(sorted(os.sched_getaffinity(0))))"
    with local._on_cores((min(mine),)):
        process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert json.loads(process.stdout) == [min(mine)]
    assert os.sched_getaffinity(0) == mine
