"""Smith, Elsen & De, Table 1 on a network that fits its images: constant step budget, MNIST

Claim: with the number of updates held at 1000 and the learning rate tuned for each batch size, the
training loss falls as the batch grows. The test accuracy first rises and then falls, far beyond its
error: the noise of small batches helps generalization.

Its cause is tested besides. Large batches get noise of the covariance that batches of 16 have, by
random weights on their examples, and nothing else changes. If the missing noise is what costs the
accuracy, noise gives it back. `table1_mnist_noise.py` compares this noise with simpler kinds.

The paper draws every batch anew ("indices are randomly reshuffled between each update"), and in
practice batches follow each other through epochs. Both are swept. Published numbers are of other
networks on other images and do not compare.
"""

import functools

import ml_collections

import noisegen
from experiments import scales, validation
from experiments.smith2020 import mnist_mlp
from noisegen import sweeps, tasks

# From a series to how its batches are drawn (the run's field `last_batch`).
SAMPLING = {"batches drawn anew": "resample", "batches in epochs": "straddle"}
WITH_NOISE = "drawn anew, with the noise of a small batch"


def get_config(scale: str = "cpu") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    scales.check(scale, "cpu", "test")
    config = ml_collections.ConfigDict(
        {
            "task": mnist_mlp.task_fields(),
            "run": {
                "num_updates": 1000,
                "momentum": 0.9,
                "l2": 0.0,
                "gamma": 2.0,
                "num_evals": 5,
            },
            "grid": {
                "seed": tuple(range(15)),
                "batch_size": sweeps.powers_of_two(4, 1024),
                "effective_learning_rate": sweeps.powers_of_two(2**-6, 8),
            },
            # The noise of batches of this size is given to larger ones.
            "noise": {"reference_batch_size": 16, "batch_size": (128, 256, 512, 1024)},
            "best": 12,  # of the seeds
            "search": "race",  # or "grid": train every run
        }
    )
    if scale == "test":
        config.task.update(num_train=7, num_test=3)
        config.run.num_updates = 20
        config.grid.update(seed=(0,), batch_size=(4, 6), effective_learning_rate=(2**-5,))
        config.noise.update(reference_batch_size=2, batch_size=(6,))
        config.best = 1
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    grid = config.grid
    points = sweeps.grid(
        seed=grid.seed, effective_learning_rate=grid.effective_learning_rate
    ) * _batches(config)
    protocol = sweeps.Protocol(
        series=_series,
        labels=(*SAMPLING, WITH_NOISE),
        tune=("effective_learning_rate",),
        best=config.best,
        of=len(grid.seed),
        search=config.search,
        **validation.tuned_on(
            config.task, "test_accuracy", report=("clean_train_loss", "clean_train_accuracy")
        ),
    )
    return sweeps.Sweep(
        lambda: mnist_mlp.make_task(
            config, example_weights=_example_weights, check_run=tasks.check_matched_noise
        ),
        points * sweeps.fixed(**config.run),
        protocol,
    )


def _batches(config):
    """Returns the batch sizes, each drawn in both ways, and the large ones with noise."""
    batches = [
        {"batch_size": size, "last_batch": drawn, "reference_batch_size": size}
        for drawn in SAMPLING.values()
        for size in config.grid.batch_size
    ]
    for size in config.noise.batch_size:
        reference = config.noise.reference_batch_size
        batches.append(
            {"batch_size": size, "last_batch": "resample", "reference_batch_size": reference}
        )
    return batches


def _series(run):
    """Returns the label of a run's series."""
    if run["reference_batch_size"] < run["batch_size"]:
        return WITH_NOISE
    return next(label for label, drawn in SAMPLING.items() if drawn == run["last_batch"])


def _example_weights(hparams):
    """Returns the weights of a run's examples. They are 1 at the reference batch size."""
    reference = hparams["reference_batch_size"]
    return functools.partial(noisegen.matched_weights, reference_batch_size=reference)
