"""What the comparisons share: kinds of runs, networks, data.

A large batch gets what it lacks of a small one, the reference, in several ways: none of it; normal
noise whose size is tuned (as the draft "Even larger batch size with additive gradient noise" does);
normal noise of the measured size, equal in every coordinate (isotropic) or of each coordinate's own
(diagonal); the whole covariance, by random weights on the examples; or a larger learning rate by
the linear or the square-root rule. All of it is numbers of the runs, so that one program trains
them side by side.
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

import noisegen
from experiments.scales import at_scale
from noisegen import data, models, sweeps, tasks

MATCHED = ("isotropic", "diagonal", "full")
RULES = {"linear rule": 1.0, "square-root rule": 0.5}
LABELS = ("small batch", "no noise", "tuned noise", *MATCHED, *RULES)
_PLAIN = {"eta": 0.0, "scaling": 0.0} | dict.fromkeys(MATCHED, 0)


def make_config(scale: str, by_scale: Mapping[str, Mapping[str, Any]], **run: float):
    """The config of a comparison.

    Args:
      scale: "gpu" or "cpu".
      by_scale: for each scale the groups `task`, `base` (batch size and learning rate of the
        reference, good for each other) and `grid` of the config, and numbers of the `run`.
      **run: numbers of all runs.

    Raises:
      ValueError: there is no such scale.
    """
    chosen = at_scale(scale, by_scale)
    fixed = {"momentum": 0.0, "gamma": 0.55, "l2": 0.0, "num_evals": 10, "last_batch": "straddle"}
    config = {**chosen, "run": fixed | run | chosen["run"], "convolution": "auto"}
    return ml_collections.ConfigDict(config)


def get_task(config: ml_collections.ConfigDict, make_model: Callable, augment=None):
    """The task; `make_model` gets the random numbers of the weights and the data set."""
    fields = config.task
    dataset = data.subsample_and_downscale(
        data.load(fields.dataset), fields.num_train, fields.num_test, fields.pixels
    )
    return tasks.image_classification(
        dataset,
        functools.partial(make_model, dataset=dataset),
        functools.partial(make_optimizer, base_batch_size=config.base.batch_size),
        augment=augment,
        noise_microbatch=fields.noise_group,
        example_weights=example_weights,
        check_run=tasks.check_matched_noise,
        name=f"matched_noise {config.base.batch_size} {fields.to_json(sort_keys=True)}",
    )


def lenet5(config):
    """LeNet-5 on images as they are."""

    def make_model(rngs, dataset):
        return models.LeNet5(dataset.num_classes, convolution=config.convolution, rngs=rngs)

    return get_task(config, make_model)


def wide_resnet(config):
    """A Wide-ResNet with ghost batch normalisation, on padded, cropped and flipped images."""
    fields = config.task

    def make_model(rngs, dataset):
        return models.WideResNet(
            fields.depth,
            fields.width,
            dataset.num_classes,
            channels=len(dataset.mean),
            ghost_size=fields.ghost_size,
            convolution=config.convolution,
            rngs=rngs,
        )

    def augment(key, image):
        return data.pad_crop_flip(key, image, padding=fields.pixels // 8)

    return get_task(config, make_model, augment)


def make_optimizer(hparams, key, base_batch_size):
    """SGD at the scaled learning rate; before it, noise of every kind, most of it of size 0."""
    tuned, isotropic, diagonal = jax.random.split(key, 3)
    stddev = noisegen.power_decay_schedule(hparams["eta"], hparams["gamma"])
    rate = (
        hparams["learning_rate"] * (hparams["batch_size"] / base_batch_size) ** hparams["scaling"]
    )
    return optax.chain(
        noisegen.add_gradient_noise(stddev, tuned),
        noisegen.matched_noise(_reference(hparams, "isotropic"), isotropic, covariance="isotropic"),
        noisegen.matched_noise(_reference(hparams, "diagonal"), diagonal, covariance="diagonal"),
        optax.add_decayed_weights(hparams["l2"]),
        optax.sgd(rate, hparams["momentum"]),
    )


def example_weights(hparams):
    """Random weights that match the whole covariance, where that is what the run is for."""
    reference = _reference(hparams, "full")

    def weights(key, places, batch_size):
        return noisegen.matched_weights(key, places, batch_size, reference)

    return weights


def _reference(hparams, kind):
    """The batch size to be as noisy as: its own where noise of this kind is not wanted."""
    wanted, own = hparams["reference_batch_size"], hparams["batch_size"]
    return jnp.where(hparams[kind] > 0, wanted, own)


def get_runs(config) -> sweeps.Grid:
    """One seed of everything comes first, of it the small batch sizes."""
    points = sorted(_points(config), key=lambda point: point["batch_size"])
    return sweeps.values(seed=config.grid.seed) * points * sweeps.fixed(**config.run)


def _points(config) -> Iterator[dict[str, float]]:
    """Every kind of run, at every batch size and learning rate."""
    base, grid = config.base, config.grid
    for rate in grid.learning_rate:
        small = {"batch_size": base.batch_size, "learning_rate": rate}
        yield _PLAIN | small | {"reference_batch_size": float(base.batch_size)}
        for size in grid.batch_size:
            yield from _large(config, size, rate)
    for size in grid.batch_size:
        for scaling in RULES.values():
            rates = {"learning_rate": base.learning_rate, "scaling": scaling}
            yield _PLAIN | rates | {"batch_size": size, "reference_batch_size": float(size)}


def _large(config, size, rate):
    """A large batch at a learning rate, as it is and with noise of every kind."""
    point = _PLAIN | {"batch_size": size, "learning_rate": rate}
    alone = point | {"reference_batch_size": float(size)}
    yield from (alone | {"eta": eta} for eta in (0.0, *config.grid.eta))
    reference = noisegen.matched_reference(
        config.base.batch_size,
        learning_rate=rate,
        reference_learning_rate=config.base.learning_rate,
        num_examples=config.task.num_train,
    )
    if reference <= size:  # else the large batch is noisy enough, and more
        for kind in MATCHED:
            yield point | {kind: 1, "reference_batch_size": reference}


def kind(run: Mapping[str, float], base_batch_size: int) -> str:
    """What a run is for."""
    if run["batch_size"] == base_batch_size:
        return "small batch"
    chosen = [label for label, scaling in RULES.items() if math.isclose(run["scaling"], scaling)]
    chosen += ["tuned noise"] * (run["eta"] > 0)
    chosen += [name for name in MATCHED if run[name]]
    return chosen[0] if chosen else "no noise"


def get_protocol(config):
    seeds, base = len(config.grid.seed), config.base.batch_size
    return sweeps.Protocol(
        series=lambda run: kind(run, base),
        labels=LABELS,
        tune=("learning_rate", "eta"),
        best=seeds,
        of=seeds,
        max_extensions=0,  # beyond some learning rate a large batch is as hot as the reference
        report=("train_loss",),
    )
