"""Checks that an accelerator trains as the processor of the same machine does.

A few runs of each task are trained twice: on the first device that JAX prefers, and on the
processor, there with another microbatch, and the small network in other lanes. On a machine without
an accelerator both are the processor. Statuses and updates must be equal, accuracies (fractions)
and losses (nats) equal within `TOLERANCES`. Products are computed with the precision "highest", so
that float32 is float32; a network in bf16 rounds as it says.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from experiments.benchmarks import machine
from experiments.smith2020 import optimizers, table1, wide_resnet
from noisegen import data, models, tasks, training

TITLE = "Agreement of the accelerator with the processor"
TOLERANCES = {  # largest difference
    "float32": {"accuracy": 0.01, "loss": 1e-3},
    "bfloat16": {"accuracy": 0.05, "loss": 0.03},
}
_METRICS = ("test_accuracy", "test_loss", "train_loss")
_SIZES = (16, 48, 112, 256)  # less than a microbatch, more than one, none of them whole, many


def measure(options: machine.Options) -> dict:
    """Trains the runs of every task twice.

    Raises:
      RuntimeError: If the devices do not agree.
    """
    dtypes = () if options.quick else ("bfloat16", "float32")  # half a minute each to compile
    made = {"CNN, float32": _cnn()} | {f"WRN-10-1, {d}": _wide_resnet(d) for d in dtypes}
    compared = {}
    for name, (task, runs, lanes) in made.items():
        compared[name] = differences(name, *_train_twice(task, runs, lanes))
        machine.say(f"  {name}: {compared[name]}")
    return {"devices": [_name(device) for device in _devices()], "compared": compared}


def rows(record: dict) -> list[tuple[str, str, str]]:
    """Returns the largest differences of each task."""
    between = " and ".join(record["devices"])
    return [
        (
            f"{name}, largest difference in {what}, {between}",
            f"{largest:.2g}",
            f"<= {TOLERANCES[_dtype(name)][what]:g}",
        )
        for name, found in record["compared"].items()
        for what, largest in found.items()
    ]


def differences(
    name: str, results: Sequence[training.Result], others: Sequence[training.Result]
) -> dict[str, float]:
    """Returns the largest differences in accuracy and loss between two trainings of the same runs.

    Args:
      name: Name of the task, which ends with its dtype.
      results: Results of one training, in any order.
      others: Results of the other.

    Raises:
      RuntimeError: If a status or a number of updates differs, or a metric differs by more than the
        tolerance.
    """
    largest = {"accuracy": 0.0, "loss": 0.0}
    for one, other in zip(_ordered(results), _ordered(others), strict=True):
        ends = [(r.hparams, r.status, r.num_updates) for r in (one, other)]
        if ends[0] != ends[1]:
            raise RuntimeError(f"{name}: the devices do not agree: {ends[0]} and {ends[1]}.")
        if one.status == "finished":
            for metric in _METRICS:
                what = metric.rpartition("_")[2]
                apart = np.abs(np.subtract(one.curve[metric], other.curve[metric]))
                largest[what] = float(np.max([largest[what], *apart]))
    tolerances = TOLERANCES[_dtype(name)]
    # A nan agrees with nothing, hence not `any(... > ...)`.
    if not all(largest[what] <= most for what, most in tolerances.items()):
        raise RuntimeError(
            f"{name}: the devices do not agree: the largest differences are {largest}, expected at "
            f"most {tolerances}."
        )
    return largest


def _train_twice(task, runs, lanes):
    """Yields the results on either device; the first has several lanes."""
    speed = {"eval_batch": 60, "precision": "highest"}
    each = {"lanes": lanes, "microbatch": 32}, {"lanes": 1, "microbatch": 64}
    for device, chosen in zip(_devices(), each, strict=True):
        settings = training.PoolConfig(**speed, **chosen)
        yield list(training.Pool(task, settings, [device]).train(runs))


def _devices():
    """Returns the device that JAX prefers, and the processor. Without accelerator, both are it."""
    return jax.devices()[0], jax.devices("cpu")[-1]


def _name(device):
    return "processor" if device.platform == "cpu" else device.device_kind


def _dtype(name):
    return name.rpartition(", ")[2]


def _ordered(results):
    return sorted(results, key=lambda result: sorted(result.hparams.items()))


def _cnn():
    """Returns a small network without normalization; the last of its runs diverges at once."""
    task = tasks.image_classification(
        data.load("digits"), lambda rngs: models.SmallCNN(rngs=rngs), _sgd, name="agreement"
    )
    return task, [*_runs(0.1), *_runs(1e30)[-1:]], 3


def _wide_resnet(dtype):
    """Returns a network with ghost batches of 16, and augmentation."""
    config = table1.get_config("cpu")
    config.task.update(num_train=512, num_test=120, dtype=dtype)
    config.convolution = "lax"
    task = wide_resnet.make_task(config, _sgd, dataset=data.load("digits"))
    return dataclasses.replace(task, train_metrics=lambda *_: {}), _runs(0.02), 1


def _runs(learning_rate):
    """Returns runs of a few updates of each batch size, evaluated twice."""
    fixed = {"num_updates": 8, "num_evals": 2, "momentum": 0.9, "l2": 5e-4, "seed": 0}
    return [{"batch_size": size, "learning_rate": learning_rate, **fixed} for size in _SIZES]


def _sgd(hparams, key):
    del key  # no noise but that of the batches
    return optimizers.sgd(hparams["learning_rate"], hparams)
