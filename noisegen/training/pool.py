"""Trains many runs at once: a pool of lanes, fed from a queue of runs.

>>> import jax.numpy as jnp, optax
>>> from noisegen import training
>>> x = jnp.linspace(-1, 1, 64)
>>> def squared_error(w, state, batch):
...     return (w * batch.data["x"] - batch.data["y"]) ** 2
>>> task = training.Task(
...     name="slope",
...     train={"x": x, "y": 3 * x},
...     test={"x": x, "y": 3 * x},
...     init=lambda key: (jnp.zeros(()), ()),
...     loss=lambda w, state, batch: (squared_error(w, state, batch), state),
...     metrics=lambda w, state, batch: {"test_loss": squared_error(w, state, batch)},
...     make_optimizer=lambda hparams, key: optax.sgd(hparams["learning_rate"]),
... )
>>> pool = training.Pool(task, training.PoolConfig(lanes=2, microbatch=4))
>>> runs = [dict(batch_size=b, learning_rate=0.5, num_epochs=20, seed=0) for b in (4, 16, 64)]
>>> for result in sorted(pool.train(runs), key=lambda result: result.num_updates):
...     print(result.hparams["batch_size"], result.num_updates, result.metrics["test_loss"] < 0.01)
64 20 True
16 80 True
4 320 True
"""

import contextlib
import dataclasses
import math
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from noisegen.training import lanes as lanes_lib
from noisegen.training.config import PoolConfig
from noisegen.training.data_order import RunInputs
from noisegen.training.evaluation import MetricSpec, metric_spec
from noisegen.training.lane_checkpoint import Checkpoints, from_arrays, to_arrays
from noisegen.training.program import Program
from noisegen.training.run import Run, as_runs, by_constants, constants, run_inputs, with_constants
from noisegen.training.run_id import Value
from noisegen.training.task import PyTree, Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """The result of one run.

    Attributes:
      run_id: Id of the run.
      hparams: Its hyperparameters.
      status: "finished", or "diverged" (parameters or final metrics that are not finite).
      diverged_at: The update, counted from 1, after which they were not finite; else None.
      metrics: The last evaluation, and the task's `train_metrics`. `train_loss` is the mean loss
        over the training examples used since the evaluation before it, each at the parameters of
        its update.
      curve: Every evaluation: `epoch` (epochs of examples consumed), `update` and each metric.
      num_updates: Updates made.
      num_examples: Training examples consumed.
      seconds: Wall time between start and end of the run, with the other lanes working beside it.
      params: The evaluated parameters at the end, as NumPy arrays, if `Pool.train` was asked to
        keep them.
    """

    run_id: str
    hparams: Mapping[str, Value]
    status: str
    diverged_at: int | None
    metrics: dict[str, float]
    curve: dict[str, list[float]]
    num_updates: int
    num_examples: int
    seconds: float
    params: PyTree | None = None


class Progress(NamedTuple):
    """The progress of a run in training.

    Attributes:
      run: The run.
      examples: Training examples consumed so far.
    """

    run: Run
    examples: int


