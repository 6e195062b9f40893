"""Measures the seconds to plan many runs, and to load, count and report their records.

The runs are those of experiments/digits.py with very many seeds; their records are made up.
"""

import math
import pathlib
import subprocess
import sys
import tempfile
import time

from experiments import digits
from experiments.benchmarks import machine, report
from noisegen import storage
from noisegen.sweeps.experiment import load_experiment

TITLE = "100,000 runs: planning, loading, status and report"
_GOALS = {
    "to plan": "< 5",
    "to load": "< 5",
    "to load, with curves": "",
    "of launch.status": "< 5",
    "of launch.report": "< 5",
}


def measure(options: machine.Options) -> dict:
    """Plans a grid; loads a record of each of its runs, with curves of 10 points and without."""
    config = digits.get_config()
    config.grid.seed = tuple(range(16 if options.quick else 1588))  # of 63 runs each
    experiment = load_experiment(digits.__file__)
    with tempfile.TemporaryDirectory() as workdir:
        sweep = experiment.get_sweep(config, workdir)
        with sweep.begun():  # writes sweep.json
            count = _write(workdir, sweep.state.wanted)
        timed = {
            "to plan": lambda: _counted(count, experiment.get_sweep(config).state.runs()),
            "to load": lambda: _counted(count, storage.read_records(workdir, curves=False)),
            "to load, with curves": lambda: _counted(count, storage.read_records(workdir)),
            "of launch.status": lambda: _command("status", workdir),
            "of launch.report": lambda: _command("report", workdir),
        }
        seconds = {name: [] for name in timed}
        for _ in range(options.rounds):
            for name, function in timed.items():
                started = time.perf_counter()
                function()
                seconds[name].append(round(time.perf_counter() - started, 4))
                machine.say(f"  {name}: {seconds[name][-1]:.2f} s")
    return {"count": count, "seconds": seconds}


def rows(record: dict) -> list[tuple[str, str, str]]:
    """Returns one row for each operation."""
    return [
        (f"{record['count']:,} runs, seconds {what}", report.spread(record["seconds"][what]), goal)
        for what, goal in _GOALS.items()
    ]


def _counted(count, found):
    """Checks that as much was found as there is."""
    if len(found) != count:
        raise RuntimeError(f"Expected {count} results, got {len(found)}.")


def _command(name, workdir):
    """Runs a command as a process of its own, imports included."""
    words = [sys.executable, "-m", f"launch.{name}", f"--workdir={workdir}"]
    env = machine.environment()
    subprocess.run(words, cwd=machine.ROOT, env=env, check=True, stdout=subprocess.DEVNULL)


def _write(workdir, runs):
    """Writes a record of each run as `RecordWriter` does, but waits for no disk; their number."""
    folder = pathlib.Path(workdir, "records")
    folder.mkdir(exist_ok=True)
    points = [0.123456789 + epoch for epoch in range(10)]
    curve = dict.fromkeys(("epoch", "update", "test_accuracy", "test_loss", "train_loss"), points)
    with open(folder / "benchmark.jsonl", "wb") as file:
        for name, run in runs.items():
            # Best at a learning rate of 2^-4, so that the grid need not grow.
            accuracy = 0.99 - 0.01 * abs(math.log2(run["learning_rate"]) + 4) - 1e-6 * run["seed"]
            metrics = {"test_accuracy": accuracy, "test_loss": 0.0456789, "train_loss": 0.0123456}
            record = storage.Record(
                run_id=name,
                hparams=run,
                status="finished",
                metrics=metrics,
                finished_at="2026",
                curve=curve,
            )
            file.write(record.to_json())
    return len(runs)
