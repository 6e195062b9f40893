"""Workers on a Slurm cluster: submits an array of jobs with submitit, one worker each.

    python -m launch.sweep --config=experiments/digits.py --workdir=sweeps/digits \\
        --launcher=slurm --workers=32 --slurm.partition=main --slurm.timeout_min=240

A job that is preempted, or at its time limit, checkpoints its runs and is requeued. The jobs
execute the files that submitit writes. These lie in a directory that only its user may write to,
and never in the directory of a sweep.
"""

import collections
import contextlib
import dataclasses
import datetime
import io
import json
import os
import pathlib
import re
import secrets
import shlex
import shutil
import signal
import stat
import subprocess
import time
from typing import Any

from noisegen import storage
from noisegen._text import count

from . import cli
from .driver import WorkerCommand

_MAX_TIMEOUTS = 10_000  # a sweep may be many times as long as a job
_SQUEUE_SECONDS = 20.0  # a busy controller may not answer at all
# States of jobs that may have left an error in their output.
_FAILED = ("FAILED", "OUT_OF_MEMORY", "NODE_FAIL", "TIMEOUT", "BOOT_FAIL", "DEADLINE")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SlurmConfig:
    """Options of Slurm jobs.

    Attributes:
      partition: Partition of the jobs.
      timeout_min: Time limit of a job, in minutes. A job that needs longer is requeued.
      nodes: Nodes of each worker.
      ntasks_per_node: Processes of each worker on each node.
      gpus_per_node: Accelerators of a job on each node.
      cpus_per_task: Processor cores of each process.
      mem: Memory of a job on each node, such as 16G.
      array_parallelism: Jobs that run at a time, by default all.
      setup: Shell command before each worker, such as 'module load cuda'.
      options: Further options of sbatch, such as '--account=me --exclude=n3'.
      signal_delay_s: Seconds before the time limit at which a job checkpoints its runs.
      folder: Directory of the files that the jobs execute, on a file system of all nodes.
    """

    partition: str | None = None
    timeout_min: int = 240
    nodes: int = 1
    ntasks_per_node: int = 1
    gpus_per_node: int | None = None
    cpus_per_task: int | None = None
    mem: str | None = None
    array_parallelism: int | None = None
    setup: str | None = None
    options: str = ""
    signal_delay_s: int = 120
    folder: str = "~/.noisegen/slurm"

    def __post_init__(self):
        if 60 * self.timeout_min <= self.signal_delay_s:
            raise cli.UsageError(
                f"--slurm.timeout_min={self.timeout_min} is no longer than the "
                f"{self.signal_delay_s} seconds (--slurm.signal_delay_s) in which a job "
                "checkpoints its runs: give more time."
            )


class SlurmArray:
    """An array of Slurm jobs that run a worker each.

    Args:
      command: The command of the workers.
      config: Options of the jobs.
      num_workers: Number of workers.

    Raises:
      UsageError: If an option makes no sense.
      ImportError: If submitit is not installed.
    """

    def __init__(self, command: WorkerCommand, config: SlurmConfig, num_workers: int):
        self._submitit = _submitit()
        self._command, self._num_workers = command, num_workers
        self._workdir = pathlib.Path(command.workdir).absolute()
        self._folder = _folder(config.folder, self._workdir)
        self._is_joined = config.nodes * config.ntasks_per_node > 1
        self._parameters = _parameters(config, self._workdir / "logs", num_workers)

    def describe(self) -> str:
        """Returns a description of the submission for --dry_run."""
        given = {name: value for name, value in self._parameters.items() if value is not None}
        lines = [f"Submits {count(self._num_workers, 'job')}, with submitit's parameters"]
        return "\n".join([*lines, *(f"  {name}={value!r}" for name, value in given.items())])

    def check(self) -> None:
        """Checks that jobs can be submitted from here.

        Raises:
          OSError: If there is no sbatch, or others may write to the folder.
        """
        if not (shutil.which("sbatch") and shutil.which("srun")):
            raise FileNotFoundError(
                "There is no sbatch here: give this command on a host from which jobs are "
                "submitted to Slurm, or see with --dry_run what would be submitted."
            )
        if not self._folder.exists():  # `submit` makes it
            return
        # Whoever can write there can have anything executed as this user.
        status = self._folder.stat()
        if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
            raise PermissionError(
                f"--slurm.folder={self._folder} holds what the jobs execute and is open to others: "
                f"make it yours alone with chmod 700 {self._folder}, or name another."
            )

    def submit(self) -> str:
        """Submits the jobs and notes them in the sweep's directory; returns the array's id.

        Raises:
          UsageError: If Slurm refuses them.
        """
        (self._workdir / "logs").mkdir(parents=True, exist_ok=True)
        is_new = not self._folder.exists()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.check()  # another process may have made it meanwhile
        folder = self._folder / secrets.token_hex(8)  # submitit would mix the files of two arrays
        jobs = [
            Job(self._command, index, self._num_workers, self._is_joined)
            for index in range(self._num_workers)
        ]
        try:
            executor = self._submitit.SlurmExecutor(folder, max_num_timeout=_MAX_TIMEOUTS)
            executor.update_parameters(**self._parameters)
            with contextlib.redirect_stderr(io.StringIO()):  # submitit shows sbatch's error twice
                submitted = executor.submit_array(jobs)
        except RuntimeError as error:  # the class of all errors of submitit
            shutil.rmtree(folder, ignore_errors=True)
            if is_new:
                with contextlib.suppress(OSError):  # another command may use it by now
                    self._folder.rmdir()
            said = [line for line in str(error).splitlines() if "error: " in line]
            raise cli.UsageError(
                f"Slurm refuses the jobs: {'; '.join(said) or error}; correct the --slurm flags, "
                "or give the command on a host from which `sinfo` works."
            ) from error
        job = submitted[0].job_id.partition("_")[0]  # that of the array is before the index
        _remember(self._workdir, job, self._num_workers)
        return job

    def logs(self, job: str) -> pathlib.Path:
        """Returns a pattern of the files for the output of an array's jobs."""
        array = "_*" if self._num_workers > 1 else ""
        return self._workdir / "logs" / f"slurm-{job}{array}.log"


