"""Additive noise as an optax transformation.

>>> import jax, jax.numpy as jnp, noisegen, optax
>>> stddev = noisegen.power_decay_schedule(0.3, gamma=0.55)
>>> noise = noisegen.add_gradient_noise(stddev, jax.random.key(0))
>>> tx = optax.chain(noise, optax.sgd(0.1, momentum=0.5))
>>> params = {"w": jnp.ones(3)}
>>> updates, state = tx.update({"w": jnp.zeros(3)}, tx.init(params), params)
"""

from typing import Any

import jax
import optax

from noisegen import _validate
from noisegen.schedules._counts import value_at
from noisegen.transforms import samplers
from noisegen.transforms._noise_stream import (
    AddGradientNoiseState,
    add_scaled,
    begin_noise,
    next_noise,
)


def add_gradient_noise(
    stddev: optax.ScalarOrSchedule, key: jax.Array, *, sampler: samplers.Sampler | None = None
) -> optax.GradientTransformationExtraArgs:
    """Adds noise of a given standard deviation per coordinate.

    g <- g + stddev(t) xi(t), where E[xi_i] = 0, E[xi_i**2] = 1 and t = 0, 1, 2, ...

    **The standard deviation is per coordinate, on the mean gradient.** The noise vector has norm
    of about stddev * sqrt(d). If the loss is a sum over the batch, multiply stddev by the batch
    size.

    **The position in the chain decides the meaning.**

    * Before the optimizer, ``chain(add_gradient_noise(s, key), sgd(lr, m))`` adds noise to the
      *gradient*. Like sampling noise it passes through momentum and learning rate, and moves a
      parameter by lr * s per update (lr * s / (1 - m) in the long run).
    * After the learning rate, ``chain(sgd(lr, m), add_gradient_noise(s, key))`` adds noise to the
      *parameters*: s per update, at any learning rate.

    **Guarantees.** The noise is a pure function of the key, t, and the index and shape of the leaf.
    It is equal on every device of a data-parallel program, for every sharding, and after a restart.
    It is independent across keys, updates and leaves. For bf16 and f16 leaves, noise is drawn,
    scaled and added in float32, then rounded once. A standard deviation of 0 changes no bit.

    **Many runs.** Build the transformation inside the function given to ``jax.vmap``, from the key
    and standard deviation of each run. With a transformation built outside, all runs would share
    one key.

    **Gradient accumulation.** Put this transformation inside ``optax.MultiSteps(tx, k)``. Outside,
    noise is averaged to s / sqrt(k), and t runs k times too fast.

    **Data parallelism.** Apply it after the mean over devices, with the same key on all devices.
    Noise from a key per device would be averaged to s / sqrt(devices).

    Args:
      stddev: Standard deviation >= 0, in the units of the updates: a number, a traced scalar or a
        schedule of t.
      key: One key of the default threefry2x32 kind, typed (``jax.random.key(seed)``) or raw
        (uint32, shape (2,)). Transformations with the same key draw the same noise, so give each
        its own.
      sampler: Function (key, tree) -> noise of mean 0 and variance 1, such as
        :func:`normal_noise` (the default), :func:`uniform_noise` or :func:`sphere_noise`.
        ``optax.inject_hyperparams`` takes every callable for a schedule, so list it there in
        ``static_args="sampler"``.

    Returns:
      A gradient transformation with state :class:`AddGradientNoiseState`. Its update ignores the
      extra arguments of other transformations in the chain.

    Raises:
      ValueError: If `key` is not one threefry key, or a concrete `stddev` is negative or not
        finite. Updates raise if a leaf is not floating-point (complex leaves need
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
    _validate.non_negative(schedules=True, stddev=stddev)
    _validate.scalar(stddev=stddev)
    begin = begin_noise(key)
    # The default is None instead of the function, which inject_hyperparams would take for a
    # schedule.
    sampler = sampler or samplers.normal_noise

    # Closures over arguments that may be traced: the transformation is built inside the compiled
    # program, once per run.

    def init_fn(params: Any) -> AddGradientNoiseState:
        del params
        return begin()

    def update_fn(
        updates: Any, state: AddGradientNoiseState, params: Any = None, **extra_args: Any
    ) -> Any:
        del params, extra_args
        # Checked again, because only now a schedule shows its value, unless that is traced.
        [sigma] = _validate.non_negative(stddev=value_at(stddev, state.count))
        _validate.scalar(stddev=sigma)
        noise, state = next_noise(state, updates, sampler)
        updates = jax.tree.map(lambda g, xi: add_scaled(g, sigma, xi), updates, noise)
        return updates, state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)
