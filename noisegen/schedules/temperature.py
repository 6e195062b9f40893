"""Temperature and noise scale of SGD, and the learning rate or batch size that gives them.

For learning rate lr, momentum m (heavy ball, ``optax.trace``, no dampening), batch size B and N
training examples, with updates from the **mean** gradient of the batch:

effective learning rate  lr_eff = lr / (1 - m)
temperature              T = lr_eff / B
SGD noise scale          g = lr_eff (N / B - 1), approximately N T

The SGD noise scale accounts for drawing batches without replacement, so it is 0 for the full batch.
It is not the gradient noise scale of :func:`noisegen.diagnostics.gradient_noise_scale`, which is a
batch size measured from gradients.

Python and NumPy numbers of any type give a Python float, calculated in float64. Arrays and tracers
give arrays, calculated in float32 at least. Concrete arguments are checked.

>>> import noisegen
>>> t = noisegen.temperature(learning_rate=0.1, batch_size=64, momentum=0.5)
>>> noisegen.learning_rate_from_temperature(t, batch_size=1024, momentum=0.5)
1.6

References:
  Smith, Elsen & De, `On the Generalization Benefit of Noise in Stochastic Gradient Descent
  <https://arxiv.org/abs/2006.15081>`_, 2020 (temperature); Smith & Le, `A Bayesian Perspective on
  Generalization and Stochastic Gradient Descent <https://arxiv.org/abs/1710.06451>`_, 2018, and
  Smith et al., `Don't Decay the Learning Rate, Increase the Batch Size
  <https://arxiv.org/abs/1711.00489>`_, 2018 (noise scale)
"""

from jax.typing import ArrayLike

from noisegen import _validate

# The checks convert Python and NumPy numbers to float64. Below, unsigned integers can therefore not
# wrap around, and float16 cannot overflow.


def effective_learning_rate(learning_rate: ArrayLike, momentum: ArrayLike) -> ArrayLike:
    """Returns the effective learning rate, lr / (1 - m).

    Args:
      learning_rate: Learning rate lr >= 0.
      momentum: Momentum m in [0, 1).

    Raises:
      ValueError: If a concrete argument is out of its range.

    Examples:
      >>> import noisegen
      >>> noisegen.effective_learning_rate(0.1, momentum=0.5)
      0.2
    """
    [learning_rate] = _validate.non_negative(learning_rate=learning_rate)
    [momentum] = _validate.in_range(0, 1, momentum=momentum)
    return learning_rate / (1 - momentum)


def learning_rate_from_effective(
    effective_learning_rate: ArrayLike, momentum: ArrayLike
) -> ArrayLike:
    """Returns the learning rate, (1 - m) lr_eff.

    Args:
      effective_learning_rate: Effective learning rate lr_eff >= 0.
      momentum: Momentum m in [0, 1).

    Raises:
      ValueError: If a concrete argument is out of its range.

    Examples:
      >>> import noisegen
      >>> noisegen.learning_rate_from_effective(8.0, momentum=0.5)
      4.0
    """
    [effective] = _validate.non_negative(effective_learning_rate=effective_learning_rate)
    [momentum] = _validate.in_range(0, 1, momentum=momentum)
    return effective * (1 - momentum)


def temperature(
    learning_rate: ArrayLike, batch_size: ArrayLike, momentum: ArrayLike = 0.0
) -> ArrayLike:
    """Returns the temperature, T = lr_eff / B.

    Args:
      learning_rate: Learning rate lr >= 0.
      batch_size: Examples per update B > 0.
      momentum: Momentum m in [0, 1).

    Raises:
      ValueError: If a concrete argument is out of its range.

    Examples:
      >>> import noisegen
      >>> noisegen.temperature(0.5, batch_size=64, momentum=0.5)
      0.015625
    """
    [batch_size] = _validate.positive(batch_size=batch_size)
    return effective_learning_rate(learning_rate, momentum) / batch_size


def learning_rate_from_temperature(
    temperature: ArrayLike, batch_size: ArrayLike, momentum: ArrayLike = 0.0
) -> ArrayLike:
    """Returns the learning rate that gives a temperature, T B (1 - m).

    Args:
      temperature: Temperature T >= 0.
      batch_size: Examples per update B > 0.
      momentum: Momentum m in [0, 1).

    Raises:
      ValueError: If a concrete argument is out of its range.

    Examples:
      >>> import noisegen
      >>> noisegen.learning_rate_from_temperature(0.015625, batch_size=64, momentum=0.5)
      0.5
    """
    [temperature] = _validate.non_negative(temperature=temperature)
    [batch_size] = _validate.positive(batch_size=batch_size)
    return learning_rate_from_effective(temperature * batch_size, momentum)