class Job:
    """A worker in a Slurm job. submitit calls it, and calls `checkpoint` before it requeues it.

    Before it preempts a job, Slurm sends SIGUSR2 or SIGTERM, depending on the cluster. Before the
    time limit it sends SIGUSR2, and when the job is cancelled SIGTERM. The worker handles all of
    them: it checkpoints its runs and raises KeyboardInterrupt.

    Args:
      command: The command of the workers.
      index: Index of this worker.
      num_workers: Number of workers.
      is_joined: Whether the worker consists of several processes.
    """

    def __init__(self, command: WorkerCommand, index: int, num_workers: int, is_joined: bool):
        self.command, self.options = command, command.options_of(index, num_workers)
        self.is_joined = is_joined

    def __call__(self) -> None:
        cli.guarded(self._work)

    def checkpoint(self):
        """Returns the work of the requeued job, which is the same."""
        return _submitit().helpers.DelayedSubmission(self)

    def _work(self):
        from . import multihost, worker  # not needed to submit jobs

        environment = _submitit().JobEnvironment()
        if self.is_joined:
            multihost.join("auto")
        try:
            worker.work(self.command.workdir, self.command.experiment, self.options)
            # All is done. The signal of the time limit would now make the job a failed one.
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        except KeyboardInterrupt:
            if environment.global_rank > 0:
                # The job would end with this process, before the first one has requeued it.
                time.sleep(self.options["heartbeat_timeout"])
            elif _states([environment.job_id]).get(environment.job_id, ("",))[0] == "RUNNING":
                # It is not cancelled. submitit handles this signal, and handles no SIGTERM.
                signal.raise_signal(signal.SIGUSR2)
            raise


def describe_jobs(workdir: str | os.PathLike) -> list[str]:
    """Returns lines about a sweep's jobs: their states, and the errors of failed ones."""
    arrays = _submitted(pathlib.Path(workdir))
    if not arrays:
        return []
    try:
        states = _states(arrays)
    except OSError as error:
        return [f"Slurm job {', '.join(arrays)}: state unknown here, as {error}."]
    lines = []
    # The jobs of an array are named by its id and their index: 7_0, 7_1.
    for job, size in arrays.items():
        own = {name: state for name, state in states.items() if name.partition("_")[0] == job}
        numbers = collections.Counter(_in_words(*state) for state in own.values())
        if size > len(own):
            numbers["ended some time ago"] = size - len(own)
        listing = ", ".join(f"{number} {words}" for words, number in numbers.items())
        lines.append(f"Slurm job {job}, {count(size, 'worker')}: {listing}")
        lines += _failures(pathlib.Path(workdir), own)
    return lines


def _submitit():
    """Imports submitit, which is needed for Slurm only."""
    try:
        import submitit
        import submitit.helpers
    except ImportError as error:
        raise ImportError(
            "--launcher=slurm needs submitit: pip install submitit, or the extra [slurm]."
        ) from error
    return submitit


def _folder(text, workdir):
    """Returns the directory of the files that the jobs execute."""
    try:
        folder = pathlib.Path(text).expanduser().absolute()
    except RuntimeError:
        raise cli.UsageError(
            f"--slurm.folder={text}: there is no home directory here; name a directory of yours."
        ) from None
    for path in (folder, workdir):  # both are written into the script of the job
        if re.search(r"[\n\r\\]", str(path)):
            raise cli.UsageError(
                f"Slurm takes no path with a new line or a backslash: {str(path)!r}."
            )
    if folder.resolve().is_relative_to(workdir.resolve()):
        raise cli.UsageError(
            f"--slurm.folder={folder} lies in --workdir, from which nothing is ever executed: name "
            "another directory, shared with the nodes."
        )
    return folder


