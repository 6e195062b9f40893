"""The largest stable learning rate, from a cheap sweep of a few epochs

Smith, Elsen & De advise in their section 8 to find the boundary between noise and curvature by
first looking for the largest stable learning rate in a sweep of a few epochs, and then scaling the
batch size. Here the learning rate is constant. `experiments.smith2020.plots.regimes` compares the
prediction of this sweep with the boundary that a finished sweep of figure1.py shows.
"""

import ml_collections

from experiments import scales
from experiments.smith2020 import wide_resnet
from noisegen import sweeps


def get_config(scale: str = "cpu") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    scales.check(scale, "paper", "gpu", "cpu", "test")
    config = ml_collections.ConfigDict(
        {
            "task": {
                "dataset": "cifar10",
                "num_train": 50_000,
                "validation": 0,  # images held out of these, as in figure1.py
                "num_test": 10_000,
                "pixels": 32,
                "depth": 16,
                "width": 4,
                "ghost_size": 64,  # 0: no normalization, SkipInit
                "dropout": 0.0,
                "dtype": "float32",
            },
            "run": {
                "num_epochs": 4.0,
                "batch_size": 1024,
                "momentum": 0.9,  # not read: the grid has both
                "l2": 5e-4,
                "gamma": 1.0,  # a constant learning rate
                "num_evals": 20,
            },
            "grid": {
                "seed": (0, 1, 2),
                "effective_learning_rate": sweeps.powers_of_two(1, 256),
                "momentum": (0.0, 0.9),
            },
            "best": 3,  # of the seeds
            "convolution": "lax",  # or "patches": speed only
        }
    )
    if scale == "gpu":
        config.task.dtype = "bfloat16"
    if scale in ("cpu", "test"):
        config.task.update(
            num_train=4096, num_test=2048, pixels=8, depth=10, width=1, ghost_size=16
        )
        config.run.batch_size = 256
        config.grid.effective_learning_rate = sweeps.powers_of_two(2**-3, 64)
        config.convolution = "patches"
    if scale == "test":
        config.task.update(dataset="digits", num_train=64, num_test=32)
        config.run.update(batch_size=16, num_epochs=5.0)
        config.grid.update(seed=(0,), effective_learning_rate=(2**-5,))
        config.best = 1
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    grid = config.grid
    points = sweeps.grid(
        seed=grid.seed,
        effective_learning_rate=grid.effective_learning_rate,
        momentum=grid.momentum,
    )
    fixed = {name: value for name, value in config.run.items() if name != "momentum"}
    protocol = sweeps.Protocol(
        metric="train_loss",
        mode="min",
        series=lambda run: f"momentum {run['momentum']:g}",
        tune=("effective_learning_rate",),
        best=config.best,
        of=len(grid.seed),
        max_extensions=0,  # The grid ends in divergence, so the answer lies inside.
        report=("clean_train_loss", "test_accuracy"),
    )
    return sweeps.Sweep(
        lambda: wide_resnet.make_task(config), points * sweeps.fixed(**fixed), protocol
    )
