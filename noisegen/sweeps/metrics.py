"""Metrics: the numbers that a protocol reads, with their unit and the data they are measured on.

A derived metric is a function of a finished run. It is computed when records are read and is never
stored, so it can be added to a sweep that is trained.

>>> import math
>>> from noisegen import storage, sweeps
>>> perplexity = sweeps.Metric(
...     "perplexity", split="test", derive=lambda run: math.exp(run.metrics["test_loss"])
... )
>>> runs = sweeps.grid(batch_size=[8], learning_rate=[0.1, 0.2], seed=[0])
>>> records = [
...     storage.Record(hparams=run, status="finished", metrics={"test_loss": loss})
...     for run, loss in zip(runs, [5.0, 4.5])
... ]
>>> [optimum] = sweeps.select(records, sweeps.Protocol(metric=perplexity, mode="min"))
>>> optimum.values, round(optimum.mean)
({'learning_rate': 0.2}, 90)
"""

import dataclasses
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from noisegen._errors import one_line
from noisegen._text import count
from noisegen.storage.record import RUN_TOTALS, Record

if TYPE_CHECKING:
    from noisegen.sweeps.protocol import Protocol


@dataclasses.dataclass(frozen=True)
class Metric:
    """A number that every finished run has.

    Attributes:
      name: Key of a record's `metrics`, or one of `noisegen.storage.RUN_TOTALS`. A derived metric
        has a name of its own.
      unit: Unit that follows the name in tables and figures. With "%" the values are fractions,
        and they are shown times 100.
      split: The data it is measured on. If a protocol tunes on it, the table notes that the sweep
        was tuned on the test set ("test") or on the validation split ("valid").
      derive: `storage.Record -> number` for a derived metric, or None. It finds the last values in
        `metrics`, every evaluation in `curve`, as arrays with `epoch` and `update` among them, and
        the hyperparameters in `hparams`. Numbers that are not finite are NaN. Diverged runs have
        no derived metrics. A result that is not finite counts as worse than any other.

    >>> Metric("top5_accuracy", unit="%", split="test").factor
    100
    """

    name: str
    unit: str = ""
    split: str = ""
    derive: Callable[[Record], float] | None = None

    def __post_init__(self):
        for name in ("name", "unit", "split"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise ValueError(f"Metric {name} must be text, got {value!r:.80}.")
        if self.derive is None:
            return
        if not callable(self.derive):
            raise ValueError(
                f"Metric derive must be a function from a record to a number, got "
                f"{self.derive!r:.80}."
            )
        if self.name in RUN_TOTALS:
            raise ValueError(f"Every record has {self.name}; give the derived metric another name.")

    @property
    def factor(self) -> int:
        """The factor from a value to the number that is shown in the unit."""
        return 100 if self.unit == "%" else 1


# The metrics of the tasks of noisegen.tasks. A protocol may name these by a plain string. The unit
# and the split of any other metric are declared with `Metric`.
WELL_KNOWN = {
    metric.name: metric
    for metric in (
        Metric("test_accuracy", unit="%", split="test"),
        Metric("test_loss", split="test"),
        Metric("test_squared_error", split="test"),
        Metric("valid_accuracy", unit="%", split="valid"),
        Metric("valid_loss", split="valid"),
        Metric("valid_squared_error", split="valid"),
        Metric("clean_train_accuracy", unit="%"),
    )
}


def as_metric(value: object) -> Metric:
    """Returns the metric that a protocol names by a `Metric` or a plain string.

    A string that is no metric of `WELL_KNOWN` has no unit and no split.

    Raises:
      ValueError: If it is neither.
    """
    if isinstance(value, Metric):
        return value
    if isinstance(value, str):
        return WELL_KNOWN.get(value, Metric(value))
    raise ValueError(
        f"Protocol metric must be a word, such as 'test_accuracy', or a Metric, got {value!r:.80}."
    )


def as_metrics(values: object) -> tuple[Metric, ...]:
    """Returns the metrics that a protocol reports.

    Raises:
      ValueError: If it is no tuple or list of words and metrics.
    """
    if isinstance(values, str):
        raise ValueError(f"Protocol report must be a tuple of words; write ({values!r},).")
    if not isinstance(values, tuple | list):
        raise ValueError(f"Protocol report must be a tuple of words, got {values!r:.80}.")
    if not all(isinstance(value, str | Metric) for value in values):
        raise ValueError(f"Protocol report must be a tuple of words, got {values!r:.80}.")
    return tuple(as_metric(value) for value in values)


def derived_metrics(protocols: Iterable["Protocol"]) -> tuple[Metric, ...]:
    """Returns the derived metrics that protocols read, each once.

    Raises:
      ValueError: If two of them have one name and different functions.
    """
    found: dict[str, Metric] = {}
    for protocol in protocols:
        for metric in (protocol.metric, *protocol.report):
            if metric.derive is None:
                continue
            known = found.setdefault(metric.name, metric)
            if known.derive is not metric.derive:
                raise ValueError(
                    f"Two metrics are named {metric.name} and have functions of their own; make "
                    "the Metric once and use it twice, or rename one."
                )
    return tuple(found.values())


class Derivation:
    """Adds derived metrics to records.

    A metric that cannot be computed for a run counts as not finite there, and a warning names the
    run. All other numbers of the run stay.

    Args:
      metrics: Derived metrics.
    """

    def __init__(self, metrics: Iterable[Metric]):
        self.metrics = tuple(metrics)
        self._failures: dict[str, list[str]] = {}

    def add_to(self, record: Record) -> Record:
        """Returns a record with the derived metrics among its metrics."""
        if not self.metrics:
            return record
        values = dict.fromkeys(metric.name for metric in self.metrics)
        if record.status != "diverged":
            given = _with_arrays(record)
            values = {metric.name: self._value(metric, given) for metric in self.metrics}
        return dataclasses.replace(record, metrics={**record.metrics, **values})

    def warn(self) -> None:
        """Warns of the failures since the last call, once for each metric."""
        failures, self._failures = self._failures, {}
        for name, lines in failures.items():
            others = f" The same goes for {count(len(lines) - 1, 'other run')}." * (len(lines) > 1)
            warnings.warn(
                f"the metric {name} cannot be derived for {lines[0].removesuffix('.')}. It counts "
                f"as not finite there; correct its function.{others}",
                stacklevel=3,
            )

    def _value(self, metric, record):
        """Returns a derived metric, None if it is not finite, as in records."""
        try:
            value = float(metric.derive(record))
        except Exception as error:  # The user's function may raise anything.
            name = record.run_id or dict(record.hparams)
            reason = error if isinstance(error, _MissingError) else one_line(error)
            self._failures.setdefault(metric.name, []).append(f"run {name}: {reason}")
            return None
        return value if math.isfinite(value) else None


def with_derived(records: Iterable[Record], metrics: Iterable[Metric]) -> list[Record]:
    """Returns records with derived metrics among their metrics, as `Derivation` adds them.

    Records that have metrics of these names stay as they are.

    Args:
      records: The records, with their curves if the functions of the metrics read them.
      metrics: Derived metrics.
    """
    derivation = Derivation(metrics)
    names = {metric.name for metric in derivation.metrics}
    found = [
        record if names <= record.metrics.keys() else derivation.add_to(record)
        for record in records
    ]
    derivation.warn()
    return found


def derived_from_curves(
    records: Iterable[Record], metrics: Iterable[Metric], curves: Mapping[str, Mapping]
) -> list[Record]:
    """Returns records without curves with derived metrics, in place of any of the same names.

    Args:
      records: The records.
      metrics: Derived metrics.
      curves: The curves by run_id.
    """
    derivation = Derivation(metrics)
    found = []
    for record in records:
        record = dataclasses.replace(record, curve=curves.get(record.run_id))
        found.append(dataclasses.replace(derivation.add_to(record), curve=None))
    derivation.warn()
    return found


def check_derived(
    metrics: Iterable[Metric],
    names: Sequence[str],
    curve: Sequence[str],
    hparams: Mapping[str, Any],
) -> None:
    """Checks derived metrics before there is a run to derive them from.

    Each function is called with a made-up record. Only a name that no run will have is an error,
    because any other failure may come from the made-up numbers.

    Args:
      metrics: Derived metrics.
      names: Names of the metrics of the task.
      curve: Those of them that every evaluation has.
      hparams: Hyperparameters of a run.

    Raises:
      ValueError: If a function reads a name that the runs lack, or a derived metric has the name
        of a metric of the task.
    """
    for metric in metrics:
        if metric.name in names:
            raise ValueError(
                f"the task has a metric {metric.name} already; give the derived one another name."
            )
        record = Record(
            run_id="made up",
            hparams=hparams,
            status="finished",
            metrics=dict.fromkeys(names, 0.5),
            curve={name: [0.5, 0.5] for name in ("epoch", "update", *curve)},
            **dict.fromkeys(RUN_TOTALS, 1),
        )
        try:
            metric.derive(_with_arrays(record))
        except _MissingError as error:
            raise ValueError(f"the derived metric {metric.name} fails: {error}") from error
        except Exception:
            continue


class _MissingError(KeyError):
    """A name that a record lacks."""

    def __str__(self):
        return self.args[0]  # KeyError would show it in quotes.


class _Named(dict):
    """Values by name, whose error for a name that is missing lists the names that there are."""

    def __init__(self, what: str, values: Mapping):
        super().__init__(values)
        self._what = what

    def __missing__(self, name):
        known = ", ".join(map(str, self)) or "none"
        raise _MissingError(f"there is no {name!r} in the {self._what}, only {known}.")


def _with_arrays(record):
    """Returns a record for the functions of metrics: curves as arrays, None as NaN."""
    metrics = {name: math.nan if value is None else value for name, value in record.metrics.items()}
    curve = {name: np.array(values, float) for name, values in (record.curve or {}).items()}
    return dataclasses.replace(
        record,
        hparams=_Named("run", record.hparams),
        metrics=_Named("metrics", metrics),
        curve=_Named("curve", curve),
    )
