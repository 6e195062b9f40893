"""Does rare work (start of a run, permutation, evaluation) for some of the lanes of a device."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from noisegen.training.sharding import any_lane
from noisegen.training.task import PyTree


def for_due(
    due: jax.Array,
    fn: Callable[[PyTree, PyTree], PyTree],
    inputs: PyTree,
    outputs: PyTree,
    count: int,
) -> PyTree:
    """Does rare work for the lanes that are due only, and for a few of them at a time.

    A vmapped conditional would do the work of every lane if one lane is due.

    Args:
      due: Lanes that are due, booleans (L,).
      fn: Function of one lane's entries of `inputs` and `outputs`, which returns the new entry of
        `outputs`. `inputs` should hold none of the `outputs`, which would be copied.
      inputs: Pytree with a leading axis of L.
      outputs: Pytree with a leading axis of L.
      count: Lanes to work on at a time.

    Returns:
      `outputs`, with `fn(inputs, outputs)` in the lanes that are due.
    """
    if len(due) <= count:
        # No loop: its body would not depend on the step, so XLA would hoist it and always run it.
        return jax.lax.cond(
            any_lane(due),
            lambda: select_lanes(due, jax.vmap(fn)(inputs, outputs), outputs),
            lambda: outputs,
        )

    def body(carry: tuple[jax.Array, PyTree]) -> tuple[jax.Array, PyTree]:
        due, outputs = carry
        # A stable sort puts the lanes that are due first. The last round may include others, whose
        # outputs `select_lanes` keeps.
        chosen = jnp.argsort(~due, stable=True)[:count]
        old, arguments = jax.tree.map(lambda a: a[chosen], (outputs, inputs))
        new = select_lanes(due[chosen], jax.vmap(fn)(arguments, old), old)
        outputs = jax.tree.map(lambda a, n: a.at[chosen].set(n), outputs, new)
        return due.at[chosen].set(False), outputs

    # Each round clears `count` lanes that are due, or all that are left.
    _, outputs = jax.lax.while_loop(lambda carry: any_lane(carry[0]), body, (due, outputs))
    return outputs


def select_lanes(condition: jax.Array, new: PyTree, old: PyTree) -> PyTree:
    """Returns `new` in the lanes where the condition (L,) holds, and `old` in the others."""

    def select(new: jax.Array, old: jax.Array) -> jax.Array:
        # The condition gets axes of length 1 behind that of the lanes.
        return jnp.where(condition.reshape((-1,) + (1,) * (new.ndim - 1)), new, old)

    return jax.tree.map(select, new, old)
