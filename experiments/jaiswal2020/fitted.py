"""Jaiswal & Taura, Figures 4 and 5 and Table 2 on networks that fit their images

The paper's claims are about networks whose training accuracy is close to 100 %, as those of
`figure4.py:cpu` are not. Here a multilayer perceptron is trained on the first 1,024 images of
MNIST, downscaled to 14 x 14 pixels. There is neither cropping nor mirroring. Series:

* no noise: Figure 4, learning rate over batch size held constant;
* noise: Table 2, the same with normal noise of variance 1e-5 / (1 + t)^.55;
* as many updates: Figure 5, as many updates as at batch size 32.

The training accuracy is measured at every evaluation, for the curves of Figure 4(b).
"""

import ml_collections

from experiments import scales
from experiments.jaiswal2020 import constant_ratio
from noisegen import linear_rule, sweeps

AS_MANY_UPDATES = "as many updates"
LABELS = (*constant_ratio.LABELS, AS_MANY_UPDATES)


def get_config(scale: str = "cpu") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    scales.check(scale, "cpu", "test")
    config = ml_collections.ConfigDict(
        {
            "task": {
                "dataset": "mnist",
                "decoded": 0,
                "num_train": 1024,
                "num_test": 10_000,
                "pixels": 14,
                "crop": 14,
                "mirror": False,
                "network": "mlp",
                "width": 100,
                "dtype": "float32",
                "decay_epochs": (25.0, 40.0, 50.0, 60.0, 70.0),
            },
            "base_learning_rate": 0.01,  # at batch size 32
            "run": {"num_epochs": 80.0, "momentum": 0.9, "gamma": 0.55, "num_evals": 20},
            "grid": {
                "seed": tuple(range(10)),
                "decay_rate": (0.1,),
                "variance": (0.0, constant_ratio.VARIANCE),
                "batch_size": sweeps.powers_of_two(32, 512),
            },
            "convolution": "auto",  # not read: the network has none
        }
    )
    if scale == "test":
        config.task.update(num_train=7, num_test=3, width=2)
        config.run.update(num_epochs=5.0, num_evals=2)
        config.grid.update(seed=(0,), batch_size=(4,))
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    num_seeds = len(config.grid.seed)
    protocol = sweeps.Protocol(
        series=_label,
        labels=LABELS,
        best=num_seeds,
        of=num_seeds,
        max_extensions=0,  # Nothing is tuned: the rule gives the learning rate.
        report=("clean_train_loss", "clean_train_accuracy"),
    )
    make_task = constant_ratio.task_maker(config)
    return sweeps.Sweep(lambda: make_task(1), _runs(config), protocol)


def _runs(config):
    """Returns the runs of all series, one seed of everything first."""
    longer = [
        run
        for run in constant_ratio.make_runs(config, stretch=linear_rule)
        if run["variance"] == 0 and run["batch_size"] > constant_ratio.BASE_BATCH_SIZE
    ]
    runs = [*constant_ratio.make_runs(config), *longer]
    return sorted(runs, key=lambda run: run["seed"])


def _label(run):
    """Returns the label of a run's series, one of `LABELS`."""
    return AS_MANY_UPDATES if run["stretch"] > 1 else constant_ratio.label(run)
