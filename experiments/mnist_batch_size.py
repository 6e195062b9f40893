"""How large can the batch be? MNIST

A small network on the first 8,192 images of MNIST, 10 epochs of SGD with momentum at every batch
size, the learning rate tuned for each on the test set. The network is a multilayer perceptron or,
with `--config.task.model=lenet5`, LeNet-5. It reproduces no published table.
`experiments/benchmarks/advice.py` compares these sweeps with predictions from shorter ones.
"""

import ml_collections
import optax

from experiments import scales, validation
from noisegen import data, models, sweeps, tasks, training


def get_config(scale: str = "cpu") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    scales.check(scale, "cpu", "test")
    config = ml_collections.ConfigDict(
        {
            "task": {
                "dataset": "mnist",
                "model": "mlp",  # or "lenet5"
                "num_train": 8192,
                "num_test": 10_000,
                "validation": 0,  # training images held out to tune on; 0: on the test set
            },
            "run": {"num_epochs": 10.0, "momentum": 0.9},
            "grid": {
                "seed": (0, 1, 2, 3, 4),
                "batch_size": sweeps.powers_of_two(16, 2048),
                "learning_rate": sweeps.powers_of_two(2**-8, 1),
            },
            "search": "race",  # or "grid"
        }
    )
    if scale == "test":
        config.task.update(num_train=5, num_test=3)
        config.run.num_epochs = 1.0
        config.grid.update(batch_size=(4,), learning_rate=(2**-4, 2**-3), seed=(0,))
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    grid = config.grid
    points = sweeps.grid(
        seed=grid.seed, batch_size=grid.batch_size, learning_rate=grid.learning_rate
    )
    num_seeds = len(grid.seed)
    protocol = sweeps.Protocol(
        best=num_seeds,
        of=num_seeds,
        search=config.search,
        **validation.tuned_on(config.task, "test_accuracy"),
    )
    runs = points * sweeps.fixed(**config.run)
    return sweeps.Sweep(lambda: make_task(config), runs, protocol)


def make_task(config: ml_collections.ConfigDict) -> training.Task:
    """Returns the task: model, data and optimizer.

    Raises:
      ValueError: If there is no such model.
    """
    fields = config.task
    if fields.model not in ("mlp", "lenet5"):
        raise ValueError(f"task.model={fields.model!r} must be 'mlp' or 'lenet5'.")
    dataset = data.subsample_and_downscale(
        data.load(fields.dataset), fields.num_train, fields.num_test, 28
    )

    def make_model(rngs):
        if fields.model == "lenet5":
            return models.LeNet5(rngs=rngs)
        return models.MLP(in_features=28 * 28, rngs=rngs)

    def make_optimizer(hparams, key):
        del key  # The only noise is that of the batches.
        return optax.sgd(hparams["learning_rate"], hparams["momentum"])

    return tasks.image_classification(
        validation.hold_out(dataset, fields),
        make_model,
        make_optimizer,
        name=f"mnist batch size {validation.to_json(fields)}",
    )
