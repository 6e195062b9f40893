"""Zhang et al., the noisy quadratic model: steps to target against batch size

SGD of constant learning rate on a quadratic, with h_i = c_i = 1 / i in every coordinate i: the
curvature and the variance of an example's gradient. The examples are the noise. Claims: updates to
a target fall in proportion to the batch size up to a critical one, and no further beyond; the
gradient noise scale predicts it. `plots/steps_to_target.py` compares the sweep with exact values.
"""

import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from experiments import scales
from experiments.zhang2019 import exact
from noisegen import sweeps, training

MAX_RATE = 1.8  # SGD is unstable from 2 / h_1 = 2 on.


def get_config(scale: str = "cpu") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    scales.check(scale, "cpu", "test")
    config = ml_collections.ConfigDict(
        {
            "task": {"dimensions": 100, "num_examples": 4096, "noise_group": 4},
            "run": {
                "num_evals": 40,
                # Otherwise the noise of small batches adds up to 0 in an epoch.
                "last_batch": "resample",
            },
            "grid": {
                "seed": tuple(range(10)),
                "learning_rate": tuple(MAX_RATE * 2 ** (k / 2) for k in range(-5, 1)),
                "batch_size": sweeps.powers_of_two(8, 512),
                # Of each batch size: more than twice the updates to 5 % of the first loss.
                "num_updates": (400, 240, 150, 110, 90, 80, 70),
            },
        }
    )
    if scale == "test":
        config.task.update(dimensions=20, num_examples=64)
        config.grid.update(
            seed=(0,), learning_rate=(0.45, 0.9), batch_size=(8, 16), num_updates=(20, 10)
        )
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    grid = config.grid
    sizes = sweeps.zipped(
        sweeps.grid(batch_size=grid.batch_size), sweeps.grid(num_updates=grid.num_updates)
    )
    rates = sweeps.grid(learning_rate=grid.learning_rate)
    runs = sweeps.grid(seed=grid.seed) * sizes * rates * sweeps.fixed(**config.run)
    protocol = sweeps.Protocol(
        metric="loss",
        mode="min",
        best=len(grid.seed),
        of=len(grid.seed),
        max_extensions=0,
        domains={"learning_rate": sweeps.Domain("log", high=MAX_RATE)},
    )
    return sweeps.Sweep(lambda: make_task(config), runs, protocol)


def make_task(config: ml_collections.ConfigDict) -> training.Task:
    """Returns the task: the loss of example x is sum_i h_i theta_i^2 / 2 - x_i theta_i."""
    model = make_model(config)
    curvature = jnp.asarray(model.curvature, jnp.float32)

    def quadratic(theta):
        return jnp.sum(curvature * theta**2) / 2

    def loss(theta, state, batch):
        return quadratic(theta) - jnp.sum(batch.data * theta[None], axis=1), state

    def metrics(theta, state, batch):
        return {"loss": jnp.broadcast_to(quadratic(theta), batch.mask.shape)}

    return training.Task(
        name=f"noisy quadratic {config.task.to_json(sort_keys=True)}",
        train=_make_noise(model),
        test=np.zeros((1, 1), np.float32),  # The expected loss is known without examples.
        init=lambda key: (jnp.ones_like(curvature), ()),
        loss=loss,
        metrics=metrics,
        make_optimizer=lambda hparams, key: optax.sgd(hparams["learning_rate"]),
        noise_microbatch=config.task.noise_group,
    )


def make_model(config: ml_collections.ConfigDict) -> exact.Quadratic:
    """Returns the model, of which the exact values are known."""
    return exact.harmonic(config.task.dimensions, config.task.num_examples)


def _make_noise(model):
    """Returns examples whose mean is 0 and whose variances are those of the model, exactly."""
    shape = (int(model.num_examples), len(model.variance))
    noise = np.random.default_rng(0).standard_normal(shape)
    noise = (noise - noise.mean(0)) / noise.std(0, ddof=1)
    return (np.sqrt(model.variance) * noise).astype(np.float32)
