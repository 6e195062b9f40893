r"""Temperature and noise scale of SGD, and the learning rate or batch size that gives them.

With learning rate :math:`\epsilon`, momentum m (heavy ball, ``optax.trace``: no dampening), batch
size B and N training examples, on the **mean** gradient of the batch,

.. math::
  \epsilon_\text{eff} = \frac{\epsilon}{1 - m}, \qquad
  T = \frac{\epsilon_\text{eff}}{B}, \qquad
  g = \epsilon_\text{eff} \left(\frac{N}{B} - 1\right) \approx N T .

T is set by the choice of batches; g also knows that they are drawn without replacement, and is zero
for the full batch. Python's and NumPy's numbers in, of any type, give a Python float out; arrays
and traced values pass through. The arithmetic is in float64, or of JAX arrays in float32 at least.

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


def effective_learning_rate(learning_rate: ArrayLike, momentum: ArrayLike) -> ArrayLike:
    r"""Effective learning rate :math:`\epsilon_\text{eff} = \epsilon / (1 - m)`.

    Args:
      learning_rate: :math:`\epsilon \ge 0`.
      momentum: 0 <= m < 1.

    Raises:
      ValueError: a concrete argument is out of its range.

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
    r"""Learning rate :math:`\epsilon = (1 - m) \epsilon_\text{eff}`.

    Args:
      effective_learning_rate: :math:`\epsilon_\text{eff} \ge 0`.
      momentum: 0 <= m < 1.

    Raises:
      ValueError: a concrete argument is out of its range.

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
    r"""Temperature :math:`T = \epsilon_\text{eff} / B`.

    Args:
      learning_rate: :math:`\epsilon \ge 0`.
      batch_size: B > 0, examples per update.
      momentum: 0 <= m < 1.

    Raises:
      ValueError: a concrete argument is out of its range.

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
    r"""Learning rate :math:`\epsilon = T B (1 - m)` that gives a temperature.

    Args:
      temperature: :math:`T \ge 0`.
      batch_size: B > 0, examples per update.
      momentum: 0 <= m < 1.

    Raises:
      ValueError: a concrete argument is out of its range.

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
    r"""Batch size :math:`B = \epsilon_\text{eff} / T` that gives a temperature, not rounded.

    Args:
      temperature: T > 0.
      learning_rate: :math:`\epsilon \ge 0`.
      momentum: 0 <= m < 1.

    Raises:
      ValueError: a concrete argument is out of its range.

    Examples:
      >>> import noisegen
      >>> noisegen.batch_size_from_temperature(0.015625, learning_rate=0.5, momentum=0.5)
      64.0
    """
    [temperature] = _validate.positive(temperature=temperature)
    return effective_learning_rate(learning_rate, momentum) / temperature


def noise_scale(
    learning_rate: ArrayLike,
    batch_size: ArrayLike,
    num_examples: ArrayLike,
    momentum: ArrayLike = 0.0,
) -> ArrayLike:
    r"""Noise scale :math:`g = \epsilon_\text{eff} (N / B - 1)`; zero for the full batch.

    Args:
      learning_rate: :math:`\epsilon \ge 0`.
      batch_size: 0 < B <= N, examples per update.
      num_examples: N, examples in the training set.
      momentum: 0 <= m < 1.

    Raises:
      ValueError: a concrete argument is out of its range.

    Examples:
      >>> import noisegen
      >>> noisegen.noise_scale(0.5, batch_size=64, num_examples=640)
      4.5
    """
    batch_size, num_examples = _validate.positive(batch_size=batch_size, num_examples=num_examples)
    _validate.non_negative(num_examples_beyond_the_batch=num_examples - batch_size)
    return effective_learning_rate(learning_rate, momentum) * (num_examples / batch_size - 1)


def learning_rate_from_noise_scale(
    noise_scale: ArrayLike,
    batch_size: ArrayLike,
    num_examples: ArrayLike,
    momentum: ArrayLike = 0.0,
) -> ArrayLike:
    r"""Learning rate :math:`\epsilon = (1 - m) g / (N / B - 1)` that gives a noise scale.

    Args:
      noise_scale: :math:`g \ge 0`.
      batch_size: 0 < B < N, examples per update: the full batch has no noise at any learning rate.
      num_examples: N, examples in the training set.
      momentum: 0 <= m < 1.

    Raises:
      ValueError: a concrete argument is out of its range, B >= N included.

    Examples:
      >>> import noisegen
      >>> noisegen.learning_rate_from_noise_scale(4.5, batch_size=64, num_examples=640)
      0.5
    """
    [noise_scale] = _validate.non_negative(noise_scale=noise_scale)
    batch_size, num_examples = _validate.positive(batch_size=batch_size, num_examples=num_examples)
    _validate.positive(num_examples_beyond_the_batch=num_examples - batch_size)
    return learning_rate_from_effective(noise_scale / (num_examples / batch_size - 1), momentum)


def batch_size_from_noise_scale(
    noise_scale: ArrayLike,
    learning_rate: ArrayLike,
    num_examples: ArrayLike,
    momentum: ArrayLike = 0.0,
) -> ArrayLike:
    r"""Batch size :math:`B = N / (1 + g / \epsilon_\text{eff})`, not rounded; N where g = 0.

    Args:
      noise_scale: :math:`g \ge 0`.
      learning_rate: :math:`\epsilon > 0`.
      num_examples: N, examples in the training set.
      momentum: 0 <= m < 1.

    Raises:
      ValueError: a concrete argument is out of its range.

    Examples:
      >>> import noisegen
      >>> noisegen.batch_size_from_noise_scale(4.5, learning_rate=0.5, num_examples=640)
      64.0
    """
    [noise_scale] = _validate.non_negative(noise_scale=noise_scale)
    learning_rate, num_examples = _validate.positive(
        learning_rate=learning_rate, num_examples=num_examples
    )
    return num_examples / (1 + noise_scale / effective_learning_rate(learning_rate, momentum))
