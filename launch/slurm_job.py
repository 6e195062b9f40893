"""What runs in a Slurm job: a worker, which keeps its runs before Slurm ends the job.

Imports little: every job reads a `Job` that submitit wrote.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import submitit
from submitit import helpers

_POLL = 0.1  # seconds
_STOPPED = (130, -signal.SIGINT)  # exit codes of a worker that was told to stop
# Slurm's signals come to the worker too or not, as the cluster is configured, and the second one
# that reaches it would stop it at once. So it hears none of them, but this process's SIGINT.
_DEAF = ("sh", "-c", 'trap "" TERM USR2; exec "$@"', "sh")


class Job:
    """Starts a worker and waits for it; submitit calls it in the job.

    Before it preempts a job, Slurm sends SIGUSR2 or SIGTERM, as the cluster is configured; before
    the time limit SIGUSR2; when the job is cancelled SIGTERM. submitit takes care of SIGUSR2 only.
    Of a worker that is spread over several processes the first is told, and tells the others.

    Args:
      command: of the worker.
      directory: in which the command is given.
      grace: seconds in which a worker that has to stop keeps its runs.
    """

    _stopping = _told = False  # here, since jobs that an older version submitted lack the second

    def __init__(self, command: Sequence[str], directory: str, grace: float):
        self.command, self.directory, self.grace = list(command), directory, grace
        self._worker: subprocess.Popen | None = None

    def __call__(self) -> None:
        """Runs the worker; if it fails, the job ends with its exit code."""
        first = submitit.JobEnvironment().global_rank == 0
        signal.signal(signal.SIGTERM, lambda *_: first and self._stop())
        self._worker = subprocess.Popen(
            [*_DEAF, *self.command], cwd=self.directory, stdin=subprocess.DEVNULL
        )
        if self._stopping:  # since before it was known
            self._stop()
        while (code := self._worker.poll()) is None:  # a signal may come to a thread of numpy's,
            time.sleep(_POLL)  # and would leave this one in a `wait` without an end
        if code in _STOPPED and not first:
            time.sleep(
                self.grace
            )  # or the job would end before the first process has kept the runs
        if code in _STOPPED and self._stopping:
            _requeue()
        if code:
            sys.exit(code if code > 0 else 128 - code)  # as shells have it; submitit is silent then

    def checkpoint(self) -> helpers.DelayedSubmission:
        """Stops the worker, which keeps its runs; what is to be done when the job starts again."""
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # srun passes it on once more
        self._stop()
        deadline = time.monotonic() + self.grace
        while self._is_running() and time.monotonic() < deadline:
            time.sleep(_POLL)
        return helpers.DelayedSubmission(Job(self.command, self.directory, self.grace))

    def _stop(self):
        """Tells the worker to stop, once; another signal may come in between."""
        self._stopping = True
        if self._worker is not None and not self._told:
            self._told = True
            self._worker.send_signal(signal.SIGINT)

    def _is_running(self):
        """Returns whether the worker has yet to end; `poll` may be what is interrupted."""
        with contextlib.suppress(ChildProcessError):
            flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
            return self._worker is not None and not os.waitid(os.P_PID, self._worker.pid, flags)
        return False


def _requeue():
    """Has Slurm start this job anew, unless it was cancelled."""
    job = submitit.JobEnvironment()
    ask = ["squeue", "--noheader", "--format=%T", f"--jobs={job.job_id}"]
    if subprocess.run(ask, capture_output=True, text=True).stdout.strip() == "RUNNING":
        subprocess.run(["scontrol", "requeue", job.job_id])
