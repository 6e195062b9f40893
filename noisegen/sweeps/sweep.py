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
from typing import TYPE_CHECKING, Any

from noisegen import storage, training
from noisegen._text import count
from noisegen.storage import Record
from noisegen.sweeps import checks, metrics
from noisegen.sweeps import protocol as protocols
from noisegen.sweeps.protocol import Optimum, Protocol
from noisegen.sweeps.state import HParams, SweepState
from noisegen.training import Task

if TYPE_CHECKING:
    import pandas as pd

    from noisegen import reports


@dataclasses.dataclass(frozen=True)
class Origin:
    """The experiment's file that a sweep was made from. It is named in `sweep.json`.

    Attributes:
      experiment: Path of the file, with its scale after a colon if there is one.
      config: The config that the sweep was made of, an `ml_collections.ConfigDict`.
      code: Hash of the file and of those beside it that it imports from.
    """

    experiment: str
    config: Any
    code: str


class Sweep:
    """A grid of training runs with their records.

    Any number of processes may work on a sweep at once, each with its own `Sweep` of the same
    directory. What they know of each other is in that directory.

    Args:
      task: What is trained: a `training.Task`, or a function without arguments that makes it. The
        function is called when something is to be trained. To read a sweep whose directory exists
        does not call it, and so loads no data.
      runs: The planned runs: a `Grid`, or any iterable of flat mappings from field to value.
      protocol: How the records are read, or several protocols, the main one first. The grid is
        extended as each of them asks. By default `Protocol()`.
      workdir: Directory of the sweep, made when training begins.
      name: Name of the sweep. A directory belongs to one name and one task.
      title: Title of the report, by default the name of the task.
      description: Text under the title.
      published: Published numbers beside the measured ones, see `reports.make_table`.
      static: Fields of the runs that `task` is a function of, because they set shapes: a width, a
        depth, the size of the training set, and in some tasks the batch size. The function gets
        their values by name if it has arguments of these names, else in this order. Runs are
        trained task by task. The tasks have one name and the same test set.
      origin: The experiment's file, if the sweep was made from one.

    Attributes:
      planned: The planned runs, a list.
      protocols: The protocols, a tuple.
      workdir, name, title, description, published, origin: As given.
      state: Which runs are wanted, done and left; for workers and launchers.

    Raises:
      ValueError: If there are no runs or no protocol, or static fields and no function of them.
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
        static: Sequence[str] = (),
        origin: Origin | None = None,
    ):
        self.planned = _planned(runs)
        self.protocols = _protocols(Protocol() if protocol is None else protocol)
        self.workdir = None if workdir is None else pathlib.Path(workdir)
        self.name, self.description = name, description
        self.title = title or (task.name if isinstance(task, Task) else name)
        self.published = published or {}
        if not isinstance(self.published, Mapping):
            raise ValueError(
                f"Published numbers are a mapping from (label, row), got {published!r:.80}."
            )
        self.origin = origin
        if static and isinstance(task, Task):
            raise ValueError("A sweep with static fields needs a function of them for its task.")
        self._task, self._static = task, checks.words("static", static, "Sweep")
        self.state = SweepState(task, self.planned, self.protocols, self.workdir, self._static)

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
        from noisegen.sweeps import sweep_json

        return sweep_json.open_sweep(workdir, experiment)

    def replace(self, **changes: Any) -> "Sweep":
        """Returns a sweep with other arguments, such as another `workdir`, and a fresh state.

        Args:
          **changes: Arguments of `Sweep` by name.
        """
        arguments = {
            "task": self._task,
            "runs": self.planned,
            "protocol": self.protocols,
            "workdir": self.workdir,
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "published": self.published,
            "static": self._static,
            "origin": self.origin,
        }
        return type(self)(**arguments | changes)

    # Training

    def run(self, *, progress: bool = True, **options: Any) -> None:
        """Trains every run that has no record, until the grid needs no further extension.

        Safe to call again after any interruption, and in several processes at once.

        Args:
          progress: Whether to show progress on stderr.
          **options: Fields of `noisegen.sweeps.worker.WorkerOptions`. They change no result.

            * ``checkpoint_minutes``: Minutes between checkpoints of the runs in training, by
              default 5. 0 makes none.
            * ``keep_params``: Whether to keep the parameters of runs that end, by default False.
            * ``pool``: A dict with fields of `training.PoolConfig`, such as ``lanes``. The others
              are autotuned.
            * ``share``: Index of this process and number of processes that call `run` at once, by
              default ``(0, 1)``. Each begins with its share of the runs, and then helps the others.
            * ``heartbeat_timeout``: Seconds without a heartbeat after which other processes count
              this one as dead and train its runs, by default 300.

        Raises:
          TypeError: If there is no option of a given name.
          ValueError: If a run or an option makes no sense. Nothing is trained or written then.
          KeyboardInterrupt: On Ctrl-C, after the runs in training are checkpointed.
        """
        # Both import `reports` and Rich, which a sweep that is only read can do without.
        from noisegen.sweeps import worker
        from noisegen.sweeps.progress import Display, Observer

        options = worker.WorkerOptions(**options)
        self.validate()
        self.validate_report()
        with self.begun(options.keep_params):
            observer = Display(self) if progress else Observer()
            worker.Worker(self, options, observer).run()

    def validate(self, *, mixing: bool = True) -> None:
        """Checks runs, protocols and task before anything is trained or written.

        Args:
          mixing: Whether to call the task's functions on a few examples to see whether they mix
            any, which takes minutes for a large network on a CPU. Only runs that are not trained
            need no such check.

        Raises:
          ValueError: If a run cannot be trained, or will lack a metric that a protocol reads.
        """
        task_name = self.task_of(self.planned[0]).name
        if self.workdir is not None:
            storage.check_workdir(self.workdir, self.name, task_name)
        # What was read before the task was made may want runs that the task refuses.
        self.state.reset(mixing)
        self.state.runs()
        derived = self.state.derived_metrics
        for task in self.state.tasks():
            spec = training.metric_spec(task)
            metrics.check_derived(derived, spec.names, spec.curve, self.planned[0])
            for protocol in self.protocols:
                checks.check_metrics([*spec.names, *(each.name for each in derived)], protocol)

    def warn_of_few_seeds(self) -> None:
        """Warns if a protocol asks for more seeds than are planned; training does so by itself."""
        for protocol in self.protocols:
            checks.warn_of_few_seeds(self.planned, protocol)

    def validate_report(self) -> None:
        """Checks that the report can be made of the records to come.

        Raises:
          ValueError: If a label, a published number or a package is missing or of the wrong kind.
        """
        from noisegen import reports

        reports.check(self.protocols, self.planned, self.published, self.title, self.description)

    @contextlib.contextmanager
    def begun(self, keep_params: bool = False, command: str | None = None) -> Iterator[None]:
        """Opens the directory for training, and makes it if needed; `run` does this by itself.

        An error before the first result removes a new directory.

        Args:
          keep_params: Whether runs count as done only with their parameters. Runs whose kept
            parameters are damaged are trained again.
          command: The command that trains the sweep, for `sweep.json`. By default the command that
            is there stays.
        """
        from noisegen.sweeps import sweep_json

        workdir = self._directory()
        sweep_json.warn_if_changed(self)
        self.warn_of_few_seeds()
        storage.check_writable(workdir)
        with storage.undone_if_refused(workdir):
            sweep_json.write(self, command)
            if keep_params:
                self.state.discard_damaged_params()
            yield
        if self.state.refused:  # A reader without the task cannot find them out.
            sweep_json.write(self, command)
        if keep_params:
            self._warn_without_params()

    def task_of(self, hparams: HParams) -> Task:
        """Returns the task of a run, which is made when it is first asked for.

        Raises:
          ValueError: If the run lacks a static field, or the task is not a `Task`.
        """
        return self.state.task_of(hparams)

    # Results

    def is_complete(self) -> bool:
        """Returns whether every run of the sweep has its record."""
        self._refresh()
        return self.state.is_complete()

    def records(self) -> list[Record]:
        """Returns the records of the sweep's runs, sorted by run_id, without their curves."""
        self._refresh()
        return self.state.records()

    def curves(self, run_ids: Iterable[str]) -> dict[str, dict[str, list[float]]]:
        """Returns the evaluations of some runs by run_id, each a dict of lists."""
        return storage.read_curves(self._directory(), frozenset(run_ids))

    def optima(self, protocol: Protocol | None = None) -> list[Optimum]:
        """Returns the optimum of every series and row, see `select`.

        Args:
          protocol: How to read the records, by default the sweep's main protocol.
        """
        protocol = protocol or self.protocols[0]
        return protocols.select(self._records_for(protocol), protocol)

    def to_frame(self) -> "pd.DataFrame":
        """Returns every record as a row of a pandas DataFrame: hyperparameters, status, metrics.

        The metrics that the protocols derive are among the metrics.
        """
        from noisegen.sweeps import frames  # imports pandas, which training can do without

        return frames.runs_frame(self.records())

    def curves_frame(self, run_ids: Iterable[str] | None = None) -> "pd.DataFrame":
        """Returns the curves as a tidy pandas DataFrame, one row for each run and evaluation.

        Columns: run_id, the hyperparameters, epoch, update and the metrics of an evaluation.

        Args:
          run_ids: The runs, by default all that have a record.
        """
        from noisegen.sweeps import frames

        records = self.records()
        wanted = [record.run_id for record in records] if run_ids is None else run_ids
        return frames.curves_frame(records, self.curves(wanted))

    def table(self, protocol: Protocol | None = None):
        """Returns the optima as a pandas DataFrame, published numbers beside the measured ones.

        Args:
          protocol: How to read the records, by default the sweep's main protocol.
        """
        from noisegen import reports  # imports Matplotlib and pandas, which training can do without

        return reports.make_table(*self._reading(protocol or self.protocols[0]))

    def answers(self) -> "list[reports.Answer]":
        """Returns the answers that the records give, in sentences; see `reports.Answer`."""
        from noisegen import reports

        self._directory()  # refuses a sweep without one
        report = reports.load_report(self)
        return [answer for reading in report.readings for answer in reading.answers]

    def to_text(self) -> str:
        """Returns the table as text for a terminal, as the commands print it."""
        from noisegen import reports

        return reports.to_text(*self._reading(self.protocols[0]))

    def __repr__(self) -> str:
        return f"<Sweep {self.title!r} of {count(len(self.planned), 'planned run')}>"

    def _repr_html_(self) -> str:
        """Returns what notebooks show: the runs done, and the table."""
        from noisegen import reports

        return reports.sweep_to_html(self)

    def write_report(self) -> pathlib.Path:
        """Writes report, table and figure into the directory; returns the path of the page."""
        from noisegen import reports

        self._directory()  # refuses a sweep without one
        return reports.write_report(self)

    def _records_for(self, protocol):
        """Returns the records with the derived metrics of a protocol, if need be from curves."""
        records = self.records()
        known = self.state.derived_metrics
        further = [each for each in metrics.derived_metrics([protocol]) if each not in known]
        if not further or not records:
            return records
        curves = self.curves(record.run_id for record in records)
        return metrics.derived_from_curves(records, further, curves)

    def _refresh(self):
        """Reads new records, which may extend the grid."""
        if self.state.refresh():
            self.state.extend()

    def _reading(self, protocol):
        """Returns optima, protocol and published numbers, which belong to the main protocol."""
        published = self.published if protocol == self.protocols[0] else None
        return self.optima(protocol), protocol, published

    def _directory(self):
        if self.workdir is None:
            raise ValueError("This sweep has no directory; give Sweep(..., workdir=...).")
        return self.workdir

    def _warn_without_params(self):
        lacking = storage.without_params(self.workdir, self.state.wanted)
        if lacking:
            warnings.warn(
                f"{count(len(lacking), 'run')} finished before parameters were kept. To keep all"
                " parameters, use a new workdir.",
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
