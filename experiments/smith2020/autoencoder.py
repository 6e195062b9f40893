"""Smith, Elsen & De, appendix D: constant step budget, fully connected autoencoder on MNIST

Claim of the main text: at a constant step budget very large batches do worse on the test set, with
the learning rate tuned for each. We had no access to the appendices. The network and its sparse
start are those of Sutskever et al. (2013). Cross-entropy of the pixels as loss, squared error as
the measure, no L2, and all budgets and grids are our choices.
"""

import math

import ml_collections

from experiments import scales, validation
from experiments.smith2020 import optimizers, runs
from noisegen import data, models, sweeps, tasks, training


def get_config(scale: str = "cpu") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    scales.check(scale, "paper", "gpu", "cpu", "test")
    config = ml_collections.ConfigDict(
        {
            "task": {
                "dataset": "mnist",
                "widths": (784, 1000, 500, 250, 30),
                "num_train": 60_000,
                "validation": 0,  # images held out of these to tune on; 0: on the test set
                "num_test": 10_000,
            },
            "run": {
                "num_updates": 9765,
                "momentum": 0.9,
                "l2": 0.0,
                "gamma": 2.0,
                "num_evals": 20,
                "last_batch": "straddle",  # or "resample": draw every batch anew
            },
            "grid": {
                "seed": tuple(range(15)),
                "batch_size": sweeps.powers_of_two(64, 32768),
                "effective_learning_rate": sweeps.powers_of_two(2**-10, 2**-1),
            },
            "best": 12,  # of the seeds
            "search": "grid",  # or "race": train only the runs that decide the optimum
        }
    )
    if scale == "gpu":
        config.grid.update(
            seed=(0, 1, 2),
            batch_size=sweeps.powers_of_two(64, 16384),
            effective_learning_rate=sweeps.powers_of_two(2**-9, 2**-3),
        )
        config.best = 2
    if scale in ("cpu", "test"):
        config.task.update(widths=(784, 128, 64, 32, 12), num_train=16_384, num_test=4096)
        config.run.num_updates = 1000
        config.grid.update(
            seed=(0, 1, 2),
            batch_size=sweeps.powers_of_two(16, 2048),
            effective_learning_rate=sweeps.powers_of_two(2**-9, 2**-2),
        )
        config.best = 3
    if scale == "test":
        config.task.update(num_train=5, num_test=3)
        config.run.num_updates = 20
        config.grid.update(seed=(0,), batch_size=(4,), effective_learning_rate=(2**-5,))
        config.best = 1
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    grid = config.grid
    points = sweeps.grid(
        seed=grid.seed,
        batch_size=grid.batch_size,
        effective_learning_rate=grid.effective_learning_rate,
    )
    protocol = sweeps.Protocol(
        mode="min",
        tune=("effective_learning_rate",),
        best=config.best,
        search=config.search,
        of=len(grid.seed),
        **validation.tuned_on(config.task, "test_squared_error", report=("train_loss",)),
    )
    return sweeps.Sweep(lambda: make_task(config), points * runs.fixed(config.run), protocol)


def make_task(config: ml_collections.ConfigDict) -> training.Task:
    """Returns the task of all experiments with the autoencoder."""
    fields = config.task
    pixels = math.isqrt(fields.widths[0])
    dataset = data.subsample_and_downscale(
        data.load(fields.dataset), fields.num_train, fields.num_test, pixels
    )
    dataset = validation.hold_out(dataset, fields)

    def make_model(rngs):
        return models.Autoencoder(fields.widths, rngs=rngs)

    return tasks.autoencoding(
        dataset,
        make_model,
        optimizers.hold_then_decay,
        name=f"smith2020 {validation.to_json(fields)}",
    )
