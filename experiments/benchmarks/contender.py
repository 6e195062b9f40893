"""Starts a program of `contenders/` and takes its answer."""

import json
import subprocess
import time

from experiments.benchmarks import machine


def train(module: str, python: str, runs: list, spec: dict, processes: int = 1) -> dict:
    """Has the runs trained, shared out among some processes.

    Returns:
      The first process's answer with the `runs` of all, and `seconds` from the start to the end of
      the last run.

    Raises:
      ChildProcessError: a process failed; what it said has gone to stderr.
    """
    started = time.time()
    spec = spec | {"threads": machine.cores() // processes, "started": started}
    children = [
        _start(module, python, spec | {"runs": runs[k::processes]}) for k in range(processes)
    ]
    try:
        answers = [_answer(child, module) for child in children]
    finally:
        for child in children:
            child.kill()
    seconds = max(answer["ended"] for answer in answers) - started
    runs = [run for answer in answers for run in answer["runs"]]
    return answers[0] | {"runs": runs, "seconds": round(seconds, 3)}


def _start(module, python, spec):
    name = f"experiments.benchmarks.contenders.{module}"
    environment = machine.environment(JAX_ENABLE_COMPILATION_CACHE="false")
    command = [python, "-m", name, json.dumps(spec)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def _answer(child, module):
    output, _ = child.communicate()
    if child.returncode:
        raise ChildProcessError(f"{module} failed with exit code {child.returncode}, see above.")
    return json.loads(output.splitlines()[-1])
