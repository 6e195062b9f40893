"""Checks protocols, and runs and metrics against them, before anything is trained."""

import collections
import math
import numbers
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from noisegen import _values
from noisegen._errors import one_line
from noisegen._text import count
from noisegen.storage.record import RUN_TOTALS
from noisegen.sweeps import domains
from noisegen.training import run_id

SEED = "seed"


def words(name: str, value: object, owner: str = "Protocol") -> tuple[str, ...]:
    """Returns the words of a field, of a protocol or another owner, as a tuple.

    Raises:
      ValueError: If the value is not a tuple or list of words.
    """
    if isinstance(value, str):
        raise ValueError(f"{owner} {name} must be a tuple of words; write ({value!r},).")
    if not isinstance(value, tuple | list) or not all(isinstance(word, str) for word in value):
        raise ValueError(f"{owner} {name} must be a tuple of words, got {value!r:.80}.")
    return tuple(value)


def check_protocol(protocol) -> None:
    """Checks the fields of a protocol.

    Raises:
      ValueError: If a field has an invalid value.
    """
    if not isinstance(protocol.row, str):
        raise ValueError(
            f"Protocol row must be a word, such as 'batch_size', got {protocol.row!r}."
        )
    if protocol.scaling_rule not in (None, True, False):
        raise ValueError(
            f"Protocol scaling_rule must be True, False or None, got {protocol.scaling_rule!r:.80}."
        )
    if not isinstance(protocol.mode, str) or protocol.mode not in ("max", "min"):
        raise ValueError(f"Protocol mode must be 'max' or 'min', got {protocol.mode!r:.80}.")
    if not isinstance(protocol.search, str) or protocol.search not in ("grid", "race"):
        raise ValueError(f"Protocol search must be 'grid' or 'race', got {protocol.search!r:.80}.")
    _check_tune(protocol)
    _check_counts(protocol)
    if protocol.series is not None and not callable(protocol.series):
        raise ValueError(
            f"Protocol series must be a function from a run to a label, got {protocol.series!r}."
        )
    _check_mapping(protocol, "domains", "Domain", lambda value: isinstance(value, domains.Domain))
    _check_mapping(protocol, "derived", "function of the run", callable)
    taken = protocol.derived.keys() & {protocol.row, SEED, *protocol.tune}
    if taken:
        raise ValueError(
            f"Protocol derived must not name {', '.join(sorted(taken))}, which is the row, the seed"
            " or tuned."
        )


def _check_tune(protocol) -> None:
    """Checks the tuned fields of a protocol."""
    tune = protocol.tune
    has_repeats = len(set(tune)) < len(tune)
    if not tune or has_repeats or {protocol.row, SEED} & set(tune):
        raise ValueError(
            f"Protocol tune must be a tuple of different fields other than {protocol.row} and"
            f" {SEED}, such as ('learning_rate',); got {tune!r}."
        )


def _check_counts(protocol) -> None:
    """Checks the fields of a protocol that count runs or rounds."""
    for name in ("best", "of", "max_extensions"):
        value = getattr(protocol, name)
        if not isinstance(value, numbers.Integral) or isinstance(value, bool):
            raise ValueError(f"Protocol needs a whole number {name}, got {value!r:.80}.")
    if not 1 <= protocol.best <= protocol.of:
        raise ValueError(
            f"Protocol needs 1 <= best <= of, got best={protocol.best}, of={protocol.of}."
        )
    if protocol.max_extensions < 0:
        raise ValueError(f"Protocol needs max_extensions >= 0, got {protocol.max_extensions}.")


def _check_mapping(protocol, name, kind, is_valid) -> None:
    """Checks a protocol's mapping from fields to values of one kind."""
    mapping = getattr(protocol, name)
    if not isinstance(mapping, Mapping) or not all(isinstance(field, str) for field in mapping):
        raise ValueError(
            f"Protocol {name} must be a mapping from field to {kind}, got {mapping!r:.80}."
        )
    for field, value in mapping.items():
        if not is_valid(value):
            raise ValueError(f"Protocol {name} of {field} must be a {kind}, got {value!r:.80}.")


