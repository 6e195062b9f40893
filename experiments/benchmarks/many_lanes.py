"""Trains 256 LeNet-5 runs on MNIST in 256 lanes, against one run at a time.

The grid of `mnist` with 8 seeds: batch sizes from 64 to 8192 side by side, one epoch each, one
evaluation at the end of each. Both pools have the settings that their own probe chooses for the
number of lanes; compilation is left out. One run at a time trains one run of each batch size.
"""

import time

import jax

from experiments.benchmarks import images, machine, mnist, report
from experiments.benchmarks.contenders import noisegen_pool
from noisegen import training

TITLE = "LeNet-5 on MNIST: 256 runs in 256 lanes against one run at a time"
GOAL = 30


def measure(options: machine.Options) -> dict:
    """Trains all runs in as many lanes, and some of them in one lane, in turn."""
    if options.quick:
        sizes, rates, seeds, dataset = (64, 128), (0.1, 0.2), 1, images.noise(256, 64, 28, 1)
    else:
        sizes, rates, seeds = mnist.BATCH_SIZES, mnist.LEARNING_RATES, 8
        dataset = images.load("mnist")
    task = noisegen_pool.lenet5_task(dataset, momentum=0.5)
    grid = [(size, rate) for rate in rates for size in sizes]  # the first have all sizes
    runs = [run for seed in range(seeds) for run in noisegen_pool.make_runs(grid, seed)]
    shares = {"lanes": runs, "one": runs[: len(sizes)]}
    pools = {"lanes": _pool(task, runs, len(runs)), "one": _pool(task, shares["one"], 1)}
    rounds = [
        {name: rate(pools[name], share) for name, share in shares.items()}
        for _ in range(options.rounds)
    ]
    settings = {name: vars(pool.config) for name, pool in pools.items()}
    return {
        "source": dataset.description,
        "runs": {name: len(share) for name, share in shares.items()},
        "settings": settings,
        "images_per_second": rounds,
    }


def rows(record: dict) -> list[tuple[str, str, str]]:
    """Returns training images a second, evaluations included, and their ratio."""
    rounds = record["images_per_second"]
    table = []
    for name, count in record["runs"].items():
        settings = record["settings"][name]
        lanes, microbatch = settings["lanes"], settings["microbatch"]
        what = f"images/s, {count} runs, lanes: {lanes}, microbatch {microbatch}"
        table.append((what, report.spread([each[name] for each in rounds]), ""))
    ratios = [each["lanes"] / each["one"] for each in rounds]
    lanes = record["settings"]["lanes"]["lanes"]
    return [*table, (f"images/s, {lanes} lanes / 1", report.spread(ratios), f">= {GOAL}")]


def details(record: dict) -> str:
    """Says which images were used."""
    return f"Images: {record['source']}.\n"


def _pool(task, runs, lanes):
    """Returns a pool of one device with the settings that it chooses; it has compiled."""
    device = jax.devices()[:1]
    settings, _ = training.autotune(task, runs, device, lanes=lanes)
    pool = training.Pool(task, settings, device)
    shortest = max(run["batch_size"] for run in runs) / task.num_examples  # one update
    list(pool.train([run | {"num_epochs": shortest} for run in runs[:lanes]]))
    return pool


def rate(pool, runs):
    """Measures training images a second."""
    started = time.perf_counter()
    results = list(pool.train(runs))
    speed = sum(result.num_examples for result in results) / (time.perf_counter() - started)
    machine.say(f"  {pool.config.lanes} lanes, {len(runs)} runs: {speed:,.0f} images/s")
    return speed