def _parameters(config, logs, num_workers) -> dict[str, Any]:
    """Returns the parameters of submitit's executor."""
    log = str(logs).replace("%", "%%") + f"/slurm-{'%A_%a' if num_workers > 1 else '%j'}.log"
    # A requeued job appends to its output. If one process of a worker dies, all of them end.
    srun = ["--output", log, "--open-mode=append", "--kill-on-bad-exit=1"]
    if config.cpus_per_task:  # srun does not inherit it since Slurm 22.05
        srun.append(f"--cpus-per-task={config.cpus_per_task}")
    parameters = {
        "job_name": "noisegen",
        "partition": config.partition,
        "time": config.timeout_min,
        "nodes": config.nodes,
        "ntasks_per_node": config.ntasks_per_node,
        "gpus_per_node": config.gpus_per_node,
        "cpus_per_task": config.cpus_per_task,
        "mem": config.mem,
        "signal_delay_s": config.signal_delay_s,
        "array_parallelism": config.array_parallelism or num_workers,
        "setup": [config.setup] if config.setup else None,
        "additional_parameters": {"output": log, "requeue": True, **_options(config.options)},
        "srun_args": srun,
        "stderr_to_stdout": True,
    }
    given = {name: value for name, value in parameters.items() if value is not None}
    return {**given, "wckey": None}  # submitit's default names itself, which some clusters refuse


def _options(text) -> dict[str, str | bool]:
    """Returns further options of sbatch by name."""
    try:
        words = shlex.split(text)
    except ValueError:  # a quotation without an end
        words = [text]
    options = {}
    for word in words:
        match = re.fullmatch(r"--([a-z][a-z-]*)(?:=(.*))?", word, re.DOTALL)
        if match is None:  # submitit writes the script, and takes long names only
            raise cli.UsageError(
                f"--slurm.options: {word!r} must be --name or --name=value, such as --exclude=n3."
            )
        # With underscores, as submitit's own names are, so that these replace them.
        options[match[1].replace("-", "_")] = True if match[2] is None else match[2]
    return options


def _remember(workdir, job, size):
    """Notes in a sweep's directory that jobs were submitted."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    (workdir / "jobs").mkdir(exist_ok=True)
    content = json.dumps({"job": job, "size": size, "at": now})
    storage.write_file(workdir / "jobs" / f"slurm-{job}.json", content + "\n")


def _submitted(workdir) -> dict[str, int]:
    """Returns the sizes of the arrays that were submitted for a sweep by id, the oldest first."""
    sizes = {}
    for path in (workdir / "jobs").glob("slurm-*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):  # no such note
            content = json.loads(path.read_text(encoding="utf-8"))
            # The id becomes an argument of squeue. Anyone who can write here may have written it.
            if re.fullmatch(r"\d+", content["job"]) and isinstance(content["size"], int):
                sizes[content["job"]] = content["size"]
    return dict(sorted(sizes.items(), key=lambda item: int(item[0])))


def _states(jobs) -> dict[str, tuple[str, str]]:
    """Returns the state of each job, and the reason of the state, by `job` or `job_index`.

    The jobs of submitit ask sacct, which knows nothing if a cluster keeps no accounts.

    Raises:
      OSError: If there is no Slurm here, or it does not answer.
    """
    if not shutil.which("squeue"):
        raise FileNotFoundError("there is no squeue on this machine")
    ask = ["squeue", "--array", "--noheader", "--states=all", "--format=%i|%T|%r"]
    try:
        asked = subprocess.run(
            [*ask, f"--jobs={','.join(jobs)}"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_SQUEUE_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"squeue does not answer within {_SQUEUE_SECONDS:.0f} s") from error
    # Slurm forgets jobs some minutes after their end. Then the id of a single one is invalid.
    if asked.returncode and "Invalid job id" not in asked.stderr:
        raise OSError(f"squeue does not answer: {asked.stderr.strip().partition(chr(10))[0]}")
    lines = [line.strip().split("|") for line in asked.stdout.splitlines()]
    return {line[0]: (line[1], line[2]) for line in lines if len(line) == 3}


def _in_words(state, reason):
    """Returns the state of a job in words. Only a waiting job has a reason worth showing."""
    words = state.lower().replace("_", " ")
    return f"{words} ({reason})" if state == "PENDING" else words


def _failures(workdir, states) -> list[str]:
    """Returns a line for each error of failed jobs."""
    # Jobs mostly fail alike, so each error is shown once.
    failed = collections.defaultdict(list)
    for name, (state, _) in sorted(states.items()):
        if state in _FAILED:
            failed[_last_error(workdir / "logs" / f"slurm-{name}.log")].append(name)
    lines = []
    for error, names in failed.items():
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        lines.append(f"  {names[0]}{others} failed: {error}")
    return lines


def _last_error(log):
    """Returns the last error in the output of a job, or the file of its output."""
    with contextlib.suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        if errors:
            return errors[-1].removeprefix("error: ")
    return f"see {log}"
