"""The pool: lanes fed from a queue of runs.

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
>>> pool = training.Pool(task, training.Settings(lanes=2, microbatch=4))
>>> runs = [dict(batch_size=b, learning_rate=0.5, num_epochs=20, seed=0) for b in (4, 16, 64)]
>>> for result in sorted(pool.train(runs), key=lambda result: result.num_updates):
...     print(result.hparams["batch_size"], result.num_updates, result.metrics["test_loss"] < 0.01)
64 20 True
16 80 True
4 320 True
"""

import contextlib
import dataclasses
import itertools
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from noisegen.training import lanes as lanes_lib
from noisegen.training.evaluation import may_be_nan
from noisegen.training.examples import Numbers
from noisegen.training.hosts import agreed, gathered
from noisegen.training.program import Program
from noisegen.training.run import Run, as_runs, by_constants, device_numbers, with_constants
from noisegen.training.run_id import Value
from noisegen.training.settings import Settings
from noisegen.training.snapshot import Checkpoints, pack, unpack
from noisegen.training.task import PyTree, Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What one run left.

    Attributes:
      run_id: the run's id.
      hparams: the run's hyperparameters.
      status: "finished", or "diverged" (parameters or final metrics that are not finite).
      diverged_at: the update, counted from 1, after which they were not finite; else None.
      metrics: the last evaluation, and the task's `train_metrics`; `train_loss` is the mean loss
        over the training examples that were used since the evaluation before it, each at the
        parameters of its update.
      curve: every evaluation: `epoch` (epochs of examples consumed), `update` and each metric.
      num_updates: updates made.
      num_examples: training examples consumed.
      seconds: wall time between start and end of the run, the other lanes working beside it.
      params: the parameters at the end, those that were evaluated, as NumPy arrays, if `Pool.train`
        was asked to keep them.
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


