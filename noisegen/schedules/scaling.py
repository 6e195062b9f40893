"""Scaling rules: laws by which learning rate and momentum follow the batch size.

A rule is a function of the ratio k = B / B_0 of batch sizes. It returns a factor, with rule(1) = 1:

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
    """Returns 1 at every ratio of batch sizes, so nothing is scaled.

    Args:
      ratio: Ratio k > 0 of batch sizes.

    Examples:
      >>> import noisegen
      >>> noisegen.constant_rule(4.0)
      1.0
    """
    [ratio] = _validate.positive(ratio=ratio)
    return ratio**0  # Like the ratio, a number or an array.


def linear_rule(ratio: ArrayLike) -> ArrayLike:
    """Returns k, which keeps the temperature constant.

    Args:
      ratio: Ratio k > 0 of batch sizes.

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
    """Returns sqrt(k), which keeps the covariance of a single update constant.

    Args:
      ratio: Ratio k > 0 of batch sizes.

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
    """Adds the base value once for each doubling of the batch size.

    f(k) = 1 + log2(k)        if k >= 1
    f(k) = 1 / (1 - log2(k))  otherwise

    The second line keeps f positive. Like the other rules, f(k) f(1/k) = 1.

    Args:
      ratio: Ratio k > 0 of batch sizes.

    Examples:
      >>> import noisegen
      >>> float(noisegen.logarithmic_rule(4.0)), float(noisegen.logarithmic_rule(0.5))
      (3.0, 0.5)
    """
    [ratio] = _validate.positive(ratio=ratio)
    xp = jnp if isinstance(ratio, jax.Array) else np  # Numbers stay numbers, in float64.
    doublings = xp.log2(ratio)
    # The sign is 1 or -1 and selects the value or its inverse, also when the ratio is an array.
    return (1 + abs(doublings)) ** xp.sign(doublings)


def scale_learning_rate(
    base_learning_rate: ArrayLike,
    batch_size: ArrayLike,
    base_batch_size: ArrayLike,
    rule: Rule = linear_rule,
) -> ArrayLike:
    """Scales a learning rate from a base batch size to another batch size.

    learning_rate = base_learning_rate * rule(batch_size / base_batch_size)

    Args:
      base_learning_rate: Learning rate > 0 that suits the base batch size.
      batch_size: Examples per update, > 0.
      base_batch_size: Examples per update, > 0.
      rule: Function of the ratio, such as :func:`linear_rule` or :func:`square_root_rule`.

    Returns:
      The learning rate: a number if all arguments are numbers, otherwise an array.

    Raises:
      ValueError: If a concrete argument, the rule's value or the resulting learning rate is not
        positive.

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
    learning_rate = base_learning_rate * _factor(rule, batch_size / base_batch_size)
    # The product may leave the range of floats, even if both factors are in it.
    _validate.positive(learning_rate=learning_rate)
    return learning_rate


def scale_momentum(
    base_momentum: ArrayLike,
    batch_size: ArrayLike,
    base_batch_size: ArrayLike,
    rule: Rule = linear_rule,
) -> ArrayLike:
    """Scales a momentum coefficient, so that 1 / (1 - m) follows the rule.

    m = 1 - (1 - base_momentum) / rule(batch_size / base_batch_size)

    The learning rate stays fixed.

    Args:
      base_momentum: Momentum in [0, 1) that suits the base batch size.
      batch_size: Examples per update, > 0.
      base_batch_size: Examples per update, > 0.
      rule: Function of the ratio, such as :func:`linear_rule` or :func:`square_root_rule`.

    Returns:
      The momentum. A traced momentum is negative if even m = 0 is too large for the batch size.

    Raises:
      ValueError: If a concrete argument, the rule's value or the resulting momentum is out of its
        range.

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
    momentum = 1 - (1 - base_momentum) / _factor(rule, batch_size / base_batch_size)
    # Below 0, no momentum makes 1 / (1 - m) small enough for the batch size.
    _validate.in_range(0, 1, momentum=momentum)
    return momentum


def _factor(rule: Rule, ratio: ArrayLike) -> ArrayLike:
    """Returns the rule's value at a ratio of batch sizes, after a check of both."""
    if not callable(rule):
        raise ValueError(
            "rule must be a function of the ratio of batch sizes, such as noisegen.linear_rule, "
            f"but it is {_validate.kind(rule)}."
        )
    factor = rule(ratio)
    _validate.positive(**{"the value of the rule": factor})
    return factor
