"""Scaling rules: how learning rate and momentum follow the batch size.

A rule is any function from the ratio k = B / B_0 to a factor, with rule(1) = 1:

>>> import noisegen
>>> noisegen.scale_learning_rate(0.01, batch_size=1024, base_batch_size=64)
0.16
>>> noisegen.scale_learning_rate(0.01, 1024, 64, rule=lambda k: k**0.25)
0.02
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from noisegen import _validate

Rule = Callable[[ArrayLike], ArrayLike]


def constant_rule(ratio: ArrayLike) -> ArrayLike:
    """No scaling: 1 at every ratio of batch sizes.

    Examples:
      >>> import noisegen
      >>> noisegen.constant_rule(4.0)
      1.0
    """
    [ratio] = _validate.positive(ratio=ratio)
    return ratio**0


def linear_rule(ratio: ArrayLike) -> ArrayLike:
    """Linear scaling, k: keeps the temperature.

    Examples:
      >>> import noisegen
      >>> noisegen.linear_rule(4.0)
      4.0

    References:
      Goyal et al., `Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour
      <https://arxiv.org/abs/1706.02677>`_, 2017
    """
    [ratio] = _validate.positive(ratio=ratio)
    return ratio


def square_root_rule(ratio: ArrayLike) -> ArrayLike:
    r"""Square-root scaling, :math:`\sqrt{k}`: keeps the covariance of one update's step.

    Examples:
      >>> import noisegen
      >>> noisegen.square_root_rule(4.0)
      2.0

    References:
      Hoffer, Hubara & Soudry, `Train longer, generalize better
      <https://arxiv.org/abs/1705.08741>`_, 2017, equation 7
    """
    [ratio] = _validate.positive(ratio=ratio)
    return ratio**0.5


def logarithmic_rule(ratio: ArrayLike) -> ArrayLike:
    r"""Logarithmic scaling: each doubling of the batch adds the base value once.

    .. math:: (1 + |\log_2 k|)^{\operatorname{sign} \log_2 k}

    This is :math:`1 + \log_2 k` for k >= 1, and its reciprocal at 1 / k below, where
    :math:`1 + \log_2 k` would turn negative: as for the other rules, f(k) f(1/k) = 1.

    Examples:
      >>> import noisegen
      >>> float(noisegen.logarithmic_rule(4.0)), float(noisegen.logarithmic_rule(0.5))
      (3.0, 0.5)
    """
    [ratio] = _validate.positive(ratio=ratio)
    xp = jnp if isinstance(ratio, jax.Array) else np
    doublings = xp.log2(ratio)
    return (1 + abs(doublings)) ** xp.sign(doublings)


def scale_learning_rate(
    base_learning_rate: ArrayLike,
    batch_size: ArrayLike,
    base_batch_size: ArrayLike,
    rule: Rule = linear_rule,
) -> ArrayLike:
    r"""Learning rate for a batch size, from one that is good at a base batch size.

    .. math:: \epsilon = \epsilon_0 \, f(B / B_0)

    Args:
      base_learning_rate: :math:`\epsilon_0 > 0`, good at the base batch size.
      batch_size: B > 0, examples per update.
      base_batch_size: :math:`B_0 > 0`, examples per update.
      rule: f, for example :func:`linear_rule` or :func:`square_root_rule`.

    Returns:
      The learning rate; numbers in give a number, traced values a traced value.

    Raises:
      ValueError: a concrete argument is not positive, or the learning rate that follows.

    Examples:
      >>> import noisegen
      >>> noisegen.scale_learning_rate(0.01, 256, 64, rule=noisegen.square_root_rule)
      0.02
    """
    base_learning_rate, batch_size, base_batch_size = _validate.positive(
        base_learning_rate=base_learning_rate,
        batch_size=batch_size,
        base_batch_size=base_batch_size,
    )
    learning_rate = base_learning_rate * rule(batch_size / base_batch_size)
    _validate.positive(learning_rate=learning_rate)
    return learning_rate


def scale_momentum(
    base_momentum: ArrayLike,
    batch_size: ArrayLike,
    base_batch_size: ArrayLike,
    rule: Rule = linear_rule,
) -> ArrayLike:
    r"""Momentum for a batch size: 1 / (1 - m) follows the rule, at a fixed learning rate.

    .. math:: m = 1 - \frac{1 - m_0}{f(B / B_0)}

    Args:
      base_momentum: :math:`0 \le m_0 < 1`, good at the base batch size.
      batch_size: B > 0, examples per update.
      base_batch_size: :math:`B_0 > 0`, examples per update.
      rule: f, for example :func:`linear_rule` or :func:`square_root_rule`.

    Returns:
      The momentum. A traced one is below zero where B is so small that even m = 0 is too much.

    Raises:
      ValueError: a concrete argument is out of its range, or the momentum that follows.

    Examples:
      >>> import noisegen
      >>> round(noisegen.scale_momentum(0.9, 8192, 4096, rule=noisegen.square_root_rule), 3)
      0.929

    References:
      Smith & Le, `A Bayesian Perspective on Generalization and Stochastic Gradient Descent
      <https://arxiv.org/abs/1710.06451>`_, 2018, appendix E
    """
    [base_momentum] = _validate.in_range(0, 1, base_momentum=base_momentum)
    batch_size, base_batch_size = _validate.positive(
        batch_size=batch_size, base_batch_size=base_batch_size
    )
    momentum = 1 - (1 - base_momentum) / rule(batch_size / base_batch_size)
    _validate.in_range(0, 1, momentum=momentum)
    return momentum
