"""Starts a program of `contenders/` and takes its answer."""

import json
import subprocess
import time
from collections.abc import Mapping

from experiments.benchmarks import machine
from noisegen.sweeps.machine import num_cores


def train(
    python: str,
    program: str,
    processes: int,
    spec: dict,
    *,
    accelerator: bool = False,
    variables: Mapping[str, str] | None = None,
) -> dict:
    """Trains the runs of the spec in some processes, which share them.

    Args:
      python: The interpreter.
      program: Module of `contenders`.
      processes: Number of processes, among which `spec["runs"]` are divided.
      spec: What to train, see `contenders.exchange.read_spec`.
      accelerator: Whether the processes may use an accelerator if there is one.
      variables: Environment variables of the processes, besides those of this one.

    Returns:
      The first process's answer with the `runs` of all, and `seconds` from the start to the end of
      the last run.

    Raises:
      ChildProcessError: If a process failed. Its own message is on stderr.
    """
    started = time.time()
    spec = spec | {"threads": num_cores() // processes, "started": started}
    shares = [spec | {"runs": spec["runs"][k::processes]} for k in range(processes)]
    platforms = {} if accelerator else {"JAX_PLATFORMS": "cpu"}
    changes = {"JAX_ENABLE_COMPILATION_CACHE": "false", **platforms, **(variables or {})}
    children = [_start(python, program, share, changes) for share in shares]
    try:
        answers = [_answer(child, program) for child in children]
    finally:
        for child in children:
            child.kill()
    seconds = max(answer["ended"] for answer in answers) - started
    runs = [run for answer in answers for run in answer["runs"]]
    return answers[0] | {"runs": runs, "seconds": round(seconds, 3)}


def _start(python, program, spec, changes):
    name = f"experiments.benchmarks.contenders.{program}"
    command = [python, "-m", name, json.dumps(spec)]
    environment = machine.environment(**changes)
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def _answer(child, program):
    output, _ = child.communicate()
    if child.returncode:
        raise ChildProcessError(f"{program} failed with exit code {child.returncode}, see above.")
    return json.loads(output.splitlines()[-1])
