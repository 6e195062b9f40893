"""Smith, Elsen & De, Table 1: constant step budget, CIFAR-10, Wide-ResNet with ghost batch norm

Claim: with the number of updates held at 9765 and the learning rate tuned for each batch size, the
final training loss falls as the batch grows. At the largest batch it rises again, and is still
below that of 2048 examples. The test accuracy first rises and then, beyond 2048 examples, falls:
the noise of small batches helps generalization.

The scale gpu trains the contrast that decides: batch sizes 2048 and 16384 at their published
learning rates, where the published accuracies differ by 2.4 points. It is made for 15 minutes of
an H100, which are too few for one published run of 16384 (160 million images). So it has an eighth
of the updates, 1220, and both batch sizes of a seed come before the next seed. According to the
paper, batch size 16384 does no better with fewer updates. For 2048 neither the accuracy nor the
best learning rate at 1220 updates is published. A fall is evidence for the claim, and the absence
of one would leave it open. `--config.run.num_updates=9765` trains the published runs, in two hours.
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
                "num_updates": 9765,
                "momentum": 0.9,
                "l2": 5e-4,
                "gamma": 2.0,
                "num_evals": 20,
                "last_batch": "straddle",  # or "resample": draw every batch anew
            },
            "grid": {
                "seed": tuple(range(15)),
                "batch_size": sweeps.powers_of_two(256, 32768),
                "effective_learning_rate": sweeps.powers_of_two(2**-1, 64),
            },
            "rates": "grid",  # or "published": only the best published rate of each batch size
            "best": 12,  # of the seeds
            "search": "grid",  # or "race": train only the runs that decide the optimum
            "convolution": "lax",  # or "patches": speed only
        }
    )
    if scale == "gpu":
        config.task.dtype = "bfloat16"
        config.grid.update(seed=(0, 1, 2), batch_size=(2048, 16384))
        config.run.num_updates = 1220
        config.rates = "published"
        config.best = 3
    if scale in ("cpu", "test"):
        config.task.update(
            num_train=4096, num_test=2048, pixels=8, depth=10, width=1, ghost_size=16
        )
        config.run.num_updates = 500
        config.grid.update(
            seed=(0, 1, 2),
            batch_size=sweeps.powers_of_two(16, 2048),
            effective_learning_rate=sweeps.powers_of_two(2**-2, 8),
        )
        config.best = 3
        config.convolution = "patches"
    if scale == "test":
        config.task.update(dataset="digits", num_train=64, num_test=32)
        config.run.num_updates = 20
        config.grid.update(seed=(0,), batch_size=(16,), effective_learning_rate=(2**-5,))
        config.best = 1
    return config


# Test accuracy in percent, final training loss, effective learning rate with its bar.
_PUBLISHED = {
    256: ((93.5, 0.1), (0.232, 0.001), (4, 2, 4)),
    512: ((94.2, 0.1), (0.171, 0.001), (4, 4, 8)),
    1024: ((94.5, 0.1), (0.107, 0.001), (8, 8, 8)),
    2048: ((94.9, 0.1), (0.058, 0.000), (8, 8, 8)),
    4096: ((94.7, 0.1), (0.025, 0.000), (16, 16, 32)),
    8192: ((94.6, 0.1), (0.017, 0.000), (4, 4, 4)),
    16384: ((92.5, 0.6), (0.019, 0.004), (32, 16, 32)),
    32768: ((89.9, 0.7), (0.039, 0.011), (32, 1, 32)),
}


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    grid = config.grid
    # The seed comes first, so that one seed of everything is trained before the next.
    points = sweeps.grid(seed=grid.seed) * _batches(config)
    protocol = sweeps.Protocol(
        tune=("effective_learning_rate",),
        best=config.best,
        search=config.search,
        of=len(grid.seed),
        **validation.tuned_on(config.task, "test_accuracy", report=("train_loss",)),
    )
    return sweeps.Sweep(
        lambda: wide_resnet.make_task(config),
        points * runs.fixed(config.run),
        protocol,
        published=_published(config),
    )


def _batches(config):
    """Returns every batch size with the learning rates to try."""
    grid = config.grid
    if config.rates == "grid":
        return sweeps.grid(
            batch_size=grid.batch_size, effective_learning_rate=grid.effective_learning_rate
        )
    if config.rates != "published":
        raise ValueError(f"rates={config.rates!r} must be 'grid' or 'published'.")
    unknown = set(grid.batch_size) - _PUBLISHED.keys()
    if unknown:
        raise ValueError(
            f"No learning rate is published for batch size {min(unknown)}: take rates='grid'."
        )
    batches = []
    for batch_size in grid.batch_size:
        _, _, (best, _, _) = _PUBLISHED[batch_size]
        batches.append({"batch_size": batch_size, "effective_learning_rate": best})
    return batches


def _published(config):
    """Returns the published numbers, if the config is of the published experiment."""
    if not scales.is_published(config, get_config("paper")):
        return None
    names = ("test_accuracy", "train_loss", "effective_learning_rate")
    return {
        ("", batch_size): dict(zip(names, values, strict=True))
        for batch_size, values in _PUBLISHED.items()
    }
