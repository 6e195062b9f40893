"""Workers as Ray tasks: each trains a few of the runs, about five minutes' worth, and leaves.

Ray decides where and when a task runs, and runs it again when its node dies; what the killed worker
had finished, or kept in a checkpoint, is not done again. All nodes see the sweep's directory, this
directory and this Python under the same names: no data passes through Ray.
"""

import contextlib
import pathlib
from collections.abc import Mapping
from typing import Self

from launch import command, display, ray_plan
from launch.ledger import Ledger
from launch.ray_cluster import Cluster
from noisegen import sweeps

_FRUITLESS = 3  # times that tasks end well and leave no record, before something must be wrong


class Driver:
    """Hands tasks to Ray until every wanted run has its record, and shows what all of them do.

    A context, which is connected to the cluster if there is anything to do.

    Args:
      ledger: what there is to do.
      workdir: the directory of the sweep; what the workers print goes to `logs/` there.
      options: how.
    """

    def __init__(self, ledger: Ledger, workdir: str, options: ray_plan.Options):
        self._ledger, self._options = ledger, options
        self._logs = pathlib.Path(workdir).absolute() / "logs"
        self._crew = sweeps.Crew(workdir)
        self._measured: ray_plan.Measured | None = None
        self._begun = 0  # tasks
        self._failed: list[str] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Connects to the cluster, and asks whether it can do what is wanted.

        Raises:
          ValueError: no node is large enough.
          ConnectionError: there is no such cluster.
        """
        if self._ledger.todo():
            with command.signals(command.interrupt), self._stack:
                self._cluster = self._stack.enter_context(Cluster(self._options.address))
                self._needs = ray_plan.needs(self._cluster, self._options)
                self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_) -> None:
        self._stack.close()

    def run(self) -> None:
        """Works until every wanted run has its record.

        Raises:
          ValueError: a worker found something that the user can mend.
          ChildProcessError: tasks failed, and so did all further tries.
        """
        if not self._ledger.todo():
            return
        with command.signals(command.interrupt), contextlib.ExitStack() as stack:
            self._logs.mkdir(exist_ok=True)
            # Else on stdout, where Ray says of tasks that it tries them again.
            ray_log = stack.enter_context(open(self._logs / "ray.log", "a", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(ray_log))
            stack.enter_context(self._ledger.show)
            stack.enter_context(self._crew)
            fruitless = 0
            while todo := self._ledger.todo():
                self._train(todo)
                fruitless = fruitless + 1 if todo.keys() <= self._ledger.todo().keys() else 0
                self._check(fruitless)

    def _train(self, todo):
        """Has all of some runs trained."""
        costs = {name: self._ledger.costs[name] for name in todo}
        if not (self._measured or self._options.tasks):
            self._measure(len(costs))
        dealt = ray_plan.deal(
            costs, self._cluster.at_once(self._needs), self._options, self._measured
        )
        tasks = dict(map(self._submit, dealt))
        try:
            while tasks:
                self._watch(f"{display.count(len(tasks), 'task')} to go")
                for task in self._cluster.done(tasks, ray_plan.POLL):
                    self._ended(tasks.pop(task), task)
        finally:
            self._cluster.cancel(tasks)
        self._ledger.read()

    def _measure(self, runs):
        """Has a task measure; workers find the settings that it chose in the file of the crew."""
        self._measured = ray_plan.measure(
            self._cluster,
            self._needs,
            runs,
            self._options,
            lambda: self._watch("measuring what is fastest there"),
        )
        for key, settings in self._measured.settings.items():
            self._crew.share_settings(key, settings)

    def _submit(self, names):
        """Hands a task to Ray; the task and its number."""
        index, self._begun = self._begun, self._begun + 1
        task = self._cluster.submit(
            ray_plan.worker_command(f"--only={','.join(names)}", "--noreport"),
            self._needs,
            self._options.max_retries,
            f"noisegen task {index}",
            str(self._log(index)),
        )
        return task, index

    def _watch(self, otherwise):
        """Shows what the workers do, or something else if there are none; gives a sign of life."""
        if workers := self._crew.others():
            self._ledger.watch(workers)
        else:
            self._ledger.read()
            lost = f"no node with {self._needs} is left; waiting for one"
            self._ledger.show.say(otherwise if self._cluster.at_once(self._needs) else lost)
        self._crew.beat("handing tasks to Ray")

    def _ended(self, index, task):
        try:
            self._cluster.result(task)
        except ValueError as error:
            raise ValueError(f"task {index}: {error}") from error
        except ChildProcessError as error:
            self._failed.append(f"task {index} failed ({self._log(index)}): {error}")
            self._ledger.show.note(self._failed[-1])

    def _check(self, fruitless):
        """Checks that it makes sense to go on."""
        left = f"{display.count(len(self._ledger.todo()), 'run')} left"
        if self._failed:
            raise ChildProcessError(
                f"{left}, as {display.count(len(self._failed), 'task')} failed however often Ray "
                f"tried; the last, {self._failed[-1]} The same command goes on."
            )
        if fruitless >= _FRUITLESS:
            raise ChildProcessError(
                f"{left}, of which tasks that ended well left no record; do all nodes see "
                f"{self._logs.parent}?"
            )

    def _log(self, index):
        return self._logs / f"task-{index}.log"


def plan(costs: Mapping[str, int], options: ray_plan.Options) -> str:
    """What would be done with some runs, in words.

    Args:
      costs: training examples of each run, by run_id.
      options: how Ray is used.

    Raises:
      ValueError, ConnectionError, ChildProcessError: as `Driver.run`.
    """
    with Cluster(options.address) as cluster:
        each = ray_plan.needs(cluster, options)
        measured, time = None, ""
        if not options.tasks:
            measured = ray_plan.measure(cluster, each, len(costs), options)
            time = display.duration(measured.seconds_per_example * sum(costs.values()))
        at_once = cluster.at_once(each)
        sizes = [len(names) for names in ray_plan.deal(costs, at_once, options, measured)]
    runs = "-".join(map(str, sorted({min(sizes), max(sizes)})))
    said = (
        f"{display.count(len(sizes), 'task')} of {runs} runs, with {each} each, {at_once} at once."
    )
    alone = "" if measured is None else f" A single one would take about {time}."
    return said + alone
