"""Additive gradient noise, section 5.3: WikiText-2, LSTM language model with and without noise

Planned in the draft "Even larger batch size with additive gradient noise", never run: there is no
number to compare with. The question is that of its tables: whether noise lowers the test loss that
large batches reach in a fixed number of epochs.

The network is that of PyTorch's example for this text: 200 units, 2 layers, dropout .2, initial
values in U(-.1, .1), windows of 35, batches of 20 at a learning rate of 20, gradients clipped to a
norm of .25, no momentum, 40 epochs. Readings: loss and gradient are means over the tokens, as
there; noise is added after clipping, or it would be the noise that is clipped; the learning rate is
constant (the example divides it by 4 where the validation loss stalls). A learning rate of 20 makes
much of a small noise, so that our etas are smaller than the draft's; like those learning rates that
are not the example's, and the batch sizes above 20, they are our choice.

At the scales paper and gpu the texts are `wiki.train.tokens` and `wiki.valid.tokens` in the
directory `task.directory`. The scale cpu trains a smaller network on the validation text, because
no more was at hand, and evaluates it on the first 20,000 words of the test text.
"""

import dataclasses
import pathlib

import ml_collections
import optax

from experiments import scales
from experiments.additive_noise import table1
from experiments.additive_noise.table1 import get_runs  # noqa: F401
from noisegen import data, models, tasks

_PAPER = {
    "directory": "texts",
    "train": "wiki.train.tokens",
    "test": "wiki.valid.tokens",
    "test_words": 10**9,  # all
    "vocabulary_size": 33_278,
    "hidden": 200,
    "layers": 2,
    "dropout": 0.2,
    "scale": 0.1,
    "window": 35,
    "clip": 0.25,
}
_SMALL = {
    "train": "wiki.valid.tokens",
    "test": "wiki.test.tokens",
    "test_words": 20_000,
    "vocabulary_size": 1000,
    "hidden": 48,
    "layers": 1,
    "dropout": 0.0,
    "window": 20,
}
_TASKS = {"paper": _PAPER, "gpu": _PAPER, "cpu": _PAPER | _SMALL}
_BY_SCALE = {  # epochs; seeds; by how often the batch is doubled
    "paper": (40.0, (0, 1, 2), 7),
    "gpu": (10.0, (0,), 5),
    "cpu": (4.0, (0, 1, 2), 5),
}
_GPU_WINDOWS_PER_SECOND = 10_000  # assumed, from the network's size


def get_config(scale="cpu"):
    """Every field that `--config.NAME=VALUE` may override."""
    config = table1.get_config()
    del config.convolution  # there is none
    config.task = ml_collections.ConfigDict(scales.at_scale(scale, _TASKS))
    epochs, seeds, doublings = _BY_SCALE[scale]
    config.run.update({"num_epochs": epochs, "momentum": 0.0})
    config.grid.update(
        {
            "seed": seeds,
            "eta": (0.0, 1e-3, 1e-4),
            "learning_rate": (20.0, 10.0, 40.0, 5.0),
            "batch_size": tuple(20 * 2**k for k in reversed(range(doublings))),
        }
    )
    config.gpu_examples_per_second = _GPU_WINDOWS_PER_SECOND
    return config


def get_task(config):
    """A task for each batch size: the state of every stream is carried from window to window."""
    fields = config.task
    folder = pathlib.Path(fields.directory)
    text = data.load_text(folder / fields.train, folder / fields.test, fields.vocabulary_size)
    text = text._replace(test=text.test[: fields.test_words])
    size = len(text.vocabulary)

    def make_model(rngs):
        shape = (fields.hidden, fields.layers, fields.dropout, fields.scale)
        return models.LSTM(size, *shape, rngs=rngs)

    def make_optimizer(hparams, key):
        return optax.chain(
            optax.scale(1 / fields.window),  # the task's loss is summed over the window
            optax.clip_by_global_norm(fields.clip),
            table1.make_optimizer(hparams, key),
        )

    identity = {name: value for name, value in fields.items() if name != "directory"}
    identity = ml_collections.ConfigDict(identity).to_json(sort_keys=True)
    return lambda batch_size: tasks.language_modeling(
        text,
        make_model,
        make_optimizer,
        batch_size=batch_size,
        name=f"additive_noise {identity}",
        window=fields.window,
    )


def get_protocol(config):
    return dataclasses.replace(table1.get_protocol(config), metric="test_loss", mode="min")
