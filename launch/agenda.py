"""Which runs a sweep wants, and which of them are done."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from noisegen import sweeps

# Of a record; the rest would only fill the memory.
_KEPT = ("run_id", "run", "status", "metrics", "finished_at", *sweeps.RECORDED)


class Records(Mapping[str, dict]):
    """Records by run_id, without what only the report needs, in little memory.

    A worker holds those of all runs. Most records are of planned runs and have every metric that
    the protocols read: for these only the values are kept, in a table allocated at the start.

    Args:
      runs: the planned runs, by run_id.
      protocols: say which values are read.
    """

    def __init__(self, runs: Mapping[str, Mapping], protocols: Sequence[sweeps.Protocol]):
        names = {name for each in protocols for name in each.metric_names}
        self._recorded = tuple(sorted(names.intersection(sweeps.RECORDED)))
        self._metrics = tuple(sorted(names.difference(sweeps.RECORDED)))
        self._runs = runs
        self._rows: dict[str, tuple | dict | None] = dict.fromkeys(runs)
        self._count = 0

    def add(self, record: Mapping[str, Any]) -> bool:
        """Takes note of a run's first record; says whether the run had none before."""
        name = record["run_id"]
        known = {name: self[name]} if name in self else {}
        new = not known
        sweeps.first_finished(known, record)
        if known[name] is record:
            self._rows[name] = self._row(record)
        self._count += new
        return new

    def _row(self, record):
        """Returns the part of a record that is kept."""
        metrics = record["metrics"]
        planned = record["run"] == self._runs.get(record["run_id"])
        if not planned or not metrics.keys() >= {*self._metrics}:
            return {name: record[name] for name in _KEPT if name in record}
        values = [metrics[name] for name in self._metrics]
        values += [record.get(name) for name in self._recorded]
        return (record.get("finished_at"), record["status"] == "finished", *values)

    def __getitem__(self, name: str) -> dict:
        row = self._rows[name]
        if row is None:
            raise KeyError(name)
        if isinstance(row, dict):
            return row
        finished_at, finished, *values = row
        metrics = dict(zip(self._metrics, values, strict=False))
        recorded = dict(zip(self._recorded, values[len(metrics) :], strict=True))
        return {
            "run_id": name,
            "run": self._runs[name],
            "status": "finished" if finished else "diverged",
            "metrics": metrics,
            "finished_at": finished_at,
            **recorded,
        }

    def __contains__(self, name: object) -> bool:
        return self._rows.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        return (name for name, row in self._rows.items() if row is not None)

    def __len__(self) -> int:
        return self._count


class Agenda:
    """The runs of a sweep: those planned, and those that the records of these call for.

    Args:
      task_name: identity of the task.
      runs: the planned runs.
      protocols: say which further runs the records call for.
      records: of finished runs, of this plan or not.
      check: Raises ValueError for a run that cannot be trained; the grid does not grow by it.

    Attributes:
      wanted: every run, by run_id, in the order in which they are trained.
      records: by run_id, as `Records` keeps them.

    Raises:
      ValueError: planned runs that a protocol cannot tell apart differ in more than the seed.
    """

    def __init__(
        self,
        task_name: str,
        runs: Iterable[Mapping[str, Any]],
        protocols: Sequence[sweeps.Protocol],
        records: Iterable[Mapping[str, Any]],
        check: Callable[[Mapping[str, Any]], object] | None = None,
    ):
        self._task_name, self._protocols, self._check = task_name, protocols, check
        self._planned = sweeps.by_run_id(task_name, runs)
        for protocol in protocols:
            sweeps.check_points(self._planned.values(), protocol)
        self.records = Records(self._planned, protocols)
        for record in records:
            self.add(record)
        self.extend()

    def add(self, record: Mapping[str, Any]) -> bool:
        """Takes note of a finished run; says whether it had no record before."""
        return self.records.add(record)

    def extend(self) -> None:
        """Adds the runs that the records call for; with 100,000 records this takes seconds."""
        records = self.records.values()
        self.wanted = sweeps.wanted(
            self._task_name, self._planned, self._protocols, records, self._check
        )

    def done(self) -> list[dict]:
        """The records of the wanted runs."""
        return [self.records[name] for name in self.wanted if name in self.records]

    def todo(self) -> dict[str, dict]:
        """The wanted runs that have no record, by run_id."""
        return {name: run for name, run in self.wanted.items() if name not in self.records}
