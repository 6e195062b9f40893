"""Checks of protocols, and of runs and metrics against them; all before anything is trained."""

import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from noisegen import _values
from noisegen.storage.record import MEASURED
from noisegen.sweeps import domains
from noisegen.training import run_id

SEED = "seed"
RECORDED = MEASURED  # numbers of a record beside its metrics


def words(name: str, value: object) -> tuple[str, ...]:
    """Returns the words of a protocol's field as a tuple.

    Raises:
      ValueError: If it is no tuple or list of words.
    """
    if isinstance(value, str):
        raise ValueError(f"Protocol {name} must be a tuple of words; write ({value!r},).")
    if not isinstance(value, tuple | list) or not all(isinstance(word, str) for word in value):
        raise ValueError(f"Protocol {name} must be a tuple of words, got {value!r:.80}.")
    return tuple(value)


def check_protocol(protocol) -> None:
    """Checks the fields of a protocol.

    Raises:
      ValueError: If one makes no sense.
    """
    for name, example in {"metric": "test_accuracy", "row": "batch_size"}.items():
        value = getattr(protocol, name)
        if not isinstance(value, str):
            raise ValueError(f"Protocol {name} must be a word, such as {example!r}, got {value!r}.")
    if not isinstance(protocol.mode, str) or protocol.mode not in ("max", "min"):
        raise ValueError(f"Protocol mode must be 'max' or 'min', got {protocol.mode!r:.80}.")
    twice = len(set(protocol.tune)) < len(protocol.tune)
    if twice or not protocol.tune or {protocol.row, SEED} & set(protocol.tune):
        raise ValueError(
            f"Protocol tune must be a tuple of different fields other than {protocol.row} and"
            f" {SEED}, such as ('learning_rate',); got {protocol.tune!r}."
        )
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
    if protocol.series is not None and not callable(protocol.series):
        raise ValueError(
            f"Protocol series must be a function from a run to a label, got {protocol.series!r}."
        )
    _check_mapping(protocol, "domains", "Domain", lambda each: isinstance(each, domains.Domain))
    _check_mapping(protocol, "derived", "function of the run", callable)
    if taken := protocol.derived.keys() & {protocol.row, SEED, *protocol.tune}:
        raise ValueError(
            f"Protocol derived names {', '.join(sorted(taken))}, which is the row, the seed or"
            " tuned; derive only fields that follow these."
        )


def _kind(value):
    """Returns the kind of a field's value, in the plural."""
    if isinstance(value, str):
        return "words"
    return "booleans" if isinstance(value, bool | np.bool_) else "numbers"


def _check_mapping(protocol, name, kind, fits):
    """Checks a protocol's mapping from fields to things of one kind."""
    value = getattr(protocol, name)
    if not isinstance(value, Mapping) or not all(isinstance(field, str) for field in value):
        raise ValueError(
            f"Protocol {name} must be a mapping from field to {kind}, got {value!r:.80}."
        )
    for field, each in value.items():
        if not fits(each):
            raise ValueError(f"Protocol {name} of {field} must be a {kind}, got {each!r:.80}.")


def check_points(runs: Iterable[Mapping], protocol) -> None:
    """Checks planned runs against a protocol.

    Every field holds values of one kind, row and first tuned field numbers; runs that the protocol
    takes for one point differ in the seed alone; values lie in the domains that the protocol
    declares and follow what it derives.

    Raises:
      ValueError: If this is not so, or a run lacks a field that the protocol names.
    """
    runs = list(runs)
    points = {}
    for run in runs:
        group = protocol.group(run)
        points.setdefault((group, *(run[name] for name in protocol.tune)), []).append(run)
    kinds = check_kinds(runs)
    for name, remedy in {
        protocol.row: "name another row, and tell the runs apart by its series",
        protocol.tune[0]: "tell the runs apart by its series, or tune a field of numbers first",
    }.items():
        if kinds.get(name, "numbers") != "numbers":
            raise ValueError(
                f"the protocol needs finite numbers in the field {name!r}, but the runs have"
                f" {kinds[name]} there, such as {runs[0][name]!r}; {remedy}."
            )
    for point in points.values():
        check_alike(point)
    for run in runs if protocol.domains or protocol.derived else ():
        check_domains(run, protocol)
        _check_derived(run, protocol)


