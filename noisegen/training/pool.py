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
import types
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from noisegen.training.config import PoolConfig
from noisegen.training.evaluation import MetricSpec, metric_spec
from noisegen.training.feed import HostOrders
from noisegen.training.host_lanes import Ended, HostLanes, Slot, stack
from noisegen.training.lane_checkpoint import Checkpoints
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
      curve: The evaluations so far, as in `Result.curve`.
    """

    run: Run
    examples: int
    curve: Mapping[str, list[float]] = types.MappingProxyType({})


class Pool:
    """Trains any number of runs of one task, `config.lanes` at a time, in one compiled program.

    Args:
      task: The task to train.
      config: Performance settings, which change results by rounding only.
      devices: Devices of the mesh, which takes as many from the first as the config says. By
        default `jax.devices()`, or, if `jax_default_device` is set, that device and then the others
        of its platform.

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
        self._num_evals = 0  # Room for the evaluations of a run, in every lane.
        self._devices = devices
        self._orders = HostOrders(task, 2 * self.config.lanes + 2)  # two epochs of each lane
        # One program for each combination of the runs' constants. That of no constants is made at
        # once, to refuse a config before any run is read, and holds the data that all share.
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
          ValueError: As `make_runs` does, before anything is trained.
        """
        # The checks come here and not in the generator, whose body begins at the first `next`.
        groups = by_constants(self._prepared(runs))
        return self._train_groups(
            groups, on_progress, checkpoints, keep_params, take, more, _current_jax_settings()
        )

    def seconds_per_step(self, run: Run | Mapping[str, Any], seconds: float = 0.3) -> float:
        """Measures a micro-step of all lanes without its rare parts.

        Args:
          run: The run that every lane trains. Its horizon and its evaluations are ignored.
          seconds: Approximate time to measure, in seconds.

        Returns:
          Time of a micro-step, in seconds.
        """
        [run] = self._prepared([run])
        program = self._program_of(constants(run.hparams))
        lanes = program.empty(stack([self._slot(run).inputs] * self.config.lanes))
        # The first call compiles, and is not timed. The number of steps is an argument of the
        # program, so further calls do not compile again.
        steps = 1
        lanes = jax.block_until_ready(program.accumulate(lanes, steps))
        # Doubles the steps until they take long enough to be timed.
        elapsed = 0.0
        while elapsed < seconds / 2:
            steps *= 2
            started = time.perf_counter()
            lanes = jax.block_until_ready(program.accumulate(lanes, steps))
            # Equal on all processes, which must leave the loop together.
            elapsed = self._broadcast(time.perf_counter() - started)
        return elapsed / steps

    def _broadcast(self, value: Any) -> Any:
        """Returns the value that all processes of the pool use; here there is only one."""
        return value

    def _gather(self, tree: PyTree) -> PyTree:
        """Waits for arrays on the devices and returns them as NumPy arrays."""
        return jax.device_get(tree)

    def _prepared(self, runs: Iterable[Run | Mapping[str, Any]]) -> list[Run]:
        """Makes plain mappings into runs, and room in the lanes for the longest curve."""
        runs = as_runs(self.task, runs)
        # Curves never shrink between calls: fewer entries would be another program to compile.
        for run in runs:
            self._num_evals = max(self._num_evals, len(run.plan.eval_updates))
        return runs

    def _slot(self, run: Run) -> Slot:
        """Returns a slot with a run that has yet to start."""
        return Slot(
            run=run,
            inputs=run_inputs(run, self.task.num_examples, self._num_evals),
            steps_left=run.plan.micro_steps(self.config.microbatch),
        )

    def _program_of(self, fields: tuple[tuple[str, bool | str], ...]) -> Program:
        """Returns the program in which these fields of the runs are constants."""
        if fields not in self._programs:
            task = with_constants(self.task, dict(fields))
            data = self._programs[()].data
            self._programs[fields] = Program(task, self.config, self._devices, data)
        return self._programs[fields]

    def _train_groups(
        self,
        groups: Mapping[tuple, list[Run]],
        on_progress: Callable[[list[Progress]], None] | None,
        checkpoints: Checkpoints | None,
        keep_params: bool,
        take: Callable[[Run], bool] | None,
        more: Callable[[], Iterable[Run]] | None,
        jax_settings: Callable[[], contextlib.AbstractContextManager],
    ) -> Iterator[Result]:
        """Trains the runs of one program after those of another."""
        for fields, runs in groups.items():
            queue = _Queue(self, fields, runs, take, more)
            with jax_settings():
                program = self._program_of(fields)
            lanes = HostLanes(
                program,
                self._orders,
                self.config,
                queue.next_slot,
                checkpoints=checkpoints,
                keep_params=keep_params,
                jax_settings=jax_settings,
                broadcast=self._broadcast,
                gather=self._gather,
            )
            while (yield from self._train_until_save(lanes, on_progress, checkpoints)):
                lanes.save()

    def _train_until_save(
        self,
        lanes: HostLanes,
        on_progress: Callable[[list[Progress]], None] | None,
        checkpoints: Checkpoints | None,
    ) -> Generator[Result, None, bool]:
        """Trains until a checkpoint is due (returns True) or no run is left (returns False).

        Every result has been yielded when this returns, so that the caller has recorded a run
        before a checkpoint without it supersedes one that holds it.
        """
        spec = metric_spec(self.task)
        finished: list[Result] = []
        try:
            while lanes.fill():
                self.host_seconds += lanes.launch()
                to_yield = finished
                finished = []
                yield from to_yield  # The caller writes records while the device works.
                finished = [_result(spec, ended) for ended in lanes.collect()]
                if on_progress is not None:
                    slots = lanes.slots()
                    on_progress([Progress(slot.run, slot.examples, slot.curve) for slot in slots])
                if checkpoints is not None and checkpoints.due():
                    return True
            return False
        finally:
            # No finished result is lost, even if `on_progress` was interrupted by Ctrl-C. If the
            # caller has closed the generator at the `yield` above, this is empty.
            yield from finished


class _Queue:
    """The runs of one program that have yet to start.

    A run is taken when a lane is free, so that other workers may take the rest.

    Args:
      pool: The pool that trains them.
      fields: Constants of the program.
      runs: The runs, in order.
      take, more: As for `Pool.train`.
    """

    def __init__(
        self,
        pool: Pool,
        fields: tuple,
        runs: Iterable[Run],
        take: Callable[[Run], bool] | None,
        more: Callable[[], Iterable[Run]] | None,
    ):
        self._pool, self._fields = pool, fields
        self._runs = iter(runs)
        self._take, self._more = take, more

    def next_slot(self) -> Slot | None:
        """Returns the next run to start, in a new slot; None if there is none at present."""
        run = self._next_taken()
        if run is None and self._more is not None:
            self._runs = filter(self._fits, list(self._more()))
            run = self._next_taken()
        return None if run is None else self._pool._slot(run)

    def _next_taken(self) -> Run | None:
        for run in self._runs:
            if self._take is None or self._pool._broadcast(self._take(run)):
                return run
        return None

    def _fits(self, run: Run) -> bool:
        """Returns whether the program that is running can train a run."""
        has_room = len(run.plan.eval_updates) <= self._pool._num_evals
        return has_room and constants(run.hparams) == self._fields


def _result(spec: MetricSpec, ended: Ended) -> Result:
    """Makes the result of a run that has ended."""
    run = ended.run
    plan = run.plan
    metrics = {
        name: values[-1] if values else math.nan
        for name, values in ended.curve.items()
        if name in spec.curve
    }
    metrics |= ended.final
    # Parameters may be finite while the loss at them overflows.
    checked = [value for name, value in metrics.items() if name not in spec.may_be_nan]
    is_finite = ended.params_are_finite and all(map(math.isfinite, checked))
    return Result(
        run_id=run.id,
        hparams=run.hparams,
        status="finished" if is_finite else "diverged",
        diverged_at=None if is_finite else ended.count,
        # Metrics of an evaluation before the divergence would pass for those of the end.
        metrics=metrics if is_finite else dict.fromkeys(metrics, math.nan),
        curve=ended.curve,
        num_updates=ended.count,
        num_examples=int(plan.examples_seen[ended.count - 1]),
        seconds=ended.seconds,
        params=ended.params,
    )


def _current_jax_settings() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """Returns a context that sets JAX's precision and width of numbers to their values now.

    The caller may advance an iterator under other settings than those it was made under.
    """
    precision = jax.config.jax_default_matmul_precision
    wide = jax.config.jax_enable_x64

    @contextlib.contextmanager
    def jax_settings() -> Iterator[None]:
        with jax.default_matmul_precision(precision), jax.enable_x64(wide):
            yield

    return jax_settings
