"""Compiles the device program of a run for hardware that may be absent, and says what bounds it.

A kernel takes at least the time of its products at the device's peak, and at least that of its
traffic with the main memory. The sum of these times over the kernels of a micro-step bounds the
examples in a second from above. It leaves out the gaps between kernels, products that run below
the peak, and traffic between devices.
"""

import collections
import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from noisegen import training
from noisegen._math import ceil_div
from noisegen.hardware import hlo
from noisegen.hardware.targets import Target
from noisegen.training import Run, Task
from noisegen.training.autotune import allowed_microbatch
from noisegen.training.config import check_field, describe_devices
from noisegen.training.config import num_devices as mesh_size
from noisegen.training.lanes import MICRO_STEPS

FUNCTIONS = ("restart", "advance")  # of a program, those that train
# Examples of a device by default.
_MICROBATCH = 1024
_EVAL_BATCH = 2000


@dataclasses.dataclass(frozen=True, kw_only=True)
class MicroStep:
    """The kernels of a micro-step, without updates and evaluations, on one device.

    The rounds of a loop within it, such as the steps of a recurrent network, are not counted.

    Attributes:
      examples: Examples that the device works on, over all its lanes. Devices that share a model
        work on the same examples.
      seconds: Sum over kernels of their least time.
      estimated_seconds: The compiler's own estimate; None if it makes none.
      bytes: Traffic with the main memory.
      flops: Floating-point operations of products and convolutions.
      products: Number of products and convolutions by the type of their elements.
      kernels: Number of kernels.
      contributions: Seconds by kind of kernel, the largest first.
      collectives: Number of operations between devices, by kind.
    """

    examples: int
    seconds: float
    estimated_seconds: float | None
    bytes: int
    flops: int
    products: Mapping[str, int]
    kernels: int
    contributions: Mapping[str, float]
    collectives: Mapping[str, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Update:
    """The kernels of an update on one device, without permutations and evaluations.

    Attributes:
      seconds: Sum over kernels of their least time, without traffic between devices.
      bytes: Traffic with the main memory.
      kernels: Number of kernels.
      collectives: Number of operations between devices, by kind.
      summed_bytes: Size of what is summed over devices, on one device.
    """

    seconds: float
    bytes: int
    kernels: int
    collectives: Mapping[str, int]
    summed_bytes: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compilation:
    """Time, memory and speed of the compiled program of a run.

    Attributes:
      target: The hardware.
      config: Performance settings of the program.
      seconds: Time to trace, and to compile each function.
      memory: Most bytes that a device holds at once, over the functions.
      micro_step: The micro-step.
      update: The update that follows the last micro-step of a batch.
      expected_flops: Floating-point operations of a micro-step on a device before optimization.
      callbacks: Number of calls to the host; each stops the device, so 0 is wanted.
      wide_types: Types of 64 bits among the results, which are slow; should be empty.
    """

    target: Target
    config: training.PoolConfig
    seconds: Mapping[str, float]
    memory: int
    micro_step: MicroStep
    update: Update
    expected_flops: float
    callbacks: int
    wide_types: tuple[str, ...]

    @property
    def bound(self) -> float:
        """Upper bound of the examples per second of all devices together."""
        return self.num_groups * self.micro_step.examples / self.micro_step.seconds

    @property
    def num_groups(self) -> int:
        """Groups of devices that work on the same examples, each with a share of the model."""
        return self.target.num_devices // self.config.model_devices


def default_config(
    task: Task, run: Run, num_devices: int, fixed: Mapping[str, Any]
) -> training.PoolConfig:
    """Returns a config for a run on accelerators: one lane, and large microbatches.

    Args:
      task: The task.
      run: A run of the task.
      num_devices: Number of devices, which share the batch if `fixed` does not say otherwise.
      fixed: Fields of the config that are given.

    Raises:
      ValueError: If a field is out of its range, or the fields do not use all devices.
    """
    for name, value in fixed.items():
        check_field(name, value)
    lane_devices = fixed.get("lane_devices", 1)
    others = mesh_size({**fixed, "batch_devices": 1})
    batch_devices = fixed.get("batch_devices", max(1, num_devices // others))
    mesh = {**fixed, "batch_devices": batch_devices}
    if mesh_size(mesh) != num_devices:
        raise ValueError(
            f"{describe_devices(mesh)} must be {num_devices}, the devices of the target."
        )
    largest = ceil_div(int(run.plan.batch_sizes.max()), batch_devices)
    microbatch = allowed_microbatch(task, min(_MICROBATCH, largest))
    chosen = {
        "lanes": lane_devices,
        "microbatch": microbatch * batch_devices,
        "eval_batch": _EVAL_BATCH * batch_devices,
        "lane_devices": lane_devices,
        "batch_devices": batch_devices,
    }
    return training.PoolConfig(**{**chosen, **fixed})


def compile_program(
    task: Task,
    run: Run | Mapping,
    config: training.PoolConfig,
    target: Target,
    names: Sequence[str] = FUNCTIONS,
) -> Compilation:
    """Compiles the program that trains a run in every lane.

    Args:
      task: The task.
      run: A run of the task.
      config: Performance settings, which use all devices of the target.
      target: The hardware.
      names: Functions to compile, "advance" among them. The others count for time and memory only.

    Returns:
      Time, memory, and what bounds the speed of a micro-step.

    Raises:
      ValueError: If the compiler is not installed, or the program does not fit the target.
    """
    devices = target.devices()
    started = time.perf_counter()
    traced = training.trace_program(task, run, config, devices, names)
    seconds = {"trace": time.perf_counter() - started}
    compiled = {}
    for name in names:
        started = time.perf_counter()
        compiled[name] = _compile(traced[name], target, name)
        seconds[name] = time.perf_counter() - started
    modules = {name: hlo.parse(each.as_text()) for name, each in compiled.items()}
    instructions = [each for module in modules.values() for each in module.reached(module.entry)]
    step, update = modules["advance"].loop(MICRO_STEPS)
    share = share_of_device(config)
    examples = share.lanes * share.microbatch
    return Compilation(
        target=target,
        config=config,
        seconds=seconds,
        memory=max(_memory(each) for each in compiled.values()),
        micro_step=_micro_step(modules["advance"], step, target, examples),
        update=_update(modules["advance"], update, target),
        expected_flops=_expected_flops(task, run, config),
        callbacks=sum(each.calls_host for each in instructions),
        wide_types=tuple(
            sorted({hlo.element_type(each.type) for each in instructions} & {"f64", "s64"})
        ),
    )


def _compile(traced: jax.stages.Traced, target: Target, name: str) -> jax.stages.Compiled:
    """Compiles a function for the target."""
    try:
        return traced.lower().compile(compiler_options=target.compiler_options)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"The compiler of {target.name} refuses the program ({name}). A smaller microbatch, or "
            f"fewer lanes, take less memory: {reason}"
        ) from error


def _memory(compiled: jax.stages.Compiled) -> int:
    """Returns the most bytes that a device holds while a function runs."""
    stats = compiled.memory_analysis()
    held = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
    return held + stats.temp_size_in_bytes


def _update(module: hlo.Module, body: str, target: Target) -> Update:
    """Reads what follows the loop of micro-steps."""
    kernels = module.kernels(body)
    return Update(
        seconds=sum(_least_seconds(kernel, target) for kernel in kernels),
        bytes=sum(kernel.bytes for kernel in kernels),
        kernels=len(kernels),
        collectives=module.collectives(body),
        summed_bytes=module.summed_bytes(body),
    )


def _micro_step(module: hlo.Module, body: str, target: Target, examples: int) -> MicroStep:
    """Reads the body of the loop of micro-steps."""
    kernels = module.kernels(body)
    contributions: dict[str, float] = collections.Counter()
    products: dict[str, int] = collections.Counter()
    for kernel in kernels:
        contributions[_kind(kernel)] += _least_seconds(kernel, target)
        if kernel.flops:
            products[kernel.dtype] += 1
    return MicroStep(
        examples=examples,
        seconds=sum(contributions.values()),
        estimated_seconds=target.clock and sum(kernel.cycles for kernel in kernels) / target.clock,
        bytes=sum(kernel.bytes for kernel in kernels),
        flops=sum(kernel.flops for kernel in kernels),
        products=products,
        kernels=len(kernels),
        contributions=dict(sorted(contributions.items(), key=lambda item: -item[1])),
        collectives=module.collectives(body),
    )


def _least_seconds(kernel: hlo.Kernel, target: Target) -> float:
    return target.seconds(kernel.flops, kernel.dtype, kernel.bytes)


def _kind(kernel: hlo.Kernel) -> str:
    """Returns what a kernel does, for readers."""
    step = "backward" if "transpose(" in kernel.source else "forward"
    if kernel.flops:
        return f"products and convolutions, {step}"
    # JAX's operation is the last part of the path.
    operation = kernel.source.rpartition("/")[2] or kernel.op
    return f"{operation}, {step}"


def share_of_device(config: training.PoolConfig) -> training.PoolConfig:
    """Returns the config of one device with its share of lanes and batch."""
    return dataclasses.replace(
        config,
        lanes=config.lanes // config.lane_devices,
        microbatch=config.microbatch // config.batch_devices,
        eval_batch=config.eval_batch // config.batch_devices,
        lane_devices=1,
        batch_devices=1,
        model_devices=1,
    )


def _expected_flops(task: Task, run: Run | Mapping, config: training.PoolConfig) -> float:
    """Returns what a device should compute in a micro-step: a count before optimization."""
    # One device with its share: this process may have no more.
    share = share_of_device(config)
    lowered = training.trace_program(task, run, share, names=["accumulate"])["accumulate"].lower()
    return lowered.cost_analysis()["flops"] / config.model_devices
