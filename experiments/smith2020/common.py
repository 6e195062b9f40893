"""What the experiments of the paper share: scales, protocol, schedule.

Readings, where the paper leaves them open: L2 regularisation is of all parameters, with the
gradient `l2 * w`, before momentum; batches are consecutive examples of one stream of epochs, each
in a new order; the training loss is the mean, in training mode and without the L2 term, over the
last twentieth of the updates, in which the learning rate is constant.
"""

from collections.abc import Mapping
from typing import Any

import ml_collections
import optax

import noisegen
from experiments.scales import at_scale
from noisegen import sweeps


def make_config(
    scale: str,
    tasks: Mapping[str, Mapping[str, Any]],
    by_scale: Mapping[str, Mapping[str, Any]],
    **fields,
) -> ml_collections.ConfigDict:
    """The config of an experiment at one of its scales.

    Args:
      scale: "paper", "gpu" or "cpu".
      tasks: for each scale the fields of the task.
      by_scale: for each scale the number of `seeds`, how many of them are the `best` that count,
        and numbers of the runs: tuples of them span the grid.
      **fields: of the config itself; `gpu_examples_per_second` of one H200 prices a dry run.

    Raises:
      ValueError: there is no such scale.
    """
    task = at_scale(scale, tasks)
    numbers = dict(by_scale[scale])
    grid = {"seed": tuple(range(numbers.pop("seeds")))}
    run = {"momentum": 0.9, "l2": 0.0, "gamma": 2.0, "num_evals": 20}
    config = {"task": task, "run": run, "grid": grid, "best": numbers.pop("best")} | fields
    for name, value in numbers.items():
        (grid if isinstance(value, tuple) else run)[name] = value
    return ml_collections.ConfigDict(config)


def get_runs(config):
    """One seed of everything comes first."""
    grid = config.grid
    order = ["seed", *(name for name in grid if name != "seed")]
    fixed = {name: value for name, value in config.run.items() if name not in grid}
    return sweeps.values(**{name: grid[name] for name in order}) * sweeps.fixed(**fixed)


def get_protocol(config, **fields):
    fields = {"tune": ("effective_learning_rate",), "report": ("train_loss",)} | fields
    return sweeps.Protocol(best=config.best, of=len(config.grid.seed), **fields)


def task_name(fields: ml_collections.ConfigDict) -> str:
    """The identity of a task with these fields."""
    return f"smith2020 {fields.to_json(sort_keys=True)}"


def hold_then_halve(hparams, key):
    """The optimizer of nearly all of the paper's runs."""
    del key  # no noise but that of the batches
    learning_rate = noisegen.learning_rate_from_effective(
        hparams["effective_learning_rate"], hparams["momentum"]
    )
    decay_rate = 1 / hparams["gamma"]  # the paper's gamma divides
    schedule = noisegen.hold_then_decay_schedule(learning_rate, hparams["num_updates"], decay_rate)
    return sgd(schedule, hparams)


def sgd(schedule, hparams):
    """SGD with momentum, and with L2 regularisation in the loss."""
    return optax.chain(
        optax.add_decayed_weights(hparams["l2"]), optax.sgd(schedule, hparams["momentum"])
    )
