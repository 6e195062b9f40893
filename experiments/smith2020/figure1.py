"""Smith, Elsen & De, Figure 1: constant epoch budget, SGD with and without momentum

Claims: at a constant number of epochs, with the learning rate tuned for each batch size, (a) the
test accuracy does not depend on the batch size up to about 512 and falls beyond; momentum changes
nothing below and helps above; (b) likewise the training loss; (c) the optimal effective learning
rate is proportional to the batch size when that is small, and constant when it is large.

The paper prints no numbers of this figure, nor the batch sizes and learning rates that it tried.
"""

import ml_collections

from experiments import scales, validation
from experiments.smith2020 import runs, wide_resnet
from noisegen import sweeps

LABELS = ("SGD", "momentum .9")


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
                "num_epochs": 200.0,
                "momentum": 0.9,  # not read: the grid has both
                "l2": 5e-4,
                "gamma": 2.0,
                "num_evals": 20,
                "last_batch": "straddle",  # or "resample": draw every batch anew
            },
            "grid": {
                "seed": tuple(range(15)),
                "batch_size": sweeps.powers_of_two(16, 8192),
                "effective_learning_rate": sweeps.powers_of_two(2**-4, 32),
                "momentum": (0.0, 0.9),
            },
            "best": 12,  # of the seeds
            "search": "grid",  # or "race": train only the runs that decide the optimum
            "convolution": "lax",  # or "patches": speed only
        }
    )
    if scale == "gpu":
        config.task.dtype = "bfloat16"
        config.run.num_epochs = 50.0
        config.grid.update(
            seed=(0, 1, 2),
            batch_size=(64, 256, 1024, 4096),
            effective_learning_rate=sweeps.powers_of_two(1, 16),
        )
        config.best = 2
    if scale in ("cpu", "test"):
        config.task.update(
            num_train=4096, num_test=2048, pixels=8, depth=10, width=1, ghost_size=16
        )
        config.run.num_epochs = 20.0
        config.grid.update(
            seed=(0, 1, 2),
            batch_size=sweeps.powers_of_two(16, 2048),
            effective_learning_rate=sweeps.powers_of_two(2**-5, 4),
        )
        config.best = 3
        config.convolution = "patches"
    if scale == "test":
        config.task.update(dataset="digits", num_train=64, num_test=32)
        config.run.num_epochs = 5.0
        config.grid.update(seed=(0,), batch_size=(16,), effective_learning_rate=(2**-5,))
        config.best = 1
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    protocol = make_protocol(config, metric="test_accuracy", mode="max")
    return sweeps.Sweep(lambda: wide_resnet.make_task(config), make_runs(config), protocol)


def make_runs(config: ml_collections.ConfigDict) -> sweeps.Grid:
    """Returns the runs with and without momentum; one seed of everything comes first."""
    grid = config.grid
    points = sweeps.grid(
        seed=grid.seed,
        batch_size=grid.batch_size,
        effective_learning_rate=grid.effective_learning_rate,
        momentum=grid.momentum,
    )
    fixed = {name: value for name, value in config.run.items() if name != "momentum"}
    return points * runs.fixed(fixed)


def make_protocol(
    config: ml_collections.ConfigDict,
    metric: str,
    mode: str,
    report: tuple[str, ...] = ("train_loss",),
) -> sweeps.Protocol:
    """Returns the protocol, with one series for SGD and one for momentum.

    Args:
      config: Config of the experiment.
      metric: Metric that the learning rate is tuned for, of the test set.
      mode: "max" or "min".
      report: Further metrics to report.
    """
    return sweeps.Protocol(
        mode=mode,
        series=_label,
        labels=LABELS,
        tune=("effective_learning_rate",),
        best=config.best,
        of=len(config.grid.seed),
        search=config.search,
        **validation.tuned_on(config.task, metric, report=report),
    )


def _label(run):
    with_momentum = run["momentum"] > 0
    return LABELS[1] if with_momentum else LABELS[0]
