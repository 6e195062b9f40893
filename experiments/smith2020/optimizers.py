"""The optimizer of the paper: SGD with momentum and L2, its learning rate held and then decayed.

Readings, when the paper leaves them open: L2 regularization is of all parameters, with the gradient
`l2 * w`, before momentum. Batches are consecutive examples of one stream of epochs, each in a new
order. The training loss is the mean, in training mode and without the L2 term, over the last
twentieth of the updates, during which the learning rate is constant.
"""

from collections.abc import Mapping
from typing import Any

import optax

import noisegen


def hold_then_decay(hparams: Mapping[str, Any], key: Any) -> optax.GradientTransformation:
    """Returns the optimizer of nearly all runs of the paper."""
    del key  # The only noise is that of the batches.
    learning_rate = noisegen.learning_rate_from_effective(
        hparams["effective_learning_rate"], hparams["momentum"]
    )
    decay_rate = 1 / hparams["gamma"]  # The paper's gamma divides.
    schedule = noisegen.hold_then_decay_schedule(learning_rate, hparams["num_updates"], decay_rate)
    return sgd(schedule, hparams)


def sgd(
    schedule: optax.ScalarOrSchedule, hparams: Mapping[str, Any]
) -> optax.GradientTransformation:
    """Returns SGD with momentum, and with L2 regularization in the loss."""
    return optax.chain(
        optax.add_decayed_weights(hparams["l2"]), optax.sgd(schedule, hparams["momentum"])
    )
