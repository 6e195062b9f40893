"""Trains by the usual Flax NNX loop: a jitted step, fed from NumPy at every step.

One thing is better than usual: the optimizer is made once, with the learning rate in its state, so
that the step compiles once for every batch size. Made anew for every run, as examples do, it would
compile once for every run.
"""

import math

import jax
import numpy as np
import optax
from flax import nnx

from experiments.benchmarks.contenders import exchange


class LeNet5(nnx.Module):
    """The network of `noisegen.models.LeNet5`, initialized alike."""

    def __init__(self, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(1, 6, (5, 5), padding=2, **_uniform(25), rngs=rngs)
        self.conv2 = nnx.Conv(6, 16, (5, 5), padding="VALID", **_uniform(150), rngs=rngs)
        self.linear1 = nnx.Linear(400, 120, **_uniform(400), rngs=rngs)
        self.linear2 = nnx.Linear(120, 84, **_uniform(120), rngs=rngs)
        self.linear3 = nnx.Linear(84, 10, **_uniform(84), rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.max_pool(nnx.relu(self.conv1(x)), (2, 2), (2, 2))
        x = nnx.max_pool(nnx.relu(self.conv2(x)), (2, 2), (2, 2))
        x = nnx.relu(self.linear1(x.reshape(len(x), -1)))
        return self.linear3(nnx.relu(self.linear2(x)))


@nnx.jit
def train_step(model, optimizer, images, labels):
    """Makes one update."""

    def loss_fn(model):
        losses = optax.softmax_cross_entropy_with_integer_labels(model(images), labels)
        return losses.mean()

    loss, gradients = nnx.value_and_grad(loss_fn)(model)
    optimizer.update(model, gradients)
    return loss


@nnx.jit
def count_correct(model, images, labels):
    """Counts the images that are classified correctly."""
    return (model(images).argmax(1) == labels).sum()


def main() -> None:
    """Trains the runs of the spec."""
    spec = exchange.read_spec()
    images, labels, test_images, test_labels = exchange.load(spec)
    rng = np.random.default_rng(spec["seed"])
    transform = optax.inject_hyperparams(optax.sgd)(learning_rate=0.0, momentum=spec["momentum"])
    runs = []
    for number, (batch_size, learning_rate) in enumerate(spec["runs"]):
        model = LeNet5(nnx.Rngs(1000 * spec["seed"] + number))
        optimizer = nnx.Optimizer(model, transform, wrt=nnx.Param)
        optimizer.opt_state.hyperparams["learning_rate"][...] = learning_rate
        updates = len(images) // batch_size
        for chosen in rng.permutation(len(images))[: updates * batch_size].reshape(updates, -1):
            train_step(model, optimizer, images[chosen], labels[chosen])
        accuracy = evaluate(model, test_images, test_labels)
        runs.append(exchange.run(batch_size, learning_rate, updates, accuracy))
    exchange.answer(runs)


def evaluate(model, images, labels) -> float:
    """Returns the accuracy on the test set."""
    pieces = range(0, len(images), exchange.EVALUATION_BATCH)
    batches = (slice(start, start + exchange.EVALUATION_BATCH) for start in pieces)
    return sum(int(count_correct(model, images[b], labels[b])) for b in batches) / len(images)


def _uniform(fan_in):
    """PyTorch's default initialization."""
    bound = 1 / math.sqrt(fan_in)

    def init(key, shape, dtype):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return {"kernel_init": init, "bias_init": init}


if __name__ == "__main__":
    main()
