"""What a Ray task does: it runs a command, which ends with the task.

Sent to the nodes by value, it needs nothing there but Python and its own library.
"""

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence

_POLL = 0.1  # seconds; a cancelled task is interrupted between two looks
_GRACE = 40.0  # seconds in which a command that has to stop keeps its runs
_TAIL = 1 << 20  # bytes; what is measured has settings for each batch size, perhaps


def run(
    command: Sequence[str], directory: str, environment: Mapping[str, str], log: str | None
) -> str:
    """Runs a command until it ends, or this task is cancelled, or its process or node dies.

    The command's standard input is a pipe that ends with this process, whatever ends it; the
    command is to stop when it does (`launch.command.stop_with_input`).

    Args:
      command: its words.
      directory: in which it runs.
      environment: variables beside those that Ray gives the task.
      log: file to which what it prints is appended, if any.

    Returns:
      Its last line: of one that ended well, or the "error: ..." that the user can mend.

    Raises:
      RuntimeError: it ended in another way, and Ray may try again.
    """
    try:
        with open(log, "a+b") if log else tempfile.TemporaryFile() as out:
            process = _start(command, directory, environment, out)
            code, last = _wait(process), _last_line(out)
    except OSError as error:
        return (
            f"error: {socket.gethostname()}: {error}; every node must see this directory, Python "
            "and --workdir under the same names"
        )
    if code == 0 or (code == 1 and last.startswith("error: ")):
        return last
    raise RuntimeError(f"exit code {code} on {socket.gethostname()}: {last}")


def _start(command, directory, environment, out):
    return subprocess.Popen(
        command,
        cwd=directory,
        env=os.environ | environment,
        stdin=subprocess.PIPE,
        stdout=out,
        stderr=out,
        start_new_session=True,  # so that nothing but its input stops it
    )


def _wait(process):
    """The exit code; a task that is cancelled, or whose node is lost, has the command stop."""
    node = os.getppid()
    try:
        while process.poll() is None:
            if os.getppid() != node:  # Ray's own process for the node, which a task may outlive
                raise RuntimeError(f"the node of Ray on {socket.gethostname()} is gone")
            time.sleep(_POLL)
    finally:
        process.stdin.close()
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.returncode


def _last_line(out):
    out.seek(max(0, out.seek(0, os.SEEK_END) - _TAIL))
    return out.read().decode(errors="replace").strip().rpartition("\n")[2]
