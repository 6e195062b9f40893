"""A worker: trains the runs of a sweep that nobody else trains, until every one has its record.

Any number of workers share a sweep's directory, on any hosts, started by whatever; each begins with
its own share of the runs and then helps the others. What they know of each other stands in the
directory alone: records, and the files of `noisegen.sweeps.Crew`.
"""

import collections
import contextlib
import heapq
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from launch import command, distributed, machine
from launch.ledger import Ledger
from launch.tasks import Tasks
from noisegen import sweeps, training
from noisegen._math import ceil_div

_POLL = 0.2  # seconds between two looks while others train what is left
_AHEAD = 1.0  # seconds of training whose runs are claimed at once
_MOST = 64  # runs that are claimed at once
COMPILING = 6  # times as long as at other times may a worker be silent while it compiles


class Share(NamedTuple):
    """Which worker this is, of how many: the runs are dealt out among them."""

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Share":
        """Reads `INDEX/COUNT`.

        Raises:
          ValueError: it is something else, or the index is not below the count.
        """
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
            raise ValueError(f"--share={text} must be INDEX/COUNT, such as 0/4 to 3/4.")
        return cls(int(index), int(count))


class Options(NamedTuple):
    """How a worker works; nothing here changes a result.

    Attributes:
      share: of the runs, with which it begins.
      only: run_ids of those it trains, in this order; none for all runs of the sweep. A worker
        with runs of its own leaves when they have their records, and helps nobody.
      speed: fields of `training.PoolConfig` that are given, not measured.
      checkpoint_minutes: between two checkpoints; 0 for none.
      keep_params: whether the parameters of runs that end are kept.
      patience: seconds without a sign of life after which a worker is taken for dead.
    """

    share: Share = Share()
    only: Sequence[str] = ()
    speed: Mapping[str, Any] = {}
    checkpoint_minutes: float = 5.0
    keep_params: bool = False
    patience: float = 300.0


class Worker:
    """Trains what a sweep wants.

    Args:
      ledger: what there is to do.
      workdir: the directory of the sweep.
      options: how.
    """

    def __init__(self, ledger: Ledger, workdir: str, options: Options):
        self.ledger, self.workdir, self.options = ledger, workdir, options
        self.pool: training.Pool | None = None
        self.order: dict[str, tuple] = {}  # of each run
        self.queue: collections.deque[str] = collections.deque()  # runs whose turn has yet to come
        self.ahead: set[str] = set()  # those of them that are claimed
        self.pace = Pace()
        self.stopping = self.in_training = False
        self.crew = sweeps.Crew(workdir, options.patience)
        self.writer = sweeps.RecordWriter(workdir, self.crew.name)
        self.checkpoints = sweeps.Checkpoints(
            workdir,
            60 * options.checkpoint_minutes,
            ledger.runs.records.keys(),
            self.crew,
        )

    def run(self) -> None:
        """Works until every run that it is to train has its record."""
        contexts = (self.crew, self.writer, self.checkpoints, self.ledger.show)
        with command.signals(self._stop), contextlib.ExitStack() as stack:
            for context in contexts:
                stack.enter_context(context)
            todo = self._todo()
            if known := self.checkpoints.known(todo):
                count = f"{len(known)} of {len(todo)} runs"
                self.ledger.show.note(f"{count} have a checkpoint, from which they go on.")
            while todo := self._todo():
                if self.stopping:  # since the last progress, so that nothing is left to keep
                    raise KeyboardInterrupt
                claimed = self.crew.claimed()
                if free := {name: run for name, run in todo.items() if name not in claimed}:
                    self._train(free)
                    self.ledger.read()
                else:
                    self.crew.beat("waiting for runs of others", self.options.patience)
                    time.sleep(_POLL)
                    self.ledger.watch(self.crew.others())  # reads, too
            distributed.tell_end()

    def _todo(self):
        """The runs that are still to be trained by this worker or others."""
        todo, only = self.ledger.todo(), self.options.only
        return {name: todo[name] for name in only if name in todo} if only else todo

    def _train(self, runs):
        """Trains those of some runs that are still free when their turn comes."""
        for task, group in self.ledger.tasks.groups(self._sorted(runs)).items():
            group = [self.ledger.made[name] for name in group]
            by_program = training.by_constants(group).values()  # the pool's order
            self.queue = collections.deque(run.id for runs in by_program for run in runs)
            if self.pool is not None and self.pool.task is task:
                settings = self.pool.config
            else:
                self.pool = None  # frees its device for what is measured
                settings = self._settings(task, group)
                self._say(f"compiling for {settings.lanes} lanes, microbatch {settings.microbatch}")
            distributed.tell(runs=_hparams(group), settings=vars(settings))
            self.pool = self.pool or distributed.make_pool(task, settings)
            # Until the first progress, since a pool may have to compile again for longer curves.
            self.crew.beat(patience=COMPILING * self.options.patience)
            results = self.pool.train(
                group,
                self._progress,
                distributed.Kept(self.checkpoints),
                self.options.keep_params,
                lambda _: self._take(self.queue.popleft()),
            )
            for result in results:
                self._finish(result)
            self.in_training = False

    def _sorted(self, runs):
        """The runs in the order in which this worker trains them."""
        costs = self.ledger.costs
        new = {name: cost for name, cost in costs.items() if name not in self.order}
        self.order |= order(new, self.options.share)
        return dict(sorted(runs.items(), key=lambda item: self.order[item[0]]))

    def _take(self, name):
        """Claims a run whose turn has come; returns whether this worker trains it."""
        if name not in self.ahead and name not in self.ledger.runs.records:
            following = itertools.islice(self.queue, self.pace.runs() - 1)
            names = {name, *following} - self.ledger.runs.records.keys() - self.ahead
            self.ahead |= self.crew.claim_all(names)
            self.ledger.read()  # another worker may have recorded one and released its claim
        if name not in self.ahead:
            return False
        self.ahead.remove(name)
        if name in self.ledger.runs.records:
            self.crew.release(name)
            return False
        return True

    def _progress(self, running: Sequence[training.Progress]):
        self.in_training = True
        distributed.check_stop(self.stopping and not self.checkpoints.hurried)
        if self.crew.is_due():
            self.crew.progress({each.run.id: each.examples for each in running})
            self.ledger.read()
        self.ledger.show.progress(running)

    def _finish(self, result):
        record = machine.record(self.pool.config, result)
        if result.params is not None:
            sweeps.save_params(self.workdir, record["run_id"], result.params)
        self.writer.append(record)
        self.ledger.note(record)
        self.crew.release(record["run_id"])
        self.pace.ended()

    def _settings(self, task, runs):
        """Speed settings for the runs: given, found by others on such devices, or measured."""
        given, count = dict(self.options.speed), self.options.share.count
        if given.keys() >= training.MEASURED:
            return training.PoolConfig(**given)
        key = _key(task, self.options)
        if found := self.crew.settings(key):
            with contextlib.suppress(TypeError, ValueError):  # fields of another version
                return training.PoolConfig(**found)
        self._say("measuring what is fastest here")
        runs = runs[: ceil_div(len(runs), count)]
        distributed.tell(runs=_hparams(runs), settings=None, given=given)
        settings, _ = distributed.autotune(task, runs, **given)
        self.crew.share_settings(key, vars(settings))
        return settings

    def _say(self, doing):
        self.ledger.show.say(doing)
        self.crew.beat(doing, COMPILING * self.options.patience)

    def _stop(self):
        """What a signal to stop does: runs in training are kept first."""
        if self.stopping or not self.in_training:
            raise KeyboardInterrupt
        self.stopping = True
        self.checkpoints.hurry()


