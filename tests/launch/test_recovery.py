"""Whatever stops a sweep, the same command goes on, and the table is the same in the end."""

import os
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
import types

import pytest

from noisegen import storage
from tests.launch.harness import (
    LONG,
    ROOT,
    SECONDS,
    TINY,
    command,
    metrics,
    num_lines,
    printed_report,
    running,
    tables,
    wait_until,
)

pytestmark = pytest.mark.slow  # Real processes are stopped and killed.

QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

# Makes standard input the terminal whose Ctrl-C reaches this process, then becomes the command.
TAKE_TERMINAL = """
import fcntl, os, sys, termios

fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def interrupt_in_a_terminal(words, environment, workdir, count):
    """Runs a command in a terminal and types Ctrl-C after `count` records."""
    keyboard, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE_TERMINAL, *words],
        cwd=ROOT,
        env=environment | {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"},
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    shown, typed, deadline = b"", False, time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if not typed and num_lines(workdir) >= count:
            os.write(keyboard, b"\x03")
            typed = True
        if select.select([keyboard], [], [], 0.001)[0]:
            try:
                shown += os.read(keyboard, 1 << 16)
            except OSError:  # the other end is closed
                break
    os.close(keyboard)
    return types.SimpleNamespace(returncode=process.wait(SECONDS), shown=shown.decode())


@pytest.fixture(scope="module")
def ordeal(call, environment, tmp_path_factory):
    """The tiny sweep: Ctrl-C in a terminal, then kill -9, then a torn line, then the end."""
    workdir = tmp_path_factory.mktemp("ordeal") / "sweep"
    words = command("sweep", *TINY, f"--workdir={workdir}")
    to_be_measured = [word for word in words if not word.startswith("--pool.lanes_per_rare_step")]
    stopped = interrupt_in_a_terminal(to_be_measured, environment, workdir, 3)
    after_stop = metrics(workdir)

    with running(words, environment, **QUIET) as process:
        wait_until(lambda: num_lines(workdir) >= 14, process)  # of 24: the grid is extended
        process.send_signal(signal.SIGKILL)
        process.wait(SECONDS)
    after_kill = num_lines(workdir)

    file = max(workdir.glob("records/*.jsonl"), key=os.path.getsize)
    file.write_bytes(file.read_bytes()[:-100])
    last = call("sweep", *TINY, f"--workdir={workdir}")
    return types.SimpleNamespace(**locals())


def test_ctrl_c_stops_with_the_exit_code_of_shells_and_says_how_to_go_on(ordeal):
    assert ordeal.stopped.returncode == 130
    *_, how, again = ordeal.stopped.shown.replace("\r", "").strip().splitlines()
    assert "give the same command again" in how and str(ordeal.workdir) in how
    assert shlex.split(again) == ordeal.to_be_measured
    assert "Traceback" not in ordeal.stopped.shown
    assert 3 <= len(ordeal.after_stop) < 24


def test_a_terminal_shows_a_panel(ordeal):
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", ordeal.stopped.shown)
    panels = shown.split("╭")
    assert "How large can the batch be?" in panels[1]
    assert "0/12 runs, choosing fast settings" in shown
    assert "0/12 runs, compiling for 2 lanes, microbatch 16" in shown
    assert re.search(r"\d+/12 runs, [\d,]+ examples/s, \d:\d\d left", panels[-1])
    assert re.search(r"batch size +test accuracy \(%\) +(best )?learning rate", panels[-1])
    assert re.search(r"\b64 +\d\d\.\d\d.* \(\d\) ", panels[-1])
    assert "\x1b[?25h" in ordeal.stopped.shown  # the cursor is back


def test_kill_loses_no_finished_run(ordeal):
    assert 14 <= ordeal.after_kill < 24
    kept = metrics(ordeal.workdir)
    assert all(kept[name] == found for name, found in ordeal.after_stop.items())


def test_a_torn_line_is_one_warning_and_its_run_is_done_again(ordeal):
    warning, *progress = ordeal.last.stderr.splitlines()
    assert re.fullmatch("warning: skipped 1 line .* not a whole record.* repeat runs .*", warning)
    assert str(ordeal.workdir / "records") in warning
    assert not [line for line in progress if "warning" in line]
    assert re.match(rf"{ordeal.after_kill - 1}/\d\d runs, compiling", progress[0])


def test_in_the_end_everything_is_as_without_the_ordeal(ordeal, finished):
    workdir, done = finished
    assert ordeal.last.returncode == 0
    assert metrics(ordeal.workdir) == metrics(workdir)
    assert len(tables(workdir)) == 1
    assert tables(ordeal.workdir) == tables(workdir)
    assert printed_report(ordeal.last.stdout) == printed_report(done.stdout)


def test_a_killed_run_goes_on_from_its_checkpoint_and_ends_the_same(call, environment, tmp_path):
    flags = (*LONG, "--checkpoint_minutes=0.003")
    words = command("sweep", *flags, f"--workdir={tmp_path / 'killed'}")
    with running(words, environment, **QUIET) as process:
        wait_until(lambda: any(tmp_path.glob("killed/checkpoints/*/[0-9]")), process)
        process.send_signal(signal.SIGKILL)
        process.wait(SECONDS)
    assert num_lines(tmp_path / "killed") == 0

    again = call("sweep", *flags, f"--workdir={tmp_path / 'killed'}")
    assert "2 of 2 runs resume from a checkpoint" in again.stderr, again.stderr
    assert not any(word in again.stderr for word in ("warning", "skipped", "orbax", "Manager"))
    whole = call("sweep", *LONG, f"--workdir={tmp_path / 'whole'}")
    assert "checkpoint" not in whole.stderr
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole") != {}
    assert not any(path.match("checkpoints") for path in tmp_path.glob("*/*"))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own with room for about ten records, and a function that enlarges it."""
    path = tmp_path / "disk"
    path.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("no mount command, so no small file system")
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(path)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount a small file system: {done.stderr.strip()}")
    enlarge = ["mount", "-o", "remount,size=8m", str(path)]
    yield path, lambda: subprocess.run(enlarge, check=True)
    subprocess.run(["umount", str(path)], check=True)


