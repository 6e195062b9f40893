"""A worker: trains the runs that no other worker has claimed, until every run has a record.

Any number of workers share a sweep's directory, on any hosts, started by any scheduler. Each begins
with its own share of the runs, and then helps the others. They communicate through the directory
alone: its records, and the heartbeats and claims of `noisegen.storage.Claims`.
"""

import contextlib
import dataclasses
import datetime
import heapq
import itertools
import json
import math
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Any

from noisegen import storage, training
from noisegen._text import count
from noisegen.storage import Record
from noisegen.sweeps import machine, signals
from noisegen.sweeps.progress import Observer, describe_extension
from noisegen.sweeps.sweep import Sweep
from noisegen.training import Run

COMPILE_TIMEOUT_FACTOR = 6  # multiplies the heartbeat timeout
_POLL_SECONDS = 0.2  # between two looks at the directory, while others train what is left
_CLAIM_AHEAD_SECONDS = 1.0  # of training whose runs are claimed at once
_MOST_CLAIMED = 64  # runs


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """Options of a worker. They change no result.

    Attributes:
      share: Index of this worker and number of workers. It begins with its share of the runs.
      pool: Fields of `training.PoolConfig` that are given. The others are autotuned.
      checkpoint_minutes: Minutes between checkpoints of the runs in training, 0 for none.
      keep_params: Whether to keep the parameters of runs that end.
      heartbeat_timeout: Seconds without a heartbeat after which a worker counts as dead.

    Raises:
      ValueError: If a field makes no sense.
    """

    share: tuple[int, int] = (0, 1)
    pool: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    checkpoint_minutes: float = 5.0
    keep_params: bool = False
    heartbeat_timeout: float = 300.0

    def __post_init__(self):
        index, count = self.share
        if not 0 <= index < count:
            raise ValueError(f"share={self.share} must be (index, count) with 0 <= index < count.")
        if not 0 <= self.checkpoint_minutes < math.inf:
            raise ValueError(
                f"checkpoint_minutes={self.checkpoint_minutes} must be a number of at least 0."
            )
        if not 1 <= self.heartbeat_timeout < math.inf:
            raise ValueError(
                f"heartbeat_timeout={self.heartbeat_timeout} must be a number of at least 1."
            )


