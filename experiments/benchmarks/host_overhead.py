"""Measures the share of the time in which the device waits for the host.

Each finished run is written to the disk, as a sweep does.
"""

import tempfile
import time

from experiments import digits
from experiments.benchmarks import machine, mnist, report
from experiments.benchmarks.contenders import noisegen_pool
from noisegen import data, storage, training
from noisegen.sweeps import worker

TITLE = "Host overhead of the pool"


def measure(options: machine.Options) -> dict:
    """Trains some runs of each sweep twice in one pool; the second time counts."""
    config = digits.get_config()
    digits_task = digits.make_task(config)
    runs = [run for run in digits.get_sweep(config).planned if run["seed"] == 0]
    if options.quick:
        return {"digits": _measure(digits_task, runs[:2], options.rounds)}
    task = noisegen_pool.lenet5_task(data.load("mnist"), momentum=0.5)
    grid = [(size, 0.1) for size in mnist.BATCH_SIZES]
    return {
        "digits": _measure(digits_task, runs, options.rounds),
        "LeNet-5": _measure(task, noisegen_pool.make_runs(grid, seed=0), options.rounds),
    }


def rows(record: dict) -> list[tuple[str, str, str]]:
    """Returns one row for each sweep."""
    sweeps_measured = [name for name in ("digits", "LeNet-5") if name in record]
    return [
        (
            f"{name}, % of the time that the device waits",
            report.spread([100 * r["host_seconds"] / r["seconds"] for r in record[name]]),
            "< 3",
        )
        for name in sweeps_measured
    ]


def _measure(task, runs, rounds):
    """Measures the seconds, and those in which the device waited, of each time but the first."""
    settings, _ = training.autotune(task, runs)
    pool = training.Pool(task, settings)
    _train(pool, runs[: settings.lanes])
    return [_train(pool, runs) for _ in range(rounds)]


def _train(pool, runs):
    """Trains the runs and writes their records."""
    started, waited = time.perf_counter(), pool.host_seconds
    with tempfile.TemporaryDirectory() as workdir, storage.RecordWriter(workdir) as writer:
        for result in pool.train(runs):
            writer.append(worker.make_record(result, pool.config))
        seconds = time.perf_counter() - started
    machine.say(f"  {len(runs)} runs of {pool.task.name.split()[0]}: {seconds:.1f} s")
    return {"seconds": seconds, "host_seconds": pool.host_seconds - waited}
