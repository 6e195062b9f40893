"""Decides which runs a sweep trains: all of a grid, or those of a race.

A race trains a part of the planned runs, with the same optimum and error bar as the whole grid in
nearly every case. Each series and row is raced on its own, in rounds:

1. One seed at a first point and at the points beside it. In the first row this point is in the
   middle, later it is the one nearest to where the best of the row before was first bracketed.
2. One seed at the points beside the best one, until those are tried: the best is then bracketed.
   Beyond the edge of the planned values the grid is extended, as `extend_grid` does. If no run
   survived, or too few of the best point's, smaller values of the first tuned field follow first.
3. Further seeds where they may change the result, see `noisegen.sweeps.race_rule`; back to 2 if
   another point has become the best.
4. One seed at the points beside every point in the error bar, along the first tuned field, with the
   grid extended as in 2.

A point is a choice of the tuned fields. Its values name it.

A round begins when all runs of the round before have a record, and reads no other record. Which
runs it trains is therefore a function of the planned runs and of the rounds before: a race that was
killed and resumed, or that many workers share, trains the same runs as an undisturbed one.
"""

import collections
import math
import operator
from collections.abc import Mapping, Sequence
from statistics import median_low

from noisegen.storage.record import Record
from noisegen.sweeps import checks, extension, race_rule
from noisegen.sweeps import protocol as protocol_lib
from noisegen.sweeps.extension import Check
from noisegen.sweeps.grids import HParams
from noisegen.sweeps.protocol import Protocol
from noisegen.sweeps.race_rule import RacePoint, Values
from noisegen.training import run_id


class Search:
    """Finds the runs that a sweep trains.

    Args:
      task_name: Name of the task, as for `run_id`.
      planned: The planned runs, as `by_run_id` returns them.
      protocols: The protocols, at least one. The sweep trains what each of them asks for.
      check: A function that raises ValueError for a run that cannot be trained. Such runs do not
        extend the grid.
    """

    def __init__(
        self,
        task_name: str,
        planned: Mapping[str, HParams],
        protocols: Sequence[Protocol],
        check: Check | None = None,
    ):
        self._task_name, self._planned, self._check = task_name, planned, check
        self._grids = [protocol for protocol in protocols if protocol.search == "grid"]
        self._recorded: dict[str, HParams] | None = None  # planned runs with a record at first
        self._races: list[list[_RowRace]] = []  # rows in order, of each protocol and series
        for protocol in protocols:
            if protocol.search == "race":
                self._races += _make_races(task_name, planned, protocol, check)

    def wanted(self, records: Mapping[str, Record]) -> dict[str, HParams]:
        """Returns the runs to train and those already trained, by run_id.

        Planned runs that have a record at the first call are among them, so a race after a grid
        counts them. Of the runs that extended the grid it counts only those that it wants itself.

        Args:
          records: The records so far by run_id. Those of other runs are ignored.
        """
        found: dict[str, HParams] = {}
        if self._grids:
            found |= extension.extend_grid(
                self._task_name, self._planned, self._grids, records.values(), self._check
            )
        if self._races:
            if self._recorded is None:
                self._recorded = {n: run for n, run in self._planned.items() if n in records}
            found |= self._recorded
        for races in self._races:
            _advance(races, records)
            for race in races:
                found |= race.wanted()
        return found

    def fewest_runs(self) -> dict[str, HParams]:
        """Returns the fewest runs of a race in which runs survive in every row, by run_id.

        Such a race trains at least all seeds of one point, and one seed of each point beside it;
        two where its noise is measured. A row in which every run diverges may end with fewer runs.
        """
        found: dict[str, HParams] = {}
        if self._grids:
            found |= self._planned
        for races in self._races:
            for race in races:
                found |= race.fewest_runs()
        return found


