"""What the experiments of the report share: the network, the batch sizes, the learning rates.

Readings, where the report leaves them open, are those of its authors' notebook: 6 and 16 filters,
ReLU and max pooling, PyTorch's initial weights, images normalised by mean and standard deviation,
the ragged last batch of an epoch kept (938 updates at batch size 64, 8 at 8192), no weight decay.
All batch sizes of a seed share their initial weights, as there. It has one run of each kind; here
are three.

The report draws its curves and prints none of their numbers: "published" are the last points of the
curves as its authors keep them beside that notebook (GitHub, clement1998/Opt_ML_project).
"""

import math
from collections.abc import Callable, Iterable, Mapping

import ml_collections
import optax

import noisegen
from noisegen import data, models, sweeps, tasks

RULES = {
    "fixed": noisegen.constant_rule,
    "square root": noisegen.square_root_rule,
    "linear": noisegen.linear_rule,
}
SIZES = sweeps.powers_of_two(64, 8192)


def make_config(learning_rate: float, **numbers: float) -> ml_collections.ConfigDict:
    """The config of an experiment.

    Args:
      learning_rate: at the base batch size, 64.
      **numbers: of the runs, for the optimizer.
    """
    config = ml_collections.ConfigDict()
    config.task = ml_collections.ConfigDict({"dataset": "mnist"})
    config.base = ml_collections.ConfigDict({"batch_size": 64, "learning_rate": learning_rate})
    run = {"num_epochs": 30.0, "last_batch": "keep", "eval_every": 1.0}
    config.run = ml_collections.ConfigDict(run | numbers)
    config.grid = ml_collections.ConfigDict({"seed": (0, 1, 2), "batch_size": SIZES})
    config.convolution = "auto"  # or "patches", "lax": speed only
    return config


def make_sgd_config(**numbers: float) -> ml_collections.ConfigDict:
    """The config of an experiment with SGD: without momentum or warm-up unless `numbers` say so."""
    plain = {"momentum": 0.0, "warmup_epochs": 0.0, "warmup_rise": 0.0}
    return make_config(0.01, **plain | numbers)


def make_task(config, make_optimizer, optimizer):
    """The task of an experiment; `optimizer` names the function that makes it."""

    def make_model(rngs):
        return models.LeNet5(convolution=config.convolution, rngs=rngs)

    return tasks.image_classification(
        data.load(config.task.dataset),
        make_model,
        make_optimizer,
        name=f"signer2021 {optimizer} {config.task.to_json(sort_keys=True)}",
    )


def get_task(config):
    """The task of all experiments with SGD."""
    return make_task(config, sgd, "SGD")


def sgd(hparams, key):
    """SGD, momentum on the gradients and not on the steps."""
    del key  # no noise but that of the batches
    return optax.sgd(warmed_up(hparams), hparams["momentum"])


def warmed_up(hparams: Mapping[str, float]) -> optax.Schedule:
    r"""The learning rate of every update: a warm-up in epochs, then the run's own.

    .. math::
      \eta_i = \begin{cases} \eta_0 + f \frac{i - 1}{w} (\eta - \eta_0) & i \le w \\
      \eta & i > w \end{cases}, \qquad i = 1, 2, \dots \text{ the epoch}

    Args:
      hparams: `learning_rate` :math:`\eta`; `base_learning_rate` :math:`\eta_0`, where the warm-up
        starts; `warmup_epochs` w, 0 for none; `warmup_rise` f, the part of the way that it covers
        before it jumps to :math:`\eta`: 1 for no jump, 0 for a constant warm-up;
        `updates_per_epoch`.

    Returns:
      A schedule: update index -> learning rate.
    """
    start, end = hparams["base_learning_rate"], hparams["learning_rate"]
    per_epoch = hparams["updates_per_epoch"]
    num_steps = hparams["warmup_epochs"] * per_epoch
    aim = start + hparams["warmup_rise"] * (end - start)
    then = noisegen.constant_warmup_schedule(
        aim, after=end, num_steps=num_steps
    )  # the jump from aim to end
    return noisegen.gradual_warmup_schedule(
        start, then, num_steps, num_steps_per_increment=per_epoch
    )


def scaled(config, batch_size: int, rule: Callable) -> float:
    """The learning rate that a rule gives a batch size."""
    base = config.base
    return noisegen.scale_learning_rate(base.learning_rate, batch_size, base.batch_size, rule)


def rule_points(config, *rules: Callable) -> list[dict[str, float]]:
    """Every batch size at the learning rate of each rule; where rules agree, once."""
    pairs = dict.fromkeys(
        (size, scaled(config, size, rule)) for rule in rules for size in config.grid.batch_size
    )
    return [{"batch_size": size, "learning_rate": rate} for size, rate in pairs]


def make_runs(config, points: Iterable[Mapping], **numbers: float) -> sweeps.Grid:
    """Runs at the points, sets of numbers, for every seed; one seed of everything comes first."""
    return sweeps.values(seed=config.grid.seed) * points * sweeps.fixed(**config.run, **numbers)


def sgd_runs(config, points: Iterable[Mapping]) -> sweeps.Grid:
    """`make_runs` with the number from which a warm-up starts."""
    return make_runs(config, points, base_learning_rate=config.base.learning_rate)


def get_protocol(config, **fields):
    """All seeds count; a rule is not tuned, so its grid never grows."""
    seeds = len(config.grid.seed)
    return sweeps.Protocol(best=seeds, of=seeds, **{"max_extensions": 0} | fields)


def rule_protocol(config):
    """A series for each rule; where they agree, at the base batch size, the run is in the first."""

    def label(run):
        rate, size = run["learning_rate"], run["batch_size"]
        found = (name for name in RULES if math.isclose(rate, scaled(config, size, RULES[name])))
        return next(found, "other")

    return get_protocol(config, series=label, labels=tuple(RULES))


def published(*accuracies: float) -> dict:
    """Final test accuracy in percent of every batch size, 64 first; one run, so no spread."""
    return {("", size): (value, None) for size, value in zip(SIZES, accuracies, strict=True)}
