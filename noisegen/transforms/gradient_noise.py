r"""Additive noise as an optax transformation.

>>> import jax, jax.numpy as jnp, noisegen, optax
>>> tx = optax.chain(
...     noisegen.add_gradient_noise(0.1, jax.random.key(0)),
...     optax.sgd(0.1, momentum=0.5),
... )
>>> params = {"w": jnp.ones(3)}
>>> updates, state = tx.update({"w": jnp.zeros(3)}, tx.init(params), params)
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from noisegen import _validate
from noisegen.schedules._counts import value_at
from noisegen.transforms import samplers

_PRNG = "threefry2x32"


class AddGradientNoiseState(NamedTuple):
    """Where a stream of noise stands: plain arrays, so it is saved, mapped and donated as such."""

    count: jax.Array  # shape (), int32: updates so far
    key: jax.Array  # shape (2,), uint32: the stream's threefry2x32 key, the same at every update


def add_gradient_noise(
    stddev: optax.ScalarOrSchedule, key: jax.Array, *, sampler: samplers.Sampler | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""Adds noise of a given standard deviation to what passes through the chain.

    .. math:: g_t \leftarrow g_t + \sigma_t \xi_t, \qquad
      \mathbb{E} \, \xi_t = 0, \quad \mathbb{E} \, \xi_{t,i}^2 = 1, \qquad t = 0, 1, 2, \dots

    **Per coordinate, on the mean gradient.** :math:`\sigma_t` is the standard deviation of each
    coordinate (the noise vector has norm about :math:`\sigma_t \sqrt{d}`), to be read against the
    gradient that arrives: where the loss is a sum over the batch, multiply it by the batch size.

    **Its place in the chain decides what it means.**

    * before the optimizer, ``chain(add_gradient_noise(s, key), sgd(lr, m))``: noise on the
      *gradient*. It passes through momentum and learning rate as the noise of sampling does, and
      moves a parameter by lr * s per update (lr * s / (1 - m) in the long run).
    * after the learning rate, ``chain(sgd(lr, m), add_gradient_noise(s, key))``: noise on the
      *parameters*, s per update, at any learning rate.

    **Guarantees.** The noise is a pure function of (key, t) and of the leaf's index and shape:
    equal on every device of a data-parallel program and for every sharding; independent over keys,
    updates and leaves; the same after a restart. bf16 and f16 leaves get noise drawn, scaled and
    added in float32, rounded once. A standard deviation of 0 changes no bit.

    **Many runs.** Build the transformation inside the function given to ``jax.vmap``, from each
    run's own key and standard deviation: ``vmap(tx.init)`` of one built outside repeats its key.

    **Two traps.** (1) Outside ``optax.MultiSteps(tx, k)`` noise is averaged to s / sqrt(k) and its
    t runs k times fast: put it inside, or accumulate yourself and call the chain once per update.
    (2) In a data-parallel program put it after the mean over devices, with one key for all: noise
    of per-device keys would be averaged to s / sqrt(devices).

    Args:
      stddev: :math:`\sigma_t \ge 0` in the units of what it is added to: a number, a traced scalar
        or a schedule of t.
      key: one key, typed (``jax.random.key(seed)``) or raw (uint32, shape (2,)), of the default
        threefry2x32 kind. Transformations that share a key share their noise: give each its own.
      sampler: :func:`normal_noise` (taken for None), :func:`uniform_noise`, :func:`sphere_noise` or
        any (key, tree) -> noise of mean 0, variance 1. ``optax.inject_hyperparams`` takes every
        callable for a schedule: name it there in ``static_args="sampler"``.

    Returns:
      A gradient transformation with state :class:`AddGradientNoiseState`. Its update ignores any
      keyword argument that other links of the chain may need.

    Raises:
      ValueError: `key` is not one threefry key, or a concrete `stddev` is negative or not finite;
        in an update, a leaf is not floating-point (complex leaves need
        ``optax.contrib.split_real_and_imaginary``).

    Examples:
      >>> import jax, jax.numpy as jnp, noisegen
      >>> def noise_of_run(key, stddev):
      ...     tx = noisegen.add_gradient_noise(stddev, key)
      ...     noise, state = tx.update(jnp.zeros(10_000), tx.init(None))
      ...     return noise
      >>> keys = jax.random.split(jax.random.key(0), 3)
      >>> noise = jax.vmap(noise_of_run)(keys, jnp.array([0.0, 1.0, 10.0]))
      >>> jnp.std(noise, axis=1).round(1)
      Array([ 0.,  1., 10.], dtype=float32)

    References:
      Neelakantan et al., `Adding Gradient Noise Improves Learning for Very Deep Networks
      <https://arxiv.org/abs/1511.06807>`_, 2015
    """
    _validate.non_negative(stddev=stddev)
    _validate.scalar(stddev=stddev)
    begin = begin_noise(key)
    # The default is None, not the function: inject_hyperparams would take that for a schedule.
    sampler = sampler or samplers.normal_noise

    def init_fn(params: Any) -> AddGradientNoiseState:
        del params
        return begin()

    def update_fn(
        updates: Any, state: AddGradientNoiseState, params: Any = None, **others: Any
    ) -> Any:
        del params, others
        [sigma] = _validate.non_negative(stddev=value_at(stddev, state.count))
        _validate.scalar(stddev=sigma)
        noise, state = next_noise(state, updates, sampler)
        updates = jax.tree.map(lambda g, xi: with_noise(g, sigma, xi), updates, noise)
        return updates, state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def with_noise(gradient: jax.Array, stddev: ArrayLike, noise: jax.Array) -> jax.Array:
    """Adds scaled noise to a leaf, in float32 or wider, and rounds once to the leaf's type."""
    gradient = jnp.asarray(gradient)
    wide = _validate.wide(gradient.dtype)
    noisy = gradient.astype(wide) + jnp.asarray(stddev, wide) * noise.astype(wide)
    return noisy.astype(gradient.dtype)


def begin_noise(key: jax.Array) -> Callable[[], AddGradientNoiseState]:
    """Checks a key; returns a function that gives the beginning of its stream of noise."""
    data = key_data(key)
    # A copy, since the state may be donated and the key is needed for the next init.
    return lambda: AddGradientNoiseState(count=jnp.zeros([], jnp.int32), key=jnp.array(data))


def next_noise(
    state: AddGradientNoiseState, tree: Any, sampler: samplers.Sampler
) -> tuple[Any, AddGradientNoiseState]:
    """Noise of variance 1 for every leaf of a tree, and the stream one update on."""
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key, impl=_PRNG), state.count)
    return sampler(key, tree), state._replace(count=optax.safe_increment(state.count))


def key_data(key: jax.Array) -> jax.Array:
    """The raw data of one threefry2x32 key, typed or raw; anything else is refused."""
    data = key
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        # rbg keys are refused: under vmap they repeat the first run's noise for all.
        data = jax.random.key_data(key) if str(jax.random.key_impl(key)) == _PRNG else None
    if (
        not isinstance(data, jax.Array | np.ndarray)
        or data.dtype != jnp.uint32
        or data.shape != (2,)
    ):
        given = f"{key.dtype} of shape {key.shape}" if hasattr(key, "dtype") else repr(key)
        raise ValueError(
            f"key must be one {_PRNG} key, typed or raw, but it is {given}. Make it from the run's "
            f"seed, jax.random.key(seed, impl={_PRNG!r}); for many runs, build the transformation "
            f"inside the function given to jax.vmap, from that run's key."
        )
    return data