class Pool:
    """Trains any number of runs of one task, `config.lanes` at a time, in one compiled program.

    Args:
      task: The task to train.
      config: Performance settings, which change results by rounding only.
      devices: Devices of the mesh, which takes the first `lane_devices * batch_devices` of them. By
        default `jax.devices()`.

    Attributes:
      task: As given.
      config: As given, or the default.
      host_seconds: Time that the device waited for the host, compilation included, in seconds.
    """

    def __init__(
        self,
        task: Task,
        config: PoolConfig | None = None,
        devices: Sequence[jax.Device] | None = None,
    ):
        self.task = task
        self.config = config or PoolConfig()
        self.host_seconds = 0.0
        self._num_evals = 0
        self._devices = devices
        # One program for each combination of the runs' constants.
        self._programs = {(): Program(task, self.config, devices)}

    def train(
        self,
        runs: Iterable[Run | Mapping[str, Any]],
        on_progress: Callable[[list[Progress]], None] | None = None,
        checkpoints: Checkpoints | None = None,
        keep_params: bool = False,
        take: Callable[[Run], bool] | None = None,
        more: Callable[[], Iterable[Run]] | None = None,
    ) -> Iterator[Result]:
        """Trains every run, in the order given, and yields each result as soon as its run ends.

        Training goes on while the iterator is advanced. Stopping early discards the runs in
        training, but no finished result.

        Args:
          runs: Runs from `make_runs` for the pool's task. Plain mappings are made into runs. Runs
            that differ in a boolean or a word are trained by separate programs, one after the
            other.
          on_progress: Called with the runs in training at every host synchronization.
          checkpoints: Saves the runs in training, and loads those to resume; see
            `noisegen.storage.Checkpoints`. A resumed run ends as an uninterrupted one does, to the
            last bit if the configs are equal.
          keep_params: Whether results have the parameters at the end.
          take: Called with each run before it starts. The run is skipped if this returns False, for
            example because another worker has claimed it.
          more: Called when a lane is free and every run has started; returns further runs to train,
            for example those that results suggest. Runs that need another program, because of
            their booleans or words or of longer curves, are left out: train them by another call.

        Raises:
          ValueError: If a run makes no sense, the optimizer reads a field that the runs lack, or
            nothing reads one of their fields. Raised before anything is trained.
        """
        groups = by_constants(self._prepared(runs))
        return self._train_groups(
            groups, on_progress, checkpoints, keep_params, take, more, _current_jax_settings()
        )

    def seconds_per_step(self, run: Run | Mapping[str, Any], seconds: float = 0.3) -> float:
        """Measures a micro-step of all lanes without its rare parts.

        Args:
          run: The run that every lane trains. Its course plays no part.
          seconds: Approximate time to measure, in seconds.

        Returns:
          Time of a micro-step, in seconds.
        """
        [run] = self._prepared([run])
        program = self._program_of(constants(run.hparams))
        steps, elapsed = 1, 0.0
        lanes = program.empty(_stack([self._slot(run).inputs] * self.config.lanes))
        lanes = jax.block_until_ready(program.accumulate(lanes, steps))
        # Doubles the steps until they take long enough to be timed.
        while elapsed < seconds / 2:
            steps *= 2
            started = time.perf_counter()
            lanes = jax.block_until_ready(program.accumulate(lanes, steps))
            elapsed = self._broadcast(time.perf_counter() - started)
        return elapsed / steps

    def _broadcast(self, value):
        """Returns the value that all processes of the pool use; here there is only one."""
        return value

    def _gather(self, tree):
        """Waits for arrays on the devices and returns them as NumPy arrays."""
        return jax.device_get(tree)

    def _prepared(self, runs) -> list[Run]:
        """Makes plain mappings into runs, and room in the lanes for the longest curve."""
        runs = as_runs(self.task, runs)
        # Curves never shrink between calls: fewer entries would be another program to compile.
        self._num_evals = max([self._num_evals, *(len(run.plan.eval_updates) for run in runs)])
        return runs

    def _slot(self, run: Run) -> "_Slot":
        return _Slot(
            run=run,
            inputs=run_inputs(run, self.task.num_examples, self._num_evals),
            steps_left=run.plan.micro_steps(self.config.microbatch),
        )

    def _program_of(self, fields) -> Program:
        """Returns the program in which these fields of the runs are constants."""
        if fields not in self._programs:
            task = with_constants(self.task, dict(fields))
            data = self._programs[()].data
            self._programs[fields] = Program(task, self.config, self._devices, data)
        return self._programs[fields]

    def _train_groups(
        self, groups, on_progress, checkpoints, keep_params, take, more, jax_settings
    ):
        """Trains the runs of one program after those of another."""
        for fields, runs in groups.items():
            queue = _Queue(self, fields, runs, take, more)
            with jax_settings():
                program = self._program_of(fields)
            lanes = _HostLanes(self, program, queue, checkpoints, keep_params, jax_settings)
            while (yield from self._train_until_save(lanes, on_progress, checkpoints)):
                lanes.save()

    def _train_until_save(
        self, lanes: "_HostLanes", on_progress, checkpoints
    ) -> Generator[Result, None, bool]:
        """Trains until a checkpoint is due (returns True) or no run is left (returns False)."""
        finished = []
        try:
            while lanes.fill():
                lanes.launch()
                to_yield, finished = finished, []
                yield from to_yield  # The caller writes records while the device works.
                finished = lanes.collect()
                if on_progress is not None:
                    on_progress(lanes.progress())
                if checkpoints is not None and checkpoints.due():
                    return True
            return False
        finally:
            # No finished result is lost, even if `on_progress` was interrupted by Ctrl-C. If the
            # caller has closed the generator at the `yield` above, this is empty.
            yield from finished


