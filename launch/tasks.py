"""What an experiment trains: one task, or one for each batch size."""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from noisegen import sweeps, training

Runs = Mapping[str, Mapping[str, Any]]  # by run_id


class Tasks:
    """The task of every run.

    Args:
      found: a task, or a function from the batch size to a task, all of one name. The function is
        for tasks whose compiled shapes depend on the batch size; runs are then trained batch size
        by batch size.
      runs: the planned runs; the first says for which batch size a task is made first.

    Attributes:
      name: identity of the tasks.
      source: where their data come from.

    Raises:
      ValueError: the function gives something else.
    """

    def __init__(
        self, found: training.Task | Callable[[int], training.Task], runs: Iterable[Mapping]
    ):
        self._make = functools.cache(found) if callable(found) else None
        self._one = found
        first = self.of(next(iter(runs)))
        self.name, self.source = first.name, first.source

    def of(self, run: Mapping[str, Any]) -> training.Task:
        """The task of a run."""
        if self._make and "batch_size" not in run:
            raise ValueError(f"A run needs the field batch_size; one has only {', '.join(run)}.")
        task = self._make(run["batch_size"]) if self._make else self._one
        if not isinstance(task, training.Task):
            raise ValueError(f"get_task gives {task!r:.80}, which is no Task; is there a return?")
        return task

    def groups(self, runs: Runs) -> dict[training.Task, dict[str, Mapping]]:
        """The runs of each task, in their order."""
        found: dict[training.Task, dict[str, Mapping]] = {}
        for name, run in runs.items():
            task = self.of(run)
            if task.name != self.name:
                raise ValueError(
                    f"get_task names its tasks {self.name!r} and {task.name!r}: give those of all "
                    "batch sizes one name; the batch size is in the run."
                )
            found.setdefault(task, {})[name] = run
        return found

    def plan(self, run: Mapping[str, Any]) -> training.Plan:
        """Returns the plan of a run.

        Raises:
          ValueError: If the run cannot be trained.
        """
        return training.plan_runs(self.of(run), [run])[0]

    def check(self, runs: Runs, protocols: Iterable[sweeps.Protocol]) -> None:
        """Checks that the runs make sense and will have the metrics that the protocols read.

        Raises:
          ValueError: names what does not.
        """
        for task, group in self.groups(runs).items():
            training.make_runs(task, group.values())
            for protocol in protocols:
                sweeps.check_metrics(training.metric_spec(task).names, protocol)

    def make_runs(self, runs: Runs) -> dict[str, training.Run]:
        """Returns the runs with their plans, by run_id."""
        found = {}
        for task, group in self.groups(runs).items():
            plans = training.plan_runs(task, list(group.values()))
            for (name, run), plan in zip(group.items(), plans, strict=True):
                found[name] = training.Run(name, run, plan)
        return found

    def examples(self, runs: Runs) -> dict[str, int]:
        """Training examples of each run, by run_id."""
        return {name: run.plan.num_examples for name, run in self.make_runs(runs).items()}
