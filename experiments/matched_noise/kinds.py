"""The kinds of runs that are compared, with their networks and data.

A large batch gets what it lacks compared with a small one, the reference, in several ways:

* no noise;
* normal noise whose size is tuned, as in the draft "Even larger batch size with additive gradient
  noise";
* normal noise of the measured size, equal in every coordinate (isotropic) or of each coordinate's
  own (diagonal);
* noise of the whole covariance, by random weights on the examples;
* a larger learning rate by the linear or the square-root rule.

All kinds are hyperparameters of the runs, so that one program trains them side by side.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

import noisegen
from noisegen import data, models, sweeps, tasks, training

MATCHED = ("isotropic", "diagonal", "full")
RULES = {"linear rule": 1.0, "square-root rule": 0.5}  # exponents of the batch size's factor
LABELS = ("small batch", "no noise", "tuned noise", *MATCHED, *RULES)
_PLAIN = {"eta": 0.0, "scaling": 0.0, "isotropic": 0, "diagonal": 0, "full": 0}


def make_lenet5_task(config: ml_collections.ConfigDict) -> training.Task:
    """Returns the task of LeNet-5 on images as they are."""

    def make_model(rngs, dataset):
        return models.LeNet5(dataset.num_classes, convolution=config.convolution, rngs=rngs)

    return _make_task(config, make_model)


def make_wide_resnet_task(config: ml_collections.ConfigDict) -> training.Task:
    """Returns the task of a Wide-ResNet with ghost batches, on padded, cropped, flipped images."""
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

    return _make_task(config, make_model, augment)


def _make_task(config, make_model: Callable, augment=None):
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
        check_run=tasks.check_matched_noise,
        example_weights=example_weights,
        name=f"matched_noise {config.base.batch_size} {fields.to_json(sort_keys=True)}",
    )


def make_optimizer(hparams: Mapping[str, Any], key: jax.Array, base_batch_size: int) -> Any:
    """Returns SGD at the scaled learning rate, after noise of every kind, most of it of size 0."""
    tuned, isotropic, diagonal = jax.random.split(key, 3)
    stddev = noisegen.power_decay_schedule(hparams["eta"], hparams["gamma"])
    ratio = hparams["batch_size"] / base_batch_size
    rate = hparams["learning_rate"] * ratio ** hparams["scaling"]
    return optax.chain(
        noisegen.add_gradient_noise(stddev, tuned),
        noisegen.matched_noise(_reference(hparams, "isotropic"), isotropic, covariance="isotropic"),
        noisegen.matched_noise(_reference(hparams, "diagonal"), diagonal, covariance="diagonal"),
        optax.add_decayed_weights(hparams["l2"]),
        optax.sgd(rate, hparams["momentum"]),
    )


def example_weights(hparams: Mapping[str, Any]) -> Callable[..., jax.Array]:
    """Returns the weights of a run's examples: random if they match the whole covariance."""
    reference = _reference(hparams, "full")
    return functools.partial(noisegen.matched_weights, reference_batch_size=reference)


def _reference(hparams, kind):
    """Returns the batch size whose noise is matched, or the run's own if it is of another kind."""
    wanted, own = hparams["reference_batch_size"], hparams["batch_size"]
    return jnp.where(hparams[kind] > 0, wanted, own)


def make_runs(config: ml_collections.ConfigDict) -> sweeps.Grid:
    """Returns the runs. One seed of everything comes first, its small batch sizes first."""
    points = sorted(_points(config), key=lambda point: point["batch_size"])
    return sweeps.grid(seed=config.grid.seed) * points * sweeps.fixed(**config.run)


def _points(config) -> Iterator[dict[str, float]]:
    """Yields every kind of run, at every batch size and learning rate."""
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
    """Yields a large batch at a learning rate, without and with noise of every kind."""
    point = _PLAIN | {"batch_size": size, "learning_rate": rate}
    for eta in (0.0, *config.grid.eta):
        yield point | {"reference_batch_size": float(size), "eta": eta}
    reference = noisegen.matched_reference(
        config.base.batch_size,
        learning_rate=rate,
        reference_learning_rate=config.base.learning_rate,
        num_examples=config.task.num_train,
    )
    if reference <= size:  # Beyond, the large batch is noisier than the small one by itself.
        for kind in MATCHED:
            yield point | {kind: 1, "reference_batch_size": reference}


def kind(run: Mapping[str, float], base_batch_size: int) -> str:
    """Returns the kind of a run, one of `LABELS`."""
    if run["batch_size"] == base_batch_size:
        return "small batch"
    for label, scaling in RULES.items():
        if run["scaling"] == scaling:
            return label
    if run["eta"] > 0:
        return "tuned noise"
    for name in MATCHED:
        if run[name]:
            return name
    return "no noise"


def make_protocol(config: ml_collections.ConfigDict) -> sweeps.Protocol:
    """Returns the protocol, with a series for every kind; all seeds count."""
    num_seeds = len(config.grid.seed)
    base_batch_size = config.base.batch_size
    return sweeps.Protocol(
        series=lambda run: kind(run, base_batch_size),
        labels=LABELS,
        tune=("learning_rate", "eta"),
        best=num_seeds,
        of=num_seeds,
        search=config.get("search", "grid"),  # Sweeps at one learning rate lack it.
        max_extensions=0,  # Beyond some learning rate a large batch is as hot as the reference.
        report=("train_loss",),
    )