class Worker:
    """Trains what a sweep wants, together with the sweep's other workers.

    Args:
      sweep: The sweep, whose directory is begun (see `Sweep.begun`).
      options: How to work.
      observer: Hears of the progress.
    """

    def __init__(self, sweep: Sweep, options: WorkerOptions, observer: Observer):
        self.sweep, self.options, self.observer = sweep, options, observer
        self.state = sweep.state
        self.pool: training.Pool | None = None
        self._order: dict[str, tuple] = {}  # sort key of each run
        self._queue: dict[str, Run] = {}  # runs that have yet to begin, in order
        self._claimed: set[str] = set()  # those of them that are claimed ahead
        self._begun: set[str] = set()  # runs that this worker trains or has trained
        self._num_read = -1  # records read when a race was last continued
        self._program: tuple | None = None  # constants of the run that began last
        self._pace = Pace()
        self._stopping = self._in_training = False
        self.claims = storage.Claims(sweep.workdir, options.heartbeat_timeout)
        self.writer = storage.RecordWriter(sweep.workdir, self.claims.name)
        self.checkpoints = storage.Checkpoints(
            sweep.workdir,
            60 * options.checkpoint_minutes,
            self.state.records_by_id.keys(),
            self.claims,
        )

    def run(self) -> None:
        """Works until every run of the sweep has a record.

        Raises:
          KeyboardInterrupt: If a signal asked the process to stop. The runs in training have been
            checkpointed.
        """
        contexts = (self.claims, self.writer, self.checkpoints, self.observer)
        with signals.on_stop(self._stop), contextlib.ExitStack() as stack:
            for context in contexts:
                stack.enter_context(context)
            todo = self._todo()
            known = self.checkpoints.known(todo)
            if known:
                self.observer.note(f"{len(known)} of {len(todo)} runs resume from a checkpoint.")
            while todo:
                # A signal that came after the last progress finds no run in training to keep.
                if self._stopping:
                    raise KeyboardInterrupt
                claimed = self.claims.claimed_by_others()
                free = {name: run for name, run in todo.items() if name not in claimed}
                if free:
                    self._train(free)
                    self._refresh()
                else:
                    self._wait()
                todo = self._todo()

    # What a worker that is spread over several processes does differently.

    feeds_lanes = True  # whether runs of a race can begin while others are trained

    def make_pool(self, task: training.Task, config: training.PoolConfig) -> training.Pool:
        """Returns the pool that trains."""
        return training.Pool(task, config)

    def choose_config(self, task: training.Task, runs: Sequence[Run]) -> training.PoolConfig:
        """Chooses fast settings for some runs."""
        return training.choose_config(task, runs, **self.options.pool)

    def check_stop(self, stop: bool) -> None:
        """Raises KeyboardInterrupt if the worker is to stop."""
        if stop:
            raise KeyboardInterrupt

    def _todo(self):
        """Returns the runs that this worker or others have still to train."""
        return extend_and_list(self.sweep, self.observer)

    def _wait(self):
        """Waits while other workers train what is left."""
        self.claims.heartbeat("waiting for runs of others", self.options.heartbeat_timeout)
        time.sleep(_POLL_SECONDS)
        self._refresh()
        watch(self.sweep, self.observer, self.claims.others())

    def _refresh(self):
        for record in self.state.refresh():
            self.observer.finished(record)

    def _train(self, runs):
        """Trains those of some runs that are still free when their turn comes."""
        for task, group in self.state.by_task(self._sorted(runs)).items():
            # The order in which the pool takes the runs: those of one program after another.
            programs = training.by_constants(group.values()).values()
            ordered = [run for runs in programs for run in runs]
            self._queue = {run.id: run for run in ordered}
            if self.pool is None or self.pool.task is not task:
                self.pool = None  # frees the device for measurements
                config = self._config(task, ordered)
                self._say(
                    f"compiling for {count(config.lanes, 'lane')}, microbatch {config.microbatch}"
                )
                self.pool = self.make_pool(task, config)
            self._program = None
            results = self.pool.train(
                ordered,
                self._progress,
                self.checkpoints,
                self.options.keep_params,
                self._take,
                self._more if self.state.is_race and self.feeds_lanes else None,
            )
            for result in results:
                self._finish(result)
            self._in_training = False

    def _sorted(self, runs):
        """Returns the runs in the order in which this worker trains them."""
        # All workers must deal the same runs, so all wanted runs are dealt, not only those left.
        # Runs that extend the grid later are dealt by themselves, and the others keep their keys.
        new = {
            name: run.plan.num_examples
            for name, run in self.state.runs().items()
            if name not in self._order
        }
        if new:
            self._order |= order(new, self.options.share)
        return dict(sorted(runs.items(), key=lambda item: self._order[item[0]]))

    def _take(self, run):
        """Claims a run whose turn has come; returns whether this worker trains it."""
        del self._queue[run.id]
        done = self.state.records_by_id
        if run.id not in self._claimed and run.id not in done:
            # To claim writes and reads files, so short runs are claimed together with those that
            # the pool takes after them.
            following = itertools.islice(self._queue, self._pace.runs() - 1)
            names = {run.id, *following} - done.keys() - self._claimed
            self._claimed |= self.claims.claim_all(names)
            self._refresh()  # another worker may have recorded a run and released its claim
        if run.id not in self._claimed:
            return False
        self._claimed.remove(run.id)
        if run.id in done:
            self.claims.release(run.id)
            return False
        self._begun.add(run.id)
        program = training.constants(run.hparams)
        if program != self._program:
            # The pool may compile before the next progress: for these constants, or for longer
            # curves.
            self._program = program
            self.claims.heartbeat(timeout=COMPILE_TIMEOUT_FACTOR * self.options.heartbeat_timeout)
        return True

    def _more(self) -> list[Run]:
        """Returns the runs that a race has asked for since, for lanes without a run."""
        self._refresh()
        num_read = len(self.state.records_by_id)
        if num_read == self._num_read:
            return []
        self._num_read = num_read
        extend(self.sweep, self.observer)
        taken = self.claims.claimed_by_others() | self._begun
        todo = {name: run for name, run in self.state.todo().items() if name not in taken}
        by_task = self.state.by_task(self._sorted(todo))
        self._queue = dict(by_task.get(self.pool.task, {}))
        return list(self._queue.values())

    def _progress(self, running: Sequence[training.Progress]):
        self._in_training = True
        # A checkpoint that a signal hurried is written after this progress, and the worker stops at
        # the next one.
        self.check_stop(self._stopping and not self.checkpoints.hurried)
        if self.claims.report_progress({each.run.id: each.examples for each in running}):
            self._refresh()
        self.observer.progress(running)

    def _finish(self, result):
        record = make_record(result, self.pool.config)
        # The record comes last, so that a run with a record has its parameters.
        if result.params is not None:
            storage.save_params(self.sweep.workdir, record.run_id, result.params)
        self.writer.append(record)
        added = self.state.add(record)
        if added is not None:
            self.observer.finished(added)
        self.claims.release(record.run_id)
        self._pace.ended()

    def _config(self, task, runs):
        """Returns the pool's settings: given, shared by workers on such devices, or measured."""
        given, count = self.options.pool, self.options.share[1]
        if given.keys() >= training.AUTOTUNED:
            return training.PoolConfig(**given)
        key = settings_key(task, given)
        shared = self.claims.shared_settings(key)
        if shared:
            with contextlib.suppress(TypeError, ValueError):  # fields of another version
                return training.PoolConfig(**shared)
        self._say("choosing fast settings")
        if self.state.is_race:
            # A race begins with few runs, of small batches only. The settings are for all of it.
            runs = list(self.state.by_task(self.state.most_runs())[task].values())
        # More lanes than this worker's share of the runs would stay idle.
        config = self.choose_config(task, runs[: math.ceil(len(runs) / count)])
        self.claims.share_settings(key, vars(config))
        return config

    def _say(self, doing):
        self.observer.say(doing)
        self.claims.heartbeat(doing, COMPILE_TIMEOUT_FACTOR * self.options.heartbeat_timeout)

    def _stop(self, number):
        """Handles a signal to stop: runs in training are checkpointed first."""
        is_first = not self._stopping
        self._stopping = True
        if not is_first and number != signal.SIGINT:
            return  # Slurm sends several, and only a person may insist
        if not is_first or not self._in_training:
            raise KeyboardInterrupt
        self.checkpoints.hurry()


