"""A stream of random noise as optimizer state: one key and a count of updates."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from noisegen import _validate
from noisegen.transforms import samplers

_PRNG = "threefry2x32"  # The only generator of JAX that draws the same noise with and without vmap.


class AddGradientNoiseState(NamedTuple):
    """Position in a stream of noise, held in plain arrays that can be saved, mapped and donated."""

    count: jax.Array  # shape (), int32: number of updates so far
    key: jax.Array  # shape (2,), uint32: threefry2x32 key of the stream, the same at every update


def begin_noise(key: jax.Array) -> Callable[[], AddGradientNoiseState]:
    """Checks a key and returns a function that makes the initial state of its stream."""
    data = key_data(key)
    # Each state gets a copy: it may be donated, and the key is needed for the next init.
    return lambda: AddGradientNoiseState(count=jnp.zeros([], jnp.int32), key=jnp.array(data))


def next_noise(
    state: AddGradientNoiseState, tree: Any, sampler: samplers.Sampler
) -> tuple[Any, AddGradientNoiseState]:
    """Returns noise of variance 1 for every leaf of a tree, and the state after this update."""
    # The key stays, and the count makes it a new one. A restart therefore needs the count only, and
    # no chain of splits.
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key, impl=_PRNG), state.count)
    return sampler(key, tree), state._replace(count=optax.safe_increment(state.count))


def add_scaled(gradient: jax.Array, stddev: ArrayLike, noise: jax.Array) -> jax.Array:
    """Adds stddev * noise to a leaf in float32 or wider, and rounds once to the leaf's type."""
    gradient = jnp.asarray(gradient)
    wide = _validate.wide(gradient.dtype)
    # One rounding in place of three: of the standard deviation, of the product and of the sum.
    noisy = gradient.astype(wide) + jnp.asarray(stddev, wide) * noise.astype(wide)
    return noisy.astype(gradient.dtype)


def key_data(key: jax.Array) -> jax.Array:
    """Returns the raw data of one threefry2x32 key, typed or raw.

    Raises:
      ValueError: If `key` is anything else.
    """
    data = key
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        # rbg keys are refused: under vmap they repeat the noise of the first run for all runs.
        data = jax.random.key_data(key) if str(jax.random.key_impl(key)) == _PRNG else None
    is_array = isinstance(data, jax.Array | np.ndarray)
    if not is_array or data.dtype != jnp.uint32 or data.shape != (2,):
        given = f"{key.dtype} of shape {key.shape}" if hasattr(key, "dtype") else repr(key)
        raise ValueError(
            f"key must be one {_PRNG} key, typed or raw, but it is {given}. Make it from the seed "
            f"of the run, jax.random.key(seed, impl={_PRNG!r}); for many runs, build the "
            "transformation from each run's key inside the function given to jax.vmap."
        )
    return data
