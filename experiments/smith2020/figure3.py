"""Smith, Elsen & De, Figure 3: initial and final learning rate tuned independently

Claims: with both tuned, for epoch budgets at a batch size of 64, the initial learning rate that
maximizes the test accuracy is constant beyond 400 epochs while the final one decays, with larger
error bars. The initial one is higher, and the final one lower, than those that minimize the
training loss. The best 5 of 7 runs count. The paper prints no numbers of this figure.
"""

from collections.abc import Mapping
from typing import Any

import ml_collections

import noisegen
from experiments import scales, validation
from experiments.smith2020 import optimizers, runs, wide_resnet
from noisegen import sweeps

INITIAL, FINAL = "effective_learning_rate", "final_effective_learning_rate"


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
                "batch_size": 64,
                "momentum": 0.9,
                "l2": 5e-4,
                "num_evals": 20,
                "last_batch": "straddle",  # or "resample": draw every batch anew
            },
            "grid": {
                "seed": tuple(range(7)),
                "num_epochs": sweeps.doublings(50, 6400),
                "effective_learning_rate": sweeps.powers_of_two(2**-4, 4),
                "final_effective_learning_rate": sweeps.powers_of_two(2**-15, 2**-4),
            },
            "best": 5,  # of the seeds
            "search": "grid",  # or "race": train only the runs that decide the optimum
            "convolution": "lax",  # or "patches": speed only
        }
    )
    if scale == "gpu":
        config.task.dtype = "bfloat16"
        config.grid.update(
            seed=(0,),
            num_epochs=(25, 50),
            effective_learning_rate=sweeps.powers_of_two(2**-1, 2),
            final_effective_learning_rate=(2**-13, 2**-11, 2**-9, 2**-7),
        )
        config.best = 1
    if scale in ("cpu", "test"):
        # So few images that the small network can fit them.
        config.task.update(
            num_train=1024, num_test=2048, pixels=8, depth=10, width=1, ghost_size=16
        )
        config.run.batch_size = 16
        config.grid.update(
            seed=(0, 1, 2),
            num_epochs=(20, 80, 320),
            effective_learning_rate=sweeps.powers_of_two(2**-5, 2**-1),
            final_effective_learning_rate=(2**-14, 2**-11, 2**-8, 2**-5),
        )
        config.best = 3
        config.convolution = "patches"
    if scale == "test":
        config.task.update(dataset="digits", num_train=64, num_test=32)
        config.grid.update(
            seed=(0,),
            num_epochs=(5, 6),
            effective_learning_rate=(2**-5,),
            final_effective_learning_rate=(2**-10,),
        )
        config.best = 1
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    grid = config.grid
    points = sweeps.grid(
        seed=grid.seed,
        effective_learning_rate=grid.effective_learning_rate,
        final_effective_learning_rate=grid.final_effective_learning_rate,
        num_epochs=grid.num_epochs,
    )
    for_accuracy = {
        "mode": "max",
        **validation.tuned_on(config.task, "test_accuracy", report=("train_loss",)),
    }
    for_loss = {
        "metric": "train_loss",
        "mode": "min",
        "report": ("clean_train_loss", "test_accuracy"),
    }
    protocols = [
        _protocol(config, bar_of=INITIAL, other=FINAL, **for_accuracy),
        _protocol(config, bar_of=FINAL, other=INITIAL, **for_accuracy),
        _protocol(config, bar_of=INITIAL, other=FINAL, **for_loss),
        _protocol(config, bar_of=FINAL, other=INITIAL, **for_loss),
    ]
    return sweeps.Sweep(
        lambda: wide_resnet.make_task(config, make_optimizer),
        points * runs.fixed(config.run),
        protocols,
    )


_FALLING = {
    INITIAL: sweeps.Domain("log", low=FINAL),
    FINAL: sweeps.Domain("log", high=INITIAL),
}


def _protocol(config, bar_of, other, **goal):
    """Returns the protocol with the error bar of one of the two learning rates."""
    return sweeps.Protocol(
        row="num_epochs",
        tune=(bar_of, other),
        # The learning rate falls or stays. Of the other learning rate another protocol has the
        # bar, and extends the grid.
        domains={bar_of: _FALLING[bar_of], other: sweeps.Domain("fixed")},
        best=config.best,
        search=config.search,
        of=len(config.grid.seed),
        **goal,
    )


def make_optimizer(hparams: Mapping[str, Any], key: Any) -> Any:
    """Returns SGD whose learning rate is held, then decays to a final one."""
    del key  # The only noise is that of the batches.
    momentum = hparams["momentum"]
    initial = noisegen.learning_rate_from_effective(hparams[INITIAL], momentum)
    final = noisegen.learning_rate_from_effective(hparams[FINAL], momentum)
    schedule = noisegen.hold_then_decay_to_schedule(initial, hparams["num_updates"], final)
    return optimizers.sgd(schedule, hparams)
