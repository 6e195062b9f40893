"""Compiles the program of a task for a mesh of devices."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from noisegen import _traced_for
from noisegen.training import lane_evaluation, lane_state, partition, sources
from noisegen.training import lanes as lanes_lib
from noisegen.training.config import PoolConfig, describe_devices, num_devices
from noisegen.training.data_order import RunInputs, check_no_state
from noisegen.training.lane_checkpoint import KEPT
from noisegen.training.lane_state import Lane
from noisegen.training.sharding import map_prefix, shardings_on
from noisegen.training.task import PyTree, Task, abstract_init, takes_hparams

_EVERYWHERE = PartitionSpec()  # A copy on every device.
_LANES = PartitionSpec("lanes")  # Cut along the leading axis, and copied along the batch axis.
_WINDOW = PartitionSpec(None, "lanes", "batch")  # Micro-steps, lanes, examples of a microbatch.
_STATE = lane_state.LANE_SPEC

# Limits of a window of microbatches. Up to three lie on the device: long enough that the host has
# time to read the next, and short enough to take little memory.
_WINDOW_STEPS = 32
_WINDOW_BYTES = 2**26


class Program:
    """Maps the functions on lanes over the devices and compiles each once.

    Args:
      task: The task to train.
      config: Performance settings.
      devices: Devices that the mesh may take, by default `default_devices()`.
      data: The `data` of another program with this task's arrays and these devices, to be shared.

    Attributes:
      data: The task's examples by split: arrays on every device, or `HostExamples`.
      window_steps: Micro-steps in a window, if the host feeds the microbatches, else 0.

    Raises:
      ValueError: If the config does not fit the task or the devices.
    """

    def __init__(
        self,
        task: Task,
        config: PoolConfig,
        devices: Sequence[jax.Device] | None = None,
        data: PyTree | None = None,
    ):
        self._task, self._config = task, config
        self._partitions: partition.ParamPartitions | None = None
        self._mesh = _mesh(config, default_devices() if devices is None else devices)
        if config.model_devices > 1 and not takes_hparams(task.init):  # Else the first runs decide.
            self._read_annotations()
        _check_state(task, config)
        _check_microbatch(task, config)
        if data is None:
            # `HostExamples` have no leaves to send.
            placed = sources.place(
                task.splits, task.name, config.data, list(self._mesh.devices.flat)
            )
            data = self._put(placed, _EVERYWHERE)
        self.data = data
        self.window_steps = _window_steps(data["train"], config)
        self._map_functions()

    def empty(self, inputs: RunInputs) -> Lane:
        """Returns idle lanes, one for each entry of the inputs."""
        self._read_annotations(inputs)
        with self._computing():
            return self._empty(self._put(inputs, _LANES))

    def restart(self, lanes: Lane, fresh: np.ndarray, inputs: RunInputs) -> Lane:
        """Starts runs in the fresh lanes."""
        with self._computing():
            return self._restart(lanes, *self._put((fresh, inputs), _LANES))

    def insert_lane(self, lanes: Lane, index: int, fields: dict[str, PyTree]) -> Lane:
        """Replaces some fields of the lane at `index`."""
        one = _of_one_lane(self._lane_specs(lanes))
        specs = {name: one[name] for name in fields}
        with self._computing():
            index = self._put(np.int32(index), _EVERYWHERE)
            return self._insert_lane(lanes, index, self._put(fields, specs))

    def advance(
        self, lanes: Lane, num_steps: int, window: PyTree | None = None, first: int = 0
    ) -> tuple[Lane, jax.Array]:
        """Makes micro-steps; also returns how many each lane device made.

        Args:
          lanes: The lanes.
          num_steps: Most micro-steps to make.
          window: Examples from `put_window`, if the host feeds the microbatches.
          first: Micro-step of the window to begin with.
        """
        with self._computing():
            steps, first = self._put((np.int32(num_steps), np.int32(first)), _EVERYWHERE)
            fed = (window, first) if self.window_steps else ()
            return self._advance(lanes, self.data, steps, *fed)

    def put_window(self, window: PyTree) -> PyTree:
        """Sends the examples of a window, `(K, L, M, ...)`, to the devices that take them."""
        return self._put(window, _WINDOW)

    def accumulate(self, lanes: Lane, num_steps: int) -> Lane:
        """Takes microbatches and their gradients only, for measurement."""
        with self._computing():
            steps = self._put(np.int32(num_steps), _EVERYWHERE)
            # Reading examples is not measured, since it runs beside the device's work.
            window = self._put(self._blank_window(1), _WINDOW)
            return self._accumulate(lanes, self.data, steps, *window)

    def params(self, lanes: Lane, index: int) -> PyTree:
        """Returns the parameters to evaluate of one lane."""
        with self._computing():
            return self._params(lanes, self._put(np.int32(index), _EVERYWHERE))

    def compile(self, lanes: Lane, fresh: np.ndarray, inputs: RunInputs) -> None:
        """Compiles `restart` and `advance` in parallel; their first calls would in sequence."""
        steps = self._put(np.int32(0), _EVERYWHERE)
        window = self._put(self._blank_window(self.window_steps), _WINDOW)
        fed = (*window, steps) if window else ()
        # XLA compiles without Python's lock, so threads are enough. The program that takes longest
        # comes first, and is compiled while the other is traced.
        with self._computing(), futures.ThreadPoolExecutor() as executor:
            advance = self._advance.lower(lanes, self.data, steps, *fed)
            compiled = [executor.submit(advance.compile)]
            restart = self._restart.lower(lanes, *self._put((fresh, inputs), _LANES))
            compiled.append(executor.submit(restart.compile))
            for each in compiled:
                each.result()  # raises its error

    def trace(self, inputs: RunInputs, names: Sequence[str]) -> dict[str, jax.stages.Traced]:
        """Traces some of `restart`, `advance` and `accumulate` for lanes with these inputs.

        Nothing is put on a device, so the devices of the mesh may be mere descriptions, if `data`
        was given as `abstract_data` returns it.
        """
        self._read_annotations(inputs)
        with self._computing():
            inputs = _abstract(inputs, self._mesh, _LANES)
            lanes = jax.eval_shape(self._empty, inputs)
            # `eval_shape` drops how the lanes are sharded.
            lanes = _abstract(lanes, self._mesh, self._lane_specs(lanes))
            fresh = _abstract(np.zeros(self._config.lanes, bool), self._mesh, _LANES)
            steps = _abstract(np.int32(0), self._mesh, _EVERYWHERE)
            window = _abstract(self._blank_window(self.window_steps), self._mesh, _WINDOW)
            fed = (*window, steps) if window else ()
            calls = {
                "restart": (self._restart, lanes, fresh, inputs),
                "advance": (self._advance, lanes, self.data, steps, *fed),
                "accumulate": (self._accumulate, lanes, self.data, steps, *window),
            }
            traced = {}
            for name in names:
                function, *arguments = calls[name]
                traced[name] = function.trace(*arguments)
            return traced

    def raise_read_error(self) -> None:
        """Raises the error of an evaluation that could not read its examples, if there is one."""
        for examples in self.data.values():
            if isinstance(examples, sources.HostExamples):
                examples.raise_error()

    def _map_functions(self) -> None:
        """Maps the functions on lanes; nothing is compiled before the first call of each."""
        task, config = self._task, self._config
        shape = lane_state.Shape(
            config.microbatch,
            config.eval_batch,
            config.lanes_per_rare_step,
            is_fed=self.window_steps > 0,
        )

        # The number of steps is an argument, so that a program serves every number.
        steps = (_STATE, _EVERYWHERE, _EVERYWHERE)
        fed = (_WINDOW, _EVERYWHERE) if self.window_steps else ()
        self._empty = self._mapped(
            lane_state.empty, task, shape, inputs=_LANES, outputs=_STATE, donate=()
        )
        self._restart = self._mapped(
            lane_state.restart,
            task,
            shape,
            inputs=(_STATE, _LANES, _LANES),
            outputs=_STATE,
            # It is called once a run, so a fast compilation is worth more than fast code.
            compiler_options={"xla_backend_optimization_level": 1},
        )
        inserted = KEPT if self.window_steps else (*KEPT, "permutations")
        one = _of_one_lane(_STATE)
        self._insert_lane = self._mapped(
            lane_state.insert_lane,
            inputs=(_STATE, _EVERYWHERE, {name: one[name] for name in inserted}),
            outputs=_STATE,
        )
        self._advance = self._mapped(
            lanes_lib.advance, task, shape, inputs=(*steps, *fed), outputs=(_STATE, _LANES)
        )
        self._accumulate = self._mapped(
            lanes_lib.accumulate, task, shape, inputs=(*steps, *fed[:1]), outputs=_STATE
        )
        # Without the mesh: the lane may lie on any device, and XLA moves it.
        self._params = jax.jit(functools.partial(lane_evaluation.params_of_lane, task))

    def _mapped(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        inputs: Any,
        outputs: Any,
        donate: int | tuple = 0,
        **options: Any,
    ) -> Callable[..., Any]:
        """Maps a function over the mesh; `inputs` and `outputs` are partition specs."""
        name, function = function.__name__, functools.partial(function, *arguments)

        def mapped(*arguments: Any) -> Any:
            with_mesh = jax.shard_map(
                function,
                mesh=self._mesh,
                in_specs=inputs,
                out_specs=outputs,
                axis_names={"lanes", "batch"},  # The compiler itself divides work along "model".
                # With check_vma, the carry of every loop would have to be cast to vary over the
                # mesh, even that of a scan in the user's model.
                check_vma=False,
            )
            return jax.tree.map(self._constrained, with_mesh(*arguments), is_leaf=_is_lane)

        mapped.__name__ = name  # In logs of the compiler.
        # The lanes are donated: the device holds the state of the runs once.
        return jax.jit(mapped, donate_argnums=donate, **options)

    def _read_annotations(self, inputs: RunInputs | None = None) -> None:
        """Reads how devices share the parameters, if that is still unknown."""
        devices = self._config.model_devices
        if devices > 1 and self._partitions is None:
            self._partitions = partition.param_partitions(self._task, devices, inputs)
        if "model" not in self._mesh.axis_names and partition.is_boxed(self._task, inputs):
            # Flax Linen looks for the axis wherever it reads a parameter that is annotated with it.
            grid = self._mesh.devices[..., None]
            self._mesh = Mesh(grid, (*self._mesh.axis_names, "model"))

    def _lane_specs(self, lanes: Lane) -> Lane:
        """Returns the partition specs of lanes, over all axes of the mesh."""
        return _STATE if self._partitions is None else partition.lane_specs(self._partitions, lanes)

    def _constrained(self, result: Any) -> Any:
        """Makes a mapped function return its lanes with the parameters partitioned."""
        if self._partitions is None or not _is_lane(result):
            return result
        shardings = shardings_on(self._mesh, self._lane_specs(result))
        return jax.lax.with_sharding_constraint(result, shardings)

    def _blank_window(self, num_steps: int) -> tuple[PyTree, ...]:
        """Returns a window of zeros, the only entry; no entry if the data are on the device."""
        if not self.window_steps:
            return ()
        lead = (num_steps, self._config.lanes, self._config.microbatch)
        example = self.data["train"].example
        return (jax.tree.map(lambda leaf: np.zeros(lead + leaf.shape, leaf.dtype), example),)

    @contextlib.contextmanager
    def _computing(self) -> Iterator[None]:
        """Sets the program's own mesh and precision, in place of those of the caller."""
        platform = self._mesh.devices.flat[0].platform
        lanes = self._config.lanes // self._config.lane_devices
        with contextlib.ExitStack() as stack:
            stack.enter_context(_traced_for.devices(platform, lanes))
            stack.enter_context(jax.set_mesh(self._mesh))
            if self._config.precision is not None:
                stack.enter_context(jax.default_matmul_precision(self._config.precision))
            yield

    def _put(self, tree: PyTree, specs: PyTree) -> PyTree:
        """Sends arrays to the devices explicitly, because a user may forbid implicit transfers.

        Args:
          tree: The arrays.
          specs: A partition spec for all of them, or a tree that begins as theirs does.
        """
        shardings = shardings_on(self._mesh, specs)
        if NamedSharding(self._mesh, _EVERYWHERE).is_fully_addressable:  # Only of this process.
            return jax.device_put(tree, shardings)

        # `device_put` compares the arrays of all processes, and refuses arrays that hold NaN.
        def put(sharding: NamedSharding, leaf: Any) -> jax.Array:
            if not isinstance(leaf, np.ndarray):
                return jax.device_put(leaf, sharding)
            return jax.make_array_from_callback(leaf.shape, sharding, lambda part: leaf[part])

        return map_prefix(put, shardings, tree)


