"""Image classification: softmax cross-entropy on a named data set."""

import functools
import inspect
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from noisegen import _validate, data
from noisegen.tasks.nnx_task import from_nnx, ghost_norms
from noisegen.training import Batch, Task
from noisegen.training.task import Hparams, call_with_hparams

# Splitting a key gives the same keys as folding in 0, 1, ..., so without this number dropout would
# repeat the draws of augmentation.
_AUGMENT = zlib.crc32(b"augment")


def image_classification(
    dataset: data.Dataset,
    make_model: Callable[..., nnx.Module],
    make_optimizer: Callable[..., optax.GradientTransformation],
    *,
    name: str,
    augment: Callable[..., jax.Array] | None = None,
    label_smoothing: Callable[[Hparams], jax.typing.ArrayLike] | None = None,
    clean_train_loss: bool = False,
    train_accuracy_curve: bool = False,
    **fields,
) -> Task:
    """Makes the task of classifying a data set's images.

    Images are scaled to [0, 1], and normalized by the data set's mean and standard deviation per
    channel. The loss is the cross-entropy in nats. Metrics are `test_accuracy` (a fraction) and
    `test_loss` (nats). With a validation split they are `valid_accuracy` and `valid_loss` besides.

    Args:
      dataset: Data set, see `noisegen.data.load` and `noisegen.data.split_validation`.
      make_model: Function `rngs -> model` or `(rngs, hparams) -> model`, see `from_nnx`. The model
        is called as `model(images)`. In training it also receives `keys` (one per example, for
        dropout) and `mask` (the examples that count, for normalization) if its call has arguments
        of these names. In training and in evaluation it receives `hparams` if its call has that
        argument.
      make_optimizer: Function `(hparams, key) -> optax.GradientTransformation`.
      name: Identity of the task, which is part of the id of every run.
      augment: Function `(key, image) -> image` or `(key, image, hparams) -> image` of one raw image
        `(H, W, C)`, used in training only, such as `noisegen.data.pad_crop_flip`.
      label_smoothing: Function `hparams -> number`. In the training loss this share of a label's
        probability is spread equally over all classes. It does not enter `test_loss`.
      clean_train_loss: Whether to measure three more metrics at the end of a run, in a third of the
        time of an epoch. `clean_train_loss` and `clean_train_accuracy` are the mean loss and the
        accuracy of training images in evaluation mode without augmentation, whereas `train_loss` is
        measured in training. `squared_norm` is the sum of squares of all parameters: an L2 term of
        coefficient l2 adds `l2 / 2 * squared_norm` to either loss.
      train_accuracy_curve: Whether to measure `clean_train_accuracy` at every evaluation of the
        test set, as a diagnostic, and so to have it in the run's curve. Then there can be no other
        `diagnostics`.
      **fields: Other arguments of `from_nnx` (`diagnostics`, without augmentation) and fields of
        `noisegen.training.Task` (`batch_size`, `noise_microbatch`, `example_weights`).

    Returns:
      A `noisegen.training.Task`. Tracing it raises ValueError if the model does not fit the images
      or the classes.

    Raises:
      ValueError: If `dataset` is no `Dataset`, or if both train_accuracy_curve and diagnostics are
        given.

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

      A task whose runs may differ in label smoothing, dropout and the strength of augmentation. One
      program trains all of them:

      >>> def add_noise(key, image, hparams):
      ...     return image + hparams["pixel_noise"] * jax.random.normal(key, image.shape)
      >>> task = tasks.image_classification(
      ...     data.load("digits"),
      ...     lambda rngs, hparams: models.WideResNet(
      ...         10, 1, channels=1, dropout=hparams["dropout"], rngs=rngs
      ...     ),
      ...     lambda hparams, key: optax.sgd(hparams["learning_rate"]),
      ...     name="WRN-10-1",
      ...     augment=add_noise,
      ...     label_smoothing=lambda hparams: hparams["label_smoothing"],
      ... )
    """
    _validate.text(name=name)
    if not isinstance(dataset, data.Dataset):
        raise ValueError(
            f"dataset must be a data.Dataset, but it is {_validate.kind(dataset)}; "
            "data.from_arrays makes one from images."
        )
    predict = _make_predict(dataset)

    def loss(model: nnx.Module, batch: Batch) -> jax.Array:
        images = batch.data["image"]
        if augment is not None:
            # One image and one key at a time, so that the microbatch changes nothing.
            keys = jax.vmap(jax.random.fold_in, (0, None))(batch.keys, _AUGMENT)
            augment_one = functools.partial(call_with_hparams, augment, hparams=batch.hparams)
            images = jax.vmap(augment_one)(keys, images)
        logits = predict(model, images, keys=batch.keys, mask=batch.mask, hparams=batch.hparams)
        labels = batch.data["label"]
        if label_smoothing is None:
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        targets = jax.nn.one_hot(labels, dataset.num_classes)
        targets = optax.smooth_labels(targets, label_smoothing(batch.hparams))
        return optax.softmax_cross_entropy(logits, targets)

    def metrics(model: nnx.Module, batch: Batch) -> dict[str, jax.Array]:
        logits = predict(model, batch.data["image"], hparams=batch.hparams)
        labels = batch.data["label"]
        return {
            "test_accuracy": logits.argmax(1) == labels,
            "test_loss": optax.softmax_cross_entropy_with_integer_labels(logits, labels),
        }

    def evaluation_loss(model: nnx.Module, batch: Batch) -> jax.Array:
        return metrics(model, batch)["test_loss"]

    def is_correct(model: nnx.Module, batch: Batch) -> jax.Array:
        return metrics(model, batch)["test_accuracy"]

    def train_metrics(model: nnx.Module, batch: Batch) -> dict[str, jax.Array]:
        clean = metrics(model, batch)
        accuracy = {} if train_accuracy_curve else {"clean_train_accuracy": clean["test_accuracy"]}
        squares = [jnp.sum(w**2) for w in jax.tree.leaves(nnx.state(model, nnx.Param))]
        return {
            **accuracy,
            "clean_train_loss": clean["test_loss"],
            # The same number for every example, since metrics are averaged over examples.
            "squared_norm": jnp.full(batch.mask.shape, sum(squares)),
        }

    if clean_train_loss:
        fields = {"train_metrics": train_metrics, **fields}
    if train_accuracy_curve:
        if "diagnostics" in fields:
            raise ValueError("Give train_accuracy_curve or diagnostics, not both.")
        evaluation_loss = is_correct
        fields = {"diagnostics": _train_accuracy, **fields}
    return from_nnx(
        make_model,
        loss=loss,
        metrics=metrics,
        name=f"{name} on {dataset.name} {dataset.fingerprint}",
        train=dataset.train,
        test=dataset.test,
        valid=dataset.valid,
        make_optimizer=make_optimizer,
        data_description=dataset.description,
        evaluation_loss=evaluation_loss,
        **fields,
    )


