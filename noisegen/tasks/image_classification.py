"""Image classification: softmax cross-entropy on a named data set."""

import inspect
import zlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from noisegen import data
from noisegen.tasks.nnx_task import from_nnx, ghost_norms
from noisegen.training import Task

# Splitting a key gives the keys that fold_in gives for 0, 1, ...: dropout would repeat these draws.
_AUGMENT = zlib.crc32(b"augment")


def image_classification(
    dataset: data.Dataset,
    make_model: Callable[[nnx.Rngs], nnx.Module],
    make_optimizer: Callable[..., optax.GradientTransformation],
    *,
    name: str,
    augment: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    clean_train_loss: bool = False,
    **fields,
) -> Task:
    """Makes the task of classifying a data set's images.

    Images are scaled to [0, 1] and normalised by the data set's mean and standard deviation a
    channel. The loss is the cross-entropy in nats; metrics are `test_accuracy` (a fraction) and
    `test_loss` (nats).

    Args:
      dataset: see `noisegen.data.load`.
      make_model: `rngs -> model`, called as `model(images)`, in training with those of the
        arguments `keys` (one an example, for dropout) and `mask` (the examples that count, for
        normalisation) that it has.
      make_optimizer: `(hparams, key) -> optax.GradientTransformation`.
      name: identity of the task, which enters the hash of every run.
      augment: `(key, image) -> image` on one raw image `(H, W, C)`, in training only; for
        instance `noisegen.data.pad_crop_flip`.
      clean_train_loss: whether a run ends with two more metrics: `clean_train_loss`, the mean loss
        of the training images as they are, in evaluation mode (`train_loss` is of augmented ones,
        in training mode), and `squared_norm`, the sum of the squares of all parameters: an L2 term
        of coefficient l2 adds `l2 / 2 * squared_norm` to either. Costs a third of an epoch a run.
      **fields: see `from_nnx` (`diagnostics`, of the images as they are) and
        `noisegen.training.Task` (`batch_size`, `noise_microbatch`, `example_weights`).

    Returns:
      A `noisegen.training.Task`, which raises ValueError when it is traced if the model does not
      fit the images or the classes.

    Examples:
      >>> import optax
      >>> from noisegen import data, models, tasks
      >>> task = tasks.image_classification(
      ...     data.load("digits"),
      ...     lambda rngs: models.MLP(rngs=rngs),
      ...     lambda hparams, key: optax.sgd(hparams["learning_rate"], hparams["momentum"]),
      ...     name="MLP",
      ... )
      >>> task.num_examples
      1437
    """
    mean, std = (np.array(v, np.float32).reshape(1, 1, 1, -1) for v in (dataset.mean, dataset.std))

    def predict(model, images, **batch):
        images = images * (1 / (255 * std)) - mean / std
        taken = inspect.signature(model).parameters
        if "mask" in batch and "mask" not in taken and ghost_norms(model):
            raise ValueError(
                "The model normalises over ghost batches, so its call must take `mask`, the "
                "examples that count, and give it to these layers: norm(x, mask=mask)."
            )
        logits = model(images, **{name: batch[name] for name in batch if name in taken})
        if logits.shape != (len(images), dataset.num_classes):
            raise ValueError(
                f"The model gives logits of shape {logits.shape} for {len(images)} images of "
                f"{dataset.name}, which has {dataset.num_classes} classes."
            )
        return logits

    def loss(model, batch):
        images = batch.data["image"]
        if augment is not None:
            keys = jax.vmap(jax.random.fold_in, (0, None))(batch.keys, _AUGMENT)
            images = jax.vmap(augment)(keys, images)
        logits, labels = (
            predict(model, images, keys=batch.keys, mask=batch.mask),
            batch.data["label"],
        )
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)

    def metrics(model, batch):
        logits, labels = predict(model, batch.data["image"]), batch.data["label"]
        return {
            "test_accuracy": logits.argmax(1) == labels,
            "test_loss": optax.softmax_cross_entropy_with_integer_labels(logits, labels),
        }

    def train_metrics(model, batch):
        squares = [jnp.sum(w**2) for w in jax.tree.leaves(nnx.state(model, nnx.Param))]
        return {
            "clean_train_loss": metrics(model, batch)["test_loss"],
            "squared_norm": jnp.full(batch.mask.shape, sum(squares)),
        }

    return from_nnx(
        make_model,
        loss=loss,
        metrics=metrics,
        **({"train_metrics": train_metrics} if clean_train_loss else {}),
        name=f"{name} on {dataset.name} {dataset.fingerprint}",
        train=dataset.train,
        test=dataset.test,
        make_optimizer=make_optimizer,
        source=dataset.source,
        evaluation_loss=lambda model, batch: metrics(model, batch)["test_loss"],
        **fields,
    )
