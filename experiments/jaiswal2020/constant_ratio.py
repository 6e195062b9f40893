"""Networks, data, learning rates and noise, with learning rate over batch size held constant.

Readings, when the paper leaves them open. The learning rate, .01 at batch size 32 and proportional
to it, is multiplied by .1 at epochs 25, 40, 50, 60 and 70 ("decayed by 10%"); .9 is tried as a
control. Momentum .9 and no weight decay, as in the example of Chainer (the paper's framework),
which has the paper's learning rate and batch size. Images, as there, have 256 pixels: in training a
window of 224 of them at random, mirrored half of the time, in evaluation the middle. Batches
straddle epochs. The noise is a variance, 1e-5 / (1 + t)^.55 for each coordinate, on the mean
gradient before momentum; t counts updates from 0. Batch normalization is over the whole batch, so
the task depends on the batch size, which is its microbatch. The 102 classes include the background;
of each, three quarters of the images are for training, rounded up. Networks are trained from
scratch. The paper does not say for how many epochs: here 80, and the final accuracy counts.

We had no access to Caltech-101. At the scale cpu a ResNet-18 of an eighth of the width is trained
on 2048 images of CIFAR-10 of 8 x 8 pixels, which are mirrored only, for a quarter of the epochs,
with the decays a quarter as late. It asks the same question of another network, so no published
number stands beside it.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

import noisegen
from noisegen import data, models, sweeps, tasks, training

LABELS = ("no noise", "noise")
BASE_BATCH_SIZE = 32
VARIANCE = 1e-5


def task_maker(config: ml_collections.ConfigDict) -> Callable[[int], training.Task]:
    """Returns a function from the batch size to a task."""
    fields = config.task
    load = functools.cache(lambda: _load(fields))  # once for all batch sizes

    def augment(key, image):
        return crop_and_mirror(key, image, fields.crop, fields.mirror)

    def make_task(batch_size):
        dataset = load()
        return tasks.image_classification(
            dataset,
            lambda rngs: _make_model(config, dataset, batch_size, rngs),
            functools.partial(make_optimizer, decay_epochs=fields.decay_epochs),
            augment=augment,
            clean_train_loss=True,
            train_accuracy_curve=True,
            name=f"jaiswal2020 {fields.to_json(sort_keys=True)}",
        )

    return make_task


def make_optimizer(hparams: Mapping[str, Any], key: Any, decay_epochs: Sequence[float]) -> Any:
    """Returns SGD with momentum, decays at given epochs, and noise.

    Args:
      hparams: Hyperparameters of a run. `stretch` multiplies the length of an epoch.
      key: Key of the noise.
      decay_epochs: Epochs at which the learning rate decays.
    """
    stddev = noisegen.power_decay_from_variance_schedule(hparams["variance"], hparams["gamma"])
    epoch = hparams["updates_per_epoch"] * hparams["stretch"]
    rate = noisegen.step_decay_schedule(
        hparams["learning_rate"], decay_epochs, hparams["decay_rate"], epoch
    )
    return optax.chain(
        noisegen.add_gradient_noise(stddev, key), optax.sgd(rate, hparams["momentum"])
    )


def make_runs(
    config: ml_collections.ConfigDict, stretch: Callable[[float], float] = noisegen.constant_rule
) -> sweeps.Grid:
    """Returns runs whose learning rate is proportional to the batch size.

    Args:
      config: Config of the experiment.
      stretch: Factor of the epochs, as a function of the factor of the batch size.
    """
    grid = config.grid
    factors = sweeps.grid(
        seed=grid.seed,  # first, so that one seed of everything comes before the next
        decay_rate=grid.decay_rate,
        variance=grid.variance,
    )
    points = []
    for batch_size in grid.batch_size:
        ratio = batch_size / BASE_BATCH_SIZE
        points.append(
            {
                "batch_size": batch_size,
                "learning_rate": config.base_learning_rate * noisegen.linear_rule(ratio),
                "stretch": stretch(ratio),
                "num_epochs": config.run.num_epochs * stretch(ratio),
            }
        )
    fixed = {name: value for name, value in config.run.items() if name != "num_epochs"}
    return factors * points * sweeps.fixed(**fixed)


def make_protocol(config: ml_collections.ConfigDict) -> sweeps.Protocol:
    """Returns the protocol, with one series without and one with noise; all seeds count."""
    num_seeds = len(config.grid.seed)
    return sweeps.Protocol(
        series=label,
        labels=LABELS,
        best=num_seeds,
        of=num_seeds,
        max_extensions=0,  # Nothing is tuned: the rule gives the learning rate.
        report=("train_loss",),
    )


def label(run: Mapping[str, Any]) -> str:
    """Returns the series of a run: with or without noise, and the decay if it is the control."""
    has_noise = run["variance"] > 0
    kind = LABELS[1] if has_noise else LABELS[0]
    if run["decay_rate"] == 0.1:
        return kind
    return f"{kind}, decay to {run['decay_rate']:g}"


def is_published(config: ml_collections.ConfigDict, paper: ml_collections.ConfigDict) -> bool:
    """Returns whether task and runs are those of the paper, apart from the dtype."""
    paper.task.dtype = config.task.dtype
    return all(config[name] == paper[name] for name in ("task", "run", "base_learning_rate"))


def crop_and_mirror(key: jax.Array, image: jax.Array, pixels: int, mirror: bool) -> jax.Array:
    """Returns a square window of an image, anywhere, and mirrored half of the time."""
    place, side = jax.random.split(key)
    height, width, channels = image.shape
    row, column = jax.random.randint(place, (2,), 0, jnp.array([height, width]) - pixels + 1)
    image = jax.lax.dynamic_slice(image, (row, column, 0), (pixels, pixels, channels))
    return jnp.where(jax.random.bernoulli(side) & mirror, image[:, ::-1], image)


def _load(fields):
    """Loads the data set and keeps the middle of its test images."""
    dataset = data.load(fields.dataset, pixels=fields.decoded or None)
    if fields.num_train:
        dataset = data.subsample_and_downscale(
            dataset, fields.num_train, fields.num_test, fields.pixels
        )
    edge = (dataset.test["image"].shape[1] - fields.crop) // 2
    middle = slice(edge, edge + fields.crop)
    image = dataset.test["image"][:, middle, middle]
    return dataset._replace(test={"image": image, "label": dataset.test["label"]})


def _make_model(config, dataset, ghost_size, rngs):
    """Returns the network of the config."""
    fields, classes = config.task, dataset.num_classes
    shared = {"convolution": config.convolution, "rngs": rngs}
    normed = {"ghost_size": ghost_size, "dtype": fields.dtype}
    match fields.network:
        case "resnet50":
            return models.ResNet50(classes, **normed, **shared)
        case "resnet18":
            channels = len(dataset.mean)
            return models.ResNet18(
                classes, width=fields.width, channels=channels, **normed, **shared
            )
        case "lenet5":
            return models.LeNet5(classes, **shared)
        case "mlp":
            inputs = math.prod(dataset.test["image"].shape[1:])
            return models.MLP(inputs, (fields.width, fields.width), classes, rngs=rngs)
    raise ValueError(
        f"task.network={fields.network!r} must be one of resnet50, resnet18, lenet5, mlp."
    )
