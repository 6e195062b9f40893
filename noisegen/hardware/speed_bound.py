"""Bounds the speed of a task on an accelerator, by its compiler or, if that is absent, without it.

The bound without a compiler takes seconds. It follows from the products of a micro-step alone:
matrix products and convolutions take at least the time that they need at the peak of the device.
It ignores the traffic with the memory, so it is looser than the bound of the compiled program.
"""

import collections
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from jax.extend import core

from noisegen import training
from noisegen.hardware.compilation import compile_program, default_config, share_of_device
from noisegen.hardware.targets import Target, is_installed
from noisegen.training import Run, Task

# Shares of the bounds that training is assumed to reach, by whether the program is compiled.
EFFICIENCY = {True: 0.5, False: 0.2}

_NAMES = {"bfloat16": "bf16", "float16": "f16"}  # of types, as `Target.seconds` has them


def bound_speed(task: Task, run: Run, target: Target, fixed: Mapping[str, Any]) -> float:
    """Returns an upper bound of the training examples per second of all devices of a target.

    Args:
      task: The task.
      run: A run of the task. `make_runs(..., mixing=False)` makes one in the least time.
      target: The hardware. If its compiler is installed, the micro-step is compiled, which may take
        minutes. If not, only its products are counted.
      fixed: Fields of `training.PoolConfig` that are given, see `default_config`.

    Raises:
      ValueError: If the fields do not use all devices, or the program does not fit them.
    """
    config = default_config(task, run, target.num_devices, fixed)
    if is_installed(target):
        return compile_program(task, run, config, target, ["advance"]).bound
    share = share_of_device(config)
    traced = training.trace_program(task, run, share, names=["accumulate"])["accumulate"]
    products = count_products(traced)
    seconds = sum(target.seconds(flops, dtype, 0) for dtype, flops in products.items())
    if seconds == 0:
        return math.inf
    # These are the products of the whole model, which `model_devices` devices divide.
    return target.num_devices * share.lanes * share.microbatch / seconds


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
