"""Checks everything that a report needs before training.

>>> from noisegen import reports, sweeps
>>> protocol = sweeps.Protocol(series=lambda run: run["eta"])
>>> reports.check(protocol, [{"batch_size": 64, "learning_rate": 0.1, "eta": 0.3}])
Traceback (most recent call last):
...
ValueError: the protocol's series <lambda> gives 0.3, which is no text, for the run \
{'batch_size': 64, 'learning_rate': 0.1, 'eta': 0.3}; return a label such as f'noise {0.3}'.
"""

import importlib.util
import warnings
from collections.abc import Iterable, Mapping, Sequence

from noisegen.reports import page
from noisegen.storage import Record
from noisegen.sweeps import growth, numerals, tables
from noisegen.sweeps import protocol as protocols
from noisegen.training import run_id

_TASK = "none"  # the task of made-up records
_GROWN = ", which the grid may grow to (with the protocol's max_extensions=0 it does not)"


def check(
    protocol: protocols.Protocol | Sequence[protocols.Protocol],
    runs: Iterable[Mapping],
    published: tables.Published | None = None,
    title: str = "",
    description: str = "",
) -> None:
    """Checks that `write_report` will have what it needs; trains, draws and writes nothing.

    Calls each series for all planned runs and for runs that the grid may grow to.
    Tables and page are made of no record, then of a made-up record for each run.

    Args:
      protocol: As for `write_report`.
      runs: The planned runs.
      published: As for `write_report`.
      title: Of the sweep.
      description: Of the sweep.

    Raises:
      ValueError: If something is missing or of the wrong kind; the message names it.
    """
    readings = (protocol,) if isinstance(protocol, protocols.Protocol) else tuple(protocol)
    for name, text in {"title": title, "description": description}.items():
        if not isinstance(text, str | None):
            raise ValueError(f"the {name} of a sweep must be text, got {text!r:.200}.")
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError("the figures of the report need Matplotlib: pip install matplotlib.")
    planned = run_id.by_run_id(_TASK, runs)
    for each in readings:
        for run in planned.values():
            _check_label(each, run)
    tables.by_name(published or {}, readings[0])
    _try(readings, [], published, title, description)
    for slope in (1, -1):  # the best runs are those of the largest values, then of the smallest
        records = _made_up(readings, planned, slope)
        for each in readings:
            _check_grown(each, readings, planned, records)
        _try(readings, records, published, title, description)


def _check_label(protocol, run, which=""):
    """Checks that the series of a protocol gives text for a run, which has the fields it needs."""
    if protocol.series is not None:
        _check_text(protocol.series, run, which)
    protocol.group(run)


def _check_grown(protocol, readings, planned, records):
    """Checks that all series give text for the runs to which one protocol has the grid grow."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those are of records that are made up
        wanted = growth.extend_grid(_TASK, planned, (protocol,), records)
    for name, run in wanted.items():
        if name not in planned:
            for each in readings:
                _check_label(each, run, _GROWN)


def _check_text(series, run, which):
    """Checks that a function gives text for a run."""
    name = getattr(series, "__qualname__", repr(series))
    try:
        label = series(dict(run))
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"the protocol's series {name} fails with {reason} for the run {run}{which};"
            " return a label for every run."
        ) from error
    if not isinstance(label, str):
        raise ValueError(
            f"the protocol's series {name} gives {label!r}, which is no text, for the run"
            f" {run}{which}; return a label such as f'noise {{{label!r}}}'."
        )


def _made_up(readings, planned, slope):
    """Makes up a finished record of each run, better the larger its first tuned field, or worse."""
    metrics = {name: {} for name in planned}
    for each in readings:
        values = numerals.ordered(run[each.tune[0]] for run in planned.values())
        ranks = {value: index / len(values) for index, value in enumerate(values)}
        for name, run in planned.items():
            score = 0.5 + 0.1 * slope * each.sign * ranks[run[each.tune[0]]]
            metrics[name] |= dict.fromkeys((each.metric, *each.report), score)
    numbers = dict.fromkeys(protocols.RECORDED, 1.0)
    return [
        Record(run_id=name, hparams=run, status="finished", metrics=metrics[name], **numbers)
        for name, run in planned.items()
    ]


def _try(readings, records, published, title, description):
    """Makes the tables and the page, and throws them away."""
    try:
        sections = []
        for index, each in enumerate(readings):
            optima = protocols.select(records, each)
            table = tables.make_table(optima, each, published if index == 0 else None)
            for write in page.ENDINGS.values():
                write(table)
            sections.append(page.table_html(table))
        sweep = {"sweep": "", "task": _TASK, "title": title, "description": description}
        page.compose(sweep, records, 0, sections)
    except ValueError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"no report can be made of these runs: {reason}.") from error
