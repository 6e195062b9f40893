"""Ghost batch normalization."""

import jax
import jax.numpy as jnp
from flax import nnx

from noisegen import _validate
from noisegen.models._group_statistics import Axes, affine, normalize


class GhostBatchNorm(nnx.Module):
    """Batch normalization over ghost batches, groups of `ghost_size` consecutive examples.

    In training, every example is normalized by the statistics of its group, taken over the
    examples of the group and all positions of the image:

    y = scale * (x - mean_g) / sqrt(var_g + epsilon) + bias

    The noise of normalization therefore does not shrink as the batch grows, and gradient
    accumulation over whole groups changes nothing. Evaluation uses running statistics, which are
    updated group by group in the order of the examples, as in the code of Hoffer et al. (the
    weights in their printed algorithm do not sum to 1):

    mean <- momentum * mean + (1 - momentum) * mean_g
    var  <- momentum * var  + (1 - momentum) * var_g

    The last groups of a batch weigh most, as they would in as many small batches.

    Statistics are calculated in float32 (float64 if `x` is float64). The output has the type of
    `x`. Variances are biased (divided by n), and calculated from deviations from the mean of an
    example, so that a large mean costs no digits. If that example is far from all others, the
    variance loses up to log2(ghost_size + 1) bits.

    Args:
      num_features: Size of the feature axis.
      ghost_size: Examples in a group. A call with fewer examples forms one group.
      momentum: Weight of the old running statistics at every group, in [0, 1). Hoffer et al. use
        0.9. None averages all groups since the layer was made with equal weights, for statistics
        that are recomputed before evaluation (`noisegen.training.Task`).
      epsilon: Number added to the variance, > 0.
      axis: Axis of the features.
      batch_axis: Axis of the examples, -1 in networks with the batch last.
      scale_init: Initializer of the scale. With zeros, a residual branch starts at zero.
      rngs: Random streams; `params` is passed to `scale_init`.

    Raises:
      ValueError: If an argument is out of its range.

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
        num_features, ghost_size = _validate.whole(
            1, num_features=num_features, ghost_size=ghost_size
        )
        _validate.positive(epsilon=epsilon)
        # A smaller epsilon would be lost in float32, and a constant feature be divided by zero.
        [epsilon] = _validate.at_least(float(jnp.finfo(jnp.float32).tiny), epsilon=epsilon)
        if momentum is not None:
            [momentum] = _validate.in_range(0, 1, momentum=momentum)
        self.ghost_size = ghost_size
        self.momentum = momentum
        self.epsilon = epsilon
        self.axis = int(axis)
        self.batch_axis = int(batch_axis)
        self.use_running_average = False  # As in Flax, model.eval() sets it to True.
        self.scale = nnx.Param(scale_init(rngs.params(), (num_features,)))
        self.bias = nnx.Param(jnp.zeros((num_features,)))
        self.mean = nnx.BatchStat(jnp.zeros((num_features,)))
        self.var = nnx.BatchStat(jnp.ones((num_features,)))
        self.groups = nnx.BatchStat(jnp.zeros((), jnp.int32))  # Number of groups seen so far.

    def __call__(
        self,
        x: jax.Array,
        use_running_average: bool | None = None,
        *,
        mask: jax.Array | None = None,
        relu: bool = False,
    ) -> jax.Array:
        """Normalizes, and updates the running statistics in training.

        Args:
          x: Features of any floating type, `(N, ..., num_features)` unless the layer was made for
            other axes.
          use_running_average: Whether to normalize by the running statistics. The default is set by
            `model.train()` and `model.eval()`.
          mask: Booleans `(N,)`. Examples outside the mask count in no statistic, and may hold any
            value including NaN. A group without examples leaves the running statistics unchanged.
          relu: Whether to return `max(y, 0)`, which takes fewer passes over the memory than a ReLU
            after the layer.

        Returns:
          An array like `x`. Examples outside the mask are replaced by the mean, so they return the
          bias and have no gradient.

        Raises:
          ValueError: If `x` has other features or is not floating-point, its examples are not whole
            groups, or the mask does not have one boolean per example.
        """
        x = jnp.asarray(x)
        axes = self._axes(x)
        if mask is not None:
            mask = _checked_mask(mask, x.shape[axes.groups])
        if use_running_average is None:
            use_running_average = self.use_running_average
        # Without examples there are no statistics.
        if use_running_average or x.size == 0:
            y = self._normalize_by_running_statistics(x, axes, mask)
            return jax.nn.relu(y) if relu else y
        return self._normalize_by_groups(x, axes, mask, relu)

    def combine(self, parts: "GhostBatchNorm") -> None:
        """Combines the statistics after parts of a batch into those after the whole batch.

        The parts were processed independently, each starting from the statistics of this layer. The
        result is that of one layer which sees the parts one after another.

        Args:
          parts: The layer after each part, with a leading axis of parts, in order, on every
            statistic.
        """
        began, began_mean, began_var = self.groups[...], self.mean[...], self.var[...]
        seen, mean, var = began, began_mean, began_var
        # Assigned once at the end: Flax takes long to trace each assignment.
        for part, groups in enumerate(parts.groups[...]):
            num_new = groups - began
            weights = self._combination_weights(began, seen, groups)
            new_mean = _combine(mean, began_mean, parts.mean[part], *weights)
            new_var = _combine(var, began_var, parts.var[part], *weights, non_negative=True)
            # A part without groups has changed nothing.
            mean = jnp.where(num_new > 0, new_mean, mean)
            var = jnp.where(num_new > 0, new_var, var)
            seen = _add_groups(seen, num_new)
        self.groups[...], self.mean[...], self.var[...] = seen, mean, var

    def _axes(self, x: jax.Array) -> Axes:
        """Returns the axes of `x`, after a check of its type and features."""
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(
                f"This layer normalizes floating-point features, got x of {x.dtype}: give "
                "x.astype(jnp.float32)."
            )
        axes = Axes(groups=self.batch_axis % x.ndim, features=self.axis % x.ndim)
        if x.shape[axes.features] != self.scale.shape[0]:
            raise ValueError(
                f"This layer normalizes {self.scale.shape[0]} features on axis {self.axis}, got x "
                f"of shape {x.shape}."
            )
        return axes

    def _normalize_by_groups(
        self, x: jax.Array, axes: Axes, mask: jax.Array | None, relu: bool
    ) -> jax.Array:
        """Normalizes every group by its own statistics, and updates the running ones."""
        num_examples = x.shape[axes.groups]
        size = min(self.ghost_size, num_examples)
        if num_examples % size:
            raise ValueError(
                f"{num_examples} examples are not whole ghost batches of {size}: give a multiple, "
                "or another ghost_size."
            )
        # Split the axis of examples into groups and examples of a group.
        before, after = x.shape[: axes.groups], x.shape[axes.groups + 1 :]
        grouped = x.reshape(*before, -1, size, *after)
        if axes.features > axes.groups:  # The new axis moves the features by one.
            axes = axes._replace(features=axes.features + 1)
        if mask is None:
            is_group_seen = jnp.ones(num_examples // size, bool)
        else:
            mask = mask.reshape(-1, size)
            is_group_seen = mask.any(1)
            mask = axes.expand_mask(mask, grouped.ndim)
        parameters = (self.scale[...], self.bias[...])
        y, mean, var = normalize(grouped, *parameters, mask, axes, self.epsilon, relu)
        self._update(mean, var, is_group_seen)
        return y.reshape(x.shape)

    def _normalize_by_running_statistics(
        self, x: jax.Array, axes: Axes, mask: jax.Array | None
    ) -> jax.Array:
        """Normalizes by the running statistics, which all examples share like a single group."""
        wide = x.astype(_validate.wide(x.dtype))
        mean = self.mean[...][None].astype(wide.dtype)
        var = self.var[...][None].astype(wide.dtype)
        if mask is not None:
            # By the mean and not by zeros, so that they return the bias as in training.
            shape = [1] * x.ndim
            shape[axes.groups] = len(mask)
            wide = jnp.where(mask.reshape(shape), wide, axes.expand(mean, x.ndim))
        parameters = (self.scale[...], self.bias[...])
        factor = jax.lax.rsqrt(var + self.epsilon)
        return affine(wide, mean, factor, *parameters, axes).astype(x.dtype)

    def _update(self, mean: jax.Array, var: jax.Array, is_group_seen: jax.Array) -> None:
        """Updates the running statistics by those of groups, `(K, C)`, in order.

        All groups at once: the recursion over K groups is a weighted sum, whose weights are powers
        of the momentum.
        """
        position = jnp.cumsum(is_group_seen, dtype=jnp.int32)  # Counted from 1.
        num_new = position[-1]
        if self.momentum is None:
            before, after = _counts(self.groups[...], num_new)
            kept = before / after
            weights = jnp.where(is_group_seen, 1 / after, 0.0)
        else:
            # Each later group multiplies the weight of a group by the momentum.
            num_later = num_new - position
            kept = self.momentum ** num_new.astype(mean.dtype)
            later = self.momentum ** num_later.astype(mean.dtype)
            weights = jnp.where(is_group_seen, (1 - self.momentum) * later, 0.0)
        for running, new in ((self.mean, mean), (self.var, var)):
            old = running[...].astype(new.dtype)
            added = (weights.astype(new.dtype)[:, None] * new).sum(0)
            updated = kept.astype(new.dtype) * old + added
            running[...] = jnp.where(num_new > 0, updated, old).astype(running[...].dtype)
        self.groups[...] = _add_groups(self.groups[...], num_new)

    def _combination_weights(
        self, began: jax.Array, seen: jax.Array, groups: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns the weights with which a part is combined, see `_combine`.

        Args:
          began: Number of groups before all parts.
          seen: Number of groups after the parts before.
          groups: Number of groups after the part, had it been the only one.
        """
        num_new = groups - began
        if self.momentum is not None:
            # Each group of the part multiplied what was there before by the momentum.
            kept = self.momentum ** num_new.astype(self.mean[...].dtype)
            return kept, kept, jnp.float32(1.0)
        # Averages with equal weights: undo the division by the part's number of groups.
        before, after = _counts(seen, num_new)
        began_share = began.astype(jnp.float32) / jnp.maximum(groups, 1).astype(jnp.float32)
        return before / after, began_share, groups.astype(jnp.float32) / after