def _train_accuracy(
    mean_correct: Callable[[Any, Any], jax.Array], params: Any, train: Any
) -> dict[str, jax.Array]:
    """Returns the accuracy of all training images in evaluation mode."""

    def of_example(example: Any) -> jax.Array:
        return mean_correct(params, jax.tree.map(lambda a: a[None], example))

    correct = jax.lax.map(of_example, train, batch_size=256)
    return {"clean_train_accuracy": jnp.mean(correct)}


def _make_predict(dataset: data.Dataset) -> Callable[..., jax.Array]:
    """Returns the function (model, raw images, keys=, mask=, hparams=) -> logits of a data set."""
    mean = np.array(dataset.mean, np.float32).reshape(1, 1, 1, -1)
    std = np.array(dataset.std, np.float32).reshape(1, 1, 1, -1)

    def predict(model: nnx.Module, images: jax.Array, **arguments: Any) -> jax.Array:
        # (images / 255 - mean) / std, with one multiplication and one subtraction per pixel.
        images = images * (1 / (255 * std)) - mean / std
        # A model need not have arguments that it has no use for.
        accepted = inspect.signature(model).parameters
        if "mask" in arguments and "mask" not in accepted and ghost_norms(model):
            raise ValueError(
                "The model normalizes over ghost batches, so its call must take `mask`, the "
                "examples that count, and give it to these layers: norm(x, mask=mask)."
            )
        arguments = {name: value for name, value in arguments.items() if name in accepted}
        logits = model(images, **arguments)
        if logits.shape != (len(images), dataset.num_classes):
            raise ValueError(
                f"The model gives logits of shape {logits.shape} for {len(images)} images of "
                f"{dataset.name}, which has {dataset.num_classes} classes."
            )
        return logits

    return predict
