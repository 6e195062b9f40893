"""Normalization over ghost batches, which flax lacks."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from noisegen import _validate


class GhostBatchNorm(nnx.Module):
    r"""Batch normalization over ghost batches: consecutive groups of `ghost_size` examples.

    In training every example is normalized by its own group's statistics, over the examples of the
    group and all positions of the image,

    .. math:: y = \gamma \frac{x - \mu_g}{\sqrt{\sigma^2_g + \epsilon}} + \beta,

    so that the noise which normalization adds does not shrink as the batch grows, and gradient
    accumulation over whole groups changes nothing. The running statistics, by which evaluation
    normalizes, are updated group by group in the order of the examples,

    .. math:: \mu \leftarrow m \mu + (1 - m) \mu_g, \quad \sigma^2 \leftarrow m \sigma^2 + (1 - m)
       \sigma^2_g,

    as in the code of Hoffer et al. (the weights of their printed algorithm do not sum to 1). For a
    batch of K groups the last weigh most, as they would in K small batches.

    Statistics are computed in float32, or float64 where `x` is that; the output has the dtype of
    `x`. Variances are biased (divided by n), and of deviations from the mean, so that features
    whose mean is large beside their deviation lose nothing.

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
        num_features, ghost_size = _validate.whole(
            1, num_features=num_features, ghost_size=ghost_size
        )
        # Below, it would be lost in float32, and a constant feature divided by zero.
        [epsilon] = _validate.at_least(float(jnp.finfo(jnp.float32).tiny), epsilon=epsilon)
        if momentum is not None:
            [momentum] = _validate.in_range(0, 1, momentum=momentum)
        self.ghost_size, self.momentum, self.epsilon = ghost_size, momentum, epsilon
        self.axis, self.batch_axis = int(axis), int(batch_axis)
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
        """Normalizes, and in training updates the running statistics.

        Args:
          x: features of any floating dtype, `(N, ..., num_features)` unless the layer was made for
            other axes.
          use_running_average: True normalizes by the running statistics; by default what
            `model.train()` and `model.eval()` say.
          mask: `(N,)` booleans: examples outside it count in no statistic, and may hold anything,
            NaN included. A group without any leaves the running statistics as they are.

        Returns:
          An array like `x`. Examples outside the mask come out as the bias: they are taken for the
          mean, and no gradient goes through them.

        Raises:
          ValueError: `x` has other features or is not floating-point, its examples are not whole
            groups, or the mask has not one boolean for each.
        """
        x = jnp.asarray(x)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(
                f"This layer normalizes floating-point features, got x of {x.dtype}: give "
                "x.astype(jnp.float32)."
            )
        axes = _Axes(self.batch_axis % x.ndim, self.axis % x.ndim)
        if x.shape[axes.features] != self.scale.shape[0]:
            raise ValueError(
                f"This layer normalizes {self.scale.shape[0]} features on axis {self.axis}, got x "
                f"of shape {x.shape}."
            )
        if use_running_average is None:
            use_running_average = self.use_running_average
        examples = x.shape[axes.groups]
        mask = None if mask is None else jnp.asarray(mask)
        if mask is not None and (mask.shape != (examples,) or mask.dtype != bool):
            raise ValueError(
                f"mask must be {examples} booleans, one for each example, got {mask.dtype} of "
                f"shape {mask.shape}."
            )
        if use_running_average or not x.size:  # no example has no statistics
            return self._by_running_average(x, axes, mask)
        size = min(self.ghost_size, examples)
        if examples % size:
            raise ValueError(
                f"{examples} examples are not whole ghost batches of {size}: give a multiple, or "
                "another ghost_size."
            )
        before, after = x.shape[: axes.groups], x.shape[axes.groups + 1 :]
        grouped = x.reshape(*before, -1, size, *after).astype(_validate.wide(x.dtype))
        axes = axes._replace(features=axes.features + (axes.features > axes.groups))
        if mask is None:
            counts, counted = jnp.ones(examples // size, bool), None
        else:
            mask = mask.reshape(-1, size)
            counts, counted = mask.any(1), axes.beside(mask, grouped.ndim)
        shift, centered = _center(grouped, axes, counted)
        mean, var = _moments(centered, axes, counted)
        self._update(shift + mean, var, counts)
        return self._affine(centered, axes, mean, var).reshape(x.shape).astype(x.dtype)

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
                seen, all_seen = self._seen(new)
                kept, scale = seen / all_seen, groups.astype(jnp.float32) / all_seen
                share = began.astype(jnp.float32) / jnp.maximum(groups, 1).astype(jnp.float32)
            else:
                kept = share = self.momentum ** new.astype(self.mean[...].dtype)
                scale = jnp.float32(1.0)
            for running, old, parts in zip(*statistics, strict=True):
                k, a, s = (weight.astype(old.dtype) for weight in (kept, scale, share))
                added = a * (parts[part] - s * old)
                if running is self.var:  # below zero it is rounding (fused products)
                    added = jnp.maximum(added, 0.0)
                running[...] = jnp.where(new > 0, k * running[...] + added, running[...])
            self._count(new)

    def _by_running_average(self, x, axes, mask):
        """`x` normalized by the running statistics."""
        mean, var = (
            stat[...][None].astype(_validate.wide(x.dtype)) for stat in (self.mean, self.var)
        )
        wide = x.astype(_validate.wide(x.dtype))
        if mask is not None:
            shape = [1] * x.ndim
            shape[axes.groups] = len(mask)
            wide = jnp.where(mask.reshape(shape), wide, axes.spread(mean, x.ndim))
        return self._affine(wide, axes, mean, var).astype(x.dtype)

    def _affine(self, x, axes, mean, var):
        """`x` normalized by statistics `(K, C)`, scaled and shifted; all of one dtype."""
        scale, bias = (each[...][None].astype(x.dtype) for each in (self.scale, self.bias))
        scale = jax.lax.rsqrt(var + self.epsilon) * scale
        mean, scale, bias = (axes.spread(each, x.ndim) for each in (mean, scale, bias))
        return (x - mean) * scale + bias

    def _update(self, mean, var, counts):
        """The running statistics after the groups that count, whose statistics are `(K, C)`."""
        place = jnp.cumsum(counts, dtype=jnp.int32)
        total = place[-1]
        if self.momentum is None:
            seen, all_seen = self._seen(total)
            kept = seen / all_seen
            weights = jnp.where(counts, 1 / all_seen, 0.0)
        else:
            kept, later = (self.momentum ** n.astype(mean.dtype) for n in (total, total - place))
            weights = jnp.where(counts, (1 - self.momentum) * later, 0.0)
        for running, new in ((self.mean, mean), (self.var, var)):
            old = running[...].astype(new.dtype)
            share = (weights.astype(new.dtype)[:, None] * new).sum(0)
            moved = kept.astype(new.dtype) * old + share
            running[...] = jnp.where(total > 0, moved, old).astype(running[...].dtype)
        self._count(total)

    def _seen(self, new):
        """Returns the number of groups before and after new ones, the latter at least 1."""
        seen = self.groups[...].astype(jnp.float32)
        return seen, jnp.maximum(seen + new.astype(jnp.float32), 1.0)

    def _count(self, new):
        """Counts new groups; the count stays at its largest value."""
        seen = self.groups[...]
        self.groups[...] = seen + jnp.minimum(new, jnp.iinfo(seen.dtype).max - seen)


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

    def beside(self, mask_KxG, ndim):
        """A mask of the examples in their groups, along their axes of an array of `ndim`."""
        shape = [1] * ndim
        shape[self.groups : self.groups + 2] = mask_KxG.shape
        return mask_KxG.reshape(shape)


def _center(x, axes, counted):
    """The groups' means `(K, C)` up to rounding, and what is left of `x`: 0 outside the mask.

    No gradient goes through these means, since the normalized values do not depend on them.
    """
    kept = x if counted is None else jnp.where(counted, x, 0.0)
    shift = jax.lax.stop_gradient(_mean(kept, axes, counted))
    left = x - axes.spread(shift, x.ndim)
    return shift, left if counted is None else jnp.where(counted, left, 0.0)


def _moments(x, axes, counted):
    """Mean and variance `(K, C)` of centered values, whose difference does not cancel."""
    mean = _mean(x, axes, counted)
    square = _mean(x * x, axes, counted)
    return mean, jnp.maximum(square - mean * mean, 0.0)


def _mean(x, axes, counted):
    """The mean `(K, C)` over the examples that count, whose others are 0, and all positions."""
    others = tuple(set(range(x.ndim)) - set(axes))
    total = axes.gather(x.sum(others, keepdims=True))
    positions = x.size // math.prod(x.shape[i] for i in (*axes, axes.groups + 1))
    if counted is None:
        return total / float(positions * x.shape[axes.groups + 1])
    examples = counted.reshape(x.shape[axes.groups : axes.groups + 2]).sum(1, keepdims=True)
    return total / (jnp.maximum(examples, 1).astype(x.dtype) * float(positions))
