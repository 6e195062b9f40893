"""Grids that grow: the runs beyond the planned ones that the records of a sweep call for."""

import collections
import operator
import warnings
from collections.abc import Callable, Iterable, Mapping

from noisegen import _values
from noisegen.sweeps import checks
from noisegen.sweeps import protocol as protocols
from noisegen.training import run_id

Check = Callable[[Mapping], object]


def extend_grid(
    task_identity: str,
    planned: Mapping[str, dict],
    readings: Iterable[protocols.Protocol],
    records: Iterable[Mapping],
    check: Check | None = None,
) -> dict[str, dict]:
    """Returns the runs of a sweep: the planned ones, then those by which the grid is extended.

    The grid of a series and row grows in rounds, at most `max_extensions` of them. A round needs
    all runs of the one before. In it every tuned field grows in turn, at each end of the values
    tried that the optimum touches, or of the first field its error bar. The runs at that end are
    repeated at the next value of the field's domain, with derived fields computed anew. Where all
    runs diverged, the first field grows below its lowest value.

    A value whose runs diverged bounds the optimum from above. The answer depends on planned runs
    and their records alone, so a resumed sweep extends alike.

    A warning names a field that should grow and does not, as it has no domain or another field
    follows it without being derived; and a run that `check` refuses.

    Args:
      task_identity: As for `run_id`.
      planned: The planned runs, as `by_run_id` gives them.
      readings: Protocols, one or more; each looks at the runs that those before it call for, too.
      records: With their `run_id`, as `read` gives them; those of runs that are neither planned nor
        called for are ignored.
      check: A function that raises ValueError for a run that cannot be trained; the grid does not
        grow by it.

    Returns:
      A dict from run_id to run. Train those without a record, and ask again until all have one.
    """
    known = {record.run_id: record for record in records}
    found = dict(planned)
    for protocol in readings:
        found |= _extension(task_identity, found, protocol, known, check)
    return found


def _extension(task_identity, planned, protocol, records, check):
    """Returns the runs that the records, by run_id, call for in one reading."""
    groups = collections.defaultdict(dict)
    for name, run in planned.items():
        groups[protocol.group(run)][name] = run
    added = {}
    for group, tried in protocols.join_rows(groups, protocol.row, operator.or_).items():
        for _ in range(protocol.max_extensions):
            if not tried.keys() <= records.keys():
                break
            optimum = protocols.optimum(*group, [records[name] for name in tried], protocol)
            further = _round(group, optimum, list(tried.values()), protocol, check)
            further = run_id.by_run_id(task_identity, further)
            if not further.keys() - tried.keys():
                break
            tried |= further
            added |= further
    return added


def _round(group, optimum, runs, protocol, check):
    """Returns the runs by which every tuned field grows in turn."""
    if optimum.n:
        ends = protocols.ends(optimum.points, optimum.values, optimum.low, optimum.high)
    else:
        ends = [(protocol.tune[0], False)]
    further = []
    for name, up in ends:  # A later field also repeats the runs that an earlier one adds.
        further += _beyond(name, up, group, runs + further, protocol, check)
    return further


def _beyond(name, up, group, runs, protocol, check):
    """Returns the runs at one end of a field's values, moved one value outwards."""
    values = {run[name] for run in runs}
    if not {int, float}.issuperset(map(type, values)):  # Words: all runs diverged, else no end.
        return []
    if len(values) == 1:
        return []
    edge = run_id.on_device(name, (max if up else min)(values))
    moved = [run for run in runs if run_id.on_device(name, run[name]) == edge]
    domain = protocol.domain(name, tuple(values))
    if domain is None:
        warnings.warn(
            f"the grid ends at the best {name} and does not grow, as the field has no domain;"
            f" declare it in Protocol(domains={{{name!r}: Domain('log')}}), or 'linear', 'integer',"
            " 'fraction' or 'fixed'.",
            stacklevel=1,
        )
        return []
    steps = [(run, domain.step(tuple(values), up, run)) for run in moved]
    steps = [(run, _values.plain(name, value)) for run, value in steps if value is not None]
    if not steps:
        if domain.scale != "fixed" and not domain.is_end(moved[0][name], up, moved[0]):
            warnings.warn(
                f"the grid ends at the best {name} and does not grow, as no step of its"
                f" {domain.scale!r} scale leads beyond {moved[0][name]!r}; extend it by hand.",
                stacklevel=1,
            )
        return []
    if _is_tied(name, runs, protocol):
        return []
    found = (_changed(run, name, value, group, protocol, check) for run, value in steps)
    return [run for run in found if run is not None]


def _is_tied(name, runs, protocol):
    """Returns whether other fields change with a tuned one and are not derived; warns of each."""
    tied = _tied(name, runs, protocol)
    for other in tied:
        warnings.warn(
            f"the grid ends at the best {name} and does not grow, as the runs' {other} changes with"
            f" {name}; say how in Protocol(derived={{{other!r}: lambda run: ...}}).",
            stacklevel=1,
        )
    return bool(tied)


def _tied(name, runs, protocol):
    """Finds the fields that change with a tuned one, or may, and are not named in the protocol."""
    known = {protocols.SEED, protocol.row, *protocol.tune, *protocol.derived}
    others = [other for other in protocol.tune if other != name]
    varying = [
        field
        for field in runs[0]
        if field not in known and len({checks.seen(field, run) for run in runs}) > 1
    ]
    tied = []
    for field in varying:
        beside = collections.defaultdict(set)  # values of the field and of the tuned one
        for run in runs:
            place = tuple(run[other] for other in others)
            beside[place].add((checks.seen(field, run), run[name]))
        comparable = [pairs for pairs in beside.values() if len({tuned for _, tuned in pairs}) > 1]
        constant = all(len({value for value, _ in pairs}) == 1 for pairs in comparable)
        if not (comparable and constant):
            tied.append(field)
    return tied


def _changed(run, name, value, group, protocol, check):
    """Returns the run with another value of a tuned field, None if that is refused."""
    try:
        new = checks.derived({**run, name: value}, protocol.derived)
        if protocol.group(new) != (group[0], run[protocol.row]):
            return None  # It belongs to another series.
        checks.check_domains(new, protocol)
        if check is not None:
            check(new)
    except Exception as error:  # Of the user's functions, too: all that is trained must count.
        reason = " ".join(str(error).split()) or type(error).__name__
        warnings.warn(
            f"the grid does not grow to {name}={value!r}, which is refused: {reason}", stacklevel=1
        )
        return None
    return new
