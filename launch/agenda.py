"""Which runs a sweep wants, and which of them are done."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from noisegen import sweeps

# Of a record; the rest would only fill the memory.
_KEPT = ("run_id", "run", "status", "metrics", "finished_at", *sweeps.RECORDED)


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
      records: by run_id, without what only the report needs.

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
        self.records: dict[str, dict] = {}
        for record in records:
            self.add(record)
        self.extend()

    def add(self, record: Mapping[str, Any]) -> bool:
        """Takes note of a finished run; says whether it had no record before."""
        new = record["run_id"] not in self.records
        sweeps.first_finished(self.records, {n: record[n] for n in _KEPT if n in record})
        return new

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
