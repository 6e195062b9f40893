"""Workers on a Slurm cluster: an array of jobs, submitted with submitit, one worker each.

    python -m launch.sweep --config=experiments/digits.py --workdir=sweeps/digits \\
        --launcher=slurm --slurm.partition=main --slurm.array=32 --slurm.time=4:00:00

A job that is preempted or at its time limit keeps its runs, is requeued and goes on with its share.
What submitit writes is executed by the jobs, so it lies in a directory that only its user may write
to, and never in that of the sweep.
"""

import contextlib
import io
import os
import pathlib
import re
import shlex
import shutil
import stat
import sys
from collections.abc import Mapping
from typing import Any

from absl import flags

from launch import command, jobs
from noisegen._math import ceil_div

_REQUEUES = 10_000  # at the time limit: a sweep may be many times as long
_MARGIN = 30  # seconds before the time limit at which a job asks to be requeued, at the latest
_AS_IN_SBATCH = (
    *("account", "constraint", "cpus_per_task", "gpus_per_node", "job_name", "mem", "nodes"),
    *("ntasks_per_node", "partition", "qos", "signal_delay_s"),
)
_TIMES = (
    r"(?P<minutes>\d+)(:(?P<seconds>\d+))?",
    r"(?P<hours>\d+):(?P<minutes>\d+):(?P<seconds>\d+)",
    r"(?P<days>\d+)-(?P<hours>\d+)(:(?P<minutes>\d+)(:(?P<seconds>\d+))?)?",
)
_SECONDS = {"days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}

# Of each flag: its default, for numbers the least, what it is.
_TEXTS = {
    "time": ("4:00:00", "Longest time of a job, as Slurm has it; a job that needs more goes on."),
    "partition": (None, "As of sbatch."),
    "account": (None, "As of sbatch."),
    "qos": (None, "As of sbatch."),
    "constraint": (None, "As of sbatch."),
    "mem": (None, "Memory of a node, such as 16G."),
    "job_name": ("noisegen", "Name of the jobs."),
    "setup": (None, "Shell command that comes before each worker."),
    "options": ("", "Further options of sbatch, such as '--exclude=n3 --exclusive'."),
    "folder": ("~/.noisegen/slurm", "Directory of what the jobs execute: yours alone, shared."),
}
_NUMBERS = {
    "array": (1, 1, "Number of workers, each a job of the array."),
    "array_parallelism": (None, 1, "How many of them run at a time; by default all."),
    "nodes": (1, 1, "Nodes of each worker."),
    "ntasks_per_node": (1, 1, "Processes of each worker on each node."),
    "gpus_per_node": (None, 0, "As of sbatch."),
    "cpus_per_task": (None, 1, "As of sbatch."),
    "signal_delay_s": (120, _MARGIN + 1, "Seconds before the time limit at which a job stops."),
}
FLAGS = {
    name: flags.DEFINE_string(f"slurm.{name}", default, words)
    for name, (default, words) in _TEXTS.items()
} | {
    name: flags.DEFINE_integer(f"slurm.{name}", default, words, lower_bound=least)
    for name, (default, least, words) in _NUMBERS.items()
}


class Array:
    """An array of Slurm jobs, each of which runs one worker.

    Args:
      fields: values of all `FLAGS`, by name.
      workdir: the directory of the sweep.

    Raises:
      ValueError: a field makes no sense.
      ImportError: submitit is not installed.
    """

    def __init__(self, fields: Mapping[str, Any], workdir: str):
        self._size, self._workdir = fields["array"], pathlib.Path(workdir)
        self._folder = _folder(fields["folder"])
        self._submitit = _submitit()
        _check(fields, self._folder, self._workdir)
        self._grace = fields["signal_delay_s"] - _MARGIN
        self._distributed = fields["nodes"] * fields["ntasks_per_node"] > 1
        self._parameters = _parameters(fields, self._workdir.absolute() / "logs")

    def text(self) -> str:
        """What sbatch would be given."""
        return self._submitit._make_sbatch_string(
            command=f"{shlex.quote(sys.executable)} -u -m submitit.core._submit "
            f"{shlex.quote(str(self._folder))}",
            folder=self._folder,
            map_count=self._size if self._size > 1 else None,
            **self._parameters,
        )

    def command(self, index: int | str) -> list[str]:
        """What the job with this index runs."""
        spread = ["--distributed=auto"] * self._distributed
        return command.worker(f"--share={index}/{self._size}", "--noreport", *spread)

    def logs(self, job: str) -> pathlib.Path:
        """The files, as a pattern, that what a job prints goes to."""
        return self._workdir / "logs" / f"slurm-{job}{'_*' * (self._size > 1)}.log"

    def check(self) -> None:
        """Checks that the jobs could be submitted from here.

        Raises:
          OSError: there is no sbatch, or the folder is not the user's own.
        """
        if not (shutil.which("sbatch") and shutil.which("srun")):
            raise FileNotFoundError(
                "There is no sbatch here: give this command where jobs are submitted to Slurm, "
                "or see with --dry_run what would be submitted."
            )
        if not self._folder.exists():  # `submit` makes it
            return
        found = self._folder.stat()
        if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise PermissionError(
                f"--slurm.folder={self._folder} holds what the jobs execute and is open to others: "
                f"make it yours alone with chmod 700 {self._folder}, or name another."
            )

    def submit(self) -> str:
        """Submits the jobs and notes them in the sweep's directory; returns the job's id.

        Raises:
          ValueError: Slurm refuses them.
        """
        from launch import slurm_job  # imports submitit

        (self._workdir / "logs").mkdir(parents=True, exist_ok=True)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.check()  # another may have made it since
        before = set(self._folder.iterdir())
        executor = self._submitit.SlurmExecutor(self._folder, max_num_timeout=_REQUEUES)
        executor.update_parameters(**self._parameters)
        here = os.getcwd()
        calls = [slurm_job.Job(self.command(i), here, self._grace) for i in range(self._size)]
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # else sbatch's words come twice
                submitted = executor.submit_array(calls)
        except RuntimeError as error:  # of which all of submitit's are
            self._clear(before)
            said = [line for line in str(error).splitlines() if "error: " in line]
            raise ValueError(
                f"Slurm refuses the jobs: {'; '.join(said) or error}; mend the --slurm flags, or "
                "give the command on a host from which `sinfo` works."
            ) from error
        job = submitted[0].job_id.partition("_")[0]
        jobs.remember(self._workdir, job, self._size)
        return job

    def _clear(self, before):
        """Removes what submitit wrote for jobs of this sweep that Slurm refuses."""
        sweep = str(self._workdir).encode()
        for path in set(self._folder.iterdir()) - before:
            if path.is_file() and sweep in path.read_bytes():
                path.unlink()
        if not before:
            with contextlib.suppress(OSError):  # another's jobs have begun to use it
                self._folder.rmdir()


def _submitit():
    """The part of submitit for Slurm."""
    try:
        from submitit.slurm import slurm
    except ImportError as error:
        raise ImportError(
            "--launcher=slurm needs submitit: pip install 'submitit>=1.5,<1.6' does it, and so "
            "does the extra [slurm]."
        ) from error
    return slurm


def _folder(text):
    """Returns the directory of the files that the jobs execute."""
    try:
        return pathlib.Path(text).expanduser().absolute()
    except RuntimeError:
        raise ValueError(
            f"--slurm.folder={text}: there is no home directory here; name a directory of yours."
        ) from None


def _check(fields, folder, workdir):
    """Refuses what makes no sense before Slurm is asked."""
    for name, path in (("slurm.folder", folder), ("workdir", workdir.absolute())):
        if any(letter in str(path) for letter in "\n\r\\"):
            raise ValueError(
                f"--{name}={str(path)!r}: Slurm takes no path with a new line or a backslash; "
                "name another directory."
            )
    if _minutes(fields["time"]) * 60 <= fields["signal_delay_s"]:
        raise ValueError(
            f"--slurm.time={fields['time']} is no longer than the {fields['signal_delay_s']} "
            "seconds (--slurm.signal_delay_s) in which a job ends: give more time. As everywhere "
            "in Slurm, 4:00 are minutes and seconds, 4:00:00 are hours."
        )
    if folder.resolve().is_relative_to(workdir.resolve()):
        raise ValueError(
            f"--slurm.folder={folder} lies in --workdir, from which nothing is ever executed: "
            "name another directory, shared with the nodes."
        )


def _parameters(fields, logs) -> dict[str, Any]:
    """The jobs as submitit's executor is told of them."""
    log = str(logs).replace("%", "%%") + f"/slurm-{'%A_%a' if fields['array'] > 1 else '%j'}.log"
    srun = ["--output", log, "--open-mode=append", "--kill-on-bad-exit=1"]
    if fields["cpus_per_task"]:  # of which srun has not been told since Slurm 22.05
        srun.append(f"--cpus-per-task={fields['cpus_per_task']}")
    return {name: fields[name] for name in _AS_IN_SBATCH if fields[name] is not None} | {
        "time": _minutes(fields["time"]),
        "array_parallelism": fields["array_parallelism"] or fields["array"],
        "setup": [fields["setup"]] if fields["setup"] else None,
        "additional_parameters": {"output": log, "requeue": True, **_options(fields["options"])},
        "srun_args": srun,
        "stderr_to_stdout": True,
        "wckey": None,
    }


def _minutes(text):
    """Minutes of a time as Slurm has it, rounded up."""
    found = next(filter(None, (re.fullmatch(form, text) for form in _TIMES)), None)
    if found is None:
        raise ValueError(
            f"--slurm.time={text} must be minutes, minutes:seconds, hours:minutes:seconds or "
            "days-hours, such as 4:00:00."
        )
    given = found.groupdict()
    return ceil_div(sum(int(given[name] or 0) * _SECONDS[name] for name in given), 60)


def _options(text):
    """Further options of sbatch, by name."""
    try:
        words = shlex.split(text)
    except ValueError:  # a quotation that is left open
        words = [text]
    if wrong := [word for word in words if not re.fullmatch(r"--[a-z][a-z-]*(=.*)?", word)]:
        raise ValueError(
            f"--slurm.options: {wrong[0]!r} must be --name or --name=value, such as --exclude=n3."
        )
    pairs = (word[2:].partition("=") for word in words)
    return {name: value if equals else True for name, equals, value in pairs}