def abstract_data(
    task: Task, config: PoolConfig, devices: Sequence[jax.Device] | None = None
) -> PyTree:
    """Returns the `data` of a program by shape and type only; arguments as for `Program`."""
    mesh = _mesh(config, default_devices() if devices is None else devices)
    return _abstract(task.splits, mesh, _EVERYWHERE)


def _abstract(tree: PyTree, mesh: Mesh, specs: PyTree) -> PyTree:
    """Returns shapes and types in place of arrays, as they will lie on a mesh."""

    def describe(sharding: NamedSharding, leaf: Any) -> jax.ShapeDtypeStruct:
        # Devices hold 32 bits where NumPy has 64, unless a user has asked for more.
        dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)
        return jax.ShapeDtypeStruct(leaf.shape, dtype, sharding=sharding)

    return map_prefix(describe, shardings_on(mesh, specs), tree)


def _is_lane(node: Any) -> bool:
    return isinstance(node, Lane)


def _of_one_lane(specs: Lane) -> dict[str, PyTree]:
    """Returns the partition specs of one lane by field, without the axis of lanes."""
    return jax.tree.map(lambda spec: PartitionSpec(*spec[1:]), specs)._asdict()


def _window_steps(train: PyTree, config: PoolConfig) -> int:
    """Returns the micro-steps of a window; 0 if the training set is on the device."""
    if not isinstance(train, sources.HostExamples):
        return 0
    step_bytes = config.lanes * config.microbatch * train.bytes_per_example
    return max(1, min(_WINDOW_STEPS, _WINDOW_BYTES // step_bytes))


def default_devices() -> list[jax.Device]:
    """Returns the devices that a pool may use, starting with `jax.default_device`."""
    chosen = jax.config.jax_default_device
    if chosen is None:
        return jax.devices()
    if isinstance(chosen, str):
        return jax.devices(chosen)
    others = [device for device in jax.devices(chosen.platform) if device != chosen]
    return [chosen, *others]


def _mesh(config: PoolConfig, devices: Sequence[jax.Device]) -> Mesh:
    """Returns the mesh of the first devices: "lanes", "batch" and, if they share it, "model"."""
    wanted = num_devices(vars(config))
    if len(devices) < wanted:
        raise ValueError(
            f"{describe_devices(vars(config))} is {wanted} devices; there are {len(devices)}."
        )
    axes = {"lanes": config.lane_devices, "batch": config.batch_devices}
    if config.model_devices > 1:
        axes["model"] = config.model_devices
    # Devices that share much are neighbors in the list, and so most likely well connected.
    grid = np.asarray(devices[:wanted]).reshape(tuple(axes.values()))
    return Mesh(grid, tuple(axes))


def _check_state(task: Task, config: PoolConfig) -> None:
    """Checks that batch devices can agree on a state that each changes by its own examples."""
    if config.batch_devices == 1 or task.combine_state is not None:
        return
    # If the state depends on hyperparameters, it is checked with the first runs.
    if not takes_hparams(task.init):
        check_no_state(task, abstract_init(task)[1], config.batch_devices)


def _check_microbatch(task: Task, config: PoolConfig) -> None:
    """Checks that the microbatch cuts nothing that a task needs whole."""
    share = config.microbatch // config.batch_devices  # Of one device.
    if task.takes_whole_batches and config.microbatch != task.only_batch_size:
        raise ValueError(
            f"microbatch={config.microbatch} must be {task.only_batch_size} in the config, as "
            f"task {task.name!r} takes whole batches of that size."
        )
    where = ""
    if config.batch_devices > 1:
        where = f" on each of {config.batch_devices} batch devices"
    if task.noise_microbatch and share != task.noise_microbatch:
        raise ValueError(
            f"microbatch={config.microbatch} must be {task.noise_microbatch * config.batch_devices}"
            f" in the config, as task {task.name!r} measures the noise of gradients of "
            f"{task.noise_microbatch} examples{where}."
        )
    if share % task.ghost_size:
        raise ValueError(
            f"microbatch={config.microbatch} must be a multiple of the ghost batches of "
            f"{task.ghost_size} examples that task {task.name!r} normalizes over{where}."
        )
