"""Tests language modeling of windows: their places, the loss, training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from noisegen import data, models, tasks, training

TOKENS = np.random.RandomState(0).randint(0, 7, 53)
TEXT = data.text_from_tokens(TOKENS, TOKENS[:23], 7, valid=TOKENS[:12], name="made")


class Shift(nnx.Module):
    """Gives a logit to the token after the own one, modulo 7."""

    def __init__(self, rngs, vocabulary=7):
        self.logit, self.vocabulary = nnx.Param(jnp.ones(())), vocabulary

    def __call__(self, tokens):
        return self.logit * jax.nn.one_hot((tokens + 1) % 7, self.vocabulary)


def make_task(make_model=Shift, text=TEXT, window=5, **options):
    return tasks.windowed_language_modeling(
        text,
        make_model,
        lambda hparams, key: optax.sgd(hparams["learning_rate"]),
        name="model",
        window=window,
        **options,
    )


@pytest.mark.parametrize("stride, starts", [(None, range(0, 48, 5)), (2, range(0, 48, 2))])
def test_examples_are_windows_with_the_token_that_follows(stride, starts):
    task = make_task(stride=stride)
    assert task.train["tokens"].tolist() == [TOKENS[start : start + 6].tolist() for start in starts]
    assert task.test["tokens"][:, 0].tolist() == TOKENS[[0, 5, 10, 15]].tolist()
    assert len(task.valid["tokens"]) == 2


def test_the_loss_is_the_mean_over_the_tokens_of_a_window():
    task = make_task()
    params, state = task.init(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), len(task.train["tokens"]))
    tokens = jnp.asarray(task.train["tokens"])
    batch = training.Batch({"tokens": tokens}, keys, jnp.ones(len(keys), bool))
    right = (TOKENS[1:51] == (TOKENS[:50] + 1) % 7).reshape(10, 5).mean(1)
    expected = np.log(np.e + 6) - right
    np.testing.assert_allclose(task.loss(params, state, batch)[0], expected, rtol=1e-5)
    np.testing.assert_allclose(task.metrics(params, state, batch)["test_loss"], expected, rtol=1e-5)


def test_names_tell_tasks_apart():
    windows = {"window": 4}, {"stride": 2}, {"text": TEXT._replace(fingerprint="0")}, {}
    names = {make_task(**options).name for options in windows}
    assert len(names) == 4


def test_models_and_texts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="The test text of 23 tokens is too short .* of 23 tokens"):
        make_task(window=23)
    with pytest.raises(ValueError, match="stride must be a whole number >= 1"):
        make_task(stride=0)
    task = make_task(lambda rngs: Shift(rngs, vocabulary=8))
    with pytest.raises(ValueError, match=r"shape \(., 5, 8\) for . windows of 5 tokens of made"):
        training.metric_spec(task)


@pytest.mark.slow
def test_a_transformer_learns_alike_in_any_microbatch():
    """Two batch sizes and two dropout rates, in one program."""
    text = data.text_from_tokens(np.arange(200) % 7, np.arange(50) % 7, 7)

    def make_model(rngs, hparams):
        return models.Transformer(7, 8, 1, 2, dropout=hparams["dropout"], rngs=rngs)

    task = make_task(make_model, text)
    runs = [
        {"batch_size": size, "learning_rate": 0.5, "num_updates": 40, "seed": 0, "dropout": rate}
        for size, rate in ((4, 0.1), (8, 0.0))
    ]
    found = []
    for settings in ({"lanes": 2, "microbatch": 4}, {"lanes": 1, "microbatch": 3}):
        results = training.Pool(task, training.PoolConfig(**settings)).train(runs)
        found.append({r.hparams["batch_size"]: r.metrics["test_loss"] for r in results})
    assert max(found[0].values()) < 0.5 * np.log(7)
    for size, test_loss in found[0].items():
        np.testing.assert_allclose(found[1][size], test_loss, rtol=1e-3)


def test_bare_tokens_are_no_text():
    with pytest.raises(ValueError, match="text must be a data.Text, but it is an array"):
        tasks.windowed_language_modeling(np.arange(9), None, None, name="bare")
