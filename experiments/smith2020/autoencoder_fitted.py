"""Smith, Elsen & De, appendix D on images that are fitted: constant step budget, autoencoder

Claim of the main text: at a constant step budget very large batches do worse on the test set, with
the learning rate tuned for each. `autoencoder.py:cpu` trains for too few updates to fit its 16,384
images. Here a smaller network is trained on 128 of 14 x 14 pixels, so that the training loss falls
far below the test loss.
"""

import ml_collections

from experiments import scales
from experiments.smith2020 import autoencoder
from noisegen import sweeps


def get_config(scale: str = "cpu") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    scales.check(scale, "cpu", "test")
    config = ml_collections.ConfigDict(
        {
            "task": {
                "dataset": "mnist",
                "widths": (196, 100, 30),
                "num_train": 128,
                "validation": 0,  # images held out of these to tune on; 0: on the test set
                "num_test": 4096,
            },
            "run": {
                "num_updates": 4000,
                "momentum": 0.9,
                "l2": 0.0,
                "gamma": 2.0,
                "num_evals": 5,
                "last_batch": "resample",  # or "straddle": batches follow each other in epochs
            },
            "grid": {
                "seed": tuple(range(5)),
                "batch_size": sweeps.powers_of_two(8, 128),
                "effective_learning_rate": sweeps.powers_of_two(2**-5, 2**-2),
            },
            "best": 4,  # of the seeds
            "search": "race",  # or "grid": train every run
        }
    )
    if scale == "test":
        config.task.update(widths=(196, 5, 4), num_train=5, num_test=3)
        config.run.num_updates = 20
        config.grid.update(seed=(0,), batch_size=(4,), effective_learning_rate=(2**-5,))
        config.best = 1
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    return autoencoder.get_sweep(config)