class Pace:
    """Measures how fast runs end, to decide how many to claim at once.

    Other workers cannot train runs that are claimed ahead, so long runs are claimed one by one.
    """

    def __init__(self):
        self._since, self._ended, self._each_second = time.monotonic(), 0, 0.0

    def ended(self) -> None:
        """Notes that a run has ended."""
        self._ended += 1

    def runs(self) -> int:
        """Returns how many runs to claim at once: those of the next second, at least one."""
        elapsed = time.monotonic() - self._since
        if elapsed >= _AHEAD / 2:  # else a few that end together would look like many
            self._each_second = self._ended / elapsed
            self._since, self._ended = time.monotonic(), 0
        return min(_MOST, max(1, int(_AHEAD * self._each_second)))


def predict(tasks: Tasks, runs: Mapping[str, Mapping], options: Options) -> dict[str, Any]:
    """What workers need here for some runs, measured for the share of one.

    Args:
      tasks: what is trained.
      runs: all of them, by run_id.
      options: of the worker.

    Returns:
      `seconds_per_example` of training; `lanes`, runs trained at a time; `settings` by what they
      are for, see `Crew.settings`.
    """
    costs = tasks.examples(runs)
    share = [n for n, i in deal(costs, options.share.count).items() if i == options.share.index]
    seconds, settings = 0.0, {}
    for task, group in tasks.groups({name: runs[name] for name in share}).items():
        chosen, predicted = training.autotune(task, list(group.values()), **options.speed)
        seconds += predicted
        settings[_key(task, options)] = vars(chosen)
    return {
        "seconds_per_example": seconds / sum(costs[name] for name in share),
        "lanes": max(each["lanes"] for each in settings.values()),
        "settings": settings,
    }


def order(costs: Mapping[str, int], share: Share) -> dict[str, tuple]:
    """By which a worker sorts the runs: its own share first, in both the costliest first.

    A single worker keeps the order of the plan.

    Args:
      costs: of the runs, by run_id.
      share: which worker this is.
    """
    if share.count == 1:
        return dict.fromkeys(costs, ())
    dealt = deal(costs, share.count)
    return {name: (index != share.index, -costs[name]) for name, index in dealt.items()}


def deal(costs: Mapping[str, int], count: int) -> dict[str, int]:
    """Which of `count` workers gets each run, by run_id, the costliest run first.

    Each goes to the worker with the least to do so far; all processes deal alike.
    """
    loads = [(0, index) for index in range(count)]
    dealt = {}
    for name in sorted(costs, key=costs.get, reverse=True):
        load, index = loads[0]
        heapq.heapreplace(loads, (load + costs[name], index))
        dealt[name] = index
    return dealt


def _hparams(runs):
    return [run.hparams for run in runs]


def _key(task, options):
    """For which device, task and given fields speed settings are chosen."""
    return json.dumps([machine.devices(), task.only_batch_size, dict(options.speed)])
