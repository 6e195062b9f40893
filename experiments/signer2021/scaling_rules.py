"""LeNet-5 on MNIST with the learning rates that scaling rules give.

Readings, when the report leaves them open, are those of its authors' notebook: 6 and 16 filters,
ReLU and max pooling, PyTorch's initial weights, images normalized by mean and standard deviation,
the ragged last batch of an epoch kept (938 updates at batch size 64, 8 at 8192), no weight decay.
All batch sizes of a seed share their initial weights, as there. It has one run of each kind; here
are three.

The report draws its curves and prints none of their numbers: "published" are the last points of the
curves as its authors keep them beside that notebook (GitHub, clement1998/Opt_ML_project).
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ml_collections
import optax

import noisegen
from noisegen import data, models, sweeps, tasks, training

RULES = {
    "fixed": noisegen.constant_rule,
    "square root": noisegen.square_root_rule,
    "linear": noisegen.linear_rule,
}
SIZES = sweeps.powers_of_two(64, 8192)


def sgd(hparams: Mapping[str, Any], key: Any) -> optax.GradientTransformation:
    """Returns SGD, with momentum on the gradients and not on the steps."""
    del key  # The only noise is that of the batches.
    return optax.sgd(warmed_up(hparams), hparams["momentum"])


def make_task(
    config: ml_collections.ConfigDict,
    make_optimizer: Callable[..., Any] = sgd,
    optimizer_name: str = "SGD",
) -> training.Task:
    """Returns the task of an experiment.

    Args:
      config: Config of the experiment.
      make_optimizer: Optimizer of a run.
      optimizer_name: Name of this optimizer, which is part of every run's identity.
    """

    def make_model(rngs):
        return models.LeNet5(convolution=config.convolution, rngs=rngs)

    return tasks.image_classification(
        data.load(config.task.dataset),
        make_model,
        make_optimizer,
        name=f"signer2021 {optimizer_name} {config.task.to_json(sort_keys=True)}",
    )


def warmed_up(hparams: Mapping[str, Any]) -> optax.Schedule:
    """Returns the learning rate of every update: a warm-up in epochs, then the run's own.

    In epoch i = 1, 2, ... it is

        rate_i = base + rise * (i - 1) / w * (rate - base)   if i <= w
        rate_i = rate                                        if i > w

    where `rate` is the run's `learning_rate`, `base` its `base_learning_rate`, at which the warm-up
    starts, and `w` its `warmup_epochs`, 0 for no warm-up. `rise` is its `warmup_rise`, the part of
    the way that the warm-up covers before it jumps to `rate`: 1 for no jump, 0 for a constant
    warm-up.

    Args:
      hparams: Hyperparameters of a run, with `updates_per_epoch`.
    """
    start, end = hparams["base_learning_rate"], hparams["learning_rate"]
    per_epoch = hparams["updates_per_epoch"]
    num_steps = hparams["warmup_epochs"] * per_epoch
    aim = start + hparams["warmup_rise"] * (end - start)
    # The jump from aim to end.
    then = noisegen.constant_warmup_schedule(aim, after=end, num_steps=num_steps)
    return noisegen.gradual_warmup_schedule(
        start, then, num_steps, num_steps_per_increment=per_epoch
    )


def scaled(
    config: ml_collections.ConfigDict, batch_size: int, rule: Callable[[float], float]
) -> float:
    """Returns the learning rate that a rule gives a batch size."""
    base = config.base
    return noisegen.scale_learning_rate(base.learning_rate, batch_size, base.batch_size, rule)


def rule_points(
    config: ml_collections.ConfigDict, *rules: Callable[[float], float]
) -> list[dict[str, float]]:
    """Returns every batch size at the learning rate of each rule; once if rules agree."""
    points = []
    for rule in rules:
        for batch_size in config.grid.batch_size:
            learning_rate = scaled(config, batch_size, rule)
            point = {"batch_size": batch_size, "learning_rate": learning_rate}
            if point not in points:
                points.append(point)
    return points


def make_runs(
    config: ml_collections.ConfigDict, points: Iterable[Mapping[str, float]], **fixed: float
) -> sweeps.Grid:
    """Returns runs at the points for every seed; one seed of everything comes first.

    Args:
      config: Config of the experiment.
      points: Hyperparameters in which the runs differ.
      **fixed: Hyperparameters of all runs, in addition to the config's group `run`.
    """
    return sweeps.grid(seed=config.grid.seed) * points * sweeps.fixed(**config.run, **fixed)


def make_sgd_runs(
    config: ml_collections.ConfigDict, points: Iterable[Mapping[str, float]]
) -> sweeps.Grid:
    """Returns `make_runs` with the learning rate at which a warm-up starts."""
    return make_runs(config, points, base_learning_rate=config.base.learning_rate)


def make_protocol(config: ml_collections.ConfigDict, **fields: Any) -> sweeps.Protocol:
    """Returns a protocol in which all seeds count and the grid is not extended.

    Args:
      config: Config of the experiment.
      **fields: Further fields of the protocol.
    """
    num_seeds = len(config.grid.seed)
    # A rule is not tuned, so there is nothing to extend.
    return sweeps.Protocol(**{"best": num_seeds, "of": num_seeds, "max_extensions": 0} | fields)


def make_rule_protocol(config: ml_collections.ConfigDict) -> sweeps.Protocol:
    """Returns a protocol with a series for each rule.

    At the base batch size, where the rules agree, the run is in the first series.
    """

    def label(run):
        for name, rule in RULES.items():
            if math.isclose(run["learning_rate"], scaled(config, run["batch_size"], rule)):
                return name
        return "other"

    return make_protocol(config, series=label, labels=tuple(RULES))


def published(*accuracies: float) -> dict[tuple[str, int], tuple[float, None]]:
    """Returns published final test accuracies as a table, without spread, as each is of one run.

    Args:
      *accuracies: Test accuracy of every batch size, 64 first, in percent.
    """
    return {("", size): (value, None) for size, value in zip(SIZES, accuracies, strict=True)}
