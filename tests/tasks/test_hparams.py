"""Models, augmentation and label smoothing are made of the hyperparameters of a run."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from noisegen import data, models, tasks, training

FIELDS = ("init_scale", "dropout", "pixel_noise", "label_smoothing")
RUN = {"batch_size": 16, "learning_rate": 0.1, "num_updates": 6, "seed": 0}
X = np.random.default_rng(0).normal(size=(48, 4)).astype(np.float32)
ARRAYS = {"x": X, "y": np.sin(X.sum(1))}


class Net(nnx.Module):
    """A network whose numbers may be those of a run or Python's."""

    def __init__(self, rngs, hparams):
        scaled = nnx.initializers.variance_scaling(hparams["init_scale"], "fan_in", "normal")
        self.hidden = nnx.Linear(4, 8, kernel_init=scaled, rngs=rngs)
        self.dropout = models.Dropout(hparams["dropout"], rngs=rngs)
        self.out = nnx.Linear(8, 1, rngs=rngs)

    def __call__(self, x):
        return self.out(self.dropout(jnp.tanh(self.hidden(x))))[:, 0]


def error(model, batch):
    return (model(batch.data["x"]) - batch.data["y"]) ** 2


def make_task(make_model=Net, loss=error):
    return tasks.from_nnx(
        make_model,
        loss=loss,
        metrics=lambda model, batch: {"test_loss": error(model, batch)},
        diagnostics=lambda mean_loss, params, train, hparams: {
            "scaled_loss": hparams["init_scale"] * mean_loss(params, train)
        },
        name="net",
        train=ARRAYS,
        test=ARRAYS,
        make_optimizer=lambda hparams, key: optax.sgd(hparams["learning_rate"]),
    )


@pytest.mark.parametrize(
    "settings",
    [{"lanes": 2}, pytest.param({"lanes": 2, "batch_devices": 2}, marks=pytest.mark.slow)],
)
def test_a_model_of_a_runs_numbers_is_that_of_pythons(settings):
    cells = [{"init_scale": 1.0, "dropout": 0.1}, {"init_scale": 3.0, "dropout": 0.5}]
    config = training.PoolConfig(microbatch=8, **settings)
    results = training.Pool(make_task(), config).train([RUN | cell for cell in cells])
    for result in results:
        fixed = {name: result.hparams[name] for name in cells[0]}
        # The dropout of Flax itself, whose rate is a number of Python.
        alone = tasks.from_nnx(
            lambda rngs, fixed=fixed: with_flax_dropout(rngs, fixed),
            loss=error,
            metrics=lambda model, batch: {"test_loss": error(model, batch)},
            name="alone",
            train=ARRAYS,
            test=ARRAYS,
            make_optimizer=lambda hparams, key: optax.sgd(hparams["learning_rate"]),
        )
        [expected] = training.Pool(alone, training.PoolConfig(microbatch=8)).train([RUN])
        for name in ("test_loss", "train_loss"):
            assert result.metrics[name] == pytest.approx(expected.metrics[name], rel=1e-5)
        clean = fixed["init_scale"] * result.metrics["test_loss"]
        assert result.metrics["scaled_loss"] == pytest.approx(clean, rel=1e-4)


def with_flax_dropout(rngs, fixed):
    model = Net(rngs, fixed)
    model.dropout = nnx.Dropout(fixed["dropout"], rngs=nnx.Rngs(0))
    return model


@pytest.mark.slow
def test_images_are_classified_with_the_numbers_of_a_run():
    def make(value):
        """Makes the task from a function of name and hyperparameters to a number."""
        return tasks.image_classification(
            data.load("digits"),
            lambda rngs, hparams: models.WideResNet(
                10, 1, channels=1, ghost_size=8, dropout=value("dropout", hparams), rngs=rngs
            ),
            lambda hparams, key: optax.sgd(hparams["learning_rate"]),
            name="images",
            augment=lambda key, image, hparams: (
                image + value("pixel_noise", hparams) * jax.random.normal(key, image.shape)
            ),
            label_smoothing=lambda hparams: value("label_smoothing", hparams),
        )

    cell = {"dropout": 0.3, "pixel_noise": 20.0, "label_smoothing": 0.2}
    config = training.PoolConfig(lanes=2, microbatch=16)
    task = make(lambda name, hparams: hparams[name])
    assert task.combine_state is not None
    [result] = training.Pool(task, config).train([RUN | cell])
    fixed = make(lambda name, hparams: cell[name])
    [expected] = training.Pool(fixed, config).train([RUN])
    for name, value in expected.metrics.items():
        assert result.metrics[name] == pytest.approx(value, rel=1e-3)


class FlaxDropout(Net):
    def __init__(self, rngs, hparams):
        super().__init__(rngs, hparams)
        self.dropout = nnx.Dropout(hparams["dropout"], rngs=rngs)


class Width(Net):
    def __init__(self, rngs, hparams):
        super().__init__(rngs, hparams)
        self.hidden = nnx.Linear(4, hparams["width"], rngs=rngs)


class Closure(Net):
    def __init__(self, rngs, hparams):
        super().__init__(rngs, hparams)
        self.scale = lambda x: hparams["init_scale"] * x

    def __call__(self, x):
        return self.scale(super().__call__(x))


class Word(Net):
    def __init__(self, rngs, hparams):
        super().__init__(rngs, hparams)
        self.activation = jnp.tanh if hparams["activation"] == "tanh" else jnp.sin


class Counting(Net):
    def __init__(self, rngs, hparams):
        super().__init__(rngs, hparams)
        self.calls = jnp.float32(0)

    def __call__(self, x):
        self.calls = self.calls + 1
        return super().__call__(x)


@pytest.mark.parametrize(
    "model, fields, message",
    [
        (FlaxDropout, {}, r"rate of nnx.Dropout .* use noisegen.models.Dropout\(rate, rngs=rngs\)"),
        (Width, {"width": 3}, "^make_model needs the value of a hyperparameter"),
        (Closure, {}, "uses a traced number of another call"),
        (Word, {"activation": "tanh"}, "^make_model reads the run's activation='tanh', but gets"),
        (Counting, {}, "^The model changes calls while it is called: make it an nnx.Variable"),
    ],
)
def test_models_that_cannot_be_made_of_traced_numbers_are_refused(model, fields, message):
    # The check of keys, which is for tests only, fails at a leaked tracer itself.
    with jax.debug_key_reuse(False), pytest.raises(ValueError, match=message) as info:
        run = RUN | {"init_scale": 1.0, "dropout": 0.1} | fields
        training.make_runs(make_task(model), [run])
    assert "\n" not in str(info.value)
