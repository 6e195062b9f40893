"""Follows the lanes of one program on the host: feeds them runs and collects what has ended."""

import contextlib
import dataclasses
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from noisegen.training.config import PoolConfig
from noisegen.training.data_order import RunInputs
from noisegen.training.feed import Feed, HostOrders, Position
from noisegen.training.lane_checkpoint import Checkpoints, from_arrays, to_arrays
from noisegen.training.lane_state import DIVERGED, FINISHED, Lane
from noisegen.training.program import Program
from noisegen.training.run import Run
from noisegen.training.sources import SourceError
from noisegen.training.task import PyTree


@dataclasses.dataclass
class Slot:
    """The run of one lane, as the host sees it."""

    run: Run
    inputs: RunInputs
    steps_left: int  # micro-steps
    examples: int = 0  # consumed so far
    started: float = 0.0  # clock time at which it would have started without interruption
    seconds: float = 0.0  # in training before it was resumed
    evals: int = 0  # evaluations in `curve`
    curve: dict[str, list[float]] = dataclasses.field(default_factory=dict)  # as of `Ended`


class Ended(NamedTuple):
    """A run that has ended, as the device left it."""

    run: Run
    count: int  # updates made
    params_are_finite: bool
    curve: dict[str, list[float]]  # epoch, update and every metric at the evaluations made
    final: dict[str, float]  # the task's `train_metrics`
    seconds: float  # wall time in training
    params: PyTree | None  # to evaluate, in NumPy, if they are kept


