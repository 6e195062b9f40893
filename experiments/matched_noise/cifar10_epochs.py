"""Matched noise on CIFAR-10 at equal epochs

Batch sizes of up to three quarters of the training set get as many epochs as a small batch, with
and without noise that is matched to it, as in mnist_epochs.py. The network is a Wide-ResNet with L2
regularization. Its ghost batches are equally large in every kind of run, so that normalization does
not tell them apart.
"""

import ml_collections

from experiments import scales
from experiments.matched_noise import kinds
from noisegen import sweeps


def get_config(scale: str = "cpu") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    scales.check(scale, "gpu", "cpu", "test")
    config = ml_collections.ConfigDict(
        {
            "task": {
                "dataset": "cifar10",
                "num_train": 50_000,
                "num_test": 10_000,
                "pixels": 32,
                "depth": 16,
                "width": 4,
                "ghost_size": 64,
                "noise_group": 64,
            },
            # The small batch, and a learning rate that is good for it.
            "base": {"batch_size": 128, "learning_rate": 1.0},
            "run": {
                "num_epochs": 50.0,
                "momentum": 0.0,
                "gamma": 0.55,
                "l2": 5e-4,
                "num_evals": 10,
                "last_batch": "straddle",
            },
            "grid": {
                "seed": (0, 1, 2),
                "eta": (0.1, 0.01, 0.001),
                "learning_rate": sweeps.powers_of_two(2**-1, 4),
                "batch_size": (1024, 8192, 37_504),
            },
            "search": "grid",  # or "race": train only the runs that decide the optimum
            "convolution": "auto",  # or "patches", "lax": speed only
        }
    )
    if scale in ("cpu", "test"):
        config.task.update(
            num_train=1024,
            num_test=2048,
            pixels=8,
            depth=10,
            width=1,
            ghost_size=16,
            noise_group=16,
        )
        config.base.update(batch_size=32, learning_rate=2**-1)
        config.run.num_epochs = 20.0
        config.grid.update(
            eta=(0.1, 0.03, 0.01, 0.003),
            learning_rate=sweeps.powers_of_two(2**-2, 2),
            batch_size=(128, 384, 768),
        )
    if scale == "test":
        config.task.update(dataset="digits", num_train=7, num_test=3, ghost_size=2, noise_group=2)
        config.base.batch_size = 4
        config.run.num_evals = 1
        config.grid.update(seed=(0,), eta=(0.1,), learning_rate=(2**-4,), batch_size=(6,))
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    return sweeps.Sweep(
        lambda: kinds.make_wide_resnet_task(config),
        kinds.make_runs(config),
        kinds.make_protocol(config),
    )
