"""Measures the time of a run against its number of devices (run with `python -m`).

    python -m experiments.signer2021.devices --out=DIRECTORY

Measures the seconds that LeNet-5 takes for one epoch of MNIST and an evaluation, and the speed-up
over one device, for every batch size of the report and 1, 2, 4 ... of the devices here. Writes
DIRECTORY/devices.json and prints a table. Each device works on a part of the batch, and their
gradients are added once an update, so that more devices pay for large batches: the question of the
report's discussion. On a processor every core is a device.
"""

import argparse
import datetime
import json
import math
import pathlib

import jax

from experiments.signer2021 import figure1, scaling_rules
from launch import cli
from noisegen import training
from noisegen.sweeps import machine

MICROBATCH = 32  # examples at once on one device
HPARAMS = {
    "learning_rate": 0.01,
    "base_learning_rate": 0.01,
    "momentum": 0.0,
    "warmup_epochs": 0.0,
    "warmup_rise": 0.0,
}


def seconds_per_epoch(task: training.Task, batch_size: int, num_devices: int) -> float:
    """Returns the seconds that one epoch and an evaluation take, once all is compiled."""
    microbatch = min(MICROBATCH, math.ceil(batch_size / num_devices)) * num_devices
    settings = training.PoolConfig(
        microbatch=microbatch, batch_devices=num_devices, eval_batch=16 * num_devices
    )
    pool = training.Pool(task, settings)
    run = {"batch_size": batch_size, "seed": 0, "num_epochs": 1.0, "last_batch": "keep"} | HPARAMS
    next(pool.train([run]))  # compiles
    return next(pool.train([run])).seconds


def table(seconds: dict[int, dict[int, float]]) -> list[str]:
    """Returns a table in Markdown.

    >>> print(*table({64: {1: 2.0, 2: 1.0}}), sep="\\n")
    | batch size | 1 device | 2 devices |
    |---:|---:|---:|
    | 64 | 2.00 s | 1.00 s (2.0 x) |
    """
    counts = list(next(iter(seconds.values())))
    names = ["1 device" if count == 1 else f"{count} devices" for count in counts]
    lines = [f"| batch size | {' | '.join(names)} |", "|---:|" + "---:|" * len(counts)]
    for size, times in seconds.items():
        cells = [f"{times[1]:.2f} s"]
        cells += [f"{times[n]:.2f} s ({times[1] / times[n]:.1f} x)" for n in counts[1:]]
        lines.append(f"| {size} | {' | '.join(cells)} |")
    return lines


def main(out: str) -> None:
    """Measures, then writes and prints the times."""
    config = figure1.get_config()
    task = scaling_rules.make_task(config)
    counts = [2**k for k in range(len(jax.devices()).bit_length())]
    seconds = {
        size: {count: seconds_per_epoch(task, size, count) for count in counts}
        for size in config.grid.batch_size
    }
    record = {
        "seconds_per_epoch": seconds,
        "devices": machine.devices(),
        "processor": machine.processor(),
        "data": task.data_description,
        "date": datetime.date.today().isoformat(),
    }
    path = pathlib.Path(out, "devices.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    print("\n".join(table(seconds)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", metavar="DIRECTORY", required=True, help="of the record")
    given = parser.parse_args()
    cli.prepare_devices()
    main(given.out)
