"""Where a sweep has to look on: the runs beyond the planned ones that its records call for."""

import collections
from collections.abc import Iterable, Mapping

from noisegen.sweeps import grid, identity
from noisegen.sweeps import protocol as protocols

_COUNTS = ("batch_size", "num_epochs", "num_updates")  # not every value of these can be trained


def extension(
    records: Iterable[Mapping], protocol: protocols.Protocol, runs: Iterable[Mapping]
) -> list[dict]:
    """The runs beyond the planned ones that the records call for, whether done already or not.

    Where all runs of a series and row are done and the optimum or its error bar touches an end of
    the first tuned field, the runs at that end are repeated one value further, at the grid's own
    ratio; where all diverged, below the lowest. A value whose runs diverged bounds the optimum from
    above. The answer depends on planned runs and their records alone, so a resumed sweep extends
    alike.

    Args:
      records: As for `select`; those of runs that are neither planned nor called for are ignored.
      protocol: How to read them.
      runs: The planned runs.

    Returns:
      The runs, in the order in which they are called for. Train those without a record, and ask
      again until all have one.
    """
    if protocol.tune[0] in _COUNTS:
        return []
    groups = collections.defaultdict(list)
    for run in runs:
        groups[protocol.group(run)].append(dict(run))
    fields = sorted({name for tried in groups.values() for name in tried[0]})

    def key(run):
        return len(run), *map(run.get, fields)

    done = {key(record["run"]): record for record in records}
    added = []
    for tried in groups.values():
        planned = len(tried)
        for _ in range(protocol.max_extensions):
            found = [done.get(key(run)) for run in tried]
            if None in found:
                break
            [optimum] = protocols.select(found, protocol)
            further = _further(optimum, tried, protocol.tune[0])
            if not further:
                break
            tried += further
        added += tried[planned:]
    return added


def wanted(
    task_identity: str,
    planned: dict[str, dict],
    readings: Iterable[protocols.Protocol],
    records: Iterable[Mapping],
) -> dict[str, dict]:
    """The runs of a sweep: the planned ones, then those that each protocol calls for.

    Args:
      task_identity: As for `run_id`.
      planned: The planned runs, as `by_run_id` gives them.
      readings: Protocols, as for `extension`, one or more.
      records: As for `extension`.

    Returns:
      A dict from run_id to run.
    """
    records, found = list(records), dict(planned)
    for protocol in readings:
        further = extension(records, protocol, found.values())
        found |= identity.by_run_id(task_identity, further)
    return found


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
