"""Autoencoding: reconstruction of images from a short code."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from noisegen import _validate, data
from noisegen.tasks.nnx_task import from_nnx
from noisegen.training import Batch, Task


def autoencoding(
    dataset: data.Dataset,
    make_model: Callable[..., nnx.Module],
    make_optimizer: Callable[..., optax.GradientTransformation],
    *,
    name: str,
) -> Task:
    """Makes the task of reconstructing a data set's images, with pixels scaled to [0, 1].

    The loss is the cross-entropy of the pixels in nats, summed over an image. Metrics are
    `test_loss`, and `test_squared_error`: the squared difference between image and reconstruction,
    summed over an image, as reported by Sutskever et al. With a validation split they are
    `valid_loss` and `valid_squared_error` besides.

    Args:
      dataset: Data set, see `noisegen.data.load` and `noisegen.data.split_validation`. Labels are
        ignored.
      make_model: Function `rngs -> model` or `(rngs, hparams) -> model`, see `from_nnx`. The model
        is called as `model(images)` with images `(N, H, W, C)`, and returns logits of the pixels
        `(N, H * W * C)`.
      make_optimizer: Function `(hparams, key) -> optax.GradientTransformation`.
      name: Identity of the task, which is part of the id of every run.

    Returns:
      A `noisegen.training.Task`.

    Raises:
      ValueError: If images are floats that are no gray levels.

    References:
      Sutskever et al., On the importance of initialization and momentum in deep learning, 2013
    """
    _validate.text(name=name)
    for examples in (dataset.train, dataset.test, dataset.valid):
        if examples is not None:
            _check_gray_levels(dataset.name, examples)

    def reconstruct(model: nnx.Module, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Returns logits and pixels, `(N, H * W * C)` each."""
        images = batch.data["image"] / jnp.float32(255)
        logits = model(images)
        pixels = images.reshape(len(images), -1)
        if logits.shape != pixels.shape:
            raise ValueError(
                f"The model gives logits of shape {logits.shape} for {pixels.shape[0]} images of "
                f"{dataset.name}, which have {pixels.shape[1]} pixels."
            )
        return logits, pixels

    def loss(model: nnx.Module, batch: Batch) -> jax.Array:
        logits, pixels = reconstruct(model, batch)
        # Gray pixels are probabilities of white.
        return optax.sigmoid_binary_cross_entropy(logits, pixels).sum(1)

    def metrics(model: nnx.Module, batch: Batch) -> dict[str, jax.Array]:
        logits, pixels = reconstruct(model, batch)
        return {
            "test_loss": optax.sigmoid_binary_cross_entropy(logits, pixels).sum(1),
            "test_squared_error": ((jax.nn.sigmoid(logits) - pixels) ** 2).sum(1),
        }

    return from_nnx(
        make_model,
        loss=loss,
        metrics=metrics,
        name=f"{name} autoencoding {dataset.name} {dataset.fingerprint}",
        train={"image": dataset.train["image"]},
        test={"image": dataset.test["image"]},
        valid=None if dataset.valid is None else {"image": dataset.valid["image"]},
        make_optimizer=make_optimizer,
        data_description=dataset.description,
    )


def _check_gray_levels(name: str, examples: Mapping[str, np.ndarray]) -> None:
    """Raises ValueError for floats that are no gray levels, as the loss needs probabilities."""
    image = examples["image"]
    if image.dtype != np.uint8 and (image.min() < 0 or image.max() > 255):
        raise ValueError(
            f"The images of {name} reach from {image.min() / 255:.4g} to {image.max() / 255:.4g}, "
            "but gray levels are from 0 (black) to 1 (white): scale the images to that range."
        )
