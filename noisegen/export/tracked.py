"""A run in the words of the tools that track experiments: config, summary and series."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from noisegen.storage import RUN_TOTALS, Record

_LONGEST_NAME = 150  # characters, since a name may become that of a directory


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """One finished run, as trackers take it. Numbers that are not finite are left out.

    Attributes:
      run_id: Its run id.
      name: The fields by which the planned runs differ, for people to read.
      status: "finished" or "diverged".
      config: Its hyperparameters.
      summary: Final metrics, derived ones among them, and the totals of the run.
      points: Metrics of each evaluation, by update. The epoch is among them.
    """

    run_id: str
    name: str
    status: str
    config: Mapping[str, Any]
    summary: Mapping[str, float]
    points: Mapping[int, Mapping[str, float]]

    @property
    def ended_without(self) -> set[str]:
        """Metrics that were evaluated but have no final value, because the run diverged.

        Tools take the last evaluation for the final value unless they are told otherwise.
        """
        evaluated = {name for values in self.points.values() for name in values}
        return evaluated - self.summary.keys() - {"epoch"}

    def series(self) -> Iterator[tuple[str, int, float]]:
        """Yields the name of a metric, the update and the value, for every value."""
        for update, values in self.points.items():
            for name, value in values.items():
                yield name, update, value


def tracked_run(
    record: Record, curve: Mapping[str, Sequence[float | None]], fields: Sequence[str]
) -> TrackedRun:
    """Returns a record and its curve as trackers take them.

    Args:
      record: The record, with derived metrics.
      curve: Its evaluations, empty if there are none.
      fields: Hyperparameters that make the name.
    """
    totals = {name: getattr(record, name) for name in RUN_TOTALS}
    updates = [int(update) for update in curve.get("update", ())]
    columns = {name: values for name, values in curve.items() if name != "update"}
    points = {
        update: _finite({name: values[index] for name, values in columns.items()})
        for index, update in enumerate(updates)
    }
    named = [f"{name}={record.hparams[name]}" for name in fields if name in record.hparams]
    return TrackedRun(
        run_id=record.run_id,
        name=" ".join(named).replace("/", "-")[:_LONGEST_NAME],
        status=record.status,
        config=dict(record.hparams),
        summary=_finite({**record.metrics, **totals}),
        points=points,
    )


def varying_fields(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the fields that have several values among runs, in the order of the first run."""
    return [name for name in runs[0] if len({run.get(name) for run in runs}) > 1]


def _finite(values):
    """Returns the numbers that are finite."""
    return {
        name: value for name, value in values.items() if value is not None and math.isfinite(value)
    }