def _make_races(task_name, planned, protocol, check) -> list[list["_RowRace"]]:
    """Returns the races of one protocol: the rows of each series, in ascending order."""
    groups = collections.defaultdict(dict)
    for name, run in planned.items():
        groups[protocol.group(run)][name] = run
    groups = protocol_lib.join_rows(groups, protocol.row, operator.or_)
    by_series = collections.defaultdict(list)
    for group in protocol.order(groups):
        race = _RowRace(task_name, group, groups[group], protocol, check)
        by_series[group[0]].append(race)
    return list(by_series.values())


def _advance(races: Sequence["_RowRace"], records) -> None:
    """Advances the rows of one series.

    A row begins when the best point of the row before it is bracketed.
    """
    near = None
    for race in races:
        race.advance(near, records)
        near = race.bracketed
        if near is None:
            return


class _RowRace:
    """The race of one series and row.

    Args:
      task_name: Name of the task, as for `run_id`.
      group: Label of the series, and row.
      runs: The planned runs by run_id.
      protocol: How records are read.
      check: As for `Search`.
    """

    def __init__(self, task_name, group, runs: Mapping[str, HParams], protocol, check):
        self._task_name, self._group, self._check = task_name, group, check
        self._protocol: Protocol = protocol
        self._runs = dict(runs)
        self._cells: dict[Values, list[str]] = {}  # run_ids, ascending in the seed
        self._seeds: dict[Values, int] = {}  # number of seeds wanted so far, of the points tried
        self._num_extensions: dict[tuple[str, bool], int] = collections.defaultdict(int)
        self._is_over = False
        self.bracketed: Values | None = None  # the best point when it was first bracketed
        self._fill_cells()

    def wanted(self) -> dict[str, HParams]:
        """Returns the runs wanted so far by run_id."""
        return {
            name: self._runs[name]
            for values, number in self._seeds.items()
            for name in self._cells[values][:number]
        }

    def fewest_runs(self) -> dict[str, HParams]:
        """Returns the runs of the shortest race in which runs survive, by run_id."""
        middle = self._nearest(None)
        beside = self._all_beside(middle)
        found = self._cells[middle] + [self._cells[values][0] for values in beside]
        if beside and len(self._cells[middle]) > 1:
            found += self._cells[beside[0]][1:2]
        return {name: self._runs[name] for name in found}

    def advance(self, near: Values | None, records: Mapping[str, Record]) -> None:
        """Begins all rounds that the records allow.

        Args:
          near: The point near which the best one is looked for first, None for the middle.
          records: The records so far by run_id.
        """
        if not self._seeds:
            start = self._nearest(near)
            self._seeds = dict.fromkeys([start, *self._all_beside(start)], 1)
        while not self._is_over and self.wanted().keys() <= records.keys():
            following = self._next_round(records)
            self._seeds |= following
            self._is_over = not following

    def _next_round(self, records) -> dict[Values, int]:
        """Returns the number of seeds of each point that needs more, empty if the race is over."""
        points = [self._point(values, records) for values in self._seeds]
        best = race_rule.best_point(points)
        if best is None or not best.is_stable:
            smallest = min(self._seeds)
            if below := self._untried_beside(smallest, self._protocol.tune[:1], ups=(False,)):
                return below
            if best is None:
                self.bracketed = smallest
                return {}
        if beside := self._untried_beside(best.values, self._protocol.tune):
            return beside
        self.bracketed = self.bracketed or best.values
        if more := race_rule.more_seeds(points):
            return more
        following: dict[Values, int] = {}
        for point in race_rule.error_bar(points, best):
            following |= self._untried_beside(point.values, self._protocol.tune[:1])
        return following

    def _point(self, values, records) -> RacePoint:
        """Returns a point with its scores so far."""
        protocol, names = self._protocol, self._cells[values]
        scores = []
        for name in names[: self._seeds[values]]:
            score = protocol_lib.metric_of(records[name], protocol.metric.name)
            scores.append(None if score is None else protocol.sign * score)
        return RacePoint(
            values=values,
            scores=tuple(scores),
            num_counted=protocol.num_counted(len(scores)),
            num_planned=len(names),
        )

    def _untried_beside(self, values, fields, ups=(False, True)) -> dict[Values, int]:
        """Returns a seed for each point beside another that has none, extending the grid if needed.

        Args:
          values: The other point.
          fields: Names of the tuned fields along which to go.
          ups: True to go to larger values, False to go to smaller ones.
        """
        found = {}
        for name in fields:
            for up in ups:
                beside = self._beside(values, name, up)
                if not beside and self._extend(values, name, up):
                    beside = self._beside(values, name, up)
                for each in beside:
                    if each not in self._seeds:
                        found[each] = 1
        return found

    def _beside(self, values, name, up) -> list[Values]:
        """Returns the next point along one field, the others being equal. Empty at the edge.

        Words and booleans have no order: each is beside all others.
        """
        index = self._protocol.tune.index(name)
        line = [
            other
            for other in self._cells
            if other[:index] + other[index + 1 :] == values[:index] + values[index + 1 :]
        ]
        if not _is_number(values[index]):
            return [other for other in line if other != values]
        if up:
            return sorted(other for other in line if other[index] > values[index])[:1]
        return sorted(other for other in line if other[index] < values[index])[-1:]

    def _all_beside(self, values) -> list[Values]:
        """Returns the planned points beside another, along every tuned field."""
        fields = self._protocol.tune
        found = [
            each
            for name in fields
            for up in (False, True)
            for each in self._beside(values, name, up)
        ]
        return list(dict.fromkeys(found))

    def _extend(self, values, name, up) -> bool:
        """Extends the grid beyond one end of a field, if it may; returns whether it did.

        Args:
          values: The point beside which others are looked for.
          name: The field.
          up: Whether the end is the upper one.
        """
        index = self._protocol.tune.index(name)
        planned = [other[index] for other in self._cells]
        is_at_end = _is_number(values[index]) and values[index] == (max if up else min)(planned)
        if not is_at_end or self._num_extensions[name, up] >= self._protocol.max_extensions:
            return False
        self._num_extensions[name, up] += 1
        proposed = extension.extend_field(
            name, up, self._group, list(self._runs.values()), self._protocol, self._check
        )
        new = run_id.by_run_id(self._task_name, proposed)
        self._runs |= new
        self._fill_cells()
        return bool(new)

    def _fill_cells(self) -> None:
        """Collects the runs of each point, with ascending seeds."""
        cells = collections.defaultdict(list)
        for name, run in self._runs.items():
            # 0.1 and 0.1 + 1e-12 are one point on the device.
            values = tuple(run_id.on_device(field, run[field]) for field in self._protocol.tune)
            cells[values].append((run.get(checks.SEED, 0), name))
        for values, pairs in cells.items():
            first = sorted(pairs)[: self._protocol.of]  # No other run can count.
            self._cells[values] = [name for _, name in first]

    def _nearest(self, near: Values | None) -> Values:
        """Returns the planned point nearest to another, on a logarithmic scale where it can be.

        Args:
          near: The other point, None for the middle of the planned ones.
        """
        if near is None:
            columns = zip(*self._cells, strict=True)
            near = tuple(median_low(sorted(set(column))) for column in columns)
        return min(sorted(self._cells), key=lambda values: _distance(values, near))


def _distance(values: Values, others: Values) -> float:
    """Returns how far apart two points are: octaves along fields where both are positive."""
    total = 0.0
    for value, other in zip(values, others, strict=True):
        if not _is_number(value) or not _is_number(other):
            total += value != other
        elif value > 0 and other > 0:
            total += abs(math.log2(value / other))
        else:
            total += abs(value - other)
    return total


def _is_number(value) -> bool:
    """Returns whether values of this kind have an order and ends."""
    return type(value) in (int, float)
