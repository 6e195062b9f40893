"""Additive gradient noise, section 5.3: WikiText-2, LSTM language model with and without noise

The draft "Even larger batch size with additive gradient noise" plans this experiment and has no
results of it, so there is no number to compare with. The question is that of its tables: does noise
lower the test loss that large batches reach in a fixed number of epochs?

The network is that of PyTorch's example for this text: 200 units, 2 layers, dropout .2, initial
values in U(-.1, .1), windows of 35, batches of 20 at a learning rate of 20, gradients clipped to a
norm of .25, no momentum, 40 epochs. Readings: loss and gradient are means over the tokens, as
there. Noise is added after clipping, or it would be clipped itself. The learning rate is constant
(the example divides it by 4 when the validation loss stalls). A learning rate of 20 amplifies even
a small noise, so our etas are smaller than the draft's. The etas, the learning rates other than 20
and the batch sizes above 20 are our choice.

At the scales paper and gpu the texts are `wiki.train.tokens` and `wiki.valid.tokens` in the
directory `task.directory`. The scale cpu trains a smaller network on the validation text, because
we had no training text, and evaluates it on the first 20,000 words of the test text.
"""

import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections
import optax

from experiments import scales
from experiments.additive_noise import table1
from noisegen import data, models, sweeps, tasks, training


def get_config(scale: str = "cpu") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    scales.check(scale, "paper", "gpu", "cpu", "test")
    config = ml_collections.ConfigDict(
        {
            "task": {
                "directory": "texts",
                "train": "wiki.train.tokens",
                "test": "wiki.valid.tokens",
                "test_words": 10**9,  # all
                "vocabulary_size": 33_278,
                "hidden": 200,
                "layers": 2,
                "dropout": 0.2,
                "scale": 0.1,  # of the initial values
                "window": 35,
                "clip": 0.25,
            },
            "run": {
                "num_epochs": 40.0,
                "momentum": 0.0,
                "gamma": 0.55,
                "last_batch": "keep",
                "eval_every": 1.0,
            },
            "grid": {
                "seed": (0, 1, 2),
                "learning_rate": (20.0, 10.0, 40.0, 5.0),
                "eta": (0.0, 1e-3, 1e-4),
                "batch_size": (1280, 640, 320, 160, 80, 40, 20),
            },
            "search": "grid",  # or "race": train only the runs that decide the optimum
        }
    )
    if scale == "gpu":
        config.run.num_epochs = 10.0
        config.grid.update(seed=(0,), batch_size=(320, 160, 80, 40, 20))
    if scale in ("cpu", "test"):
        config.task.update(
            train="wiki.valid.tokens",
            test="wiki.test.tokens",
            test_words=20_000,
            vocabulary_size=1000,
            hidden=48,
            layers=1,
            dropout=0.0,
            window=20,
        )
        config.run.num_epochs = 4.0
        config.grid.batch_size = (320, 160, 80, 40, 20)
    if scale == "test":
        config.task.update(vocabulary_size=20, hidden=4, window=5)
        config.run.num_epochs = 2.0
        config.grid.update(seed=(0,), learning_rate=(0.1,), batch_size=(4,))
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    return sweeps.Sweep(
        task_maker(config),
        table1.make_runs(config),
        table1.make_protocol(config, metric="test_loss", mode="min"),
        static=("batch_size",),
    )


def task_maker(config: ml_collections.ConfigDict) -> Callable[[int], training.Task]:
    """Returns a function from the batch size to a task.

    The task depends on the batch size, because the state of every stream of text is carried from
    window to window.
    """
    fields = config.task
    without_directory = {name: fields[name] for name in fields if name != "directory"}
    identity = ml_collections.ConfigDict(without_directory).to_json(sort_keys=True)

    @functools.cache
    def load():  # once for all batch sizes
        folder = pathlib.Path(fields.directory)
        text = data.load_text(folder / fields.train, folder / fields.test, fields.vocabulary_size)
        return text._replace(test=text.test[: fields.test_words])

    def make_task(batch_size):
        text = load()

        def make_model(rngs):
            shape = (fields.hidden, fields.layers, fields.dropout, fields.scale)
            return models.LSTM(len(text.vocabulary), *shape, rngs=rngs)

        return tasks.language_modeling(
            text,
            make_model,
            functools.partial(make_optimizer, window=fields.window, clip=fields.clip),
            batch_size=batch_size,
            name=f"additive_noise {identity}",
            window=fields.window,
        )

    return make_task


def make_optimizer(hparams: Mapping[str, Any], key: Any, window: int, clip: float) -> Any:
    """Returns the optimizer of Table 1, after clipping the mean gradient to a norm."""
    return optax.chain(
        optax.scale(1 / window),  # The task's loss is summed over the window.
        optax.clip_by_global_norm(clip),
        table1.make_optimizer(hparams, key),
    )
