"""Measures what it costs to read the data on the host while the device trains.

LeNet-5 on MNIST is trained twice with the same settings: with the data on the device, and read from
the host as if they did not fit. The two take turns, and their results must be equal to the bit.
"""

import dataclasses
import time

from experiments.benchmarks import images, machine, report
from experiments.benchmarks.contenders import noisegen_pool
from noisegen import training

TITLE = "Data on the host"
BATCH_SIZES = (64, 512, 4096)
GOAL = 1.05  # times as long as with the data on the device, at most

_PLACES = ("device", "host")


def measure(options: machine.Options) -> dict:
    """Trains the runs in both pools, `options.rounds` times in turn; compilation does not count."""
    dataset = images.noise(512, 256, 28, 1) if options.quick else images.load("mnist")
    task = noisegen_pool.lenet5_task(dataset, momentum=0.5)
    sizes = BATCH_SIZES[:1] if options.quick else BATCH_SIZES
    runs = noisegen_pool.make_runs([(size, 0.1) for size in sizes], seed=0)
    settings, _ = training.autotune(task, runs)
    pools = {
        place: training.Pool(task, dataclasses.replace(settings, data=place)) for place in _PLACES
    }
    results = {place: _train(pool, runs)[1] for place, pool in pools.items()}
    rounds = [
        {place: _train(pool, runs)[0] for place, pool in pools.items()}
        for _ in range(options.rounds)
    ]
    return {
        "source": dataset.description,
        "settings": vars(settings),
        "are_equal": results["device"] == results["host"],
        "rounds": rounds,
    }


def rows(record: dict) -> list[tuple[str, str, str]]:
    """Returns the ratio of the two times, and whether the results are equal."""
    ratios = [seconds["host"] / seconds["device"] for seconds in record["rounds"]]
    return [
        (
            "LeNet-5, time with data on the host / on the device",
            report.spread(ratios),
            f"<= {GOAL}",
        ),
        ("results equal to the last bit", "yes" if record["are_equal"] else "no", "yes"),
    ]


def _train(pool: training.Pool, runs: list[dict]) -> tuple[float, list[str]]:
    """Returns the seconds of the runs, and all that they resulted in."""
    started = time.perf_counter()
    results = list(pool.train(runs))
    seconds = time.perf_counter() - started
    machine.say(f"  data on the {pool.config.data}: {seconds:.1f} s")
    return seconds, sorted(repr(dataclasses.replace(result, seconds=0.0)) for result in results)
