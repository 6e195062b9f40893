"""Matched noise on CIFAR-10 at equal steps

Batch sizes of up to three quarters of the training set make as many updates as a small batch, with
and without noise that is matched to it, as in mnist_steps.py. The network is the Wide-ResNet of
cifar10_epochs.py.
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
                "num_updates": 5000,
                "momentum": 0.0,
                "gamma": 0.55,
                "l2": 5e-4,
                "num_evals": 10,
                # Otherwise the noise of small batches adds up to 0 in an epoch.
                "last_batch": "resample",
            },
            "grid": {
                "seed": (0, 1, 2),
                "eta": (0.1, 0.01, 0.001),
                "learning_rate": (1.0,),
                "batch_size": (1024, 8192, 37_504),
            },
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
        config.run.num_updates = 640
        config.grid.update(
            eta=(0.1, 0.03, 0.01, 0.003), learning_rate=(2**-1,), batch_size=(128, 384, 768)
        )
    if scale == "test":
        config.task.update(dataset="digits", num_train=7, num_test=3, ghost_size=2, noise_group=2)
        config.base.batch_size = 4
        config.run.update(num_updates=20, num_evals=1)
        config.grid.update(seed=(0,), eta=(0.1,), batch_size=(6,))
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    return sweeps.Sweep(
        lambda: kinds.make_wide_resnet_task(config),
        kinds.make_runs(config),
        kinds.make_protocol(config),
    )
