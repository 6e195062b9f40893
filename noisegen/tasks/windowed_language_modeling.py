"""Language modeling of windows of a text, for models without a state, such as transformers."""

from collections.abc import Callable

import jax
import numpy as np
import optax
from flax import nnx

from noisegen import _validate, data
from noisegen.tasks.nnx_task import from_nnx
from noisegen.training import Batch, Task


def windowed_language_modeling(
    text: data.Text,
    make_model: Callable[..., nnx.Module],
    make_optimizer: Callable[..., optax.GradientTransformation],
    *,
    name: str,
    window: int = 128,
    stride: int | None = None,
    **fields,
) -> Task:
    """Makes the task of predicting every token of a window from those before it in the window.

    An example is a window of the training text, so one task serves all batch sizes. The loss of a
    window is the mean cross-entropy of its tokens in nats. The metric `test_loss` is in nats per
    token; its exponential is the perplexity. A validation text is read like the test text, and its
    metric is `valid_loss`.

    Test windows do not overlap, and each of their tokens counts. The first ones of a window are
    predicted from few tokens, so the loss is that of a long text only if windows are long.

    A model that looks at later tokens would be rewarded for it, and is not refused. For models that
    carry a state from window to window, see `language_modeling`.

    Args:
      text: Text, see `noisegen.data.load_text` and `noisegen.data.text_from_tokens`.
      make_model: Function `rngs -> model` or `(rngs, hparams) -> model`, see `from_nnx`. The model
        is called as `model(tokens)` with tokens `(N, T)`, and returns logits `(N, T, vocabulary)`
        of the tokens that follow, such as `noisegen.models.Transformer`.
      make_optimizer: Function `(hparams, key) -> optax.GradientTransformation`.
      name: Identity of the task, which is part of the id of every run.
      window: Tokens T in a window.
      stride: Tokens between the starts of two training windows, by default T. With a smaller number
        windows overlap, and the training set takes T / stride times the memory.
      **fields: Other arguments of `from_nnx`, and fields of `noisegen.training.Task`.

    Returns:
      A `noisegen.training.Task`. Tracing it raises ValueError if the model does not fit the text.

    Raises:
      ValueError: If `text` is no `Text`, a text is shorter than a window and the token after it, or
        a number is not a whole number of at least 1.

    Examples:
      >>> import numpy as np, optax
      >>> from noisegen import data, models, tasks
      >>> tokens = np.arange(1000) % 7
      >>> task = tasks.windowed_language_modeling(
      ...     data.text_from_tokens(tokens, tokens[:200], 7),
      ...     lambda rngs: models.Transformer(7, width=16, layers=1, heads=2, rngs=rngs),
      ...     lambda hparams, key: optax.adam(hparams["learning_rate"]),
      ...     name="counting",
      ...     window=20,
      ... )
      >>> task.num_examples, task.num_test_examples
      (49, 9)
    """
    _validate.text(name=name)
    if not isinstance(text, data.Text):
        raise ValueError(
            f"text must be a data.Text, but it is {_validate.kind(text)}; data.text_from_tokens "
            "makes one from tokens."
        )
    stride = window if stride is None else stride
    window, stride = _validate.whole(1, window=window, stride=stride)
    vocabulary = len(text.vocabulary)

    def held_out(split: str, tokens: np.ndarray) -> dict[str, np.ndarray]:
        return {"tokens": _windows(split, tokens, window, window)}

    def loss(model: nnx.Module, batch: Batch) -> jax.Array:
        tokens = batch.data["tokens"]
        logits = model(tokens[:, :-1])
        if logits.shape != (len(tokens), window, vocabulary):
            raise ValueError(
                f"The model gives logits of shape {logits.shape} for {len(tokens)} windows of "
                f"{window} tokens of {text.name}, whose vocabulary has {vocabulary}."
            )
        return optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean(1)

    return from_nnx(
        make_model,
        loss=loss,
        metrics=lambda model, batch: {"test_loss": loss(model, batch)},
        name=f"{name}, windows of {window} every {stride}, on {text.name} {text.fingerprint}",
        train={"tokens": _windows("training", text.train, window, stride)},
        test=held_out("test", text.test),
        valid=None if text.valid is None else held_out("validation", text.valid),
        make_optimizer=make_optimizer,
        data_description=text.description,
        **fields,
    )


def _windows(split: str, tokens: np.ndarray, window: int, stride: int) -> np.ndarray:
    """Returns windows `(W, window + 1)`, each with the token that follows it."""
    if len(tokens) <= window:
        raise ValueError(
            f"The {split} text of {len(tokens):,} tokens is too short for a window of {window} "
            "tokens and the token after it; make the window smaller, or the text longer."
        )
    windows = data.token_windows(tokens, length=window + 1, stride=stride)
    return windows[np.arange(len(windows))]["tokens"]
