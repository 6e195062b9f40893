"""The runs of a sweep as the explorable page holds them: plain lists, one entry for each run.

The page finds a run by its hyperparameters, draws its curve and writes its command from these lists
alone. Runs are named by their position in the records.
"""

import collections
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from noisegen.reports.formatting import display_name, format_number
from noisegen.storage import Record
from noisegen.sweeps.metrics import Metric
from noisegen.sweeps.protocol import Optimum, Protocol, metric_of
from noisegen.training.run_id import on_device

MOST_EXPLORABLE = 10_000  # that a page holds; its size and speed are tested with so many
_MOST_VALUES = 200_000  # of all curves, 7 bytes each
_FEWEST_VALUES = 12  # of each curve
_DIGITS = 5

_CHOOSES_RUNS = ("--config.grid.", "--config.search=", "--config.best=")


def runs_content(
    records: Sequence[Record],
    readings: Sequence[tuple[Protocol, Sequence[str]]],
    curves: Mapping[str, Mapping],
    command: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Returns what the page knows of the runs, as plain values for JSON.

    Args:
      records: Records of the sweep.
      readings: The protocol of each section of the page, and the labels of its series.
      curves: From run_id to curve.
      command: What `run_command` returns, or None.
    """
    protocols = [protocol for protocol, _ in readings]
    metrics = {each.name: each for protocol in protocols for each in _metrics(protocol)}
    tuned = dict.fromkeys(protocol.metric.name for protocol in protocols)
    return {
        "ids": [record.run_id for record in records],
        "diverged": [int(record.status == "diverged") for record in records],
        "fields": _fields(records),
        "metrics": {name: _metric(each, records) for name, each in metrics.items()},
        "curves": {name: _curves(metrics[name], records, curves) for name in tuned},
        "command": command,
        "sections": [_section(records, *reading) for reading in readings],
    }


def run_command(command: str, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns what makes the command of one run out of that of a sweep, None if nothing does.

    The page adds a flag for each field of the grid, and a directory of its own. If other runs of
    the experiment follow from the same fields, such as a series with noise, the command trains
    these too.

    Args:
      command: The command that trains the sweep, or ''.
      config: Config of the sweep's experiment, empty if a program made the sweep.

    Returns:
      A dict with `words`, the beginning of the command, and `fields`, those that get a flag.

    Examples:
      >>> command = "noisegen sweep it.py --workdir=w --config.grid.seed=0,1"
      >>> run_command(command, {"grid": {"seed": (0, 1)}, "best": 2})
      {'words': 'noisegen sweep it.py --config.best=1', 'fields': ['seed']}
    """
    if not command or not config.get("grid"):
        return None
    words, kept = shlex.split(command), []
    while words:
        flag = [words.pop(0)]
        # `--workdir w` is two words, `--workdir=w` is one.
        if flag[0].startswith("--") and "=" not in flag[0] and words and words[0][:1] != "-":
            flag.append(words.pop(0))
        is_config = flag[0].startswith("--config") and not flag[0].startswith(_CHOOSES_RUNS)
        # Other flags name the directory of the sweep, its workers, or settings of speed.
        if is_config or not flag[0].startswith("--"):
            kept += flag
    if "best" in config:  # the best k of n seeds, of which there is one
        kept.append("--config.best=1")
    return {"words": shlex.join(kept), "fields": list(config["grid"])}


class RunIndex:
    """Finds the runs behind a point of a plot.

    Args:
      records: Records of the sweep.
      protocol: How they are read.
    """

    def __init__(self, records: Sequence[Record], protocol: Protocol):
        self._protocol = protocol
        self._by_id = {record.run_id: index for index, record in enumerate(records)}
        self._by_cell = collections.defaultdict(list)
        for index, record in enumerate(records):
            series, row = protocol.group(record.hparams)
            value = record.hparams[protocol.tune[0]]
            self._by_cell[self._cell(series, row, value)].append(index)

    def counted(self, optimum: Optimum) -> list[int]:
        """Returns the runs whose mean the optimum is, best first."""
        return [self._by_id[record.run_id] for record in optimum.counted]

    def cell(self, optimum: Optimum, value: float) -> list[int]:
        """Returns all runs of a row with one value of the first tuned field."""
        return self._by_cell.get(self._cell(optimum.series, optimum.row, value), [])

    def _cell(self, series, row, value):
        """Returns the key of a cell, the same for numbers that are equal on the device."""
        protocol = self._protocol
        return series, on_device(protocol.row, row), on_device(protocol.tune[0], value)


def list_runs(records: Sequence[Record], metric: Metric, most: int = 12) -> str:
    """Writes the metric of some runs and their seeds: '98.61 (seed 0), 98.4 (seed 1)'."""
    texts = []
    for record in records[:most]:
        value = metric_of(record, metric.name)
        text = "diverged" if value is None else f"{metric.factor * value:.5g}"
        seed = record.hparams.get("seed")
        texts.append(text if seed is None else f"{text} (seed {format_number(seed)})")
    more = f" and {len(records) - most} more" if len(records) > most else ""
    return ", ".join(texts) + more


def _metrics(protocol):
    return (protocol.metric, *protocol.report)


def _fields(records):
    """Returns the name of each hyperparameter and its values, None for a run without it."""
    names = dict.fromkeys(name for record in records for name in record.hparams)
    return {
        name: {
            "name": display_name(name),
            "values": [_plain(record.hparams.get(name)) for record in records],
        }
        for name in names
    }


def _metric(metric, records):
    """Returns the name of a metric and its values in the unit shown, None if a run has none."""
    values = [metric_of(record, metric.name) for record in records]
    shown = [_in_unit(value, metric) for value in values]
    return {"name": display_name(metric), "values": shown}


def _section(records, protocol, labels):
    """Returns what one section of the page shows of the runs."""
    return {
        "metric": protocol.metric.name,
        "tuned": protocol.tune[0],
        "series": [labels.index(protocol.group(record.hparams)[0]) for record in records],
    }


def _curves(metric, records, curves):
    """Returns the epochs of all curves, each list once, and of each run its list and its values.

    Long curves are thinned. A run without a curve has None.
    """
    most = max(_FEWEST_VALUES, _MOST_VALUES // max(1, len(records)))
    positions, found = {}, []
    for record in records:
        curve = curves.get(record.run_id) or {}
        epochs, values = curve.get("epoch") or [], curve.get(metric.name) or []
        length = min(len(epochs), len(values))
        kept = _spread(length, most)
        shown = [_in_unit(values[i], metric) for i in kept]
        key = tuple(_rounded(epochs[i]) for i in kept)
        position = positions.setdefault(key, len(positions))
        found.append([position, shown] if length > 1 else None)
    return {"epochs": list(positions), "values": found}


def _spread(length: int, most: int) -> list[int]:
    """Returns at most `most` indices below `length` at equal distances, both ends among them."""
    if length <= most:
        return list(range(length))
    return [round(i * (length - 1) / (most - 1)) for i in range(most)]


def _in_unit(value, metric):
    """Returns a value of a metric in the unit shown, None for one that is missing."""
    return None if value is None else _rounded(metric.factor * value)


def _rounded(value: float) -> float | None:
    """Returns a number with the digits that a plot can show, None if it is not finite."""
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None


def _plain(value):
    """Returns a hyperparameter as JSON can hold it."""
    is_infinite = isinstance(value, float) and not math.isfinite(value)
    return str(value) if is_infinite else value
