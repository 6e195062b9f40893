"""Smith, Elsen & De, Table 1 on MNIST: which noise gives large batches their accuracy back?

The setting is that of `table1_mnist.py`: 1000 updates, the learning rate tuned for each batch size
and kind of noise. Large batches are trained without noise and with four kinds:

* whole covariance: random weights on the examples, with the covariance of a batch of 16;
* diagonal: normal noise with the diagonal of that covariance, measured at every update;
* isotropic: normal noise with its trace, equal in every coordinate;
* tuned size: normal noise of a constant standard deviation, which is tuned with the learning rate.

The last has several values to tune, and thus more attempts than the others. Intervals score a seed
with values that the other seeds choose, so they give it no advantage. The column of the best 12
seeds does.
"""

import functools

import jax
import ml_collections
import optax

import noisegen
from experiments import scales, validation
from experiments.smith2020 import mnist_mlp, optimizers, table1_mnist
from noisegen import sweeps, tasks

# From a series to the run's field that holds the batch size whose noise it has.
MATCHED = {
    "whole covariance": "full_reference",
    "diagonal": "diagonal_reference",
    "isotropic": "isotropic_reference",
}
LABELS = ("no noise", *MATCHED, "tuned size")


def get_config(scale: str = "cpu") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    scales.check(scale, "cpu", "test")
    config = table1_mnist.get_config(scale)
    # Noise is measured on groups of so many examples.
    config.task.noise_group = 32
    config.grid.batch_size = (256, 1024)
    config.grid.effective_learning_rate = sweeps.powers_of_two(2**-3, 4)
    config.grid.stddev = (0.001, 0.004, 0.016)  # of the noise of tuned size
    config.noise = ml_collections.ConfigDict({"reference_batch_size": 16})
    if scale == "test":
        config.task.noise_group = 2
        config.grid.update(batch_size=(4,), effective_learning_rate=(2**-5,), stddev=(0.004,))
        config.noise.reference_batch_size = 2
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    grid = config.grid
    points = (
        sweeps.grid(seed=grid.seed, effective_learning_rate=grid.effective_learning_rate)
        * _batches(config)
        * sweeps.fixed(last_batch="resample", **config.run)
    )
    protocol = sweeps.Protocol(
        series=_series,
        labels=LABELS,
        tune=("effective_learning_rate", "stddev"),
        best=config.best,
        of=len(grid.seed),
        search=config.search,
        **validation.tuned_on(
            config.task, "test_accuracy", report=("clean_train_loss", "clean_train_accuracy")
        ),
    )
    return sweeps.Sweep(lambda: _make_task(config), points, protocol)


def _batches(config):
    """Returns every batch size without noise and with noise of every kind."""
    batches = []
    for size in config.grid.batch_size:
        # Noise that is matched to the batch's own size is none.
        plain = {"batch_size": size, "stddev": 0.0} | dict.fromkeys(MATCHED.values(), size)
        batches.append(plain)
        for reference in MATCHED.values():
            batches.append(plain | {reference: config.noise.reference_batch_size})
        for stddev in config.grid.stddev:
            batches.append(plain | {"stddev": stddev})
    return batches


def _series(run):
    """Returns the label of a run's series, one of `LABELS`."""
    for label, reference in MATCHED.items():
        if run[reference] < run["batch_size"]:
            return label
    return "tuned size" if run["stddev"] else "no noise"


def _make_task(config):
    return mnist_mlp.make_task(
        config,
        _make_optimizer,
        noise_microbatch=config.task.noise_group,
        example_weights=_example_weights,
        check_run=_check_run,
    )


def _make_optimizer(hparams, key):
    """Returns SGD after noise of every kind, most of it of size 0."""
    diagonal, isotropic, tuned = jax.random.split(key, 3)
    return optax.chain(
        noisegen.matched_noise(hparams["diagonal_reference"], diagonal, covariance="diagonal"),
        noisegen.matched_noise(hparams["isotropic_reference"], isotropic, covariance="isotropic"),
        noisegen.add_gradient_noise(hparams["stddev"], tuned),
        optimizers.hold_then_decay(hparams, key),
    )


def _example_weights(hparams):
    """Returns the weights of a run's examples, which give noise of the whole covariance."""
    reference = hparams["full_reference"]
    return functools.partial(noisegen.matched_weights, reference_batch_size=reference)


def _check_run(hparams, plan):
    for reference in MATCHED.values():
        tasks.check_matched_noise(hparams, plan, field=reference)
