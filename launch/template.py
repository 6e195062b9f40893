"""Which learning rate goes with which batch size? Handwritten digits

A small network is trained on scikit-learn's handwritten digits at four batch sizes, and the
learning rate is tuned for each.
"""

# The first line of the text above is the title of the report, and the rest is its description. Put
# your own model, loss and data in `make_task` below.

import ml_collections
import optax
from flax import nnx

from noisegen import data, sweeps, tasks


def get_config():
    """Returns every field that `--config.NAME=VALUE` may override."""
    return ml_collections.ConfigDict(
        {
            "hidden": 32,
            # Every combination of these is a run.
            "grid": {
                "batch_size": (16, 64, 256, 1024),
                "learning_rate": sweeps.powers_of_two(2**-6, 2**-2),
                "seed": (0, 1, 2),
            },
            # All runs share these.
            "run": {"num_epochs": 10.0, "momentum": 0.9},
            "search": "grid",  # or "race": train only the runs that decide the optimum
        }
    )


def get_sweep(config):
    """Returns the sweep: a task, its runs, and the protocol that reads them."""
    runs = sweeps.grid(**config.grid) * sweeps.fixed(**config.run)
    num_seeds = len(config.grid.seed)
    protocol = sweeps.Protocol(
        metric="test_accuracy", best=num_seeds, of=num_seeds, search=config.search
    )
    # The task is made by a function, so that `noisegen status` need not load the data.
    return sweeps.Sweep(lambda: make_task(config), runs, protocol)


class Network(nnx.Module):
    """A network with one hidden layer."""

    def __init__(self, hidden, rngs):
        self.hidden = nnx.Linear(64, hidden, rngs=rngs)
        self.out = nnx.Linear(hidden, 10, rngs=rngs)

    def __call__(self, images):
        pixels = images.reshape(len(images), -1) / 255
        return self.out(nnx.relu(self.hidden(pixels)))


def make_task(config):
    """Returns the task: model, loss, metrics, data and optimizer."""
    digits = data.load("digits")

    def loss(model, batch):
        """Returns the loss of each example."""
        logits = model(batch.data["image"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch.data["label"])

    def metrics(model, batch):
        """Returns metrics of each example; each is averaged over the test set."""
        predicted = model(batch.data["image"]).argmax(-1)
        return {"test_accuracy": predicted == batch.data["label"]}

    def make_optimizer(hparams, key):
        """Returns the optimizer of a run; `hparams` has every field of the run."""
        del key  # for noise, as in noisegen.add_gradient_noise(hparams["noise"], key)
        return optax.sgd(hparams["learning_rate"], hparams["momentum"])

    return tasks.from_nnx(
        lambda rngs: Network(config.hidden, rngs),
        # Part of every run's identity: change it if the code above trains something else.
        name=f"digits, {config.hidden} hidden units",
        # Dictionaries of arrays, all with the examples along their first axis.
        train=digits.train,
        test=digits.test,
        loss=loss,
        metrics=metrics,
        make_optimizer=make_optimizer,
    )
