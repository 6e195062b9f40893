"""Smith, Elsen & De, appendix D: constant step budget, LSTM language model

Claim of the main text: the test loss gets worse at very large batches even at a constant step
budget. We had no access to the appendices. The network is that of Zaremba et al. (2014), with
gradients clipped to a norm of 5. Its size in the paper is not known (medium here). Momentum and
schedule are those of all experiments of the paper. Budgets and grids are our choices. `test_loss`
is of the validation text of Penn Treebank (of the test text at the scale cpu).

At the scales paper and gpu the texts are those of Penn Treebank (`ptb.train.txt` and
`ptb.valid.txt` in the directory `task.directory`). The scale cpu trains a smaller network on the
validation text of WikiText-2, because we had no training text, and evaluates it on the first 20,000
words of the test text.
"""

import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections
import optax

from experiments import scales
from experiments.smith2020 import optimizers
from noisegen import data, models, sweeps, tasks, training


def get_config(scale: str = "cpu") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    scales.check(scale, "paper", "gpu", "cpu", "test")
    config = ml_collections.ConfigDict(
        {
            "task": task_fields(scale),
            "run": {
                "num_updates": 10_000,
                "momentum": 0.9,  # as the paper; Zaremba et al. have 0
                "l2": 0.0,
                "gamma": 2.0,
                "num_evals": 20,
            },
            "grid": {
                "seed": tuple(range(15)),
                "batch_size": sweeps.powers_of_two(16, 2048),
                "effective_learning_rate": sweeps.powers_of_two(2**-3, 16),
            },
            "best": 12,  # of the seeds
            "search": "grid",  # or "race": train only the runs that decide the optimum
        }
    )
    if scale == "gpu":
        config.grid.update(
            seed=(0,),
            batch_size=sweeps.powers_of_two(16, 256),
            effective_learning_rate=sweeps.powers_of_two(2**-1, 8),
        )
        config.best = 1
    if scale == "cpu":
        config.run.num_updates = 400
        config.grid.update(
            seed=(0, 1, 2),
            batch_size=sweeps.powers_of_two(8, 256),
            effective_learning_rate=sweeps.powers_of_two(2**-4, 2),
        )
        config.best = 3
    if scale == "test":
        config.run.num_updates = 20
        config.grid.update(seed=(0,), batch_size=(4,), effective_learning_rate=(2**-5,))
        config.best = 1
    return config


def task_fields(scale: str) -> dict[str, Any]:
    """Returns network and texts of all experiments with the LSTM."""
    fields = {
        "directory": "texts",
        "train": "ptb.train.txt",
        "test": "ptb.valid.txt",
        "test_words": None,  # all
        "vocabulary_size": 10_000,
        "hidden": 650,
        "layers": 2,
        "dropout": 0.5,
        "scale": 0.05,  # of the initial values
        "window": 35,
        "clip": 5.0,
    }
    if scale in ("cpu", "test"):
        fields.update(
            train="wiki.valid.tokens",
            test="wiki.test.tokens",
            test_words=20_000,
            vocabulary_size=1000,
            hidden=48,
            layers=1,
            dropout=0.0,
            scale=0.1,
            window=20,
        )
    if scale == "test":
        fields.update(vocabulary_size=20, hidden=4, window=5)
    return fields


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    grid = config.grid
    points = sweeps.grid(
        seed=grid.seed,
        batch_size=grid.batch_size,
        effective_learning_rate=grid.effective_learning_rate,
    )
    protocol = sweeps.Protocol(
        metric="test_loss",
        mode="min",
        tune=("effective_learning_rate",),
        best=config.best,
        search=config.search,
        of=len(grid.seed),
        report=("train_loss",),
    )
    runs = points * sweeps.fixed(**config.run)
    return sweeps.Sweep(task_maker(config), runs, protocol, static=("batch_size",))


def task_maker(config: ml_collections.ConfigDict) -> Callable[[int], training.Task]:
    """Returns a function from the batch size to the task of all experiments with the LSTM.

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
        # The texts of other experiments lack `train_words`, and so do the ids of their runs.
        train_words = fields.get("train_words")
        return text._replace(train=text.train[:train_words], test=text.test[: fields.test_words])

    def make_task(batch_size):
        text = load()

        def make_model(rngs):
            shape = (fields.hidden, fields.layers, fields.dropout, fields.scale)
            return models.LSTM(len(text.vocabulary), *shape, rngs=rngs)

        return tasks.language_modeling(
            text,
            make_model,
            functools.partial(make_optimizer, clip=fields.clip),
            batch_size=batch_size,
            name=f"smith2020 {identity}",
            window=fields.window,
        )

    return make_task


def make_optimizer(hparams: Mapping[str, Any], key: Any, clip: float) -> Any:
    """Returns the optimizer of the paper, after clipping gradients to a norm."""
    descent = optimizers.hold_then_decay(hparams, key)
    return optax.chain(optax.clip_by_global_norm(clip), descent)
