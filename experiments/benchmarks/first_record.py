"""Measures the seconds from the command to the first record of the embedded sweep.

Counted from the start of the process to the first whole line on the disk, with an empty compilation
cache and again with the one that the first leaves.
"""

import pathlib
import subprocess
import sys
import tempfile
import time

from experiments.benchmarks import machine, report

TITLE = "From the command to the first record, experiments/digits.py"


def measure(options: machine.Options) -> dict:
    """Starts the sweep with a cold cache and with a warm one, in turn."""
    seconds = {"cold": [], "warm": []}
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            for cache in seconds:
                seconds[cache].append(_seconds(folder, f"{folder}/{cache}", options.quick))
                machine.say(f"  {cache} cache: {seconds[cache][-1]:.1f} s")
    return {"seconds": seconds}


def rows(record: dict) -> list[tuple[str, str, str]]:
    """Returns one row for each state of the cache."""
    seconds = record["seconds"].items()
    return [(f"seconds, {cache} compilation cache", report.spread(s), "") for cache, s in seconds]


def _seconds(folder, workdir, quick):
    """Starts a sweep and stops it at its first record."""
    command = ["-m", "launch.sweep", "--config=experiments/digits.py", f"--workdir={workdir}"]
    command += ["--config.run.num_epochs=3.0"] * quick
    # JAX's own variable would override noisegen's.
    environment = machine.environment(NOISEGEN_CACHE_DIR=folder, JAX_COMPILATION_CACHE_DIR=None)
    started = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, *command],
        cwd=machine.ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not _has_record(workdir):
            if child.poll() is not None:
                raise ChildProcessError(f"python {' '.join(command)} ended without a record.")
            time.sleep(0.005)
        return round(time.perf_counter() - started, 3)
    finally:
        child.kill()
        child.wait()


def _has_record(workdir):
    """Returns whether a line is complete."""
    files = pathlib.Path(workdir).glob("records/*.jsonl")
    return any(b"\n" in file.read_bytes() for file in files)
