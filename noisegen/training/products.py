"""Counts the operations of the matrix products and convolutions of a traced function."""

import collections
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from jax.extend import core

_NAMES = {"bfloat16": "bf16", "float16": "f16"}  # of types, as XLA has them


def count_products(traced: jax.stages.Traced) -> dict[str, float]:
    """Returns the floating-point operations of matrix products and convolutions, by their type.

    A scan counts as often as it steps, a loop of unknown length once, and of several branches the
    most expensive one. A product of (M, K) and (K, N) has 2 M K N operations.

    Args:
      traced: A traced function, such as `jax.jit(f).trace(x)`.

    Examples:
      >>> import jax.numpy as jnp
      >>> x = jnp.ones((8, 4))
      >>> count_products(jax.jit(lambda x: x @ x.T).trace(x))
      {'f32': 512.0}
    """
    return dict(_count(traced.jaxpr.jaxpr))


def _count(jaxpr: core.Jaxpr) -> collections.Counter:
    """Counts the products of a jaxpr."""
    total: collections.Counter = collections.Counter()
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name in ("dot_general", "conv_general_dilated"):
            flops = _matmul(eqn) if name == "dot_general" else _convolution(eqn)
            dtype = str(eqn.invars[0].aval.dtype)
            total[_NAMES.get(dtype, "f32")] += float(flops)
            continue
        parts = [_count(inner) for inner in _inner(eqn.params)]
        if name == "cond":
            parts = [max(parts, key=lambda part: part.total())]
        times = eqn.params["length"] if name == "scan" else 1
        for part in parts:
            total.update({dtype: times * flops for dtype, flops in part.items()})
    return total


def _inner(params: Mapping[str, Any]) -> Iterator[core.Jaxpr]:
    """Yields the jaxprs that an operation calls."""
    for value in params.values():
        for each in value if isinstance(value, tuple | list) else [value]:
            if isinstance(each, core.ClosedJaxpr):
                yield each.jaxpr
            elif isinstance(each, core.Jaxpr):
                yield each


def _matmul(eqn: Any) -> int:
    """Returns the operations of a matrix product."""
    (contracted, _), _ = eqn.params["dimension_numbers"]
    shape = eqn.invars[0].aval.shape
    return 2 * eqn.outvars[0].aval.size * math.prod(shape[axis] for axis in contracted)


def _convolution(eqn: Any) -> int:
    """Returns the operations of a convolution, without those with the zeros of a dilated input."""
    kernel = eqn.invars[1].aval
    of_an_output = kernel.size // kernel.shape[eqn.params["dimension_numbers"].rhs_spec[0]]
    zeros = math.prod(eqn.params["lhs_dilation"])
    return 2 * eqn.outvars[0].aval.size * of_an_output // zeros
