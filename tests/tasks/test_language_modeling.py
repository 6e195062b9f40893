"""Tests language modeling: streams, windows, carried state."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from noisegen import data, models, tasks, training
from noisegen.training.sources import HostExamples

TOKENS = np.random.RandomState(0).randint(0, 7, 403).astype(np.int32)
TEXT = data.Text("made", TOKENS, TOKENS[:203], tuple("abcdefg"), "0" * 16, "made up")


def make_task(batch_size=4, window=5, **changes):
    text = TEXT._replace(**changes)
    return tasks.language_modeling(
        text,
        lambda rngs: models.LSTM(7, hidden=3, layers=1, dropout=0.0, scale=0.5, rngs=rngs),
        lambda hparams, key: optax.sgd(hparams["learning_rate"]),
        batch_size=batch_size,
        window=window,
        name="lstm",
    )


def test_examples_are_the_windows_in_reading_order():
    task = make_task()
    tokens = task.train["tokens"]
    assert task.num_examples == 4 * 19  # 403 // 4 = 100 tokens a stream, (100 - 1) // 5 windows
    for index, (number, stream) in enumerate(itertools.product(range(19), range(4))):
        start = 100 * stream + 5 * number
        assert tokens[index].tolist() == TOKENS[start : start + 6].tolist()
        assert task.train["stream"][index] == stream
        assert task.train["first"][index] == (number == 0)


def test_a_mapped_text_is_read_window_by_window(tmp_path):
    TOKENS.astype(np.uint16).tofile(tmp_path / "tokens")
    mapped = make_task(train=np.memmap(tmp_path / "tokens", np.uint16, "r")).train
    assert isinstance(mapped, HostExamples)
    whole = make_task().train
    rows = mapped[np.array([3, 75, 0])]
    for name, array in whole.items():
        assert rows[name].dtype == array.dtype
        np.testing.assert_array_equal(rows[name], array[[3, 75, 0]])


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 3, 4])
def test_state_is_carried_from_window_to_window(size):
    """Compares two epochs with reading each stream as a whole, at several batch sizes."""
    task = make_task()
    order = np.concatenate([np.arange(76).reshape(19, 4)] * 2)
    pieces = [piece for row in order for piece in np.split(row, range(size, 4, size))]
    params, state = task.init(jax.random.key(0))
    loss, losses = jax.jit(task.loss), []
    for piece in pieces:
        chosen, mask = np.resize(piece, 4), jnp.arange(4) < len(piece)
        keys = jax.random.split(jax.random.key(1), 4)
        data = {name: array[chosen] for name, array in task.train.items()}
        batch = training.Batch(data, keys, mask)
        each, state = loss(params, state, batch)
        losses += each[: len(piece)].tolist()
    graph = nnx.graphdef(models.LSTM(7, hidden=3, layers=1, dropout=0.0, rngs=nnx.Rngs(0)))
    model = nnx.merge(graph, params["model"])
    streams = TOKENS[:400].reshape(4, 100)[:, :96]
    logits, _ = model(jnp.asarray(streams[:, :-1]), model.initial_carry(4))
    each = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(streams[:, 1:]))
    expected = each.reshape(4, 19, 5).sum(2).T.ravel()
    np.testing.assert_allclose(losses, np.tile(expected, 2), rtol=1e-4)


def test_test_loss_is_the_mean_over_the_tokens_of_whole_streams():
    task = make_task(window=4)
    params, state = task.init(jax.random.key(0))
    test = jax.tree.map(jnp.asarray, task.test)
    keys = jax.random.split(jax.random.key(1), 10)
    losses = task.metrics(params, state, training.Batch(test, keys, jnp.ones(10, bool)))
    graph = nnx.graphdef(models.LSTM(7, hidden=3, layers=1, dropout=0.0, rngs=nnx.Rngs(0)))
    model = nnx.merge(graph, params["model"])
    streams = TOKENS[:200].reshape(10, 20)[:, :17]
    logits, _ = model(jnp.asarray(streams[:, :-1]), model.initial_carry(10))
    each = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(streams[:, 1:]))
    np.testing.assert_allclose(losses["test_loss"], each.mean(1), rtol=1e-4)


def test_trains_alike_in_microbatches_and_lanes():
    task = make_task(train=np.tile(np.arange(7, dtype=np.int32), 60))
    runs = [
        {"batch_size": 4, "learning_rate": rate, "num_epochs": 4, "seed": 0, "eval_every": 1}
        for rate in (0.05, 0.1)
    ]
    found = []
    for settings in ({"lanes": 2, "microbatch": 4}, {"lanes": 1, "microbatch": 3}):
        results = training.Pool(task, training.PoolConfig(**settings)).train(runs)
        found.append({result.hparams["learning_rate"]: result.curve for result in results})
    for rate, curve in found[0].items():
        for name, values in curve.items():
            np.testing.assert_allclose(found[1][rate][name], values, rtol=1e-4)
        assert curve["train_loss"][-1] < curve["train_loss"][0]


def test_runs_of_another_batch_size_are_refused():
    with pytest.raises(ValueError, match="made for batch_size=4"):
        training.make_runs(make_task(), [{"batch_size": 8, "num_epochs": 1, "seed": 0}])


def test_text_too_short_for_the_batch_is_refused():
    with pytest.raises(ValueError, match="too short for 100 streams"):
        make_task(batch_size=100)
