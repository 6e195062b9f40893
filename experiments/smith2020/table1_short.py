"""Smith, Elsen & De, section 6: a very large batch with fewer updates

Claim: batch size 16384, which loses to 2048 at 9765 updates, does not reach a higher test accuracy
with a smaller step budget: it is not overtrained. The paper prints no numbers.
"""

import ml_collections

from experiments import scales, validation
from experiments.smith2020 import runs, wide_resnet
from noisegen import sweeps


def get_config(scale: str = "cpu") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    scales.check(scale, "paper", "gpu", "cpu", "test")
    config = ml_collections.ConfigDict(
        {
            "task": {
                "dataset": "cifar10",
                "num_train": 50_000,
                "validation": 0,  # images held out of these to tune on; 0: on the test set
                "num_test": 10_000,
                "pixels": 32,
                "depth": 16,
                "width": 4,
                "ghost_size": 64,  # 0: no normalization, SkipInit
                "dropout": 0.0,
                "dtype": "float32",
            },
            "run": {
                "batch_size": 16384,
                "momentum": 0.9,
                "l2": 5e-4,
                "gamma": 2.0,
                "num_evals": 20,
                "last_batch": "straddle",  # or "resample": draw every batch anew
            },
            "grid": {
                "seed": tuple(range(15)),
                "num_updates": (1220, 2441, 4882, 9765),
                "effective_learning_rate": sweeps.powers_of_two(1, 64),
            },
            "best": 12,  # of the seeds
            "search": "grid",  # or "race": train only the runs that decide the optimum
            "convolution": "lax",  # or "patches": speed only
        }
    )
    if scale == "gpu":
        config.task.dtype = "bfloat16"
        config.grid.update(seed=(0,), num_updates=(1220, 2441), effective_learning_rate=(8, 16, 32))
        config.best = 1
    if scale in ("cpu", "test"):
        config.task.update(
            num_train=4096, num_test=2048, pixels=8, depth=10, width=1, ghost_size=16
        )
        config.run.batch_size = 1024
        config.grid.update(
            seed=(0, 1, 2),
            num_updates=(62, 125, 250, 500),
            effective_learning_rate=sweeps.powers_of_two(2**-2, 8),
        )
        config.best = 3
        config.convolution = "patches"
    if scale == "test":
        config.task.update(dataset="digits", num_train=64, num_test=32)
        config.run.batch_size = 16
        config.grid.update(seed=(0,), num_updates=(20,), effective_learning_rate=(2**-5,))
        config.best = 1
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    grid = config.grid
    points = sweeps.grid(
        seed=grid.seed,
        effective_learning_rate=grid.effective_learning_rate,
        num_updates=grid.num_updates,
    )
    protocol = sweeps.Protocol(
        row="num_updates",
        tune=("effective_learning_rate",),
        best=config.best,
        search=config.search,
        of=len(grid.seed),
        **validation.tuned_on(config.task, "test_accuracy", report=("train_loss",)),
    )
    return sweeps.Sweep(
        lambda: wide_resnet.make_task(config), points * runs.fixed(config.run), protocol
    )