def _checked_mask(mask: jax.Array, num_examples: int) -> jax.Array:
    """Returns the mask as a JAX array, after a check of its shape and type."""
    mask = jnp.asarray(mask)
    if mask.shape != (num_examples,) or mask.dtype != bool:
        raise ValueError(
            f"mask must be {num_examples} booleans, one for each example, got {mask.dtype} of "
            f"shape {mask.shape}."
        )
    return mask


def _counts(seen: jax.Array, num_new: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the number of groups before and after new ones as floats, the latter at least 1."""
    seen = seen.astype(jnp.float32)
    return seen, jnp.maximum(seen + num_new.astype(jnp.float32), 1.0)


def _add_groups(seen: jax.Array, num_new: jax.Array) -> jax.Array:
    """Counts new groups; the count stops at the largest value of its type."""
    return seen + jnp.minimum(num_new, jnp.iinfo(seen.dtype).max - seen)


def _combine(
    running: jax.Array,
    began: jax.Array,
    part: jax.Array,
    kept: jax.Array,
    began_share: jax.Array,
    scale: jax.Array,
    *,
    non_negative: bool = False,
) -> jax.Array:
    """Adds a part's own contribution to the running statistics of the parts before it.

    Args:
      running: Statistic after the parts before.
      began: Statistic from which every part started.
      part: Statistic after the part.
      kept: Weight of `running` in the result.
      began_share: Weight that `began` still has in `part`. What remains is the contribution.
      scale: Factor of the contribution.
      non_negative: Whether to clip a contribution below zero, which a variance has by rounding.
    """
    dtype = began.dtype
    added = scale.astype(dtype) * (part - began_share.astype(dtype) * began)
    if non_negative:
        added = jnp.maximum(added, 0.0)
    return kept.astype(dtype) * running + added
