"""Language modeling with a state that is carried from window to window."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from noisegen import _validate, data
from noisegen.tasks.nnx_task import from_nnx
from noisegen.training import Batch, Task
from noisegen.training.task import Hparams, takes_hparams

_TEST_STREAMS = 10


class Carry(nnx.Variable):
    """Recurrent state of a language model, for every stream."""


class _Streams(nnx.Module):
    """A model together with its recurrent state for the streams it reads in training."""

    def __init__(self, model: nnx.Module, num_streams: int):
        self.model = model
        self.carry = Carry(model.initial_carry(num_streams))


def language_modeling(
    text: data.Text,
    make_model: Callable[..., nnx.Module],
    make_optimizer: Callable[..., optax.GradientTransformation],
    *,
    batch_size: int,
    name: str,
    window: int = 35,
) -> Task:
    """Makes the task of predicting the next token, at one batch size.

    The training text is cut into as many streams of equal length as the batch has examples. An
    example is the next window of a stream, a batch is one window of every stream, and an epoch
    passes through the streams in order. The carry of the model continues from window to window, and
    is reset at the start of an epoch. Gradients stop at the start of a window.

    The compiled shapes depend on the batch size, so runs of another batch size need another task:
    give a sweep a function of the batch size, and `static=("batch_size",)`.

    The loss of an example is summed over its window, as in Zaremba et al., so `train_loss` is in
    nats per window. The metric `test_loss` is in nats per token; its exponential is the perplexity.
    The test text is read as 10 streams from beginning to end. A validation text is read likewise,
    and its metric is `valid_loss`.

    Args:
      text: Text, see `noisegen.data.load_text`. A training text that is memory-mapped becomes a
        source: its windows are read when they are needed.
      make_model: Function `rngs -> model` or `(rngs, hparams) -> model`, see `from_nnx`. The model
        is called as `model(tokens, carry, keys)` with tokens `(N, T)`, and returns logits
        `(N, T, vocabulary)` and the next carry. `keys`, one per example, are for dropout, and
        omitted in evaluation. The carry is one array `(..., N, features)`, which
        `model.initial_carry(N)` makes.
      make_optimizer: Function `(hparams, key) -> optax.GradientTransformation`.
      batch_size: Number of streams.
      name: Identity of the task, which is part of the id of every run.
      window: Tokens T in a window.

    Returns:
      A `noisegen.training.Task`.

    Raises:
      ValueError: If a text is too short for so many streams, or a number is not positive.

    References:
      Zaremba, Sutskever & Vinyals, Recurrent Neural Network Regularization, 2014,
      https://arxiv.org/abs/1409.2329
    """
    _validate.text(name=name)
    _validate.positive(batch_size=batch_size, window=window)

    def held_out(tokens):
        return {"tokens": _windows(tokens, _TEST_STREAMS, window)}

    def loss(streams, batch):
        carry = streams.carry[...]
        stream = batch.data["stream"]  # Index of each example's stream.
        initial = streams.model.initial_carry(len(stream))
        # At the start of an epoch the streams begin anew.
        before = jnp.where(batch.data["first"][:, None], initial, carry[..., stream, :])
        tokens = batch.data["tokens"]
        # Every token but the last is read, and every one but the first predicted.
        logits, after = streams.model(tokens[:, :-1], before, batch.keys)
        after = jax.lax.stop_gradient(after)
        # Examples outside the mask get an index out of bounds, which the scatter drops.
        target = jnp.where(batch.mask, stream, batch_size)
        streams.carry[...] = carry.at[..., target, :].set(after, mode="drop")
        return _cross_entropy(logits, tokens[:, 1:]).sum(1)

    def metrics(streams: nnx.Module, batch: Batch) -> dict[str, jax.Array]:
        tokens = batch.data["tokens"]  # (M, windows, T + 1)
        carry = streams.model.initial_carry(len(tokens))

        # A test example is a whole stream, so its carry lives within one call.
        def step(carry: jax.Array, window_tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
            logits, carry = streams.model(window_tokens[:, :-1], carry)
            return carry, _cross_entropy(logits, window_tokens[:, 1:]).mean(1)

        _, losses = jax.lax.scan(step, carry, tokens.swapaxes(0, 1))
        return {"test_loss": losses.mean(0)}

    def make_streams(rngs: nnx.Rngs) -> _Streams:
        return _Streams(make_model(rngs), batch_size)

    def make_streams_of_run(rngs: nnx.Rngs, hparams: Hparams) -> _Streams:
        return _Streams(make_model(rngs, hparams=hparams), batch_size)

    return from_nnx(
        make_streams_of_run if takes_hparams(make_model) else make_streams,
        loss=loss,
        metrics=metrics,
        name=f"{name}, windows of {window}, on {text.name} {text.fingerprint}",
        train=_training_set(text.train, batch_size, window),
        test=held_out(text.test),
        valid=None if text.valid is None else held_out(text.valid),
        make_optimizer=make_optimizer,
        only_batch_size=batch_size,
        shuffle=False,
        data_description=text.description,
    )


def _windows(tokens: np.ndarray, num_streams: int, window: int) -> np.ndarray:
    """Returns windows `(num_streams, W, window + 1)`, each with the token that follows it."""
    length, num_windows = _lengths(tokens, num_streams, window)
    streams = tokens[: num_streams * length].reshape(num_streams, length)
    # Windows overlap by one token: the last to be predicted is the first to be read.
    positions = np.arange(num_windows)[:, None] * window + np.arange(window + 1)
    return streams[:, positions]


def _training_set(tokens, num_streams, window):
    """Returns the windows of the training text as arrays, or as a source if it is mapped."""
    examples = _TrainingWindows(tokens, num_streams, window)
    return examples if isinstance(tokens, np.memmap) else examples[np.arange(len(examples))]


class _TrainingWindows:
    """Windows in the order of training: the first of every stream, then the second, ..."""

    def __init__(self, tokens: np.ndarray, num_streams: int, window: int):
        self._tokens, self._num_streams, self._window = tokens, num_streams, window
        self._length, self._num_windows = _lengths(tokens, num_streams, window)

    def __len__(self) -> int:
        return self._num_windows * self._num_streams

    def __getitem__(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        index_of_window, stream = np.divmod(indices, self._num_streams)
        starts = stream * self._length + index_of_window * self._window
        # Windows overlap by one token: the last to be predicted is the first to be read.
        tokens = self._tokens[starts[:, None] + np.arange(self._window + 1)]
        return {
            "tokens": tokens.astype(np.int32),
            "stream": stream.astype(np.int32),
            "first": index_of_window == 0,
        }


def _lengths(tokens: np.ndarray, num_streams: int, window: int) -> tuple[int, int]:
    """Returns the tokens and the windows of a stream."""
    length = len(tokens) // num_streams
    num_windows = (length - 1) // window
    if num_windows < 1:
        raise ValueError(
            f"A text of {len(tokens):,} tokens is too short for {num_streams:,} streams of at "
            f"least one window of {window} tokens and the token after it; make the batch smaller, "
            "or the text longer."
        )
    return length, num_windows


def _cross_entropy(logits: jax.Array, tokens: jax.Array) -> jax.Array:
    """Returns the cross-entropy of every token in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, tokens)
