"""Standard streams that are closed, broken or of few letters fail no command."""

import errno
import os
import subprocess
import sys

import pytest

from tests.launch.harness import ROOT

# Prints a table's letters, and a good deal more than a pipe holds; then says that all is done.
PROGRAM = """
import pathlib, sys
from launch import cli
def main(argv):
    cli.show("0.3 ± 0.1 – 2×2 → 3·2")
    print("α")
    opened = open(sys.argv[1], "w")
    print("x" * 200_000)
    print("warning", file=sys.stderr)
    opened.write(f"done {min(opened.fileno(), 3)}")
    opened.close()
cli.run(main)
"""
FAILING = """
import os, socket
from launch import cli
def main(argv):
    one, other = socket.socketpair()
    other.close()
    one.send(b"x")
cli.run(main)
"""


def run(tmp_path, program=PROGRAM, closed=(), **streams):
    """Runs a program whose standard streams are as given; what it wrote is in `done`."""
    words = " ".join([f"{number}>&-" for number in closed])
    shell = f'exec "$0" -c "$1" "$2" {words}'
    command = ["sh", "-c", shell, sys.executable, program, str(tmp_path / "done")]
    variables = {"PYTHONPATH": str(ROOT), "NOISEGEN_CACHE_DIR": str(tmp_path / "cache")}
    variables |= streams.pop("environment", {})
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    return subprocess.run(command, env=os.environ | variables, **pipes, timeout=100)


def is_done(tmp_path):
    return (tmp_path / "done").read_text() == "done 3"  # no stream's number is a file's


@pytest.mark.slow
@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_closed_streams_lead_nowhere(tmp_path, closed):
    done = run(tmp_path, closed=closed)
    assert done.returncode == 0 and b"Traceback" not in done.stderr
    assert is_done(tmp_path)


def test_a_full_disk_is_named_once_all_is_done(tmp_path):
    with open("/dev/full", "w") as full:
        done = run(tmp_path, stdout=full)
    assert done.returncode == 1 and is_done(tmp_path)
    *_, said = done.stderr.decode().splitlines()
    cause = os.strerror(errno.ENOSPC)
    assert said.startswith("error: ") and cause in said


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_reader_that_has_seen_enough_ends_nothing(tmp_path, name):
    enough, write = os.pipe()
    os.close(enough)
    done = run(tmp_path, **{name: write})
    os.close(write)
    assert done.returncode == (name == "stdout") and is_done(tmp_path)
    assert name == "stderr" or done.stderr == b"warning\n"


def test_the_broken_pipe_of_something_else_is_not_taken_for_that_of_standard_output(tmp_path):
    done = run(tmp_path, FAILING)
    assert done.returncode == 1 and b"Broken" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoding", "line"),
    [
        ("ascii", b"0.3 +- 0.1 - 2x2 -> 3*2"),
        ("latin-1", b"0.3 \xb1 0.1 - 2\xd72 -> 3\xb72"),
    ],
)
def test_letters_that_a_terminal_lacks_are_replaced(tmp_path, encoding, line):
    done = run(tmp_path, environment={"PYTHONIOENCODING": encoding})
    assert done.returncode == 0 and done.stdout.splitlines()[0] == line
