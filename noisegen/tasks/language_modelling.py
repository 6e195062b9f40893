"""Language modelling with a state that is carried from window to window."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from noisegen import _validate, data
from noisegen.tasks.nnx_task import from_nnx
from noisegen.training import Task

_TEST_STREAMS = 10


class Carry(nnx.Variable):
    """What a language model remembers of every stream."""


class _Streams(nnx.Module):
    """A model, and its memory of the streams it reads in training."""

    def __init__(self, model, num_streams):
        self.model = model
        self.carry = Carry(model.initial_carry(num_streams))


def language_modelling(
    text: data.Text,
    make_model: Callable[[nnx.Rngs], nnx.Module],
    make_optimizer: Callable[..., optax.GradientTransformation],
    *,
    batch_size: int,
    name: str,
    window: int = 35,
) -> Task:
    r"""Makes the task of predicting the next token, at one batch size.

    The training text is cut into as many streams of equal length as the batch has examples. An
    example is the next window of a stream, a batch one window of every stream, and an epoch goes
    through the streams in order; the model's carry goes on from window to window, and starts anew
    with every epoch. (The gradient ends with the window.) So the shape of what is compiled
    depends on the batch size, and runs of another one need another task: in an experiment,
    `get_task` gives a function of the batch size.

    The loss of an example is summed over its window, as Zaremba et al. have it, so that
    `train_loss` is in nats a window; the metric `test_loss` is in nats a token, and its exponential
    the perplexity. The test text is read as 10 streams from beginning to end.

    Args:
      text: see `noisegen.data.load_text`.
      make_model: `rngs -> model`, called as `model(tokens (N, T), carry, keys)`, which returns
        logits `(N, T, vocabulary)` and the next carry; `keys`, one an example, are for dropout, and
        None in evaluation. The carry is one array `(..., N, features)`; `model.initial_carry(N)`
        makes that of the beginning.
      make_optimizer: `(hparams, key) -> optax.GradientTransformation`.
      batch_size: number of streams.
      name: identity of the task, which enters the hash of every run.
      window: tokens T of a window.

    Returns:
      A `noisegen.training.Task`.

    Raises:
      ValueError: a text is too short for so many streams, or a number is not positive.

    References:
      Zaremba, Sutskever & Vinyals, Recurrent Neural Network Regularization, 2014,
      https://arxiv.org/abs/1409.2329
    """

    _validate.positive(batch_size=batch_size, window=window)

    def loss(streams, batch):
        carry = streams.carry[...]
        own = batch.data["stream"]
        fresh = streams.model.initial_carry(len(own))
        begun = jnp.where(batch.data["first"][:, None], fresh, carry[..., own, :])
        tokens = batch.data["tokens"]
        logits, after = streams.model(tokens[:, :-1], begun, batch.keys)
        nowhere = jnp.where(batch.mask, own, batch_size)  # examples that do not count
        after = jax.lax.stop_gradient(after)
        streams.carry[...] = carry.at[..., nowhere, :].set(after, mode="drop")
        return _cross_entropy(logits, tokens[:, 1:]).sum(1)

    def metrics(streams, batch):
        tokens = batch.data["tokens"]  # (M, windows, T + 1)
        carry = streams.model.initial_carry(len(tokens))

        def step(carry, each):
            logits, carry = streams.model(each[:, :-1], carry)
            return carry, _cross_entropy(logits, each[:, 1:]).mean(1)

        losses = jax.lax.scan(step, carry, tokens.swapaxes(0, 1))[1]
        return {"test_loss": losses.mean(0)}

    return from_nnx(
        lambda rngs: _Streams(make_model(rngs), batch_size),
        loss=loss,
        metrics=metrics,
        name=f"{name}, windows of {window}, on {text.name} {text.fingerprint}",
        train=_examples(text.train, batch_size, window),
        test={"tokens": _windows(text.test, _TEST_STREAMS, window)},
        make_optimizer=make_optimizer,
        only_batch_size=batch_size,
        shuffle=False,
        source=text.source,
    )


def _windows(tokens, num_streams, window):
    """Windows `(num_streams, W, window + 1)`, each with the token after its last."""
    length = len(tokens) // num_streams
    count = (length - 1) // window
    if count < 1:
        raise ValueError(
            f"A text of {len(tokens):,} tokens is too short for {num_streams:,} streams of at "
            f"least one window of {window} tokens and the token after it; make the batch smaller, "
            "or the test text longer."
        )
    streams = tokens[: num_streams * length].reshape(num_streams, length)
    places = np.arange(count)[:, None] * window + np.arange(window + 1)
    return streams[:, places]


def _examples(tokens, num_streams, window):
    """The windows in the order in which they are read: the first of every stream, the second ..."""
    windows = _windows(tokens, num_streams, window).swapaxes(0, 1)
    count = len(windows)
    return {
        "tokens": windows.reshape(count * num_streams, window + 1),
        "stream": np.tile(np.arange(num_streams, dtype=np.int32), count),
        "first": np.repeat(np.arange(count) == 0, num_streams),
    }


def _cross_entropy(logits, tokens):
    return optax.softmax_cross_entropy_with_integer_labels(logits, tokens)