def check_points(runs: Iterable[Mapping], protocol) -> None:
    """Checks planned runs against a protocol.

    Every field must hold values of one kind, and the row and the first tuned field must hold
    numbers. Runs of one point may differ in the seed alone. Values must lie in the declared
    domains, and derived fields must agree with their functions. In a race, every point must have as
    many seeds as the protocol's `of`, or it could not end.

    Raises:
      ValueError: If the runs violate one of these rules, or a run lacks a field that the protocol
        names.
    """
    runs = list(runs)
    points = {}
    for run in runs:
        group = protocol.group(run)  # Refuses a run that lacks a tuned field.
        tuned = tuple(run[name] for name in protocol.tune)
        points.setdefault((group, tuned), []).append(run)
    _check_numbers(runs, protocol)
    for point in points.values():
        check_alike(point)
    if protocol.search == "race":
        _check_seeds(runs, protocol)
    if protocol.domains or protocol.derived:
        for run in runs:
            check_domains(run, protocol)
            _check_derived(run, protocol)


def _check_seeds(runs, protocol) -> None:
    """Checks that every point of a race has as many planned seeds as the protocol asks for."""
    few = _points_of_few_seeds(runs, protocol)
    if few:
        raise ValueError(
            f"a race with of={protocol.of} needs {protocol.of} seeds for each choice of the"
            f" tuned fields, but {_named(few[0], protocol)} has {len(few[0])}; add seeds to the"
            " grid, or lower of."
        )


def warn_of_few_seeds(runs: Iterable[Mapping], protocol) -> None:
    """Warns if points have fewer planned seeds than the protocol asks for.

    Args:
      runs: The planned runs.
      protocol: The protocol.
    """
    few = _points_of_few_seeds(runs, protocol)
    if not few:
        return
    warnings.warn(
        f"The protocol asks for {protocol.of} seeds of each choice of the tuned fields (of="
        f"{protocol.of}), but fewer are planned for {count(len(few), 'choice')}, such as"
        f" {len(few[0])} for {_named(few[0], protocol)}. Their optima will be marked as chosen with"
        f" fewer runs than the protocol asks for: add seeds to the grid, or give of={len(few[0])}.",
        stacklevel=3,
    )


def _points_of_few_seeds(runs, protocol) -> list[dict]:
    """Returns the points with fewer seeds than the protocol's `of`, each a dict of runs by seed."""
    if protocol.of == 1:
        return []
    fields = (protocol.row, *protocol.tune)
    points = collections.defaultdict(dict)
    for run in runs:
        point = (protocol.group(run)[0], *(seen(name, run) for name in fields))
        points[point].setdefault(run.get(SEED, 0), run)
    return [found for found in points.values() if len(found) < protocol.of]


def _named(point, protocol) -> str:
    """Returns row and tuned fields of a point in words."""
    run = next(iter(point.values()))
    return ", ".join(f"{name}={run[name]!r}" for name in (protocol.row, *protocol.tune))


def _check_numbers(runs, protocol) -> None:
    """Checks that each field is of one kind, and that row and first tuned field are numbers."""
    kinds = check_kinds(runs)
    remedies = {
        protocol.row: "name another row, and tell the runs apart by its series",
        protocol.tune[0]: "tell the runs apart by its series, or tune a field of numbers first",
    }
    for name, remedy in remedies.items():
        kind = kinds.get(name, "numbers")
        if kind != "numbers":
            raise ValueError(
                f"the protocol needs finite numbers in the field {name!r}, but the runs have"
                f" {kind} there, such as {runs[0][name]!r}; {remedy}."
            )


def check_kinds(runs: Iterable[Mapping[str, _values.Value]]) -> dict[str, str]:
    """Returns the kind of each field's values: "numbers", "booleans" or "words".

    Raises:
      ValueError: If a field holds values of several kinds.
    """
    # One run of each combination of types is enough. Nearly always there is only one combination.
    examples = {}
    for run in runs:
        types = tuple(map(type, run.values()))
        examples.setdefault((tuple(run), types), run)
    first_by_field = {}
    for run in examples.values():
        for name, value in run.items():
            kind = _kind(value)
            first_kind, first_value = first_by_field.setdefault(name, (kind, value))
            if kind != first_kind:
                raise ValueError(
                    f"run field {name} holds {first_kind} and {kind} ({first_value!r} and"
                    f" {value!r}); give all runs of a sweep the same kind of value in a field."
                )
    return {name: kind for name, (kind, _) in first_by_field.items()}