def batch_size_from_temperature(
    temperature: ArrayLike, learning_rate: ArrayLike, momentum: ArrayLike = 0.0
) -> ArrayLike:
    """Returns the batch size that gives a temperature, lr_eff / T, not rounded.

    Args:
      temperature: Temperature T > 0.
      learning_rate: Learning rate lr >= 0.
      momentum: Momentum m in [0, 1).

    Raises:
      ValueError: If a concrete argument is out of its range.

    Examples:
      >>> import noisegen
      >>> noisegen.batch_size_from_temperature(0.015625, learning_rate=0.5, momentum=0.5)
      64.0
    """
    [temperature] = _validate.positive(temperature=temperature)
    return effective_learning_rate(learning_rate, momentum) / temperature


def sgd_noise_scale(
    learning_rate: ArrayLike,
    batch_size: ArrayLike,
    num_examples: ArrayLike,
    momentum: ArrayLike = 0.0,
) -> ArrayLike:
    """Returns the noise scale of SGD, g = lr_eff (N / B - 1), which is 0 for the full batch.

    Args:
      learning_rate: Learning rate lr >= 0.
      batch_size: Examples per update B in (0, N].
      num_examples: Examples N in the training set.
      momentum: Momentum m in [0, 1).

    Raises:
      ValueError: If a concrete argument is out of its range.

    Examples:
      >>> import noisegen
      >>> noisegen.sgd_noise_scale(0.5, batch_size=64, num_examples=640)
      4.5
    """
    batch_size, num_examples = _validate.positive(batch_size=batch_size, num_examples=num_examples)
    # The name is for the message. The full batch is allowed, and has no noise.
    _validate.non_negative(num_examples_beyond_the_batch=num_examples - batch_size)
    return effective_learning_rate(learning_rate, momentum) * (num_examples / batch_size - 1)


def learning_rate_from_sgd_noise_scale(
    noise_scale: ArrayLike,
    batch_size: ArrayLike,
    num_examples: ArrayLike,
    momentum: ArrayLike = 0.0,
) -> ArrayLike:
    """Returns the learning rate that gives a noise scale, (1 - m) g / (N / B - 1).

    Args:
      noise_scale: Noise scale g >= 0.
      batch_size: Examples per update B in (0, N). The full batch has no noise at any learning rate.
      num_examples: Examples N in the training set.
      momentum: Momentum m in [0, 1).

    Raises:
      ValueError: If a concrete argument is out of its range.

    Examples:
      >>> import noisegen
      >>> noisegen.learning_rate_from_sgd_noise_scale(4.5, batch_size=64, num_examples=640)
      0.5
    """
    [noise_scale] = _validate.non_negative(noise_scale=noise_scale)
    batch_size, num_examples = _validate.positive(batch_size=batch_size, num_examples=num_examples)
    # The full batch is refused, since no learning rate gives it noise.
    _validate.positive(num_examples_beyond_the_batch=num_examples - batch_size)
    return learning_rate_from_effective(noise_scale / (num_examples / batch_size - 1), momentum)


def batch_size_from_sgd_noise_scale(
    noise_scale: ArrayLike,
    learning_rate: ArrayLike,
    num_examples: ArrayLike,
    momentum: ArrayLike = 0.0,
) -> ArrayLike:
    """Returns the batch size that gives a noise scale, N / (1 + g / lr_eff), not rounded.

    Args:
      noise_scale: Noise scale g >= 0. With g = 0 the result is N.
      learning_rate: Learning rate lr > 0.
      num_examples: Examples N in the training set.
      momentum: Momentum m in [0, 1).

    Raises:
      ValueError: If a concrete argument is out of its range.

    Examples:
      >>> import noisegen
      >>> noisegen.batch_size_from_sgd_noise_scale(4.5, learning_rate=0.5, num_examples=640)
      64.0
    """
    [noise_scale] = _validate.non_negative(noise_scale=noise_scale)
    learning_rate, num_examples = _validate.positive(
        learning_rate=learning_rate, num_examples=num_examples
    )
    return num_examples / (1 + noise_scale / effective_learning_rate(learning_rate, momentum))
