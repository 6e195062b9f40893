"""Traces the program that would train a run, also for devices that this process does not have."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from noisegen.training.config import PoolConfig
from noisegen.training.host_lanes import stack
from noisegen.training.program import Program, abstract_data
from noisegen.training.run import Run, as_runs, constants, run_inputs, with_constants
from noisegen.training.task import Task


def trace_program(
    task: Task,
    run: Run | Mapping[str, Any],
    config: PoolConfig,
    devices: Sequence[jax.Device] | None = None,
    names: Sequence[str] = ("restart", "advance", "accumulate"),
) -> dict[str, jax.stages.Traced]:
    """Traces the functions of the device program that trains a run in every lane.

    Nothing is put on a device and nothing is compiled. `traced.lower().compile()` compiles a
    function for the devices given, and `traced.lower(lowering_platforms=("cuda", "tpu"))` shows it
    as other platforms would get it.

    Args:
      task: The task.
      run: A run of the task. `make_runs(..., mixing=False)` makes one in the least time.
      config: Performance settings.
      devices: Devices of the mesh, which need not exist: those of
        `jax.experimental.topologies.get_topology_desc` will do. By default as for `Pool`.
      names: The functions to trace. "restart" starts a run in a lane; "advance" trains, with
        updates and evaluations; "accumulate" is a part of it: the gradients of microbatches.

    Returns:
      The traced functions by name.

    Raises:
      ValueError: As `Pool` and `make_runs` do.
    """
    [run] = as_runs(task, [run])
    program = Program(
        with_constants(task, dict(constants(run.hparams))),
        config,
        devices,
        abstract_data(task, config, devices),
    )
    inputs = run_inputs(run, task.num_examples, len(run.plan.eval_updates))
    return program.trace(stack([inputs] * config.lanes), names)
