"""Jaiswal & Taura, Figure 3: curvature of minima against learning rate over batch size

The paper shows a figure of Jastrzebski et al. (2018), without numbers here: a fully connected ReLU
network of four layers on Fashion-MNIST. Claims: the larger the learning rate over the batch size,
the flatter the minimum; and this ratio is what counts. They are about networks that fit their
images. If the training loss at the end is not small, the run has not come to a minimum.

The curvature is the largest eigenvalue of the Hessian of the mean loss of the first training
images, by the Lanczos method. Sharpness is that of Keskar et al., in a box of 5e-4. Learning rates
follow from ratio and batch size. Widths and grid are our choice. The scale cpu trains on 2048
images of MNIST.
"""

from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import optax

import noisegen
from experiments import scales
from noisegen import data, diagnostics, models, sweeps, tasks, training


def get_config(scale: str = "cpu") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    scales.check(scale, "paper", "gpu", "cpu", "test")
    config = ml_collections.ConfigDict(
        {
            "task": {
                "dataset": "fashion_mnist",
                "num_train": 60_000,
                "num_test": 10_000,
                "hidden": (200, 200, 200),
                "num_measured": 5000,  # images in the loss whose Hessian is measured
            },
            "run": {"num_epochs": 300.0},
            "grid": {
                "seed": (0, 1, 2),
                "batch_size": (16, 64, 256),
                "temperature": sweeps.powers_of_two(2**-13, 2**-9),
            },
        }
    )
    if scale in ("cpu", "test"):
        config.task.update(dataset="mnist", num_train=2048, hidden=(64, 64, 64), num_measured=512)
        config.run.num_epochs = 100.0
    if scale == "test":
        config.task.update(num_train=7, num_test=3, hidden=(4,), num_measured=5)
        config.run.num_epochs = 2.0
        config.grid.update(seed=(0,), batch_size=(4, 6), temperature=(2**-10,))
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    grid = config.grid
    points = sweeps.grid(seed=grid.seed, batch_size=grid.batch_size, temperature=grid.temperature)
    protocol = sweeps.Protocol(
        metric="largest_eigenvalue",
        mode="min",
        row="temperature",
        series=lambda run: f"batch size {run['batch_size']}",
        labels=tuple(f"batch size {size}" for size in grid.batch_size),
        tune=("batch_size",),
        best=len(grid.seed),
        of=len(grid.seed),
        max_extensions=0,
        report=("sharpness", "clean_train_loss", "test_accuracy"),
    )
    return sweeps.Sweep(lambda: make_task(config), points * sweeps.fixed(**config.run), protocol)


def make_task(config: ml_collections.ConfigDict) -> training.Task:
    """Returns the task, with curvature and sharpness measured at the end of a run."""
    fields = config.task
    dataset = data.load(fields.dataset)
    pixels = dataset.train["image"].shape[1]
    dataset = data.subsample_and_downscale(dataset, fields.num_train, fields.num_test, pixels)

    def make_model(rngs):
        return models.MLP(28 * 28, fields.hidden, dataset.num_classes, rngs=rngs)

    def measure(mean_loss, params, train):
        images = jax.tree.map(lambda a: a[: fields.num_measured], train)

        def loss(params):
            return mean_loss(params, images)

        [eigenvalue], [error] = diagnostics.hessian_eigenvalues(loss, params, jax.random.key(0))
        return {
            "largest_eigenvalue": eigenvalue,
            "largest_eigenvalue_error": error,
            "sharpness": diagnostics.sharpness(loss, params, epsilon=5e-4),
        }

    return tasks.image_classification(
        dataset,
        make_model,
        make_optimizer,
        diagnostics=measure,
        clean_train_loss=True,
        name=f"jaiswal2020 figure3 {fields.to_json(sort_keys=True)}",
    )


def make_optimizer(hparams: Mapping[str, Any], key: Any) -> Any:
    """Returns plain SGD at a temperature."""
    del key  # The only noise is that of the batches.
    rate = noisegen.learning_rate_from_temperature(hparams["temperature"], hparams["batch_size"])
    return optax.sgd(rate)