def check_kinds(runs: Iterable[Mapping[str, _values.Value]]) -> dict[str, str]:
    """Returns the kind of each field's values: "numbers", "booleans" or "words".

    Raises:
      ValueError: If a field holds values of several kinds.
    """
    layouts = {}
    for run in runs:
        layouts.setdefault((tuple(run), tuple(map(type, run.values()))), run)
    found = {}
    for run in layouts.values():
        for name, value in run.items():
            kind = _kind(value)
            first, example = found.setdefault(name, (kind, value))
            if kind != first:
                raise ValueError(
                    f"run field {name} holds {first} and {kind} ({example!r} and {value!r}); give"
                    " all runs of a sweep the same kind of value in a field."
                )
    return {name: kind for name, (kind, _) in found.items()}


def check_alike(runs: Sequence[Mapping]) -> bool:
    """Checks that runs of one point differ in the seed alone, as far as the device sees.

    Returns:
      True if they are equal to the last digit.

    Raises:
      ValueError: If they differ in another field.
    """
    if len(runs) == 1:
        return True
    first = {**runs[0], SEED: None}
    odd = [run for run in runs if {**run, SEED: None} != first]
    for run in odd:
        differing = [
            name for name in first | run if name != SEED and seen(name, first) != seen(name, run)
        ]
        if differing:
            raise ValueError(
                f"runs with the same row and tuned fields differ in {', '.join(differing)}"
                f" ({[run.get(name) for name in differing]} and"
                f" {[first.get(name) for name in differing]});"
                " name these fields in the protocol's tune, tell them apart by its series, or use a"
                " workdir for each."
            )
    return not odd


def check_metrics(names: Iterable[str], protocol) -> None:
    """Checks that the runs of a task with the metrics `names` will have what the protocol reads.

    Raises:
      ValueError: If they will not.
    """
    for name in (protocol.metric, *protocol.report):
        if name not in RECORDED and name not in names:
            raise ValueError(
                f"the protocol needs the metric {name!r}, but there are only"
                f" {', '.join(names) or 'none'}; name one of these, or, where older records lack"
                " what is measured now, begin in a new --workdir."
            )


def derived(run: Mapping, functions: Mapping[str, Callable]) -> dict[str, _values.Value]:
    """Returns the run with its derived fields computed anew, in the order of `functions`.

    Raises:
      ValueError: If a function fails on the run, or gives no value of a run.
    """
    run = dict(run)
    for name, function in functions.items():
        try:
            value = function(run)
        except Exception as error:  # It is the user's.
            raise ValueError(
                f"the protocol's derived {name} fails on the run {run}:"
                f" {type(error).__name__}: {error}."
            ) from error
        run[name] = _values.plain(name, value)
    return run


def seen(name: str, run: Mapping) -> object:
    """Returns what the device sees of a run's field, None where the run lacks it."""
    return run_id.on_device(name, run[name]) if name in run else None


def check_domains(run: Mapping, protocol) -> None:
    """Checks that a run lies in the domains that a protocol declares.

    Raises:
      ValueError: If it does not, or an end is no number.
    """
    for name, domain in protocol.domains.items():
        value = run.get(name, "")
        if type(value) in (int, float) and not domain.holds(value, run):
            raise ValueError(
                f"run field {name}={value!r} lies outside the domain that the protocol declares,"
                f" {domain.scale} from {domain.ends(run)[0]:g} to {domain.ends(run)[1]:g}; mend the"
                " grid or the domain."
            )


def _check_derived(run, protocol):
    """Checks that the derived fields of a planned run are what their functions give."""
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


def _close(planned, value):
    """Returns whether two values of a derived field are equal but for rounding."""
    if type(planned) in (bool, str) or type(value) in (bool, str):
        return type(planned) is type(value) and planned == value
    return math.isclose(planned, value, rel_tol=1e-6)
