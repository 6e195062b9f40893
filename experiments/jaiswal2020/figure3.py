"""Jaiswal & Taura, Figure 3: curvature of minima against learning rate over batch size

The paper shows a figure of Jastrzebski et al. (2018), without numbers here: a fully connected ReLU
network of four layers on Fashion-MNIST. Claims: the larger the learning rate over the batch size,
the flatter the minimum; and this ratio is what counts. It is about networks that fit their images:
where the training loss at the end is not small, the run has not come to a minimum.

Largest eigenvalue of the Hessian of the mean loss of the first training images, by the Lanczos
method; sharpness is that of Keskar et al., in a box of 5e-4. Learning rates follow from ratio and
batch size. Widths and grid are our choice. The scale cpu trains on 2048 images of MNIST.
"""

import jax
import ml_collections
import optax

import noisegen
from experiments.scales import at_scale
from noisegen import data, diagnostics, models, sweeps, tasks

_PAPER = {
    "dataset": "fashion_mnist",
    "num_train": 60_000,
    "num_test": 10_000,
    "hidden": (200, 200, 200),
    "num_measured": 5000,  # images of which the Hessian is taken
}
_CPU = {"dataset": "mnist", "num_train": 2048, "hidden": (64, 64, 64), "num_measured": 512}
_TASKS = {"paper": _PAPER, "gpu": _PAPER, "cpu": _PAPER | _CPU}
_EPOCHS = {"paper": 300.0, "gpu": 300.0, "cpu": 100.0}


def get_config(scale="cpu"):
    """Every field that `--config.NAME=VALUE` may override."""
    return ml_collections.ConfigDict(
        {
            "task": at_scale(scale, _TASKS),
            "run": {"num_epochs": _EPOCHS[scale]},
            "grid": {
                "seed": (0, 1, 2),
                "batch_size": (16, 64, 256),
                "temperature": sweeps.powers_of_two(2**-13, 2**-9),
            },
        }
    )


def get_task(config):
    fields = config.task
    dataset = data.load(fields.dataset)
    dataset = data.subsample_and_downscale(
        dataset, fields.num_train, fields.num_test, dataset.train["image"].shape[1]
    )

    def measured(mean_loss, params, train):
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
        lambda rngs: models.MLP(28 * 28, fields.hidden, dataset.num_classes, rngs=rngs),
        make_optimizer,
        diagnostics=measured,
        clean_train_loss=True,
        name=f"jaiswal2020 figure3 {fields.to_json(sort_keys=True)}",
    )


def make_optimizer(hparams, key):
    """Plain SGD at a temperature."""
    del key  # no noise but that of the batches
    rate = noisegen.learning_rate_from_temperature(hparams["temperature"], hparams["batch_size"])
    return optax.sgd(rate)


def get_runs(config):
    grid = config.grid
    order = ("seed", "batch_size", "temperature")
    return sweeps.values(**{name: grid[name] for name in order}) * sweeps.fixed(**config.run)


def get_protocol(config):
    seeds = len(config.grid.seed)
    return sweeps.Protocol(
        metric="largest_eigenvalue",
        mode="min",
        row="temperature",
        series=lambda run: f"batch size {run['batch_size']}",
        labels=tuple(f"batch size {size}" for size in config.grid.batch_size),
        tune=("batch_size",),
        best=seeds,
        of=seeds,
        max_extensions=0,
        report=("sharpness", "clean_train_loss", "test_accuracy"),
    )
