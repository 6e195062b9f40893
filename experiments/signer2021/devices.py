"""Training time of one run against the number of devices that its batch is spread over.

    python -m experiments.signer2021.devices --out=DIRECTORY

For every batch size of the report and 1, 2, 4 ... of the devices here, the seconds that LeNet-5
takes for one epoch of MNIST and an evaluation, and the speed-up over one device; to
DIRECTORY/devices.json and as a table. The gradients of all devices are added once an update, and
each works on a part of the batch, so that more devices pay for large batches: what the report's
discussion asks about. On a processor every core is a device.
"""

import argparse
import datetime
import json
import pathlib

import jax

from experiments.signer2021 import common
from launch import command, machine
from noisegen import training
from noisegen._math import ceil_div

MICROBATCH = 32  # examples at once on one device
NUMBERS = {
    "learning_rate": 0.01,
    "base_learning_rate": 0.01,
    "momentum": 0.0,
    "warmup_epochs": 0.0,
    "warmup_rise": 0.0,
}


def seconds_per_epoch(task: training.Task, batch_size: int, num_devices: int) -> float:
    """Seconds that one epoch and an evaluation take, once all is compiled."""
    microbatch = min(MICROBATCH, ceil_div(batch_size, num_devices)) * num_devices
    settings = training.PoolConfig(
        microbatch=microbatch, batch_devices=num_devices, eval_batch=16 * num_devices
    )
    pool = training.Pool(task, settings)
    run = {"batch_size": batch_size, "seed": 0, "num_epochs": 1.0, "last_batch": "keep"} | NUMBERS
    _, second = (next(pool.train([run])) for _ in range(2))
    return second.seconds


def table(seconds: dict[int, dict[int, float]]) -> list[str]:
    """The lines of a table in Markdown.

    >>> print(*table({64: {1: 2.0, 2: 1.0}}), sep="\\n")
    | batch size | 1 device | 2 devices |
    |---:|---:|---:|
    | 64 | 2.00 s | 1.00 s (2.0 x) |
    """
    counts = list(next(iter(seconds.values())))
    names = [f"{count} device{'s' * (count > 1)}" for count in counts]
    lines = [f"| batch size | {' | '.join(names)} |", "|---:|" + "---:|" * len(counts)]
    for size, times in seconds.items():
        cells = [f"{times[1]:.2f} s"]
        cells += [f"{times[n]:.2f} s ({times[1] / times[n]:.1f} x)" for n in counts[1:]]
        lines.append(f"| {size} | {' | '.join(cells)} |")
    return lines


def main(out: str) -> None:
    """Measures, writes and prints."""
    config = common.make_sgd_config()
    task = common.get_task(config)
    counts = [2**k for k in range(len(jax.devices()).bit_length())]
    seconds = {
        size: {count: seconds_per_epoch(task, size, count) for count in counts}
        for size in config.grid.batch_size
    }
    record = {
        "seconds_per_epoch": seconds,
        "devices": machine.devices(),
        "processor": machine.processor(),
        "data": task.source,
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
    command.prepare_devices()
    main(given.out)
