"""What a sweep has done and has to do, read from its records and shown while they are written."""

from collections.abc import Iterable, Mapping
from typing import Any

from launch import display
from launch.agenda import Agenda
from launch.experiment import Experiment
from launch.tasks import Tasks
from noisegen import sweeps, training


class Ledger:
    """The runs of a sweep as one process sees them, whoever trains them.

    Args:
      exp: the experiment.
      tasks: what it trains.
      workdir: the directory of the sweep; need not exist.
      keep_params: whether runs are done only with their parameters: those whose parameters were
        kept and are damaged are to be trained again.

    Attributes:
      tasks: what it trains.
      runs: which runs it wants, and which are done.
      costs: training examples of every wanted run, by run_id, as far as `todo` was asked.
      made: every wanted run with its plan, by run_id, likewise.
      show: the display, a context in which all else is used.
    """

    def __init__(self, exp: Experiment, tasks: Tasks, workdir: str, keep_params: bool = False):
        self.tasks, self._protocol = tasks, exp.protocols[0]
        self._reader = sweeps.RecordReader(workdir, task_identity=tasks.name)
        records = self._reader.new()
        if keep_params:
            names = {record["run_id"] for record in records}
            damaged = set(sweeps.damaged_params(workdir, names))
            records = [record for record in records if record["run_id"] not in damaged]
        self.runs = Agenda(tasks.name, exp.runs, exp.protocols, records, tasks.plan)
        self.costs: dict[str, int] = {}
        self.made: dict[str, training.Run] = {}
        self._tally = display.Tally(self._protocol, len(self.runs.wanted), self.runs.done())
        self.show = display.Display(exp.title, self._tally)

    def todo(self) -> dict[str, dict]:
        """The runs without a record, by run_id; if there are none, those that the records call for.

        None are left when the sweep is done.
        """
        if not (todo := self.runs.todo()):
            before = self.runs.wanted
            self.runs.extend()
            if (todo := self.runs.todo()) and self.costs:
                self.show.note(display.growth(self._protocol, todo.values(), before.values()))
        new = {name: run for name, run in self.runs.wanted.items() if name not in self.costs}
        if new:
            if self.costs:  # others may have trained some of them before this process knew
                for name in new.keys() & self.runs.records.keys():
                    self.show.add(self.runs.records[name])
            made = self.tasks.make_runs(new)
            self.made |= made
            self.costs |= {name: run.plan.num_examples for name, run in made.items()}
            self.show.expect({name: self.costs[name] for name in todo})
        return todo

    def read(self) -> None:
        """Takes note of the records that anybody has written."""
        for record in self._reader.new():
            self.note(record)

    def note(self, record: Mapping[str, Any]) -> None:
        """Takes note of a record."""
        if self.runs.add(record) and record["run_id"] in self.runs.wanted:
            self.show.add(record)

    def watch(self, workers: Iterable[sweeps.Worker]) -> None:
        """Shows what some workers do."""
        self.read()
        if self._tally.done >= self._tally.wanted:
            self.todo()  # the grid may grow
        running = [
            training.Progress(self.made[name], examples)
            for worker in workers
            for name, examples in worker.runs.items()
            if name in self.made and name not in self.runs.records
        ]
        if running:
            self.show.progress(running)
        elif self._tally.done < self._tally.wanted:
            self.show.say(", ".join(dict.fromkeys(worker.doing for worker in workers)))
