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
...     print(result.run["batch_size"], result.num_updates, result.metrics["test_loss"] < 0.01)
64 20 True
16 80 True
4 320 True
"""

import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from noisegen.training import lanes as lanes_lib
from noisegen.training.plan import RUN_FIELDS, Plan, plan
from noisegen.training.settings import Settings
from noisegen.training.task import Task

Run = Mapping[str, Any]

_PLAN_NUMBERS = {"num_updates": np.int32, "updates_per_epoch": np.float32, "num_examples": np.int32}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What one run left.

    Attributes:
      run: the run's numbers, as given.
      status: "finished", or "diverged" (parameters or final metrics that are not finite).
      diverged_at: the update, counted from 1, after which they were not finite; else None.
      metrics: the last evaluation; `train_loss` is the mean loss over the training examples that
        were used since the evaluation before it, each at the parameters of its update.
      curve: every evaluation: `epoch` (epochs of examples consumed), `update` and each metric.
      num_updates: updates made.
      num_examples: training examples consumed.
      seconds: wall time between start and end of the run, the other lanes working beside it.
    """

    run: Run
    status: str
    diverged_at: int | None
    metrics: dict[str, float]
    curve: dict[str, list[float]]
    num_updates: int
    num_examples: int
    seconds: float


class Pool:
    """Trains any number of runs of one task, `settings.lanes` at a time, in one compiled program.

    Args:
      task: what is trained.
      settings: how fast; changes no result but by rounding.
      devices: the mesh takes the first `lane_devices * batch_devices` of these; by default
        `jax.devices()`.

    Attributes:
      host_seconds: time during which the device waited for the host.
    """

    def __init__(self, task: Task, settings: Settings | None = None, devices=None):
        self.task = task
        self.settings = settings = settings or Settings()
        self.host_seconds = 0.0
        mesh = _mesh(settings, jax.devices() if devices is None else devices)
        everywhere, lanes = PartitionSpec(), PartitionSpec("lanes")
        shape = lanes_lib.Shape(settings.microbatch, settings.eval_batch, settings.group)
        mapped = functools.partial(jax.shard_map, mesh=mesh, check_vma=False)
        self._data = jax.device_put(
            {"train": task.train, "test": task.test}, NamedSharding(mesh, everywhere)
        )
        self._empty = jax.jit(
            mapped(
                functools.partial(lanes_lib.empty, task),
                in_specs=lanes,
                out_specs=lanes_lib.LANE_SPEC,
            )
        )
        self._restart = jax.jit(
            mapped(
                functools.partial(lanes_lib.restart, task, shape),
                in_specs=(lanes_lib.LANE_SPEC, lanes, lanes),
                out_specs=lanes_lib.LANE_SPEC,
            ),
            donate_argnums=0,
        )
        self._advance = jax.jit(
            mapped(
                functools.partial(lanes_lib.advance, task, shape),
                in_specs=(lanes_lib.LANE_SPEC, everywhere, everywhere),
                out_specs=(lanes_lib.LANE_SPEC, lanes),
            ),
            donate_argnums=0,
        )

    def plan(self, run: Run) -> Plan:
        """The course of a run, its numbers checked."""
        sizes = None
        if self.task.batch_size is not None:
            sizes = self.task.batch_size({**run, "num_examples": self.task.num_examples})
        return plan(run, self.task.num_examples, sizes)

    def train(
        self, runs: Sequence[Run], on_progress: Callable[[list["Progress"]], None] | None = None
    ) -> Iterator[Result]:
        """Trains every run, in the order given, and yields each result as soon as its run ends.

        Training goes on while the iterator is advanced. Whoever stops early loses the runs that
        are in training, and nothing else.

        Args:
          runs: flat mappings of numbers, all with the same names. Their course is read as
            `noisegen.training.plan` says; `make_optimizer` reads the rest.
          on_progress: called with the runs in training whenever the host looks at the device.

        Raises:
          ValueError: a run makes no sense, or the optimizer needs a number that the runs lack, or
            nothing reads one that they have. Raised before anything is trained.
        """
        runs = list(runs)
        plans = [self.plan(run) for run in runs]
        types = _number_types(self.task, runs)
        width = max((len(p.eval_updates) for p in plans), default=0)
        slots = (self._slot(*pair, types, width) for pair in zip(runs, plans, strict=True))
        return self._train(slots, on_progress or (lambda progress: None))

    def _slot(self, run, plan, types, width):
        numbers = _numbers(run, plan, types, width, self.task.num_examples)
        return _Slot(run, plan, numbers, plan.micro_steps(self.settings.microbatch))

    def _train(self, queue, on_progress):
        first = next(queue, None)
        if first is None:
            return
        idle = first.idle()
        queue = itertools.chain([first], queue)
        slots = [idle] * self.settings.lanes
        stale = np.ones(len(slots), bool)
        lanes, ended, rate = None, [], 0.0
        while True:
            looked = time.perf_counter()
            for i in np.flatnonzero(stale):
                slots[i] = next(queue, idle)
                slots[i].started = looked
            busy = [slot for slot in slots if slot is not idle]
            if not busy:
                break
            with jax.default_matmul_precision(self.settings.precision):
                if stale.any():
                    numbers = jax.tree.map(lambda *all: np.stack(all), *(s.numbers for s in slots))
                    lanes = self._empty(numbers) if lanes is None else lanes
                    lanes = self._restart(lanes, stale, numbers)
                most = max(1, int(rate * self.settings.chunk_seconds))
                num_steps = np.int32(min(most, *(slot.steps_left for slot in busy)))
                lanes, steps = self._advance(lanes, self._data, num_steps)
            dispatched = time.perf_counter()
            self.host_seconds += dispatched - looked
            yield from ended  # the host writes records while the device works
            steps = np.asarray(steps)  # waits for the device
            rate = steps.max() / (time.perf_counter() - dispatched)
            stale, ended = self._look(lanes, slots, np.repeat(steps, len(slots) // len(steps)))
            on_progress([Progress(s.run, s.examples, s.plan.num_examples) for s in busy])
        yield from ended

    def _look(self, lanes, slots, steps):
        """Which lanes' runs have ended, and what they left."""
        status, count, epoch, offset = jax.device_get(
            (lanes.status, lanes.count, lanes.epoch, lanes.offset)
        )
        for i, slot in enumerate(slots):
            slot.steps_left = max(1, slot.steps_left - int(steps[i]))
            slot.examples = int(epoch[i]) * slot.plan.epoch_length + int(offset[i])
        stale = (status == lanes_lib.FINISHED) | (status == lanes_lib.DIVERGED)
        if not stale.any():
            return stale, []
        evals, curves = jax.device_get((lanes.evals, lanes.curve))
        now = time.perf_counter()
        ended = []
        for i in np.flatnonzero(stale):
            curve = {name: values[i][: evals[i]].tolist() for name, values in curves.items()}
            ended.append(slots[i].result(curve, int(count[i]), status[i], now))
        return stale, ended


class Progress(NamedTuple):
    """How far a run in training is, in training examples."""

    run: Run
    examples: int
    num_examples: int


@dataclasses.dataclass
class _Slot:
    """The host's side of a lane."""

    run: Run
    plan: Plan
    numbers: lanes_lib.Numbers
    steps_left: int
    examples: int = 0
    started: float = 0.0

    def idle(self):
        """A slot without a run, of the same shapes."""
        return dataclasses.replace(self, numbers=jax.tree.map(np.zeros_like, self.numbers))

    def result(self, curve, count, status, now):
        updates = self.plan.eval_updates[: len(curve["train_loss"])]
        ends = self.plan.ends
        metrics = {name: values[-1] if values else math.nan for name, values in curve.items()}
        finite = status == lanes_lib.FINISHED and all(map(math.isfinite, metrics.values()))
        return Result(
            run=self.run,
            status="finished" if finite else "diverged",
            diverged_at=None if finite else count,
            metrics=metrics if finite else dict.fromkeys(metrics, math.nan),
            curve={
                "epoch": [float(ends[u - 1]) / self.plan.epoch_length for u in updates],
                "update": list(updates),
                **curve,
            },
            num_updates=count,
            num_examples=int(ends[count - 1]),
            seconds=now - self.started,
        )


def _mesh(settings, devices):
    wanted = settings.lane_devices * settings.batch_devices
    if len(devices) < wanted:
        raise ValueError(
            f"lane_devices={settings.lane_devices} times batch_devices={settings.batch_devices} "
            f"is {wanted} devices; there are {len(devices)}."
        )
    grid = np.asarray(devices[:wanted]).reshape(settings.lane_devices, settings.batch_devices)
    return jax.sharding.Mesh(grid, ("lanes", "batch"))


def _number_types(task, runs):
    """The dtype of every number: int32 where all runs give integers, else float32."""
    types: dict[str, Any] = {}
    for run in runs:
        if run.keys() != runs[0].keys():
            odd = sorted(run.keys() ^ runs[0].keys())
            raise ValueError(f"All runs of a sweep must name the same numbers; not all have {odd}.")
        for name, value in run.items():
            if name != "last_batch":
                whole = value == int(value) and not isinstance(value, float)
                types[name] = np.float32 if not whole else types.get(name, np.int32)
    _check_names(task, types)
    return types


def _check_names(task, types):
    """Raises if the optimizer reads a number that the runs lack, or they have one that nothing reads."""
    if not types:
        return
    read = set()

    class Recorder(dict):
        def __getitem__(self, name):
            read.add(name)
            if name not in self:
                raise ValueError(
                    f"Task {task.name!r} reads the number {name!r}, which the runs lack; they have "
                    f"{', '.join(sorted(types))}."
                )
            return super().__getitem__(name)

        def get(self, name, default=None):
            read.add(name)
            return super().get(name, default)

    def build(values):
        task.make_optimizer(Recorder(values), jax.random.key(0, impl="threefry2x32"))
        if task.batch_size is not None:
            task.batch_size(Recorder(values))(0)

    scalars = {name: jax.ShapeDtypeStruct((), t) for name, t in (types | _PLAN_NUMBERS).items()}
    jax.eval_shape(build, scalars)
    unread = sorted(types.keys() - read - RUN_FIELDS)
    if unread:
        raise ValueError(
            f"Nothing reads the run field(s) {', '.join(unread)}: neither the plan of a run nor the "
            f"optimizer of task {task.name!r}, which reads {', '.join(sorted(read)) or 'nothing'}."
        )


def _numbers(run, plan, types, width, num_examples):
    """The run's numbers as the device takes them."""
    given = run | {
        "num_updates": plan.num_updates,
        "updates_per_epoch": plan.updates_per_epoch,
        "num_examples": num_examples,
    }
    evals = np.zeros(width, np.int32)
    evals[: len(plan.eval_updates)] = plan.eval_updates
    key = jax.random.key(run["seed"], impl="threefry2x32")
    return lanes_lib.Numbers(
        hparams={name: np.asarray(given[name], t) for name, t in (types | _PLAN_NUMBERS).items()},
        key=np.asarray(jax.random.key_data(key)),
        num_updates=np.int32(plan.num_updates),
        epoch_length=np.int32(plan.epoch_length),
        cut=np.bool_(plan.cut),
        eval_updates=evals,
    )
