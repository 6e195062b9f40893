"""Smith, Elsen & De, appendix D: constant step budget, LSTM language model

The appendices were not at hand, nor any number of theirs: that the test loss gets worse at very
large batches even at a constant step budget is the claim of the main text. The network is that of
Zaremba et al. (2014), whose size in the paper is not known (medium here), trained by SGD without
momentum, with gradients clipped to a norm of 5; the schedule is that of all experiments of the
paper; budgets and grids are our choices.

At the scales paper and gpu the texts are those of Penn Treebank (`ptb.train.txt` and
`ptb.valid.txt` in the directory `task.directory`). The scale cpu trains a smaller network on the
validation text of WikiText-2, because no more of it was at hand, and evaluates it on the first
20,000 words of the test text.
"""

import pathlib

import ml_collections
import optax

from experiments.smith2020 import common
from experiments.smith2020.common import get_runs  # noqa: F401
from noisegen import data, models, sweeps, tasks

_MEDIUM = {
    "directory": "texts",
    "train": "ptb.train.txt",
    "test": "ptb.valid.txt",
    "test_words": None,  # all
    "vocabulary_size": 10_000,
    "hidden": 650,
    "layers": 2,
    "dropout": 0.5,
    "scale": 0.05,
    "window": 35,
    "clip": 5.0,
}
_SMALL = {
    "train": "wiki.valid.tokens",
    "test": "wiki.test.tokens",
    "test_words": 20_000,
    "vocabulary_size": 1000,
    "hidden": 48,
    "layers": 1,
    "dropout": 0.0,
    "scale": 0.1,
    "window": 20,
}
_TASKS = {"paper": _MEDIUM, "gpu": _MEDIUM, "cpu": _MEDIUM | _SMALL}
_BY_SCALE = {
    "paper": {
        "num_updates": 10_000,
        "batch_size": sweeps.powers_of_two(16, 2048),
        "effective_learning_rate": sweeps.powers_of_two(2**-3, 16),
        "seeds": 15,
        "best": 12,
    },
    "gpu": {
        "num_updates": 10_000,
        "batch_size": sweeps.powers_of_two(16, 256),
        "effective_learning_rate": sweeps.powers_of_two(2**-1, 8),
        "seeds": 1,
        "best": 1,
    },
    "cpu": {
        "num_updates": 400,
        "batch_size": sweeps.powers_of_two(8, 256),
        "effective_learning_rate": sweeps.powers_of_two(2**-4, 2),
        "seeds": 3,
        "best": 3,
    },
}


def get_config(scale="cpu", by_scale=_BY_SCALE):
    """Every field that `--config.NAME=VALUE` may override."""
    assumed = 10_000  # windows, from the network's size
    config = common.make_config(scale, _TASKS, by_scale, gpu_examples_per_second=assumed)
    config.run.momentum = 0.0
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
        descent = common.hold_then_halve(hparams, key)
        return optax.chain(optax.clip_by_global_norm(fields.clip), descent)

    identity = {name: value for name, value in fields.items() if name != "directory"}
    name = common.task_name(ml_collections.ConfigDict(identity))
    return lambda batch_size: tasks.language_modeling(
        text, make_model, make_optimizer, batch_size=batch_size, name=name, window=fields.window
    )


def get_protocol(config):
    return common.get_protocol(config, metric="test_loss", mode="min")
