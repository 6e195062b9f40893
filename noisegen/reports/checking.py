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

from noisegen._errors import one_line
from noisegen.reports import formatting, page
from noisegen.reports.published import Published, normalize_published
from noisegen.reports.report import FORMATS, Reading
from noisegen.storage import RUN_TOTALS, Record
from noisegen.sweeps import extension
from noisegen.sweeps.protocol import Protocol, select
from noisegen.training.run_id import by_run_id

_TASK = "none"  # the task of made-up records
_GROWN = ", which the grid may grow to (with the protocol's max_extensions=0 it does not)"


def check(
    protocol: Protocol | Sequence[Protocol],
    runs: Iterable[Mapping],
    published: Published | None = None,
    title: str = "",
    description: str = "",
) -> None:
    """Checks that `write_report` will have what it needs; trains, draws and writes nothing.

    Calls each series for all planned runs, and for runs that the grid may grow to. Makes tables
    and page of no record, then of a made-up record for each run.

    Args:
      protocol: As for `write_report`.
      runs: The planned runs.
      published: As for `write_report`.
      title: Title of the sweep.
      description: Description of the sweep.

    Raises:
      ValueError: If something is missing or of the wrong kind; the message names it.
    """
    protocols = (protocol,) if isinstance(protocol, Protocol) else tuple(protocol)
    for name, text in {"title": title, "description": description}.items():
        if not isinstance(text, str | None):
            raise ValueError(f"the {name} of a sweep must be text, got {text!r:.200}.")
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError("the figures of the report need Matplotlib: pip install matplotlib.")
    sweep = {"sweep": "", "task": _TASK, "title": title, "description": description}
    planned = by_run_id(_TASK, runs)
    for each in protocols:
        for run in planned.values():
            _check_label(each, run)
    normalize_published(published, protocols[0])
    _try_report(sweep, protocols, [], published)
    # The best runs are those of the largest values, then those of the smallest, so that the grid
    # grows at both ends.
    for slope in (1, -1):
        records = _made_up_records(protocols, planned, slope)
        for each in protocols:
            _check_grown_labels(each, protocols, planned, records)
        _try_report(sweep, protocols, records, published)


def _check_label(protocol, run, remark=""):
    """Checks that a run has the fields that a protocol needs, and that its series gives text."""
    if protocol.series is not None:
        _check_text(protocol.series, run, remark)
    protocol.group(run)


def _check_grown_labels(protocol, protocols, planned, records):
    """Checks that all series give text for the runs to which one protocol has the grid grow."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings about made-up records would mislead
        wanted = extension.extend_grid(_TASK, planned, (protocol,), records)
    for name, run in wanted.items():
        if name not in planned:
            for each in protocols:
                _check_label(each, run, _GROWN)


def _check_text(series, run, remark):
    """Checks that a function gives text for a run."""
    name = getattr(series, "__qualname__", repr(series))
    try:
        label = series(dict(run))
    except Exception as error:
        raise ValueError(
            f"the protocol's series {name} fails with {one_line(error)} for the run {run}{remark};"
            " return a label for every run."
        ) from error
    if not isinstance(label, str):
        raise ValueError(
            f"the protocol's series {name} gives {label!r}, which is no text, for the run"
            f" {run}{remark}; return a label such as f'noise {{{label!r}}}'."
        )


def _made_up_records(protocols, planned, slope):
    """Makes up a finished record of each run.

    With slope 1 a run is better the larger its first tuned field, with slope -1 the smaller.
    """
    metrics = {run_id: {} for run_id in planned}
    for protocol in protocols:
        name = protocol.tune[0]
        values = formatting.ordered(run[name] for run in planned.values())
        ranks = {value: rank / len(values) for rank, value in enumerate(values)}
        for run_id, run in planned.items():
            score = 0.5 + 0.1 * slope * protocol.sign * ranks[run[name]]
            metrics[run_id] |= dict.fromkeys(protocol.metric_names, score)
    numbers = dict.fromkeys(RUN_TOTALS, 1.0)
    return [
        Record(run_id=name, hparams=run, status="finished", metrics=metrics[name], **numbers)
        for name, run in planned.items()
    ]


def _try_report(sweep, protocols, records, published):
    """Makes the tables and the page, and throws them away."""
    try:
        sections = []
        for index, protocol in enumerate(protocols):
            optima = select(records, protocol)
            reading = Reading(protocol, optima, published if index == 0 else None)
            for form in FORMATS:
                reading.table(form)
            sections.append(reading.section())
        page.render_page(sweep, records, 0, sections)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"no report can be made of these runs: {one_line(error)}.") from error
