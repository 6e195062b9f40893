"""Extends a grid when its optimum lies on the boundary of the values tried."""

import collections
import operator
import warnings
from collections.abc import Callable, Iterable, Mapping

from noisegen import _values
from noisegen.storage.record import Record
from noisegen.sweeps import checks
from noisegen.sweeps import protocol as protocol_lib
from noisegen.sweeps.protocol import Optimum, Protocol
from noisegen.training import run_id

Check = Callable[[Mapping], object]


def extend_grid(
    task_name: str,
    planned: Mapping[str, dict],
    protocols: Iterable[Protocol],
    records: Iterable[Record],
    check: Check | None = None,
) -> dict[str, dict]:
    """Returns the runs of a sweep: the planned ones, then those that extend the grid.

    The grid of each series and row is extended in rounds, at most `max_extensions` times. A round
    begins when all runs of the round before have a record. It extends every tuned field in turn, at
    each end of the values tried that the optimum touches. For the first field, the error bar counts
    instead of the optimum. The runs at that end are repeated at the next value of the field's
    domain, and derived fields are recomputed. If all runs diverged, the first field is extended
    below its lowest value.

    A value at which all runs diverged bounds the optimum from above. The result depends on planned
    runs and their records alone, so a resumed sweep is extended in the same way.

    A warning is issued if a field should be extended but has no domain, if another field follows it
    without being derived, or if `check` refuses a run.

    Args:
      task_name: Name of the task, as for `run_id`.
      planned: The planned runs, as `by_run_id` returns them.
      protocols: The protocols, at least one. Each also reads the runs added for the ones before.
      records: Records with a `run_id`. Records of other runs are ignored.
      check: A function that raises ValueError for a run that cannot be trained. Such runs are left
        out.

    Returns:
      A dict from run_id to run. Train the runs without a record, and call this again until all runs
      have one.
    """
    records_by_id = {record.run_id: record for record in records}
    runs = dict(planned)
    for protocol in protocols:
        runs |= _find_extension(task_name, runs, protocol, records_by_id, check)
    return runs


def _find_extension(task_name, planned, protocol, records, check) -> dict[str, dict]:
    """Returns the runs by which one protocol extends the grid."""
    groups = collections.defaultdict(dict)
    for name, run in planned.items():
        groups[protocol.group(run)][name] = run
    # Rows that are equal on the device are one row.
    groups = protocol_lib.join_rows(groups, protocol.row, operator.or_)
    added = {}
    for group, runs in groups.items():
        added |= _extend_group(task_name, group, runs, protocol, records, check)
    return added


def _extend_group(task_name, group, runs, protocol, records, check) -> dict[str, dict]:
    """Returns the runs by which the grid of one series and row is extended, in all rounds."""
    runs = dict(runs)
    added = {}
    for _ in range(protocol.max_extensions):
        if not runs.keys() <= records.keys():
            break  # A round needs the records of the one before.
        series, row = group
        group_records = [records[name] for name in runs]
        optimum = protocol_lib.optimum(series, row, group_records, protocol)
        proposed = _propose_round(group, optimum, list(runs.values()), protocol, check)
        proposed = run_id.by_run_id(task_name, proposed)
        if proposed.keys() <= runs.keys():
            break  # Nothing new, so further rounds would propose the same.
        runs |= proposed
        added |= proposed
    return added


def _propose_round(group, optimum: Optimum, runs, protocol, check) -> list[dict]:
    """Returns the runs by which every tuned field is extended in turn."""
    if optimum.n:
        ends = protocol_lib.ends(optimum.points, optimum.values, optimum.low, optimum.high)
    else:  # All runs diverged: smaller values of the first field may not.
        ends = [(protocol.tune[0], False)]
    proposed = []
    for name, up in ends:
        # Including the runs proposed before keeps a grid of several fields without gaps.
        proposed += extend_field(name, up, group, runs + proposed, protocol, check)
    return proposed


