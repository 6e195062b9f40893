"""The device program of a task, compiled for a mesh of devices."""

import functools
from concurrent import futures
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from noisegen.training import lanes as lanes_lib
from noisegen.training.examples import Numbers
from noisegen.training.settings import Settings
from noisegen.training.snapshot import KEPT
from noisegen.training.task import Task, make_key

_EVERYWHERE, _LANES = PartitionSpec(), PartitionSpec("lanes")
_STATE = lanes_lib.LANE_SPEC


class Program:
    """The functions of `noisegen.training.lanes`, mapped over the devices and compiled once.

    Attributes:
      data: the task's arrays, on every device.
      empty: `numbers -> lanes`, idle.
      restart: `(lanes, fresh, numbers) -> lanes`, with runs begun in the fresh lanes.
      place: `(lanes, index, fields) -> lanes`, with the values of some fields in one lane.
      advance: `(lanes, data, num_steps) -> (lanes, micro-steps made by each of the lane devices)`.
      accumulate: `(lanes, data, num_steps) -> lanes`, the bare part of `advance`, for measurement.
    """

    def __init__(self, task: Task, settings: Settings, devices=None):
        mesh = _mesh(settings, jax.devices() if devices is None else devices)
        _check_state(task, settings)
        _check_microbatch(task, settings)
        shape = lanes_lib.Shape(settings.microbatch, settings.eval_batch, settings.group)
        data = {"train": task.train, "test": task.test}
        self.data = jax.device_put(data, NamedSharding(mesh, _EVERYWHERE))

        def mapped(function, *arguments, inputs, outputs, donate=0, **options) -> Any:
            function = functools.partial(function, *arguments)
            with_mesh = jax.shard_map(
                function, mesh=mesh, in_specs=inputs, out_specs=outputs, check_vma=False
            )
            return jax.jit(with_mesh, donate_argnums=donate, **options)

        steps = (_STATE, _EVERYWHERE, _EVERYWHERE)
        self.empty = mapped(lanes_lib.empty, task, inputs=_LANES, outputs=_STATE, donate=())
        self.restart = mapped(
            lanes_lib.restart,
            *(task, shape),
            inputs=(_STATE, _LANES, _LANES),
            outputs=_STATE,
            # Runs once a run: seconds saved in the compiler are worth more than its speed.
            compiler_options={"xla_backend_optimization_level": 1},
        )
        one = {name: PartitionSpec(*spec[1:]) for name, spec in _STATE._asdict().items()}
        self.place = mapped(
            lanes_lib.place,
            inputs=(_STATE, _EVERYWHERE, {name: one[name] for name in KEPT}),
            outputs=_STATE,
        )
        self.advance = mapped(
            lanes_lib.advance, task, shape, inputs=steps, outputs=(_STATE, _LANES)
        )
        self.accumulate = mapped(lanes_lib.accumulate, task, shape, inputs=steps, outputs=_STATE)

    def compile(self, lanes: lanes_lib.Lane, fresh: np.ndarray, numbers: Numbers) -> None:
        """Compiles `restart` and `advance` side by side; their first calls would one by one."""
        lowered = (
            self.restart.lower(lanes, fresh, numbers),
            self.advance.lower(lanes, self.data, np.int32(0)),
        )
        with futures.ThreadPoolExecutor() as executor:
            list(executor.map(lambda each: each.compile(), lowered))


def _mesh(settings, devices):
    wanted = settings.lane_devices * settings.batch_devices
    if len(devices) < wanted:
        raise ValueError(
            f"lane_devices={settings.lane_devices} times batch_devices={settings.batch_devices} "
            f"is {wanted} devices; there are {len(devices)}."
        )
    if jax.process_count() > 1 and len(devices) > wanted:
        raise ValueError(
            f"lane_devices={settings.lane_devices} times batch_devices={settings.batch_devices} "
            f"must be all of the {len(devices)} devices, as several processes share them."
        )
    grid = np.asarray(devices[:wanted]).reshape(settings.lane_devices, settings.batch_devices)
    return Mesh(grid, ("lanes", "batch"))


def _check_state(task, settings):
    """Each batch device would change the state by its own examples, and no two would agree."""
    if settings.batch_devices == 1 or task.combine_state is not None:
        return
    if jax.tree.leaves(jax.eval_shape(task.init, make_key(0))[1]):
        raise ValueError(
            f"Task {task.name!r} has a state beside its parameters, so that its batches cannot be "
            f"spread over devices: batch_devices={settings.batch_devices} must be 1."
        )


def _check_microbatch(task, settings):
    share = settings.microbatch // settings.batch_devices
    if task.noise_group and share != task.noise_group:
        raise ValueError(
            f"microbatch={settings.microbatch} must be {task.noise_group * settings.batch_devices}"
            f" in the settings, as task {task.name!r} measures the noise of gradients of "
            f"{task.noise_group} examples"
            + (" on each of the batch devices." if settings.batch_devices > 1 else ".")
        )
    if share % task.ghost_size:
        raise ValueError(
            f"microbatch={settings.microbatch} must be a multiple of the ghost batches of "
            f"{task.ghost_size} examples that task {task.name!r} normalises over"
            + (
                f", on each of {settings.batch_devices} batch devices."
                if settings.batch_devices > 1
                else "."
            )
        )
