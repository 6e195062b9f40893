"""A sweep: a task, the runs to train, the protocol that reads them, and a directory of records.

>>> import tempfile
>>> import jax.numpy as jnp, optax
>>> from noisegen import sweeps, training
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
>>> grid = sweeps.grid(batch_size=[4, 16], learning_rate=[0.1, 0.2, 0.4], seed=[0])
>>> protocol = sweeps.Protocol(metric="test_loss", mode="min", max_extensions=0)
>>> sweep = sweeps.Sweep(task, grid * sweeps.fixed(num_epochs=4), protocol, tempfile.mkdtemp())
>>> sweep.run(progress=False)
>>> [optimum.row for optimum in sweep.optima()]
[4, 16]
>>> len(sweep.records()), sweep.is_complete()
(6, True)
"""

import contextlib
import dataclasses
import os
import pathlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from noisegen import storage, training
from noisegen.storage import Record
from noisegen.sweeps import checks, extension
from noisegen.sweeps import protocol as protocols
from noisegen.sweeps.protocol import Optimum, Protocol
from noisegen.training import Run, Task
from noisegen.training.run_id import by_run_id, run_id

HParams = Mapping[str, Any]


class Sweep:
    """A grid of training runs with their records.

    Any number of processes may work on a sweep at once, each with its own `Sweep` of the same
    directory. What they know of each other is in that directory.

    Args:
      task: What is trained: a `training.Task`, or a function without arguments that makes it. The
        function is called when something is to be trained, so that a sweep whose records are only
        read loads no data.
      runs: The planned runs: a `Grid`, or any iterable of flat mappings of hyperparameters.
      protocol: How the records are read, or several protocols, the main one first. The grid is
        extended as each of them asks. By default `Protocol()`.
      workdir: Directory of the sweep, made when training begins.
      name: Name of the sweep. A directory belongs to one name and one task.
      title: Title of the report, by default the name of the task.
      description: Text under the title.
      published: Published numbers beside the measured ones, see `reports.make_table`.
      per_batch_size: Whether `task` is a function of the batch size, for tasks whose compiled
        shapes depend on it. Runs are then trained batch size by batch size.

    Raises:
      ValueError: If there are no runs, or no protocol.
    """

    def __init__(
        self,
        task: Task | Callable[..., Task],
        runs: Iterable[HParams],
        protocol: Protocol | Sequence[Protocol] | None = None,
        workdir: str | os.PathLike | None = None,
        *,
        name: str = "sweep",
        title: str = "",
        description: str = "",
        published: Mapping[tuple, Any] | None = None,
        per_batch_size: bool = False,
    ):
        self.protocols = _protocols(Protocol() if protocol is None else protocol)
        self.planned = _planned(runs)
        self.workdir = None if workdir is None else pathlib.Path(workdir)
        self.name, self.description = name, description
        self.title = title or (task.name if isinstance(task, Task) else name)
        self.published = published or {}
        if not isinstance(self.published, Mapping):
            raise ValueError(
                f"Published numbers are a mapping from (label, row), got {published!r:.80}."
            )
        self.meta: dict[str, Any] = {}  # further content of sweep.json
        self.config: Any = None  # of an experiment's sweep
        self._make_task, self._per_batch_size = task, per_batch_size
        self._tasks: dict[Any, Task] = {}  # by batch size, those that are made
        self._task_name: str | None = None  # as sweep.json has it, while no task is made
        self._refused: set[str] = set()  # ids of runs that would extend the grid
        self._reader: storage.RecordReader | None = None
        self._records: dict[str, Record] | None = None
        self._planned_by_id: dict[str, HParams] = {}
        self._wanted: dict[str, HParams] = {}
        self._runs: dict[str, Run] = {}

    @classmethod
    def open(cls, workdir: str | os.PathLike, experiment: str | None = None) -> "Sweep":
        """Opens the sweep of a directory, to read its records.

        A sweep that was begun from an experiment's file is read from that file, which must lie
        below the current directory: nothing in a sweep's directory is executed. A sweep that a
        program began holds its runs and protocol in `sweep.json`.

        Args:
          workdir: The directory of the sweep.
          experiment: The experiment's file, which then may lie anywhere.

        Raises:
          FileNotFoundError: If this is not the directory of a sweep, or its file is not here.
          ValueError: If the sweep cannot be opened without the program that began it.
        """
        from noisegen.sweeps import experiment as experiments

        return experiments.open_sweep(workdir, experiment)

    # Results

    def records(self) -> list[Record]:
        """Returns the records of the sweep's runs, sorted by run_id, without their curves."""
        if self.refresh():
            self._extend()
        done = self.done
        return [done[name] for name in sorted(self._wanted) if name in done]

    def curves(self, run_ids: Iterable[str]) -> dict[str, dict[str, list[float]]]:
        """Returns the evaluations of some runs by run_id, each a dict of lists."""
        return storage.read_curves(self._directory(), frozenset(run_ids))

    def optima(self, protocol: Protocol | None = None) -> list[Optimum]:
        """Returns the optimum of every series and row, see `select`.

        Args:
          protocol: How to read the records, by default the sweep's main protocol.
        """
        return protocols.select(self.records(), protocol or self.protocols[0])

    def to_frame(self):
        """Returns every record as a row of a pandas DataFrame: hyperparameters, status, metrics."""
        import pandas as pd

        rows = [
            {
                "run_id": record.run_id,
                **record.hparams,
                "status": record.status,
                **record.metrics,
                **{name: getattr(record, name) for name in storage.RUN_TOTALS},
            }
            for record in self.records()
        ]
        return pd.DataFrame(rows)

    def table(self, protocol: Protocol | None = None):
        """Returns the optima as a pandas DataFrame, published numbers beside the measured ones.

        Args:
          protocol: How to read the records, by default the sweep's main protocol.
        """
        from noisegen import reports  # imports Matplotlib and pandas, which training can do without

        return reports.make_table(*self._reading(protocol or self.protocols[0]))

    def to_text(self) -> str:
        """Returns the table as text for a terminal, as the commands print it."""
        from noisegen import reports

        return reports.to_text(*self._reading(self.protocols[0]))

    def write_report(self) -> pathlib.Path:
        """Writes report, table and figure into the directory; returns the path of the page."""
        from noisegen import reports

        self._directory()  # refuses a sweep without one
        return reports.write_report(self)

    # Training

    def run(self, *, progress: bool = True, **options: Any) -> None:
        """Trains every run that has no record, until the grid needs no further extension.

        Safe to call again after any interruption, and in several processes at once.

        Args:
          progress: Whether to show progress on stderr.
          **options: Fields of `WorkerOptions`, such as `checkpoint_minutes` or `keep_params`.

        Raises:
          ValueError: If a run makes no sense. Nothing is trained or written then.
          KeyboardInterrupt: On Ctrl-C, after the runs in training are checkpointed.
        """
        from noisegen.sweeps import worker
        from noisegen.sweeps.progress import Display, Observer

        options = worker.WorkerOptions(**options)
        self.validate()
        self.validate_report()
        with self.begun(options.keep_params):
            observer = Display(self) if progress else Observer()
            worker.Worker(self, options, observer).run()

    def validate(self) -> None:
        """Checks runs, protocols and task before anything is trained or written.

        Raises:
          ValueError: If a run cannot be trained, or will lack a metric that a protocol reads.
        """
        task_name = self.task_of(self.planned[0]).name
        if self.workdir is not None:
            storage.check_workdir(self.workdir, self.name, task_name)
        # Read the records anew, now that the task can refuse runs that would extend the grid.
        self._records, self._runs = None, {}
        self.runs()
        for task in self._tasks.values():
            for protocol in self.protocols:
                checks.check_metrics(training.metric_spec(task).names, protocol)

    def validate_report(self) -> None:
        """Checks that the report can be made of the records to come.

        Raises:
          ValueError: If a label, a published number or a package is missing or of the wrong kind.
        """
        from noisegen import reports

        reports.check(self.protocols, self.planned, self.published, self.title, self.description)

    @contextlib.contextmanager
    def begun(self, keep_params: bool = False) -> Iterator[None]:
        """Opens the directory for training, and makes it if needed.

        An error before the first result removes a new directory.

        Args:
          keep_params: Whether runs count as done only with their parameters. Runs whose kept
            parameters are damaged are trained again.
        """
        from noisegen.sweeps import experiment

        workdir = self._directory()
        experiment.warn_if_changed(self)
        storage.check_writable(workdir)
        with storage.undone_if_refused(workdir):
            meta = {
                "title": self.title,
                "description": self.description,
                "data": self.task_of(self.planned[0]).source,
                **experiment.describe(self),
            }
            storage.open_workdir(workdir, self.name, self.task_name, meta)
            if keep_params:
                self.discard_damaged_params()
            yield
        if self._refused:  # a reader without the task cannot know
            meta["refused"] = sorted(self._refused)
            storage.open_workdir(workdir, self.name, self.task_name, meta)
        if keep_params:
            self._warn_without_params()

    def resume_reading(self, task_name: str, refused: Iterable[str] = ()) -> None:
        """Has the records read without a task.

        Args:
          task_name: Name of the task.
          refused: Ids of runs that the task refused when the grid was extended.
        """
        self._task_name, self._refused = task_name, set(refused)

    def discard_damaged_params(self) -> None:
        """Counts runs whose kept parameters are damaged as not done, so that they train again."""
        for name in storage.damaged_params(self._directory(), list(self.done)):
            del self.done[name]

    # Bookkeeping, for workers and launchers

    @property
    def task_name(self) -> str:
        """Name of the task, which run ids are made with."""
        if self._tasks or self._task_name is None:
            return self.task_of(self.planned[0]).name
        return self._task_name

    @property
    def wanted(self) -> dict[str, HParams]:
        """Hyperparameters by run_id: the planned runs, then those that extend the grid."""
        self._load()
        return self._wanted

    @property
    def done(self) -> dict[str, Record]:
        """Records by run_id, as far as this process has read them."""
        self._load()
        return self._records

    def runs(self) -> dict[str, Run]:
        """Returns every wanted run by run_id, validated and planned.

        Raises:
          ValueError: If a run makes no sense.
        """
        wanted = self.wanted
        if len(self._runs) < len(wanted):
            runs = dict(self._runs)
            new = {name: run for name, run in wanted.items() if name not in runs}
            for task, group in self.by_task(new).items():
                made = training.make_runs(task, group.values(), ids=group)
                runs.update(zip(group, made, strict=True))
            self._runs = {name: runs[name] for name in wanted}
        return self._runs

    def todo(self) -> dict[str, Run]:
        """Returns the wanted runs without a record, by run_id."""
        done = self.done
        return {name: run for name, run in self.runs().items() if name not in done}

    def is_complete(self) -> bool:
        """Returns whether every wanted run has its record, as far as this process has read them."""
        return self.wanted.keys() <= self.done.keys()

    def extend(self) -> dict[str, HParams]:
        """Extends the grid as the records ask; returns the new runs by run_id."""
        before = self.wanted
        self._extend()
        return {name: run for name, run in self._wanted.items() if name not in before}

    def refresh(self) -> list[Record]:
        """Reads what all workers have recorded since; returns the first records of wanted runs."""
        self._load()
        if self._reader is None:
            return []
        return [record for record in self._reader.new() if self.add(record)]

    def add(self, record: Record) -> bool:
        """Notes a record; returns whether it is the first of a wanted run."""
        is_new = record.run_id not in self.done
        # A worker holds all records. Without their curves, and with shared hyperparameters, 100,000
        # of them take some 60 MB.
        hparams = self._wanted.get(record.run_id, record.hparams)
        record = dataclasses.replace(record, curve=None, hparams=hparams)
        storage.add_first_finished(self._records, record)
        return is_new and record.run_id in self._wanted

    def task_of(self, hparams: HParams) -> Task:
        """Returns the task of a run, which is made when it is first asked for.

        Raises:
          ValueError: If the task depends on a batch size that the run lacks, or is not a `Task`.
        """
        if self._per_batch_size and "batch_size" not in hparams:
            raise ValueError(
                f"A run needs the field batch_size; one has only {', '.join(hparams)}."
            )
        key = hparams["batch_size"] if self._per_batch_size else None
        if key not in self._tasks:
            task = self._make_task
            if self._per_batch_size:
                task = task(key)
            elif not isinstance(task, Task) and callable(task):
                task = task()
            if not isinstance(task, Task):
                raise ValueError(f"{task!r:.80} is not a Task; is there a return in its function?")
            self._check_name(task)
            self._tasks[key] = task
        return self._tasks[key]

    def by_task(self, runs: Mapping[str, Any]) -> dict[Task, dict[str, Any]]:
        """Groups runs, or their hyperparameters, by task, in their order."""
        groups: dict[Task, dict[str, Any]] = {}
        for name, run in runs.items():
            task = self.task_of(run.hparams if isinstance(run, Run) else run)
            groups.setdefault(task, {})[name] = run
        return groups

    def _reading(self, protocol):
        """Returns optima, protocol and published numbers, which belong to the main protocol."""
        published = self.published if protocol == self.protocols[0] else None
        return self.optima(protocol), protocol, published

    def _check_name(self, task):
        """Checks that the tasks of all batch sizes have one name."""
        for other in self._tasks.values():
            if task.name != other.name:
                raise ValueError(
                    f"The tasks are named {other.name!r} and {task.name!r}: give those of all "
                    "batch sizes one name; the batch size is in the run."
                )

    def _directory(self):
        if self.workdir is None:
            raise ValueError("This sweep has no directory; give Sweep(..., workdir=...).")
        return self.workdir

    def _load(self):
        """Reads the records, once."""
        if self._records is not None:
            return
        self._records = {}
        self._planned_by_id = self._wanted = by_run_id(self.task_name, self.planned)
        for protocol in self.protocols:
            checks.check_points(self._wanted.values(), protocol)
        if self.workdir is not None:
            self._reader = storage.RecordReader(self.workdir, task_name=self.task_name)
            self.refresh()
        self._extend()

    def _extend(self):
        # Only a task that is made can refuse a run. To make it here would load its data.
        check = self._check_plan if self._tasks else self._check_refused
        self._wanted = extension.extend_grid(
            self.task_name, self._planned_by_id, self.protocols, self._records.values(), check
        )

    def _check_plan(self, hparams):
        """Raises ValueError if a run cannot be trained."""
        try:
            training.make_runs(self.task_of(hparams), [hparams])
        except ValueError:
            self._refused.add(run_id(self.task_name, hparams))
            raise

    def _check_refused(self, hparams):
        """Raises ValueError if the task refused a run when the sweep was trained."""
        if self._refused and run_id(self.task_name, hparams) in self._refused:
            raise ValueError("the task refused it when the sweep was trained")

    def _warn_without_params(self):
        lacking = storage.without_params(self.workdir, self.wanted)
        if lacking:
            warnings.warn(
                f"{len(lacking)} runs finished before parameters were kept. To keep all parameters,"
                " use a new workdir.",
                stacklevel=4,
            )


def _protocols(given):
    """Returns protocols as a tuple."""
    found = (given,) if isinstance(given, Protocol) else tuple(given)
    if not found or not all(isinstance(each, Protocol) for each in found):
        raise ValueError(f"A sweep needs a Protocol, or several, got {given!r:.80}.")
    return found


def _planned(runs):
    """Returns the planned runs as a list."""
    if not isinstance(runs, Iterable):
        raise ValueError(f"A sweep needs runs, such as a Grid, got {runs!r:.80}.")
    found = list(runs)
    for run in found:
        if not isinstance(run, Mapping):
            raise ValueError(f"A run is a mapping from field to value, got {run!r:.80}.")
    if not found:
        raise ValueError("A sweep needs runs, and there are none.")
    return found