class Pace:
    """Measures how fast runs end, to decide how many to claim at once.

    Other workers cannot train runs that are claimed ahead, so long runs are claimed one by one.
    """

    def __init__(self):
        self._since = time.monotonic()  # start of the interval in which ends are counted
        self._ended = 0
        self._per_second = 0.0  # in the interval before

    def ended(self) -> None:
        """Notes that a run has ended."""
        self._ended += 1

    def runs(self) -> int:
        """Returns how many runs to claim at once: those of the next second, at least one."""
        elapsed = time.monotonic() - self._since
        if elapsed >= _CLAIM_AHEAD_SECONDS / 2:  # else a few that end together look like many
            self._per_second = self._ended / elapsed
            self._since, self._ended = time.monotonic(), 0
        return min(_MOST_CLAIMED, max(1, int(_CLAIM_AHEAD_SECONDS * self._per_second)))


def make_record(result: training.Result, config: training.PoolConfig) -> Record:
    """Returns the record of a result, with the machine and the settings that trained it."""
    finished_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    return Record.from_result(
        result,
        device=machine.device(),
        versions=machine.versions(),
        settings={name: value for name, value in vars(config).items() if value is not None},
        finished_at=finished_at,
        jax_config=machine.jax_config(),
    )


def extend_and_list(sweep: Sweep, observer: Observer) -> dict[str, Run]:
    """Extends the grid if all runs are done, or continues the race; returns the runs left.

    The observer hears of the new runs.
    """
    if sweep.state.is_race or not sweep.state.todo():
        extend(sweep, observer)
    return sweep.state.todo()


def extend(sweep: Sweep, observer: Observer) -> None:
    """Extends the grid, or continues the race, and tells the observer."""
    before = sweep.state.records()
    new = sweep.state.extend()
    if not new:
        return
    if not sweep.state.is_race:
        observer.note(describe_extension(sweep.protocols[0], new.values(), before))
    observer.extended(new)


def watch(sweep: Sweep, observer: Observer, workers: Sequence[storage.WorkerStatus]) -> None:
    """Shows the observer what other workers do."""
    runs, done = sweep.state.runs(), sweep.state.records_by_id
    running = []
    for worker in workers:
        for name, examples in worker.runs.items():
            # A worker may claim a run whose record is there, or one that we do not yet know of.
            if name in runs and name not in done:
                running.append(training.Progress(runs[name], examples))
    if running:
        observer.progress(running)
    elif not sweep.state.is_complete():
        observer.say(", ".join(dict.fromkeys(worker.doing for worker in workers)))


def settings_key(task: training.Task, given: Mapping[str, Any]) -> str:
    """Returns the key under which workers share settings: devices, task and given fields."""
    return json.dumps([machine.devices(), dict(task.static), task.only_batch_size, dict(given)])


def order(costs: Mapping[str, int], share: tuple[int, int]) -> dict[str, tuple]:
    """Returns the sort key of each run: own share first, then the most expensive first.

    A single worker keeps the order of the plan.

    Args:
      costs: Training examples of the runs by run_id.
      share: Index of the worker and number of workers.
    """
    own, count = share
    if count == 1:
        return dict.fromkeys(costs, ())
    dealt = deal(costs, count)
    # False sorts before True: the own share comes first.
    return {name: (index != own, -costs[name]) for name, index in dealt.items()}


def deal(costs: Mapping[str, int], count: int) -> dict[str, int]:
    """Returns the worker, of `count`, that each run is dealt to, the most expensive run first.

    Each run goes to the worker with the least to do so far, so all processes deal alike.
    """
    loads = [(0, index) for index in range(count)]  # a heap: the smallest load comes first
    dealt = {}
    for name in sorted(costs, key=costs.get, reverse=True):
        load, index = loads[0]
        heapq.heapreplace(loads, (load + costs[name], index))
        dealt[name] = index
    return dealt
