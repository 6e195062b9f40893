"""Zhang et al., on text: updates to a target loss against batch size, SGD and Adam

Claims of Zhang et al. (2019): beyond a critical batch size larger batches save few updates; the
critical batch size of Adam is much larger than that of SGD with momentum. Claim of Merrill et al.,
Critical Batch Size Revisited (2025): the critical batch size grows during training, so it is larger
for a lower target loss.

A small transformer predicts the bytes of a text, in windows. Network, text, learning rates (which
are constant) and budgets are our choices: those of the papers are far larger. At the scale gpu the
text is `wiki.train.tokens` in the directory `task.directory`, tested on a part of
`wiki.valid.tokens`. The scale cpu trains on the validation text and is tested on a part of the test
text, because we had no training text. `plots/transformer.py` reads the updates to targets that all
optimizers reach.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np
import optax
from flax import nnx

from experiments import scales
from noisegen import data, models, sweeps, tasks, training

OPTIMIZERS = ("SGD", "momentum", "Adam")


def get_config(scale: str = "cpu") -> ml_collections.ConfigDict:
    """Returns every field that `--config.NAME=VALUE` may override."""
    scales.check(scale, "gpu", "cpu", "test")
    config = ml_collections.ConfigDict(
        {
            "task": {
                "directory": "texts",
                "train": "wiki.train.tokens",
                "test": "wiki.valid.tokens",
                "test_bytes": 131_072,
                "window": 256,
                "width": 256,
                "layers": 4,
                "heads": 4,
                "dtype": "bfloat16",
            },
            "run": {"num_evals": 40},
            "grid": {
                "seed": (0,),
                "optimizer": OPTIMIZERS,
                "batch_size": (8, 32, 128, 512, 2048),
                "num_updates": (8000, 4000, 2000, 1000, 500),  # of each batch size
            },
            "learning_rate": {
                "SGD": sweeps.powers_of_two(2**-4, 1),
                "momentum": sweeps.powers_of_two(2**-7, 2**-3),
                "Adam": sweeps.powers_of_two(2**-12, 2**-8),
            },
        }
    )
    if scale in ("cpu", "test"):
        config.task.update(
            train="wiki.valid.tokens",
            test="wiki.test.tokens",
            test_bytes=4096,
            window=32,
            width=32,
            layers=1,
            heads=2,
            dtype="float32",
        )
        config.grid.update(
            seed=(0, 1, 2), batch_size=(1, 4, 16, 64, 256), num_updates=(2000, 1000, 600, 400, 300)
        )
        config.learning_rate.update(
            SGD=sweeps.powers_of_two(2**-2, 2),
            momentum=sweeps.powers_of_two(2**-5, 2**-1),
            Adam=sweeps.powers_of_two(2**-9, 2**-4),
        )
    if scale == "test":
        config.task.update(window=8, width=8)
        config.grid.update(seed=(0,), batch_size=(4,), num_updates=(10,))
        config.learning_rate.update(SGD=(0.5,), momentum=(2**-4,), Adam=(2**-7,))
    return config


def get_sweep(config: ml_collections.ConfigDict) -> sweeps.Sweep:
    """Returns the sweep of a config."""
    grid = config.grid
    sizes = sweeps.zipped(
        sweeps.grid(batch_size=grid.batch_size), sweeps.grid(num_updates=grid.num_updates)
    )
    optimizers = sweeps.chain(
        *(
            sweeps.grid(optimizer=[name], learning_rate=config.learning_rate[name])
            for name in grid.optimizer
        )
    )
    runs = sweeps.grid(seed=grid.seed) * optimizers * sizes * sweeps.fixed(**config.run)
    protocol = sweeps.Protocol(
        metric="test_loss",
        mode="min",
        series=lambda run: run["optimizer"],
        labels=OPTIMIZERS,
        best=len(grid.seed),
        of=len(grid.seed),
        max_extensions=0,  # It would follow the last loss, not the updates to a target.
        report=("train_loss",),
    )
    return sweeps.Sweep(lambda: make_task(config), runs, protocol)


def make_task(config: ml_collections.ConfigDict) -> training.Task:
    """Returns the task: the next byte of the text."""
    fields = config.task
    without_directory = {name: fields[name] for name in fields if name != "directory"}
    identity = ml_collections.ConfigDict(without_directory).to_json(sort_keys=True)
    folder = pathlib.Path(fields.directory)
    train, test = (_read(folder / name) for name in (fields.train, fields.test))
    text = data.text_from_tokens(train, test[: fields.test_bytes], 256, name=fields.train)

    def make_model(rngs: nnx.Rngs) -> models.Transformer:
        shape = (fields.width, fields.layers, fields.heads)
        return models.Transformer(256, *shape, dtype=fields.dtype, rngs=rngs)

    return tasks.windowed_language_modeling(
        text, make_model, make_optimizer, name=f"zhang2019 {identity}", window=fields.window
    )


def make_optimizer(hparams: Mapping[str, Any], key: Any) -> optax.GradientTransformation:
    """Returns the optimizer that a run names."""
    del key  # The only noise is that of the batches.
    if hparams["optimizer"] == "Adam":
        return optax.adam(hparams["learning_rate"])
    momentum = 0.9 if hparams["optimizer"] == "momentum" else None
    return optax.sgd(hparams["learning_rate"], momentum)


def _read(path: pathlib.Path) -> np.ndarray:
    """Returns the bytes of a text."""
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no text {path}; put the text of WikiText-2 there, or name its directory "
            "with --config.task.directory=DIR."
        )
    return np.frombuffer(path.read_bytes(), np.uint8)