class Pool:
    """Trains any number of runs of one task, `settings.lanes` at a time, in one compiled program.

    Args:
      task: what is trained.
      settings: how fast; changes no result but by rounding.
      devices: the mesh takes the first `lane_devices * batch_devices` of these; by default
        `jax.devices()`.

    Attributes:
      host_seconds: time during which the device waited for the host, compilation included.
    """

    def __init__(self, task: Task, settings: Settings | None = None, devices=None):
        self.task = task
        self.settings = settings or Settings()
        self.host_seconds = 0.0
        self._num_evals = 0
        self._devices = devices
        # By the constants of their runs.
        self._programs = {(): Program(task, self.settings, devices)}

    def train(
        self,
        runs: Iterable[Run | Mapping[str, Any]],
        on_progress: Callable[[list["Progress"]], None] | None = None,
        checkpoints: Checkpoints | None = None,
        keep_params: bool = False,
        take: Callable[[Run], bool] | None = None,
    ) -> Iterator[Result]:
        """Trains every run, in the order given, and yields each result as soon as its run ends.

        Training goes on while the iterator is advanced. Whoever stops early loses the runs that
        are in training, and nothing else.

        Args:
          runs: as `make_runs` gives them for the pool's task; plain mappings are made into runs.
            Runs that differ in a boolean or a word are trained by programs of their own, one after
            the other.
          on_progress: called with the runs in training whenever the host looks at the device.
          checkpoints: keeps the runs in training, and knows those to go on with; see
            `noisegen.sweeps.Checkpoints`. A run that was stopped ends as it would have, to the last
            bit where the speed settings are equal.
          keep_params: whether results have the parameters at the end.
          take: asked of each run just before it begins; one that it refuses is left out, since
            another pool has it, for example.

        Raises:
          ValueError: a run makes no sense, the optimizer reads a field that the runs lack, or
            nothing reads a field of theirs. Raised before anything is trained.
        """
        groups = self._groups(runs)
        on_progress = on_progress or (lambda progress: None)
        settings_of_jax = _settings_of_jax()
        return self._train_groups(
            groups, on_progress, checkpoints, keep_params, take, settings_of_jax
        )

    def seconds_per_step(self, run: Run | Mapping[str, Any], seconds: float = 0.3) -> float:
        """Measures a micro-step of all lanes without its rare parts.

        Args:
          run: whose numbers are taken; how it would go on plays no part.
          seconds: about how long to measure.

        Returns:
          Seconds a micro-step takes.
        """
        [(fields, slots)] = self._groups([run])
        slot = next(slots)
        program, steps, elapsed = self._program_of(fields), 1, 0.0
        lanes = program.empty(_stack([slot.numbers] * self.settings.lanes))
        lanes = jax.block_until_ready(program.accumulate(lanes, steps))
        while elapsed < seconds / 2:
            steps *= 2
            started = time.perf_counter()
            lanes = jax.block_until_ready(program.accumulate(lanes, steps))
            elapsed = agreed(time.perf_counter() - started)
        return elapsed / steps

    def _groups(self, runs) -> list[tuple[tuple, Iterator["_Slot"]]]:
        """Returns the runs of each program, checked at once, made one by one."""
        runs = as_runs(self.task, runs)
        # Room that was made once stays: less of it would be another program to compile.
        self._num_evals = max([self._num_evals, *(len(run.plan.eval_updates) for run in runs)])
        return [(fields, map(self._slot, group)) for fields, group in by_constants(runs).items()]

    def _slot(self, run):
        return _Slot(
            run=run,
            numbers=device_numbers(run, self.task.num_examples, self._num_evals),
            steps_left=run.plan.micro_steps(self.settings.microbatch),
        )

    def _program_of(self, fields):
        """Returns the program in which these fields of the runs are constants."""
        if fields not in self._programs:
            task = with_constants(self.task, dict(fields))
            data = self._programs[()].data
            self._programs[fields] = Program(task, self.settings, self._devices, data)
        return self._programs[fields]

    def _train_groups(self, groups, on_progress, checkpoints, keep_params, take, settings_of_jax):
        """Trains the runs of one program after those of another."""
        for fields, slots in groups:
            if take is not None:
                slots = filter(lambda slot: take(slot.run), slots)
            with settings_of_jax():
                program = self._program_of(fields)
            yield from self._train(
                program, slots, on_progress, checkpoints, keep_params, settings_of_jax
            )

    def _train(self, program, queue, on_progress, checkpoints, keep_params, settings_of_jax):
        first = next(queue, None)
        if first is None:
            return
        idle = first.idle()
        queue = itertools.chain([first], queue)
        slots = [idle] * self.settings.lanes
        stale = np.ones(len(slots), bool)
        lanes, ended, rate = None, [], 0.0
        looked = time.perf_counter()
        while True:
            for i in np.flatnonzero(stale):
                slots[i] = next(queue, idle)
            busy = [slot for slot in slots if slot is not idle]
            if not busy:
                break
            most = max(1, int(rate * self.settings.chunk_seconds))
            num_steps = agreed(min(most, *(slot.steps_left for slot in busy)))
            with settings_of_jax():
                lanes, steps = self._dispatch(program, lanes, slots, stale, num_steps, checkpoints)
            dispatched = time.perf_counter()
            self.host_seconds += dispatched - looked
            for i in np.flatnonzero(stale):
                slots[i].started = dispatched - slots[i].seconds
            yield from ended  # the host writes records while the device works
            steps = gathered(steps)  # waits for the device
            looked = time.perf_counter()
            rate = steps.max() / (looked - dispatched)
            stale, ended = self._look(lanes, slots, np.repeat(steps, len(slots) // len(steps)))
            if keep_params:
                with settings_of_jax():
                    ended = self._with_params(program, ended, lanes, stale)
            try:
                on_progress([Progress(slot.run, slot.examples) for slot in busy])
            except BaseException:  # most often Ctrl-C; what has ended is not lost
                yield from ended
                raise
            if checkpoints is not None and checkpoints.due():
                yield from ended  # before anything can go wrong
                ended = []
                _save(checkpoints, lanes, slots, stale, looked)
        yield from ended

    def _dispatch(self, program, lanes, slots, stale, num_steps, checkpoints):
        """Starts the runs of the stale lanes and sets the device to work; does not wait for it."""
        if stale.any():
            numbers = _stack([slot.numbers for slot in slots])
            if lanes is None:
                lanes = program.empty(numbers)
                program.compile(lanes, stale, numbers)
            lanes = program.restart(lanes, stale, numbers)
            for i in np.flatnonzero(stale):
                if checkpoints is not None and slots[i].run is not None:
                    lanes = self._resume(program, lanes, i, slots[i], checkpoints)
        return program.advance(lanes, num_steps)

    def _resume(self, program, lanes, index, slot, checkpoints):
        """Takes the slot's run up where a checkpoint left it, if one that fits did."""
        for arrays in checkpoints.load(slot.run):
            seconds = float(arrays.pop("seconds", 0))
            try:
                fields = unpack(arrays, lanes)
            except ValueError as error:
                warnings.warn(
                    f"skipped a checkpoint of another version: {error}; the run {slot.run.id} "
                    "goes on "
                    "from an older one, or begins anew.",
                    stacklevel=2,
                )
                continue
            slot.steps_left = slot.run.plan.micro_steps(
                self.settings.microbatch, int(fields["count"])
            )
            slot.seconds = seconds
            return program.place(lanes, index, fields)
        return lanes

    def _with_params(self, program, ended, lanes, stale):
        """The results of the stale lanes, with the parameters that were evaluated."""
        kept = gathered([program.params(lanes, i) for i in np.flatnonzero(stale)])
        return [dataclasses.replace(r, params=p) for r, p in zip(ended, kept, strict=True)]

    def _look(self, lanes, slots, steps):
        """Which lanes' runs have ended, and what they left."""
        status, count, epoch, offset = gathered(
            (lanes.status, lanes.count, lanes.epoch, lanes.offset)
        )
        for i, slot in enumerate(slots):
            slot.steps_left = max(1, slot.steps_left - int(steps[i]))
            if slot.run is not None:
                order_length = slot.run.plan.order_length
                slot.examples = int(epoch[i]) * order_length + int(offset[i])
        stale = (status == lanes_lib.FINISHED) | (status == lanes_lib.DIVERGED)
        if not stale.any():
            return stale, []
        evals, curves, finals = gathered((lanes.evals, lanes.curve, lanes.final))
        now = time.perf_counter()
        ended, allowed = [], may_be_nan(self.task)
        for i in np.flatnonzero(stale):
            curve = {name: values[i][: evals[i]].tolist() for name, values in curves.items()}
            final = {name: float(values[i]) for name, values in finals.items()}
            ended.append(slots[i].result(curve, final, int(count[i]), status[i], now, allowed))
        return stale, ended


class Progress(NamedTuple):
    """How far a run in training is, in training examples."""

    run: Run
    examples: int

    @property
    def num_examples(self) -> int:
        """Training examples of the whole run."""
        return self.run.plan.num_examples


@dataclasses.dataclass
class _Slot:
    """The host's side of a lane."""

    run: Run | None
    numbers: Numbers
    steps_left: int
    examples: int = 0
    started: float = 0.0
    seconds: float = 0.0  # in training before it was stopped

    def idle(self):
        """A slot without a run, whose numbers have the same shapes."""
        return dataclasses.replace(
            self, run=None, numbers=jax.tree.map(np.zeros_like, self.numbers)
        )

    def result(self, curve, final, count, status, now, allowed):
        plan = self.run.plan
        updates = plan.eval_updates[: len(curve["train_loss"])]
        metrics = {name: values[-1] if values else math.nan for name, values in curve.items()}
        metrics |= final
        checked = (value for name, value in metrics.items() if name not in allowed)
        finite = status == lanes_lib.FINISHED and all(map(math.isfinite, checked))
        return Result(
            run_id=self.run.id,
            hparams=self.run.hparams,
            status="finished" if finite else "diverged",
            diverged_at=None if finite else count,
            metrics=metrics if finite else dict.fromkeys(metrics, math.nan),
            curve={
                "epoch": [float(plan.ends[u - 1]) / plan.epoch_length for u in updates],
                "update": list(updates),
                **curve,
            },
            num_updates=count,
            num_examples=int(plan.ends[count - 1]),
            seconds=now - self.started,
        )


def _settings_of_jax():
    """Returns a context with the precision and width of numbers that are set now.

    An iterator may be advanced where others are set.
    """
    precision, wide = jax.config.jax_default_matmul_precision, jax.config.jax_enable_x64

    @contextlib.contextmanager
    def settings_of_jax():
        with jax.default_matmul_precision(precision), jax.enable_x64(wide):
            yield

    return settings_of_jax


def _save(checkpoints, lanes, slots, stale, now):
    """Keeps the lanes, and the runs of those that are still in training."""
    runs = [None if ended else slot.run for slot, ended in zip(slots, stale, strict=True)]
    seconds = np.array([now - slot.started for slot in slots])
    checkpoints.save(runs, gathered(lanes.count), pack(lanes) | {"seconds": seconds})


def _stack(numbers):
    return jax.tree.map(lambda *leaves: np.stack(leaves), *numbers)
