"""Where a sweep has to look on: the runs beyond the planned ones that its records call for."""

import collections
from collections.abc import Iterable, Mapping

from noisegen.sweeps import grid, identity
from noisegen.sweeps import protocol as protocols

_COUNTS = ("batch_size", "num_epochs", "num_updates")  # not every value of these can be trained


def wanted(
    task_identity: str,
    planned: Mapping[str, dict],
    readings: Iterable[protocols.Protocol],
    records: Iterable[Mapping],
) -> dict[str, dict]:
    """The runs of a sweep: the planned ones, then those that the records call for, done or not.

    Where all runs of a series and row are done and the optimum or its error bar touches an end of
    the first tuned field, the runs at that end are repeated one value further, at the grid's own
    ratio; where all diverged, below the lowest. A value whose runs diverged bounds the optimum from
    above. The answer depends on planned runs and their records alone, so a resumed sweep extends
    alike.

    Args:
      task_identity: As for `run_id`.
      planned: The planned runs, as `by_run_id` gives them.
      readings: Protocols, one or more; each looks at the runs that those before it call for, too.
      records: With their `run_id`, as `read` gives them; those of runs that are neither planned nor
        called for are ignored.

    Returns:
      A dict from run_id to run. Train those without a record, and ask again until all have one.
    """
    known = {record["run_id"]: record for record in records}
    found = dict(planned)
    for protocol in readings:
        found |= _extension(task_identity, found, protocol, known)
    return found


def _extension(task_identity, planned, protocol, records):
    """The runs beyond the planned ones that the records, by run_id, call for in one reading."""
    if protocol.tune[0] in _COUNTS:
        return {}
    groups = collections.defaultdict(dict)
    for name, run in planned.items():
        groups[protocol.group(run)][name] = run
    added = {}
    for group, tried in groups.items():
        for _ in range(protocol.max_extensions):
            if not tried.keys() <= records.keys():
                break
            optimum = protocols.optimum(*group, [records[name] for name in tried], protocol)
            further = _further(optimum, tried.values(), protocol.tune[0])
            if not further:
                break
            further = identity.by_run_id(task_identity, further)
            tried |= further
            added |= further
    return added


def _further(optimum, runs, name):
    """The runs at the ends that the optimum or its bar touches, moved one value outwards."""
    values = sorted({run[name] for run in runs})
    ends = []
    if len(values) > 1 and (not optimum.n or optimum.low == values[0]):
        ends.append((values[0], values[1]))
    if len(values) > 1 and optimum.high == values[-1]:
        ends.append((values[-1], values[-2]))
    return [
        {**run, name: _step(end, inner)}
        for end, inner in ends
        if min(end, inner) > 0  # else the grid has no ratio there
        for run in runs
        if run[name] == end
    ]


def _step(end, inner):
    """The next value of a geometric grid beyond its end; powers of two stay exact."""
    value = end * (end / inner)
    return value if grid.is_power_of_two(end / inner) else float(f"{value:.12g}")