def extend_field(name, up, group, runs, protocol, check) -> list[dict]:
    """Returns the runs at one end of a field's values, moved one value outwards."""
    values = tuple({run[name] for run in runs})
    # Words have no ends. They come here only if all runs diverged.
    is_numeric = all(type(value) in (int, float) for value in values)
    if not is_numeric or len(values) == 1:
        return []
    domain = protocol.domain(name, values)
    if domain is None:
        _warn_at_end(
            name,
            f"the field has no domain; declare it in Protocol(domains={{{name!r}: Domain('log')}}),"
            " or 'linear', 'integer', 'fraction' or 'fixed'",
        )
        return []
    steps = []  # Pairs of a run at the end and the field's next value for it.
    runs_at_end = _find_runs_at_end(name, up, runs)
    for run in runs_at_end:
        value = domain.step(values, up, run)
        if value is not None:
            steps.append((run, _values.plain(name, value)))
    if not steps:
        _warn_if_stuck(name, up, runs_at_end[0], domain)
        return []
    if _is_tied(name, runs, protocol):
        return []
    proposed = [_changed(run, name, value, group, protocol, check) for run, value in steps]
    return [run for run in proposed if run is not None]


def _find_runs_at_end(name, up, runs) -> list[dict]:
    """Returns the runs with a field's largest value, or its smallest, as seen by the device."""
    values = [run[name] for run in runs]
    end = max(values) if up else min(values)
    end = run_id.on_device(name, end)
    return [run for run in runs if run_id.on_device(name, run[name]) == end]


def _warn_if_stuck(name, up, run, domain) -> None:
    """Warns that a field has no next value, unless its domain ends there."""
    if domain.scale == "fixed" or domain.is_end(run[name], up, run):
        return
    _warn_at_end(
        name, f"no step of its {domain.scale!r} scale leads beyond {run[name]!r}; extend it by hand"
    )


def _warn_at_end(name, reason) -> None:
    """Warns that a field's best value is at the end of the grid, which is not extended."""
    warnings.warn(
        f"the grid ends at the best {name} and is not extended, as {reason}.", stacklevel=1
    )


def _is_tied(name, runs, protocol) -> bool:
    """Returns whether other fields change with a tuned one and are not derived. Warns of each."""
    tied = _find_tied(name, runs, protocol)
    for other in tied:
        _warn_at_end(
            name,
            f"the runs' {other} changes with {name}; say how in"
            f" Protocol(derived={{{other!r}: lambda run: ...}})",
        )
    return bool(tied)


def _find_tied(name, runs, protocol) -> list[str]:
    """Returns the fields that change with a tuned one, or may, and have no role in the protocol."""
    known = {protocol_lib.SEED, protocol.row, *protocol.tune, *protocol.derived}
    other_tuned = [other for other in protocol.tune if other != name]
    tied = []
    for field in runs[0]:
        if field in known or len({checks.seen(field, run) for run in runs}) == 1:
            continue
        # The tuned field can be blamed only if all other tuned fields are equal: its values, and
        # those of the field beside them, are collected by the values of the others.
        pairs_by_others = collections.defaultdict(set)
        for run in runs:
            others = tuple(run[other] for other in other_tuned)
            pairs_by_others[others].add((checks.seen(field, run), run[name]))
        comparable = [
            pairs for pairs in pairs_by_others.values() if len({tuned for _, tuned in pairs}) > 1
        ]
        is_constant = all(len({value for value, _ in pairs}) == 1 for pairs in comparable)
        if not comparable or not is_constant:
            tied.append(field)
    return tied


def _changed(run, name, value, group, protocol, check) -> dict | None:
    """Returns the run with another value of a tuned field, or None if that is refused."""
    try:
        new = checks.derived({**run, name: value}, protocol.derived)
        if protocol.group(new) != (group[0], run[protocol.row]):
            return None  # The new run belongs to another series.
        checks.check_domains(new, protocol)
        if check is not None:
            check(new)
    except Exception as error:  # The user's functions may raise anything.
        reason = " ".join(str(error).split()) or type(error).__name__
        warnings.warn(
            f"the grid is not extended to {name}={value!r}, which is refused: {reason}",
            stacklevel=1,
        )
        return None
    return new