class HostLanes:
    """Mirrors the lanes of one program on the host: which run each trains and how far it is.

    The cycle is `fill`, `launch`, `collect`, and perhaps `save`. The device works between `launch`
    and `collect`, so the host has that time for other work.

    Args:
      program: The program, which holds the runs' state on the device.
      orders: Computes the orders of the examples on the host.
      config: Performance settings of the program.
      next_slot: Called when a lane is free; returns the next run to train, in a new slot, or None
        if there is none at present.
      checkpoints: Saves the runs in training and resumes new ones, or None.
      keep_params: Whether to collect the parameters of runs that have ended.
      jax_settings: Returns a context with the settings of JAX under which to train.
      broadcast: Returns process 0's value on all processes.
      gather: Waits for a tree of arrays on the devices, and returns it in NumPy.
    """

    def __init__(
        self,
        program: Program,
        orders: HostOrders,
        config: PoolConfig,
        next_slot: Callable[[], Slot | None],
        *,
        checkpoints: Checkpoints | None,
        keep_params: bool,
        jax_settings: Callable[[], contextlib.AbstractContextManager],
        broadcast: Callable[[Any], Any],
        gather: Callable[[PyTree], PyTree],
    ):
        self._program = program
        self._orders = orders
        self._feed = Feed(program, orders, config) if program.window_steps else None
        self._config = config
        self._next_slot = next_slot
        self._checkpoints = checkpoints
        self._keep_params = keep_params
        self._jax_settings = jax_settings
        self._broadcast = broadcast
        self._gather = gather
        self._slots: list[Slot | None] = [None] * config.lanes  # None if the lane is idle
        self._ended = np.ones(config.lanes, bool)  # lanes whose run has ended; at first, all
        self._fresh = self._ended  # lanes to start at the next launch, with a run or idle
        self._lanes: Lane | None = None  # on the device
        # Micro-steps of each call of the program since the last launch, one entry per device.
        self._steps: list[jax.Array] = []
        self._num_steps = 0  # micro-steps of the last launch that the program was not called for
        self._error: SourceError | None = None  # of the feed, to be raised at the next launch
        self._idle_inputs: RunInputs | None = None
        self._steps_per_second = 0.0
        self._launched = time.perf_counter()
        self._synced = self._launched

    def fill(self) -> bool:
        """Gives the next runs to the lanes without one; returns whether there are runs."""
        self._fresh = self._ended.copy()
        for i, slot in enumerate(self._slots):
            if slot is not None and not self._ended[i]:
                continue
            self._slots[i] = self._next_slot()
            if self._slots[i] is not None:
                self._fresh[i] = True
        return any(slot is not None for slot in self._slots)

    def launch(self) -> float:
        """Starts the new runs and sets the device to work, without waiting for it.

        Returns:
          Time that the device has waited for the host since `collect`, in seconds.
        """
        if self._error is not None:
            raise self._error
        self._num_steps = self._broadcast(self._next_num_steps())
        self._steps = []
        with self._jax_settings():
            if self._fresh.any():
                self._start_runs()
            if self._feed is not None:
                self._feed.seek(self._positions())
            self._advance()
        for i in np.flatnonzero(self._fresh):
            slot = self._slots[i]
            if slot is not None:
                slot.started = self._launched - slot.seconds
        return self._launched - self._synced

    def collect(self) -> list[Ended]:
        """Waits for the device; returns the runs that have ended."""
        with self._jax_settings():
            self._advance_rest()
        steps = sum(self._gather(self._steps))
        self._program.raise_read_error()
        self._synced = time.perf_counter()
        self._steps_per_second = steps.max() / (self._synced - self._launched)
        lanes = self._lanes
        # Five small arrays. The rest of a lane stays on the device until its run is evaluated.
        status, count, epoch, offset, evals = self._gather(
            (lanes.status, lanes.count, lanes.epoch, lanes.offset, lanes.evals)
        )
        # The lanes of one device make equally many steps.
        steps = np.repeat(steps, len(status) // len(steps))
        for i, slot in enumerate(self._slots):
            if slot is not None:
                # At least 1, since a run that has not ended needs another step.
                slot.steps_left = max(1, slot.steps_left - int(steps[i]))
                slot.examples = int(epoch[i]) * slot.run.plan.permutation_length + int(offset[i])
        self._collect_curves(evals)
        self._ended = (status == FINISHED) | (status == DIVERGED)
        if self._feed is not None and not self._ended.any():
            self._feed.check(self._positions())
        if not self._ended.any():
            return []
        return self._collect_ended(status, count)

    def _collect_curves(self, evals: np.ndarray) -> None:
        """Reads the curves if a run was evaluated since the last time."""
        slots = [(i, slot) for i, slot in enumerate(self._slots) if slot is not None]
        for _, slot in slots:
            if not slot.curve:  # A run that diverges before any evaluation has empty columns.
                slot.curve = _with_axes(slot.run, {name: [] for name in self._lanes.curve})
        evaluated = [(i, slot) for i, slot in slots if evals[i] != slot.evals]
        if not evaluated:
            return
        curves = self._gather(self._lanes.curve)
        for i, slot in evaluated:
            slot.evals = int(evals[i])
            columns = {name: values[i][: evals[i]].tolist() for name, values in curves.items()}
            slot.curve = _with_axes(slot.run, columns)

    def save(self) -> None:
        """Saves the lanes whose run is still in training."""
        runs, seconds = [], []
        for slot, ended in zip(self._slots, self._ended, strict=True):
            in_training = slot is not None and not ended
            runs.append(slot.run if in_training else None)
            seconds.append(self._synced - slot.started if in_training else 0.0)
        counts = self._gather(self._lanes.count)
        arrays = to_arrays(self._lanes) | {"seconds": np.array(seconds)}
        self._checkpoints.save(runs, counts, arrays)

    def slots(self) -> list[Slot]:
        """Returns the slots of the last launch, without those of idle lanes."""
        return [slot for slot in self._slots if slot is not None]

    def _advance(self) -> None:
        """Calls the program once: for all micro-steps of the launch, or for a window of them."""
        if self._feed is None:
            # Returns at once: JAX dispatches the program asynchronously.
            self._lanes, steps = self._program.advance(self._lanes, self._num_steps)
            self._num_steps = 0
            self._launched = time.perf_counter()
        else:
            taken = self._feed.take(self._num_steps)
            if taken is None:  # A resumed run may have fewer micro-steps left than were counted.
                self._num_steps = 0
                return
            if not self._steps:
                # On a CPU a program that asks the host returns when it has ended.
                self._launched = time.perf_counter()
            window, first, num_steps = taken
            self._lanes, steps = self._program.advance(self._lanes, num_steps, window, first)
            self._num_steps -= num_steps
        self._steps.append(steps)

    def _advance_rest(self) -> None:
        """Calls the program for the windows of the launch that are left."""
        while self._num_steps > 0:
            # A window that waits keeps the device busy, and more would fill its memory.
            if len(self._steps) > 1:
                jax.block_until_ready(self._steps[-2])
            try:
                self._advance()
            except SourceError as error:
                # What has ended so far is collected first.
                self._error = error
                return

    def _positions(self) -> list[Position]:
        """Returns the run of every lane and the examples that it has consumed; None if idle."""
        return [None if slot is None else (slot.run, slot.examples) for slot in self._slots]

    def _next_num_steps(self) -> int:
        """Returns the micro-steps until the next run ends or the host should synchronize."""
        # In the first launch the rate is unknown, so a single step measures it.
        most = max(1, int(self._steps_per_second * self._config.host_sync_seconds))
        return min(most, *(slot.steps_left for slot in self.slots()))

    def _start_runs(self) -> None:
        """Starts the new runs on the device, from their checkpoint if they have one."""
        if self._idle_inputs is None:
            # Zero updates: the lane stays idle. Any run has the right shapes.
            self._idle_inputs = jax.tree.map(np.zeros_like, self.slots()[0].inputs)
        inputs = stack([self._idle_inputs if slot is None else slot.inputs for slot in self._slots])
        if self._lanes is None:
            self._lanes = self._program.empty(inputs)
            self._program.compile(self._lanes, self._fresh, inputs)
        # Only fresh lanes are written. The inputs of the others are ignored.
        self._lanes = self._program.restart(self._lanes, self._fresh, inputs)
        if self._checkpoints is not None:
            for i in np.flatnonzero(self._fresh):
                if self._slots[i] is not None:
                    self._resume(i, self._slots[i])

    def _resume(self, index: int, slot: Slot) -> None:
        """Restores the latest checkpoint of the slot's run that fits, if there is one."""
        for arrays in self._checkpoints.load(slot.run):
            seconds = float(arrays.pop("seconds", 0))  # Ours, and no array of the lanes.
            try:
                fields = from_arrays(arrays, self._lanes)
            except ValueError as error:
                warnings.warn(
                    f"skipped a checkpoint of another version: {error}; run {slot.run.id} resumes "
                    "from an older one, or starts again.",
                    stacklevel=2,
                )
                continue
            count, epoch = int(fields["count"]), int(fields["epoch"])
            slot.examples = epoch * slot.run.plan.permutation_length + int(fields["offset"])
            if self._feed is None:
                seed = slot.run.hparams["seed"]
                orders = [self._orders(seed, epoch), self._orders(seed, epoch + 1)]
                fields["permutations"] = np.stack(orders)
            # The micro-steps within the interrupted batch are counted again. Too many are harmless.
            slot.steps_left = slot.run.plan.micro_steps(self._config.microbatch, count)
            slot.seconds = seconds
            self._lanes = self._program.insert_lane(self._lanes, index, fields)
            return

    def _collect_ended(self, status: np.ndarray, count: np.ndarray) -> list[Ended]:
        """Returns the runs that have ended, in the order of their lanes."""
        lanes = self._lanes
        # All lanes are gathered, and not the few that have ended: to index them would compile a
        # program for each number of them.
        finals = self._gather(lanes.final)
        now = time.perf_counter()
        indices = np.flatnonzero(self._ended)
        params = self._params(indices) if self._keep_params else [None] * len(indices)
        ended = []
        for i, params_of_run in zip(indices, params, strict=True):
            slot = self._slots[i]
            ended.append(
                Ended(
                    run=slot.run,
                    count=int(count[i]),
                    params_are_finite=bool(status[i] == FINISHED),
                    curve=slot.curve,
                    final={name: float(values[i]) for name, values in finals.items()},
                    seconds=now - slot.started,
                    params=params_of_run,
                )
            )
        return ended

    def _params(self, indices: np.ndarray) -> list[PyTree]:
        """Returns the parameters to evaluate of some lanes."""
        with self._jax_settings():
            params = [self._program.params(self._lanes, i) for i in indices]
        return self._gather(params)


def _with_axes(run: Run, columns: dict[str, list[float]]) -> dict[str, list[float]]:
    """Returns the evaluations of a run so far with their epochs and updates."""
    plan = run.plan
    # A run that diverges is not evaluated again, so its curve is shorter than its plan.
    updates = plan.eval_updates[: len(columns["train_loss"])]
    epochs = [float(plan.examples_seen[update - 1]) / plan.epoch_length for update in updates]
    return {"epoch": epochs, "update": list(updates), **columns}


def stack(trees: list[RunInputs]) -> RunInputs:
    """Stacks the inputs of runs along a leading axis of lanes."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
