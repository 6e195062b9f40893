"""The device program of a task, compiled for a mesh of devices."""

import contextlib
import functools
from collections.abc import Sequence
from concurrent import futures
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from noisegen.training import lanes as lanes_lib
from noisegen.training.examples import Numbers
from noisegen.training.lanes import Lane
from noisegen.training.settings import Settings
from noisegen.training.snapshot import KEPT
from noisegen.training.task import PyTree, Task, abstract_init

_EVERYWHERE, _LANES = PartitionSpec(), PartitionSpec("lanes")
_STATE = lanes_lib.LANE_SPEC


class Program:
    """The functions of `noisegen.training.lanes`, mapped over the devices and compiled once.

    Args:
      task: what is trained.
      settings: how fast.
      devices: that the mesh may take, by default `default_devices()`.
      data: of another program with this task's arrays and these devices, which the two then share.

    Attributes:
      data: the task's arrays, on every device.
    """

    def __init__(
        self,
        task: Task,
        settings: Settings,
        devices: Sequence[jax.Device] | None = None,
        data: PyTree | None = None,
    ):
        self._settings = settings
        self._mesh = _mesh(settings, default_devices() if devices is None else devices)
        _check_state(task, settings)
        _check_microbatch(task, settings)
        shape = lanes_lib.Shape(settings.microbatch, settings.eval_batch, settings.group)
        if data is None:
            data = self._put({"train": task.train, "test": task.test}, _EVERYWHERE)
        self.data = data

        def mapped(function, *arguments, inputs, outputs, donate=0, **options) -> Any:
            function = functools.partial(function, *arguments)
            with_mesh = jax.shard_map(
                function, mesh=self._mesh, in_specs=inputs, out_specs=outputs, check_vma=False
            )
            return jax.jit(with_mesh, donate_argnums=donate, **options)

        steps = (_STATE, _EVERYWHERE, _EVERYWHERE)
        self._empty = mapped(lanes_lib.empty, task, inputs=_LANES, outputs=_STATE, donate=())
        self._restart = mapped(
            lanes_lib.restart,
            *(task, shape),
            inputs=(_STATE, _LANES, _LANES),
            outputs=_STATE,
            # Runs once a run: seconds saved in the compiler are worth more than its speed.
            compiler_options={"xla_backend_optimization_level": 1},
        )
        one = {name: PartitionSpec(*spec[1:]) for name, spec in _STATE._asdict().items()}
        self._place = mapped(
            lanes_lib.place,
            inputs=(_STATE, _EVERYWHERE, {name: one[name] for name in KEPT}),
            outputs=_STATE,
        )
        self._advance = mapped(
            lanes_lib.advance, task, shape, inputs=steps, outputs=(_STATE, _LANES)
        )
        self._accumulate = mapped(lanes_lib.accumulate, task, shape, inputs=steps, outputs=_STATE)
        self._params = jax.jit(functools.partial(lanes_lib.params_of_lane, task))

    def empty(self, numbers: Numbers) -> Lane:
        """Returns idle lanes, one for each of the numbers."""
        with self._computing():
            return self._empty(self._put(numbers, _LANES))

    def restart(self, lanes: Lane, fresh: np.ndarray, numbers: Numbers) -> Lane:
        """Begins runs in the fresh lanes."""
        with self._computing():
            return self._restart(lanes, *self._put((fresh, numbers), _LANES))

    def place(self, lanes: Lane, index: int, fields: dict[str, PyTree]) -> Lane:
        """Gives the lane at `index` the values of some fields."""
        with self._computing():
            return self._place(lanes, *self._put((np.int32(index), fields), _EVERYWHERE))

    def advance(self, lanes: Lane, num_steps: int) -> tuple[Lane, jax.Array]:
        """Makes micro-steps; also returns how many each of the lane devices made."""
        with self._computing():
            steps = self._put(np.int32(num_steps), _EVERYWHERE)
            return self._advance(lanes, self.data, steps)

    def accumulate(self, lanes: Lane, num_steps: int) -> Lane:
        """Does the bare part of `advance`, for measurement."""
        with self._computing():
            steps = self._put(np.int32(num_steps), _EVERYWHERE)
            return self._accumulate(lanes, self.data, steps)

    def params(self, lanes: Lane, index: int) -> PyTree:
        """Returns the parameters of one lane that are evaluated."""
        with self._computing():
            return self._params(lanes, self._put(np.int32(index), _EVERYWHERE))

    def compile(self, lanes: Lane, fresh: np.ndarray, numbers: Numbers) -> None:
        """Compiles `restart` and `advance` side by side; their first calls would one by one."""
        steps = self._put(np.int32(0), _EVERYWHERE)
        with self._computing():
            lowered = (
                self._restart.lower(lanes, *self._put((fresh, numbers), _LANES)),
                self._advance.lower(lanes, self.data, steps),
            )
            with futures.ThreadPoolExecutor() as executor:
                list(executor.map(lambda each: each.compile(), lowered))

    @contextlib.contextmanager
    def _computing(self):
        """Sets the program's own mesh, whatever `jax.set_mesh` set, and the given precision."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(jax.set_mesh(self._mesh))
            if self._settings.precision is not None:
                stack.enter_context(jax.default_matmul_precision(self._settings.precision))
            yield

    def _put(self, tree, spec):
        """Sends arrays to the devices explicitly, since a user may forbid implicit transfers."""
        return jax.device_put(tree, NamedSharding(self._mesh, spec))


def default_devices() -> list[jax.Device]:
    """Returns the devices that a pool may use, those of `jax.default_device` first."""
    chosen = jax.config.jax_default_device
    if chosen is None:
        return jax.devices()
    if isinstance(chosen, str):
        return jax.devices(chosen)
    others = [device for device in jax.devices(chosen.platform) if device != chosen]
    return [chosen, *others]


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
    if jax.tree.leaves(abstract_init(task)[1]):
        raise ValueError(
            f"Task {task.name!r} has a state beside its parameters, so that its batches cannot be "
            f"spread over devices: batch_devices={settings.batch_devices} must be 1."
        )


def _check_microbatch(task, settings):
    share = settings.microbatch // settings.batch_devices
    if task.takes_whole_batches and settings.microbatch != task.only_batch_size:
        raise ValueError(
            f"microbatch={settings.microbatch} must be {task.only_batch_size} in the settings, as "
            f"task {task.name!r} takes whole batches of that size."
        )
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
            f"{task.ghost_size} examples that task {task.name!r} normalizes over"
            + (
                f", on each of {settings.batch_devices} batch devices."
                if settings.batch_devices > 1
                else "."
            )
        )
