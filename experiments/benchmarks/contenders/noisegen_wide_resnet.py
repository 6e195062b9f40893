"""Measures images a second of the pool training a Wide-ResNet, one run at a time."""

import dataclasses
import math
import time
from collections.abc import Mapping
from typing import Any

import jax

from experiments.benchmarks.contenders import exchange, noisegen_pool
from experiments.smith2020 import optimizers, table1, wide_resnet
from launch import cli
from noisegen import data, training


def main() -> None:
    """Measures every setting of the spec."""
    spec = exchange.read_spec()
    cli.prepare_devices()
    dataset = noisegen_pool.load(spec["images"], spec["mean"], spec["std"])
    runs = [measure(spec, dataset, settings) for settings in spec["runs"]]
    exchange.answer(runs, num_parameters=num_parameters(spec, dataset))


def make_task(spec: Mapping[str, Any], dataset: data.Dataset, dtype: str, convolution: str):
    """Returns the task of the paper, at a constant learning rate and without its evaluations."""
    config = table1.get_config(spec["scale"])
    config.task.update(spec["task"], dtype=dtype)
    config.convolution = convolution

    def make_optimizer(hparams, key):
        del key  # The only noise is that of the batches.
        return optimizers.sgd(hparams["learning_rate"], hparams)

    task = wide_resnet.make_task(config, make_optimizer, dataset=dataset)
    return dataclasses.replace(task, metrics=lambda *_: {}, train_metrics=lambda *_: {})


def make_run(spec: Mapping[str, Any], batch_size: int, num_updates: int) -> dict[str, Any]:
    """Returns the hyperparameters of a run."""
    numbers = {name: spec[name] for name in ("learning_rate", "momentum", "l2", "seed")}
    return numbers | {"batch_size": batch_size, "num_updates": num_updates}


def measure(spec: Mapping[str, Any], dataset: data.Dataset, settings: dict[str, Any]) -> dict:
    """Measures images a second and mean loss by batch size, with one compiled program."""
    done = settings | {"speeds": {}, "losses": {}}
    task = make_task(spec, dataset, settings["dtype"], settings["convolution"])
    pool = training.Pool(task, training.PoolConfig(microbatch=settings["microbatch"]))
    started = time.perf_counter()
    try:
        list(pool.train([make_run(spec, spec["batch_sizes"][0], 1)]))
        done["first_seconds"] = time.perf_counter() - started
        for size in spec["batch_sizes"]:
            if size >= settings["microbatch"]:
                each = [_time(pool, spec, size) for _ in range(spec["rounds"])]
                done["speeds"][size], losses = zip(*each, strict=True)
                done["losses"][size] = losses[0]
    except jax.errors.JaxRuntimeError as error:
        done["failed"] = str(error).splitlines()[0]
    exchange.say(f"noisegen {done}")
    return done


def num_parameters(spec: Mapping[str, Any], dataset: data.Dataset) -> int:
    """Numbers that training changes by their gradients."""
    task = make_task(spec, dataset, "float32", "lax")
    params, _ = jax.eval_shape(task.init, jax.random.key(0))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def _time(pool, spec, batch_size):
    """Measures images a second of one run, and its mean loss."""
    started = time.perf_counter()
    (result,) = pool.train([make_run(spec, batch_size, spec["num_examples"] // batch_size)])
    seconds = time.perf_counter() - started
    return result.num_examples / seconds, result.metrics["train_loss"]


if __name__ == "__main__":
    main()
