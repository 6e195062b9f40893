"""The state of a sweep: which runs it wants, which have their record, and which are left.

`Sweep` is for users. Workers and launchers, which share out the runs and follow the records while
they are written, use its `SweepState`.
"""

import dataclasses
import functools
import inspect
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from noisegen import storage, training
from noisegen.storage import Record
from noisegen.sweeps import checks
from noisegen.sweeps.grids import HParams
from noisegen.sweeps.metrics import Derivation, Metric, derived_metrics
from noisegen.sweeps.protocol import Protocol
from noisegen.sweeps.search import Search
from noisegen.training import Run, Task
from noisegen.training.run_id import by_run_id, run_id


class SweepState:
    """The runs of a sweep, with the records that this process has read so far.

    Records are read when something first asks for them, and again at `refresh`. A task is made when
    it is first asked for. Until then, the name of the task and the runs that it refused are those
    of `sweep.json`, if the directory has one, so that reading a sweep loads no data.

    Args:
      task: A task, or a function that makes it.
      planned: The planned runs.
      protocols: The protocols, which decide what is trained.
      workdir: Directory of the sweep, None if there is none.
      static: Fields of the runs that `task` is a function of.
    """

    def __init__(
        self,
        task: Task | Callable[..., Task],
        planned: Sequence[HParams],
        protocols: Sequence[Protocol],
        workdir: pathlib.Path | None,
        static: Sequence[str] = (),
    ):
        self._planned, self._protocols, self._workdir = planned, protocols, workdir
        self._derivation = Derivation(derived_metrics(protocols))
        self._make_task, self._static = task, tuple(static)
        self._tasks: dict[tuple, Task] = {}  # by the values of static fields, those that are made
        # What `sweep.json` says, for use while no task is made.
        self._saved_task_name: str | None = None
        self._saved_refused: frozenset[str] = frozenset()
        self._refused: set[str] = set()
        self.reset()

    def reset(self, mixing: bool = True) -> None:
        """Forgets runs and records, so that they are planned and read again; tasks are kept.

        Args:
          mixing: Whether the check of the runs calls the task's functions, see
            `training.make_runs`.
        """
        self._mixing = mixing
        self._reader: storage.RecordReader | None = None
        self._planned_by_id: dict[str, HParams] = {}
        self._search: Search | None = None
        self._records: dict[str, Record] | None = None  # None while nothing is read
        self._wanted: dict[str, HParams] = {}
        self._runs: dict[str, Run] = {}
        self._runs_made_of: dict[str, HParams] | None = None  # the `_wanted` that they are made of

    # Runs

    @property
    def wanted(self) -> dict[str, HParams]:
        """Hyperparameters by run_id: the planned runs or those of a race, and extensions."""
        self._load()
        return self._wanted

    @property
    def records_by_id(self) -> dict[str, Record]:
        """Records, as far as they are read, also of runs that are not wanted."""
        self._load()
        return self._records

    @property
    def refused(self) -> frozenset[str]:
        """Ids of runs that would extend the grid, but that the task refuses."""
        return frozenset(self._refused) if self._tasks else self._saved_refused

    def records(self) -> list[Record]:
        """Returns the records of the wanted runs, as far as they are read, sorted by run_id."""
        found = self.records_by_id
        return [found[name] for name in sorted(self._wanted) if name in found]

    def runs(self) -> dict[str, Run]:
        """Returns every wanted run by run_id, validated and planned.

        Raises:
          ValueError: If a run makes no sense.
        """
        wanted = self.wanted
        if self._runs_made_of is not wanted:
            # To make 100,000 runs takes seconds, so only new ones are made.
            new = {name: hparams for name, hparams in wanted.items() if name not in self._runs}
            runs = self._runs | self._make_runs(new)
            self._runs = {name: runs[name] for name in wanted}
            self._runs_made_of = wanted
        return self._runs

    def todo(self) -> dict[str, Run]:
        """Returns the wanted runs without a record, by run_id."""
        found = self.records_by_id
        return {name: run for name, run in self.runs().items() if name not in found}

    def is_complete(self) -> bool:
        """Returns whether every wanted run has its record, as far as they are read."""
        return self.wanted.keys() <= self.records_by_id.keys()

    @property
    def is_race(self) -> bool:
        """Whether a protocol races, so that records of some runs decide which runs follow."""
        return any(protocol.search == "race" for protocol in self._protocols)

    def fewest_runs(self) -> dict[str, Run]:
        """Returns the fewest runs of a race in which runs survive in every row, by run_id.

        A row in which every run diverges may end with fewer. The runs of a grid are all planned.
        """
        self._load()
        return self._make_runs(self._search.fewest_runs())

    def most_runs(self) -> dict[str, Run]:
        """Returns the most runs that the sweep may want, but for extensions of the grid."""
        self._load()
        return self._make_runs(self._planned_by_id)

    def extend(self) -> dict[str, HParams]:
        """Continues the race, or extends the grid, as the records ask; returns the new runs."""
        before = self.wanted
        self._wanted = self._choose_wanted(self._records)
        return {name: run for name, run in self._wanted.items() if name not in before}

    # Records

    @property
    def derived_metrics(self) -> tuple[Metric, ...]:
        """The derived metrics of the protocols, which the records have beside those on disk."""
        return self._derivation.metrics

    def refresh(self) -> list[Record]:
        """Reads what all workers have recorded since; returns the first records of wanted runs."""
        self._load()
        if self._reader is None:
            return []
        added = [record.run_id for record in self._reader.new() if self._add(record)]
        self._derivation.warn()
        return [self._records[name] for name in added]

    def add(self, record: Record) -> Record | None:
        """Adds a record; returns it with derived metrics if it is the first of a wanted run."""
        is_new = self._add(record)
        self._derivation.warn()
        return self._records[record.run_id] if is_new else None

    def discard_damaged_params(self) -> None:
        """Counts runs whose kept parameters are damaged as not done, so that they train again."""
        for name in storage.damaged_params(self._workdir, list(self.records_by_id)):
            del self._records[name]

    # Tasks

    @property
    def static(self) -> tuple[str, ...]:
        """The fields of the runs that the task is a function of."""
        return self._static

    @property
    def task_name(self) -> str:
        """Name of the task, which run ids are made with."""
        if self._tasks:  # All of them have the same name.
            return next(iter(self._tasks.values())).name
        if self._saved_task_name is None:
            self._read_saved()
        return self._saved_task_name or self.task_of(self._planned[0]).name

    def task_of(self, hparams: HParams) -> Task:
        """Returns the task of a run, which is made when it is first asked for.

        Raises:
          ValueError: If the run lacks a static field, the function of the task takes other
            arguments, or the task is not a `Task`.
        """
        lacking = [name for name in self._static if name not in hparams]
        if lacking:
            raise ValueError(
                f"A run needs the field {lacking[0]}, on which the task depends; one has only "
                f"{', '.join(hparams)}."
            )
        key = tuple(hparams[name] for name in self._static)
        if key not in self._tasks:
            task = self._make_task
            if self._static or (not isinstance(task, Task) and callable(task)):
                task = _call_with_static(task, dict(zip(self._static, key, strict=True)))
            if not isinstance(task, Task):
                raise ValueError(f"{task!r:.80} is not a Task; is there a return in its function?")
            static = {**task.static, **dict(zip(self._static, key, strict=True))}
            if static != task.static:  # else the same object, for which programs may be compiled
                task = dataclasses.replace(task, static=static)
            self._check_alike(task)
            self._tasks[key] = task
        return self._tasks[key]

    def tasks(self) -> list[Task]:
        """Returns the tasks that are made so far."""
        return list(self._tasks.values())

    def by_task(self, runs: Mapping[str, Any]) -> dict[Task, dict[str, Any]]:
        """Groups runs, or their hyperparameters, by task, in their order."""
        groups: dict[Task, dict[str, Any]] = {}
        for name, run in runs.items():
            task = self.task_of(run.hparams if isinstance(run, Run) else run)
            groups.setdefault(task, {})[name] = run
        return groups

    def _load(self):
        """Reads the records, once."""
        if self._records is not None:
            return
        self._planned_by_id = by_run_id(self.task_name, self._planned)
        for protocol in self._protocols:
            checks.check_points(self._planned_by_id.values(), protocol)
        # While the records are read, the planned runs share their hyperparameters with them.
        self._wanted = self._planned_by_id
        records: dict[str, Record] = {}
        if self._workdir is not None:
            # Derived metrics may read the curves, which take several times as long to parse.
            curves = bool(self.derived_metrics)
            self._reader = storage.RecordReader(self._workdir, curves, self.task_name)
            for record in self._reader.new():
                self._keep(records, record)
            self._derivation.warn()
        self._wanted = self._choose_wanted(records)
        self._records = records  # last, so that an error above leaves nothing half read

    def _add(self, record):
        """Adds a record; returns whether it is the first of a wanted run."""
        is_new = record.run_id not in self.records_by_id
        self._keep(self._records, record)
        return is_new and record.run_id in self._wanted

    def _keep(self, records, record):
        """Adds a record to others, unless one of the same run finished earlier."""
        # A worker holds all records. Without their curves, and with shared hyperparameters, 100,000
        # of them take some 60 MB.
        hparams = self._wanted.get(record.run_id, record.hparams)
        record = self._derivation.add_to(record)
        record = dataclasses.replace(record, curve=None, hparams=hparams)
        storage.add_first_finished(records, record)

    def _make_runs(self, hparams_by_id) -> dict[str, Run]:
        """Returns runs, validated and planned, by run_id."""
        runs = {}
        others = self._of_each_word
        for task, group in self.by_task(hparams_by_id).items():
            made = training.make_runs(task, group.values(), group, others, mixing=self._mixing)
            runs.update(zip(group, made, strict=True))
        return runs

    @functools.cached_property
    def _of_each_word(self) -> list[HParams]:
        """A planned run of each combination of words and booleans, if there are any.

        The runs at hand may be of one word only, as in a race. With another one the task may read
        other fields.
        """
        planned = list(self._planned_by_id.values())
        if not planned or not training.constants(planned[0]):
            return []
        return list({training.constants(run): run for run in planned}.values())

    def _choose_wanted(self, records) -> dict[str, HParams]:
        """Returns the runs that the sweep wants, given the records so far.

        The result depends on the planned runs and the records, so workers that have read the same
        records want the same runs. There are two exceptions: a race also wants the planned runs
        that had a record when this process first read them, and a process that has made no task
        reads in `sweep.json` which extensions the task refuses.
        """
        if self._search is None:
            self._search = Search(self.task_name, self._planned_by_id, self._protocols, self._check)
        return self._search.wanted(records)

    def _check(self, hparams):
        """Raises ValueError if the task refuses a run that would extend the grid."""
        if self._tasks:
            try:
                training.make_runs(self.task_of(hparams), [hparams], mixing=self._mixing)
            except ValueError:
                self._refused.add(run_id(self.task_name, hparams))
                raise
        # Without a task, only the one that trained the sweep knows. To make it would load its data.
        elif self._saved_refused and run_id(self.task_name, hparams) in self._saved_refused:
            raise ValueError("the task refused it when the sweep was trained")

    def _check_alike(self, task):
        """Checks that all tasks have one name and are evaluated on equally many examples."""
        for other in self._tasks.values():
            if task.name != other.name:
                raise ValueError(
                    f"The tasks are named {other.name!r} and {task.name!r}: give those of all "
                    f"values of {', '.join(self._static)} one name; the values are in the run."
                )
            sizes = [(each.num_test_examples, each.num_valid_examples) for each in (other, task)]
            if sizes[0] != sizes[1]:
                raise ValueError(
                    f"Tasks of {', '.join(self._static)} have {sizes[0]} and {sizes[1]} test and "
                    "validation examples: evaluate all on the same ones, or they do not compare."
                )

    def _read_saved(self):
        """Reads what `sweep.json` says of the task, if a task has yet to be made."""
        if isinstance(self._make_task, Task) or self._workdir is None:
            return
        if (self._workdir / "sweep.json").exists():
            content = storage.read_sweep(self._workdir)
            self._saved_task_name = content.get("task")
            self._saved_refused = frozenset(content.get("refused", ()))


def _call_with_static(make_task: Callable[..., Task], static: Mapping[str, Any]) -> Task:
    """Calls the function of a task with the values of static fields.

    They are given by name if it has arguments of these names, so that no order exchanges them.

    Raises:
      ValueError: If the function takes other arguments.
    """
    signature = inspect.signature(make_task)
    is_by_name = static.keys() <= signature.parameters.keys()
    args, kwargs = ((), static) if is_by_name else (static.values(), {})
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise ValueError(
            f"The task's function cannot be called with the static fields "
            f"({', '.join(static) or 'none'}): {error}; let Sweep(..., static=...) name its "
            "arguments."
        ) from error
    return make_task(*args, **kwargs)
