"""Every kind of task measures validation data if its data set has any."""

import jax
import numpy as np
import optax
import pytest

from noisegen import data, models, tasks, training

DIGITS = data.load("digits")
SPLIT = data.split_validation(DIGITS, 200)
TOKENS = np.random.RandomState(0).randint(0, 7, 403).astype(np.int32)
TEXT = data.Text("made", TOKENS, TOKENS[:203], tuple("abcdefg"), "0" * 16, "made up")


def make_optimizer(hparams, key):
    return optax.sgd(hparams["learning_rate"])


def classify(dataset):
    return tasks.image_classification(
        dataset, lambda rngs: models.MLP(rngs=rngs), make_optimizer, name="MLP"
    )


def reconstruct(dataset):
    return tasks.autoencoding(
        dataset,
        lambda rngs: models.Autoencoder((64, 8, 4), rngs=rngs),
        make_optimizer,
        name="autoencoder",
    )


def read(text):
    return tasks.language_modeling(
        text,
        lambda rngs: models.LSTM(7, hidden=3, layers=1, dropout=0.0, scale=0.5, rngs=rngs),
        make_optimizer,
        batch_size=4,
        window=5,
        name="lstm",
    )


@pytest.mark.parametrize(
    "make_task, with_valid, without, names",
    [
        (classify, SPLIT, DIGITS, ("valid_accuracy", "valid_loss")),
        (reconstruct, SPLIT, DIGITS, ("valid_loss", "valid_squared_error")),
        (read, TEXT._replace(valid=TOKENS[100:]), TEXT, ("valid_loss",)),
    ],
)
def test_metrics_of_validation_data_are_those_of_test_data(make_task, with_valid, without, names):
    assert training.metric_spec(make_task(with_valid)).valid == names
    assert make_task(without).valid is None and training.metric_spec(make_task(without)).valid == ()


@pytest.mark.parametrize("make_task", [classify, reconstruct])
def test_a_task_with_a_validation_split_has_other_runs(make_task):
    with_split, without = make_task(SPLIT), make_task(DIGITS)
    assert with_split.name != without.name and with_split.data_description == SPLIT.description
    assert (with_split.num_examples, without.num_examples) == (1237, 1437)
    assert (with_split.num_valid_examples, with_split.num_test_examples) == (200, 360)


def test_images_for_validation_are_evaluated_as_those_for_testing():
    task = classify(SPLIT)
    params, _ = task.init(jax.random.key(0))
    found = training.evaluate_params(task, params, {"valid": task.valid})["valid"]
    both = training.evaluate_params(task, params)
    np.testing.assert_array_equal(both["valid_accuracy"], found["test_accuracy"])
    assert both["test_accuracy"] != both["valid_accuracy"]


def test_the_validation_text_is_read_as_the_test_text_is():
    task = read(TEXT._replace(valid=TEXT.test))
    np.testing.assert_array_equal(task.valid["tokens"], task.test["tokens"])
    with pytest.raises(ValueError, match="too short for 10 streams"):
        read(TEXT._replace(valid=TOKENS[:20]))
