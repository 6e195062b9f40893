"""Seconds that many runs take to plan, and as many records to load."""

import json
import pathlib
import tempfile
import time

import numpy as np

from experiments.benchmarks import machine, report
from noisegen import sweeps, training

TITLE = "Planning and loading 100,000 runs"


def measure(options: machine.Options) -> dict:
    """Plans a grid; loads a record of each of its runs, with curves of 15 points and without."""
    seeds = 20 if options.quick else 2000
    task = _task()
    with tempfile.TemporaryDirectory() as workdir:
        count = _write(workdir, sweeps.by_run_id(task.name, _grid(seeds)))
        timed = {
            "plan": lambda: _plan(task, seeds),
            "load": lambda: sweeps.read(workdir, curves=False),
            "load, with curves": lambda: sweeps.read(workdir),
        }
        seconds = {name: [] for name in timed}
        for _ in range(options.rounds):
            for name, function in timed.items():
                seconds[name].append(_time(function, count))
                machine.say(f"  {name}: {seconds[name][-1]:.2f} s")
    return {"count": count, "seconds": seconds}


def rows(record: dict) -> list[tuple[str, str, str]]:
    """One row each for planning and loading."""
    return [
        (
            f"{record['count']:,} runs, seconds to {what}",
            report.spread(record["seconds"][what]),
            goal,
        )
        for what, goal in (("plan", "< 5"), ("load", "< 5"), ("load, with curves", ""))
    ]


def _time(function, count):
    """Seconds of a call that returns `count` things."""
    started = time.perf_counter()
    found = len(function())
    seconds = time.perf_counter() - started
    if found != count:
        raise RuntimeError(f"Expected {count} results, got {found}.")
    return round(seconds, 4)


def _grid(seeds):
    """A grid of 50 runs a seed."""
    sizes, rates = sweeps.powers_of_two(512, 8192), sweeps.powers_of_two(2**-9, 1)
    grid = sweeps.values(batch_size=sizes, learning_rate=rates, seed=range(seeds))
    return grid * sweeps.fixed(num_epochs=15, momentum=0.9, eval_every=1)


def _plan(task, seeds):
    """Grid, names and plans, as a sweep makes them before it trains."""
    runs = sweeps.by_run_id(task.name, _grid(seeds))
    return training.plan_runs(task, list(runs.values()))


def _task():
    """A task of MNIST's size that only plans."""
    arrays = {"x": np.zeros((60_000, 1), np.uint8)}
    functions = dict.fromkeys(("init", "loss", "metrics", "make_optimizer"))
    return training.Task(name="benchmark", train=arrays, test=arrays, **functions)


def _write(workdir, runs):
    """Writes a record of each run as `RecordWriter` does, but waits for no disk; their number."""
    folder = pathlib.Path(workdir, "records")
    folder.mkdir()
    points = [0.123456789 + epoch for epoch in range(15)]
    curve = dict.fromkeys(("epoch", "update", "test_accuracy", "test_loss", "train_loss"), points)
    metrics = {"test_accuracy": 0.987654321, "test_loss": 0.0456789, "train_loss": 0.0123456}
    with open(folder / "benchmark.jsonl", "w") as file:
        for name, run in runs.items():
            record = {"run_id": name, "run": run, "status": "finished", "metrics": metrics}
            file.write(json.dumps(record | {"finished_at": "2026", "curve": curve}) + "\n")
    return len(runs)
