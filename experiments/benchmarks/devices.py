"""Trains LeNet-5 on one device and on two, with lanes or a batch over the devices.

On a processor the devices are its cores, and their sums go through memory: this says what the
program costs beside the arithmetic, not what a network between devices would.
"""

import jax

from experiments.benchmarks import images, machine, many_lanes, report
from experiments.benchmarks.contenders import noisegen_pool
from launch import cli
from noisegen import training

TITLE = "LeNet-5 on MNIST: one device and two"
_SIZES = (64, 1024, 8192)


def measure(options: machine.Options) -> dict:
    """Trains runs of each batch size on one device, and in both ways on two, in turn."""
    if len(jax.devices()) < 2:
        raise cli.UsageError("--parts=devices: needs two devices or more.")
    quick = options.quick
    sizes = _SIZES[:1] if quick else _SIZES
    task = noisegen_pool.lenet5_task(
        images.noise(256, 64, 28, 1) if quick else images.load("mnist"), momentum=0.5
    )
    spread = {
        "one device": training.PoolConfig(microbatch=32, eval_batch=16),
        "lanes over two": training.PoolConfig(
            lanes=2, lane_devices=2, microbatch=32, eval_batch=16
        ),
        "batch over two": training.PoolConfig(batch_devices=2, microbatch=64, eval_batch=32),
    }
    pools = {name: training.Pool(task, settings) for name, settings in spread.items()}
    rounds = []
    for _ in range(options.rounds + 1):  # the first compiles
        rounds.append(
            {
                name: {size: many_lanes.rate(pool, _runs(size)) for size in sizes}
                for name, pool in pools.items()
            }
        )
    return {"images_per_second": rounds[1:]}


def rows(record: dict) -> list[tuple[str, str, str]]:
    """Returns the speed on two devices over that on one; 2 would be no loss."""
    rounds = record["images_per_second"]
    table = []
    for name in ("lanes over two", "batch over two"):
        for size in rounds[0]["one device"]:
            ratios = [speeds[name][size] / speeds["one device"][size] for speeds in rounds]
            what = f"images/s, {name}, over one device: batch size {size}"
            table.append((what, report.spread(ratios), ""))
    return table


def _runs(size):
    """Returns two runs, which two lanes train side by side."""
    return [run for seed in (0, 1) for run in noisegen_pool.make_runs([(size, 0.1)], seed)]