def _kind(value) -> str:
    """Returns the kind of a field's value, in the plural."""
    if isinstance(value, str):
        return "words"
    if isinstance(value, bool | np.bool_):
        return "booleans"
    return "numbers"


def check_alike(runs: Sequence[Mapping]) -> bool:
    """Checks that runs of one point differ in the seed alone, after rounding to float32.

    Returns:
      True if they also agree without rounding.

    Raises:
      ValueError: If they differ in another field.
    """
    if len(runs) == 1:
        return True
    first = {**runs[0], SEED: None}
    different = [run for run in runs if {**run, SEED: None} != first]
    for run in different:
        fields = [name for name in first | run if name != SEED]
        fields = [name for name in fields if seen(name, first) != seen(name, run)]
        if fields:
            raise ValueError(
                f"runs with the same row and tuned fields differ in {', '.join(fields)}"
                f" ({[run.get(name) for name in fields]} and"
                f" {[first.get(name) for name in fields]}); name these fields in the protocol's"
                " tune, tell them apart by its series, or use a workdir for each."
            )
    return not different


def check_metrics(names: Iterable[str], protocol) -> None:
    """Checks that a task has the metrics that a protocol reads.

    Args:
      names: Names of the task's metrics and of derived ones.
      protocol: The protocol.

    Raises:
      ValueError: If a metric is missing.
    """
    for name in protocol.metric_names:
        if name not in RUN_TOTALS and name not in names:
            raise ValueError(
                f"the protocol needs the metric {name!r}, but there are only"
                f" {', '.join(names) or 'none'}; name one of these, or begin in a new --workdir if"
                " only older records lack it."
            )


def derived(run: Mapping, functions: Mapping[str, Callable]) -> dict[str, _values.Value]:
    """Returns the run with its derived fields recomputed, in the order of `functions`.

    Raises:
      ValueError: If a function fails on the run, or returns no number, boolean or word.
    """
    run = dict(run)
    for name, function in functions.items():
        try:
            value = function(run)
        except Exception as error:  # The user's functions may raise anything.
            raise ValueError(
                f"the protocol's derived {name} fails on the run {run}: {one_line(error)}."
            ) from error
        run[name] = _values.plain(name, value)
    return run


def seen(name: str, run: Mapping) -> object:
    """Returns the value of a run's field on the device, or None if the run lacks the field."""
    return run_id.on_device(name, run[name]) if name in run else None


def check_domains(run: Mapping, protocol) -> None:
    """Checks that a run lies in the domains that a protocol declares.

    Raises:
      ValueError: If it does not, or if an end of a domain is not a number.
    """
    for name, domain in protocol.domains.items():
        value = run.get(name, "")
        if type(value) in (int, float) and not domain.holds(value, run):
            low, high = domain.ends(run)
            raise ValueError(
                f"run field {name}={value!r} lies outside the domain that the protocol declares,"
                f" {domain.scale} from {low:g} to {high:g}; correct the grid or the domain."
            )


def _check_derived(run, protocol) -> None:
    """Checks that the derived fields of a planned run agree with their functions."""
    for name, value in derived(run, protocol.derived).items():
        if name not in protocol.derived:
            continue
        if name not in run:
            raise ValueError(
                f"the protocol derives {name!r}, which the run {run} lacks; add it to the grid."
            )
        if not _close(run[name], value):
            raise ValueError(
                f"the protocol derives {name}={value!r}, but the run {run} has"
                f" {name}={run[name]!r}; correct the grid or the function."
            )


def _close(planned, value) -> bool:
    """Returns whether two values of a derived field are equal up to rounding."""
    if type(planned) in (bool, str) or type(value) in (bool, str):
        return type(planned) is type(value) and planned == value
    return math.isclose(planned, value, rel_tol=1e-6)