def test_a_full_disk_stops_the_sweep_and_loses_nothing(small_disk, call, finished):
    disk, enlarge = small_disk
    workdir = disk / "sweep"
    stopped = call("sweep", *TINY, f"--workdir={workdir}")
    kept = num_lines(workdir)
    assert stopped.returncode == 1
    assert "Traceback" not in stopped.stderr
    line = stopped.stderr.splitlines()[-1]
    assert line.startswith("error: could not write a record to ")
    assert "No space left on device; free space" in line and str(workdir) in line
    assert 3 <= kept < 24

    enlarge()
    done = call("sweep", *TINY, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    assert re.search(rf"^{kept}/\d\d runs, compiling", done.stderr, re.MULTILINE)
    assert tables(workdir) == tables(finished[0])
    assert metrics(workdir) == metrics(finished[0])


def test_a_directory_that_becomes_read_only_stops_the_sweep_and_loses_nothing(
    small_disk, call, finished
):
    disk, enlarge = small_disk
    enlarge()
    flags = (*TINY, f"--workdir={disk / 'sweep'}")
    shutil.copytree(finished[0], disk / "sweep")
    [file] = (disk / "sweep" / "records").iterdir()
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:20]))
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    stopped = call("sweep", *flags)
    assert stopped.returncode == 1
    line = stopped.stderr.splitlines()[-1]
    assert line.startswith("error: could not write") and "Read-only file system" in line
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert num_lines(disk / "sweep") == 20
    assert call("sweep", *flags).returncode == 0
    assert tables(disk / "sweep") == tables(finished[0])


def test_a_damaged_data_cache_is_rebuilt(made_mnist, call, tmp_path):
    flags = (
        "--config=experiments/additive_noise/table1.py",
        "--config.grid.batch_size=(99,)",  # too large: the command ends once it has the data
        f"--workdir={tmp_path / 'sweep'}",
    )
    places = {"TFDS_DATA_DIR": made_mnist, "NOISEGEN_CACHE_DIR": str(tmp_path / "cache")}
    first = call("sweep", *flags, **places)
    assert first.stderr.startswith("error: batch_size=99 must be"), first.stderr
    [array] = tmp_path.glob("cache/mnist-*/train_image.npy")
    sound = array.read_bytes()
    array.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    again = call("sweep", *flags, **places)
    warning, error = again.stderr.splitlines()
    assert warning.startswith("warning: corrupt data cache, rebuilt: ") and str(array) in warning
    assert error == first.stderr.strip()
    assert array.read_bytes() == sound


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of the workdir of the tiny sweep, to be damaged."""
    shutil.copytree(finished[0], tmp_path / "sweep")
    return tmp_path / "sweep"


def test_damaged_parameters_are_trained_again(call, finished, copy):
    path = sorted(copy.glob("params/*.npz"))[5]
    whole = path.read_bytes()
    path.write_bytes(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
    done = call("sweep", *TINY, "--keep_params", f"--workdir={copy}")
    assert done.returncode == 0, done.stderr
    [warning] = [line for line in done.stderr.splitlines() if line.startswith("warning")]
    assert str(path) in warning and "is damaged" in warning and "trained again" in warning
    assert num_lines(copy) == 25  # of 24 runs
    assert storage.damaged_params(copy, [path.stem]) == []
    assert metrics(copy) == metrics(finished[0])
    assert tables(copy) == tables(finished[0])


def test_a_record_that_has_changed_is_named_and_its_run_done_again(call, finished, copy):
    [file] = copy.glob("records/*.jsonl")
    lines = file.read_bytes().splitlines(keepends=True)
    lines[6] = re.sub(rb'"learning_rate": [\d.]+', b'"learning_rate": 1.0', lines[6])
    file.write_bytes(b"".join(lines))
    warning = re.compile(r"warning: skipped 1 line .* changed since .* line 7; .*")
    for module in ("status", "report"):
        done = call(module, f"--workdir={copy}")
        assert done.returncode == 0 and warning.fullmatch(done.stderr.splitlines()[0]), done.stderr
    assert f"{file.name} line 7" in done.stderr
    done = call("sweep", *TINY, f"--workdir={copy}")
    assert done.returncode == 0 and warning.fullmatch(done.stderr.splitlines()[0]), done.stderr
    assert num_lines(copy) == 25
    assert tables(copy) == tables(finished[0])
