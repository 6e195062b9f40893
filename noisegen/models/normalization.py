"""Normalisation over ghost batches, which flax lacks."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from noisegen import _validate


class GhostBatchNorm(nnx.Module):
    r"""Batch normalisation over ghost batches: consecutive groups of `ghost_size` examples.

    In training every example is normalised by its own group's statistics, over the examples of the
    group and all positions of the image,

    .. math:: y = \gamma \frac{x - \mu_g}{\sqrt{\sigma^2_g + \epsilon}} + \beta,

    so that the noise which normalisation adds does not shrink as the batch grows, and gradient
    accumulation over whole groups changes nothing. The running statistics, by which evaluation
    normalises, are updated group by group in the order of the examples,

    .. math:: \mu \leftarrow m \mu + (1 - m) \mu_g, \quad \sigma^2 \leftarrow m \sigma^2 + (1 - m)
       \sigma^2_g,

    as in the code of Hoffer et al. (the weights of their printed algorithm do not sum to 1). For a
    batch of K groups the last weigh most, as they would in K small batches.

    Statistics are computed in float32 whatever the dtype of `x`; the output
    has the dtype of `x`. Variances are biased (divided by n).

    Args:
      num_features: size of the feature axis.
      ghost_size: examples in a group. A call with fewer examples makes one group of them.
      momentum: m, weight of the old running statistics at every group, in [0, 1); Hoffer et al.
        have 0.9. None averages all groups since the layer was made, with equal weights: for
        statistics that are recomputed before evaluation (`noisegen.training.Task`).
      epsilon: added to the variance.
      axis: of the features.
      batch_axis: of the examples: the last one in networks that keep the batch last.
      scale_init: of gamma; zeros let a residual branch begin as nothing.
      rngs: accepted as every layer does; nothing is drawn unless `scale_init` does.

    Raises:
      ValueError: an argument is out of its range.

    Examples:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> from noisegen import models
      >>> norm = models.GhostBatchNorm(1, ghost_size=2, rngs=nnx.Rngs(0))
      >>> norm(jnp.array([[1.0], [3.0], [10.0], [30.0]]))[:, 0].round(3).tolist()
      [-1.0, 1.0, -1.0, 1.0]
      >>> round(float(norm.mean[0]), 2)  # (0 * 0.9 + 2 * 0.1) * 0.9 + 20 * 0.1
      2.18

    References:
      Hoffer, Hubara & Soudry, Train longer, generalize better, NeurIPS 2017,
      https://arxiv.org/abs/1705.08741
    """

    def __init__(
        self,
        num_features: int,
        ghost_size: int = 64,
        *,
        momentum: float | None = 0.9,
        epsilon: float = 1e-5,
        axis: int = -1,
        batch_axis: int = 0,
        scale_init: nnx.Initializer = nnx.initializers.ones,
        rngs: nnx.Rngs,
    ):
        _validate.positive(num_features=num_features, ghost_size=ghost_size, epsilon=epsilon)
        if momentum is not None:
            _validate.in_range(0, 1, momentum=momentum)
        self.ghost_size, self.momentum, self.epsilon = ghost_size, momentum, epsilon
        self.axis, self.batch_axis = axis, batch_axis
        self.use_running_average = False  # as flax: model.eval() makes it True
        self.scale = nnx.Param(scale_init(rngs.params(), (num_features,)))
        self.bias = nnx.Param(jnp.zeros((num_features,)))
        self.mean = nnx.BatchStat(jnp.zeros((num_features,)))
        self.var = nnx.BatchStat(jnp.ones((num_features,)))
        self.groups = nnx.BatchStat(jnp.zeros((), jnp.int32))  # seen so far

    def __call__(
        self,
        x: jax.Array,
        use_running_average: bool | None = None,
        *,
        mask: jax.Array | None = None,
    ) -> jax.Array:
        """Normalises, and in training updates the running statistics.

        Args:
          x: features of any floating dtype, `(N, ..., num_features)` unless the layer was made for
            other axes.
          use_running_average: True normalises by the running statistics; by default what
            `model.train()` and `model.eval()` say.
          mask: `(N,)` booleans: examples outside it count in no statistic. A group without any
            leaves the running statistics as they are.

        Returns:
          An array like `x`.

        Raises:
          ValueError: `x` has other features, or its examples are not whole groups.
        """
        axes = _Axes(self.batch_axis % x.ndim, self.axis % x.ndim)
        if x.shape[axes.features] != self.scale.shape[0]:
            raise ValueError(
                f"This layer normalises {self.scale.shape[0]} features on axis {self.axis}, got x "
                f"of shape {x.shape}."
            )
        if use_running_average is None:
            use_running_average = self.use_running_average
        if use_running_average:
            return self._affine(x, axes, self.mean[...][None], self.var[...][None])
        examples = x.shape[axes.groups]
        size = min(self.ghost_size, examples)
        if examples % size:
            raise ValueError(
                f"{examples} examples are not whole ghost batches of {size}: give a multiple, or "
                "another ghost_size."
            )
        before, after = x.shape[: axes.groups], x.shape[axes.groups + 1 :]
        grouped = x.reshape(*before, -1, size, *after)
        axes = axes._replace(features=axes.features + (axes.features > axes.groups))
        mask = jnp.ones(examples, bool) if mask is None else mask
        mean, var = _moments(grouped, axes, mask.reshape(-1, size))
        self._update(mean, var, mask.reshape(-1, size).any(1))
        return self._affine(grouped, axes, mean, var).reshape(x.shape)

    def combine(self, shares: "GhostBatchNorm") -> None:
        """Takes over the statistics that parts of one batch left, each of which began with these.

        Then they are those of the whole batch, whose groups came part by part.

        Args:
          shares: the layer after each part: its statistics have a leading axis, the parts in order.
        """
        began = self.groups[...]
        statistics = (
            (self.mean, self.var),
            (self.mean[...], self.var[...]),
            (shares.mean[...], shares.var[...]),
        )
        for part, groups in enumerate(shares.groups[...]):
            new = groups - began
            if self.momentum is None:  # every group has equal weight
                seen = self.groups[...]
                kept = seen / jnp.maximum(seen + new, 1)
                scale = groups / jnp.maximum(seen + new, 1)
                share = began / jnp.maximum(groups, 1)
            else:
                kept = share = self.momentum**new
                scale = 1.0
            for running, old, parts in zip(*statistics, strict=True):
                added = scale * (parts[part] - share * old)
                running[...] = jnp.where(new > 0, kept * running[...] + added, running[...])
            self.groups[...] += new

    def _affine(self, x, axes, mean, var):
        """`x` normalised by statistics `(K, C)`, scaled and shifted."""
        scale = jax.lax.rsqrt(var + self.epsilon) * self.scale[...][None]
        mean, scale, bias = (
            axes.spread(each, x.ndim) for each in (mean, scale, self.bias[...][None])
        )
        return ((x - mean) * scale + bias).astype(x.dtype)

    def _update(self, mean, var, counts):
        """The running statistics after the groups that count, whose statistics are `(K, C)`."""
        place = jnp.cumsum(counts)
        total = place[-1]
        if self.momentum is None:
            seen = self.groups[...]
            kept = seen / jnp.maximum(seen + total, 1)
            weights = jnp.where(counts, 1 / jnp.maximum(seen + total, 1), 0)
        else:
            kept = self.momentum**total
            weights = jnp.where(counts, (1 - self.momentum) * self.momentum ** (total - place), 0)
        for running, new in ((self.mean, mean), (self.var, var)):
            moved = kept * running[...] + (weights[:, None] * new).sum(0)
            running[...] = jnp.where(total > 0, moved, running[...])
        self.groups[...] += total


class _Axes(NamedTuple):
    """Places of the groups, which the examples of a group follow, and of the features."""

    groups: int
    features: int

    def spread(self, values_KxC, ndim):
        """The values along these axes of an array of `ndim`."""
        shape = [1] * ndim
        shape[self.groups], shape[self.features] = values_KxC.shape
        return (values_KxC if self.groups < self.features else values_KxC.T).reshape(shape)

    def gather(self, values):
        """The opposite of `spread`."""
        values = values.squeeze(tuple(set(range(values.ndim)) - set(self)))
        return values if self.groups < self.features else values.T


def _moments(x, axes, mask):
    """Mean and variance `(K, C)` over the examples in the mask `(K, G)`, and all positions.

    A group without any has the moments of all its examples: whatever they are, they are finite.
    """
    weights = jnp.where(mask.any(1, keepdims=True), mask, True).astype(jnp.float32)
    weights /= weights.sum(1, keepdims=True) * (x.size / (mask.size * x.shape[axes.features]))
    shape = [1] * x.ndim
    shape[axes.groups : axes.groups + 2] = mask.shape
    weights = weights.reshape(shape)
    others = tuple(set(range(x.ndim)) - set(axes))
    x = x.astype(jnp.float32)
    mean = axes.gather((x * weights).sum(others, keepdims=True))
    square = axes.gather((x * x * weights).sum(others, keepdims=True))
    return mean, jnp.maximum(square - mean * mean, 0)