class _Queue:
    """The runs of one program that have yet to start.

    Args: As for `Pool.train`, and the program's constants.
    """

    def __init__(self, pool: Pool, fields, runs, take, more):
        self._pool, self._fields = pool, fields
        self._runs = iter(runs)
        self._take, self._more = take, more

    def next(self) -> Run | None:
        """Returns the next run to start, None if there is none at present."""
        run = self._next_taken()
        if run is None and self._more is not None:
            self._runs = filter(self._fits, list(self._more()))
            run = self._next_taken()
        return run

    def _next_taken(self) -> Run | None:
        for run in self._runs:
            if self._take is None or self._pool._broadcast(self._take(run)):
                return run
        return None

    def _fits(self, run: Run) -> bool:
        """Returns whether the program that is running can train a run."""
        has_room = len(run.plan.eval_updates) <= self._pool._num_evals
        return has_room and constants(run.hparams) == self._fields


@dataclasses.dataclass
class _Slot:
    """The run of one lane, as the host sees it."""

    run: Run
    inputs: RunInputs
    steps_left: int  # micro-steps
    examples: int = 0  # consumed so far
    started: float = 0.0  # clock time at which it would have started without interruption
    seconds: float = 0.0  # in training before it was resumed


class _HostLanes:
    """Mirrors the lanes of one program on the host: which run each trains and how far it is.

    The cycle is `fill`, `launch`, `collect`, and perhaps `save`.
    """

    def __init__(self, pool: Pool, program, queue, checkpoints, keep_params, jax_settings):
        self._pool, self._program, self._queue = pool, program, queue
        self._checkpoints, self._keep_params = checkpoints, keep_params
        self._jax_settings = jax_settings
        self._slots: list[_Slot | None] = [None] * pool.config.lanes
        # The lanes whose run has ended (at first, all), to be given new ones.
        self._ended = np.ones(pool.config.lanes, bool)
        self._lanes = None  # on the device
        self._steps = None  # micro-steps of the last launch, on the device
        self._idle_inputs = None
        self._steps_per_second = 0.0
        self._launched = self._synced = time.perf_counter()

    def fill(self) -> bool:
        """Gives the next runs to the lanes without one; returns whether there are runs."""
        for i, slot in enumerate(self._slots):
            if slot is not None and not self._ended[i]:
                continue
            run = self._queue.next()
            if run is not None:
                self._ended[i] = True  # an idle lane starts as one whose run has ended
            self._slots[i] = None if run is None else self._pool._slot(run)
        return any(slot is not None for slot in self._slots)

    def launch(self) -> None:
        """Starts the new runs and sets the device to work, without waiting for it."""
        num_steps = self._pool._broadcast(self._next_num_steps())
        with self._jax_settings():
            if self._ended.any():
                self._start_runs()
            self._lanes, self._steps = self._program.advance(self._lanes, num_steps)
        self._launched = time.perf_counter()
        self._pool.host_seconds += self._launched - self._synced
        for i in np.flatnonzero(self._ended):
            slot = self._slots[i]
            if slot is not None:
                slot.started = self._launched - slot.seconds

    def collect(self) -> list[Result]:
        """Waits for the device; returns the results of the runs that have ended."""
        steps = self._pool._gather(self._steps)
        self._synced = time.perf_counter()
        self._steps_per_second = steps.max() / (self._synced - self._launched)
        lanes = self._lanes
        status, count, epoch, offset = self._pool._gather(
            (lanes.status, lanes.count, lanes.epoch, lanes.offset)
        )
        # Lanes of one device make equally many steps; the entries of `steps` are the devices'.
        steps = np.repeat(steps, len(status) // len(steps))
        for i, slot in enumerate(self._slots):
            if slot is not None:
                slot.steps_left = max(1, slot.steps_left - int(steps[i]))
                slot.examples = int(epoch[i]) * slot.run.plan.permutation_length + int(offset[i])
        self._ended = (status == lanes_lib.FINISHED) | (status == lanes_lib.DIVERGED)
        if not self._ended.any():
            return []
        results = self._results(status, count)
        return self._with_params(results) if self._keep_params else results

    def progress(self) -> list[Progress]:
        """Returns the progress of the runs of the last launch."""
        return [Progress(slot.run, slot.examples) for slot in self._slots if slot is not None]

    def save(self) -> None:
        """Saves the lanes whose run is still in training."""
        runs, seconds = [], []
        for slot, ended in zip(self._slots, self._ended, strict=True):
            in_training = slot is not None and not ended
            runs.append(slot.run if in_training else None)
            seconds.append(self._synced - slot.started if in_training else 0.0)
        counts = self._pool._gather(self._lanes.count)
        arrays = to_arrays(self._lanes) | {"seconds": np.array(seconds)}
        self._checkpoints.save(runs, counts, arrays)

    def _next_num_steps(self) -> int:
        """Returns the micro-steps until the next run ends or the host should synchronize."""
        most = max(1, int(self._steps_per_second * self._pool.config.host_sync_seconds))
        return min(most, *(slot.steps_left for slot in self._slots if slot is not None))

    def _start_runs(self):
        """Starts the new runs on the device, from their checkpoint if they have one."""
        if self._idle_inputs is None:
            # Zero updates: the lane stays idle. Any run has the right shapes.
            slot = next(slot for slot in self._slots if slot is not None)
            self._idle_inputs = jax.tree.map(np.zeros_like, slot.inputs)
        inputs = _stack(
            [self._idle_inputs if slot is None else slot.inputs for slot in self._slots]
        )
        if self._lanes is None:
            self._lanes = self._program.empty(inputs)
            self._program.compile(self._lanes, self._ended, inputs)
        self._lanes = self._program.restart(self._lanes, self._ended, inputs)
        if self._checkpoints is not None:
            for i in np.flatnonzero(self._ended):
                if self._slots[i] is not None:
                    self._resume(i, self._slots[i])

    def _resume(self, index, slot):
        """Restores the latest checkpoint of the slot's run that fits, if there is one."""
        for arrays in self._checkpoints.load(slot.run):
            seconds = float(arrays.pop("seconds", 0))
            try:
                fields = from_arrays(arrays, self._lanes)
            except ValueError as error:
                warnings.warn(
                    f"skipped a checkpoint of another version: {error}; run {slot.run.id} resumes "
                    "from an older one, or starts again.",
                    stacklevel=2,
                )
                continue
            count = int(fields["count"])
            slot.steps_left = slot.run.plan.micro_steps(self._pool.config.microbatch, count)
            slot.seconds = seconds
            self._lanes = self._program.insert_lane(self._lanes, index, fields)
            return

    def _results(self, status, count) -> list[Result]:
        """Returns the results of the lanes whose run has ended."""
        lanes = self._lanes
        evals, curves, finals = self._pool._gather((lanes.evals, lanes.curve, lanes.final))
        now = time.perf_counter()
        spec = metric_spec(self._pool.task)
        results = []
        for i in np.flatnonzero(self._ended):
            curve = {name: values[i][: evals[i]].tolist() for name, values in curves.items()}
            final = {name: float(values[i]) for name, values in finals.items()}
            is_finite = status[i] == lanes_lib.FINISHED
            slot = self._slots[i]
            seconds = now - slot.started
            results.append(_result(slot.run, spec, curve, final, int(count[i]), is_finite, seconds))
        return results

    def _with_params(self, results):
        """Returns the results with the parameters that were evaluated."""
        with self._jax_settings():
            params = [self._program.params(self._lanes, i) for i in np.flatnonzero(self._ended)]
        params = self._pool._gather(params)
        return [
            dataclasses.replace(result, params=of_run)
            for result, of_run in zip(results, params, strict=True)
        ]


def _result(
    run: Run,
    spec: MetricSpec,
    curve: dict[str, list[float]],
    final: dict[str, float],
    count: int,
    params_are_finite: bool,
    seconds: float,
) -> Result:
    """Makes the result of a run that made `count` updates."""
    plan = run.plan
    updates = plan.eval_updates[: len(curve["train_loss"])]
    metrics = {name: values[-1] if values else math.nan for name, values in curve.items()} | final
    may_be_nan = spec.may_be_nan
    checked = [value for name, value in metrics.items() if name not in may_be_nan]
    is_finite = params_are_finite and all(map(math.isfinite, checked))
    epochs = [float(plan.examples_seen[update - 1]) / plan.epoch_length for update in updates]
    return Result(
        run_id=run.id,
        hparams=run.hparams,
        status="finished" if is_finite else "diverged",
        diverged_at=None if is_finite else count,
        metrics=metrics if is_finite else dict.fromkeys(metrics, math.nan),
        curve={"epoch": epochs, "update": list(updates), **curve},
        num_updates=count,
        num_examples=int(plan.examples_seen[count - 1]),
        seconds=seconds,
    )


def _current_jax_settings():
    """Returns a context that sets JAX's precision and width of numbers to their values now.

    The caller may advance an iterator under other settings than those it was made under.
    """
    precision, wide = jax.config.jax_default_matmul_precision, jax.config.jax_enable_x64

    @contextlib.contextmanager
    def jax_settings():
        with jax.default_matmul_precision(precision), jax.enable_x64(wide):
            yield

    return jax_settings


def _stack(inputs):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *inputs)
