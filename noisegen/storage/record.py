"""Records: the outcome of a finished run, written as one line of JSON with a checksum.

The checksum is the last field of the line and covers all before it. Lines of older versions have
no checksum and may have been edited, so they are validated field by field.

>>> from noisegen import storage
>>> record = storage.Record(
...     run_id="9f", hparams={"seed": 0}, status="finished", metrics={"loss": 0.5}
... )
>>> line = record.to_json()
>>> line[:35]
b'{"run_id": "9f", "run": {"seed": 0}'
>>> storage.Record.from_json(line) == record
True
>>> storage.Record.from_json(line.replace(b"0.5", b"0.6"))
Traceback (most recent call last):
...
noisegen.storage.record.LineError: changed since it was written (checksum)
"""

import dataclasses
import functools
import json
import math
import sys
import zlib
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from noisegen.training.pool import Result
from noisegen.training.run_id import run_id as make_run_id

STATUSES = ("finished", "diverged")
RUN_TOTALS = ("num_updates", "num_examples", "seconds")  # numbers that protocols read like metrics

# Why a line is skipped.
TORN = "not a whole record"
CHANGED = "changed since it was written (checksum)"
FOREIGN = "its run_id does not match its run"

_CURVE = b', "curve": '
_CHECKSUM = b', "crc32": '
_CHECKSUM_LENGTH = len(_CHECKSUM) + len(b'"01234567"}')


class LineError(ValueError):
    """A line that is not a valid record; the message is `TORN`, `CHANGED` or `FOREIGN`."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """The outcome of one run.

    It has the fields of a `training.Result`, except for the parameters, and says how the run was
    trained. The fields are declared again, as a record may lack them: older versions wrote fewer,
    and JSON has no number that is not finite.

    Attributes:
      run_id: Hash of the task's name and the hyperparameters, see `run_id`.
      hparams: Hyperparameters of the run, the field `run` on disk.
      status: "finished" or "diverged".
      diverged_at: The update, counted from 1, after which the parameters or the final metrics were
        not finite, or None.
      metrics: Final metrics by name; None for a metric that is not finite.
      num_updates: Updates made.
      num_examples: Training examples consumed.
      seconds: Wall time of the run, with other lanes training beside it.
      device: Hardware that trained the run.
      versions: Versions of noisegen, jax, flax and optax.
      settings: Fields of the `PoolConfig` that was used.
      finished_at: UTC time in ISO format.
      jax_config: Settings of JAX that change results and differ from its defaults.
      curve: Lists by name, one entry an evaluation; None if it was not read.
    """

    run_id: str = ""
    hparams: Mapping[str, Any]
    status: str
    diverged_at: int | None = None
    metrics: Mapping[str, float | None]
    num_updates: int | None = None
    num_examples: int | None = None
    seconds: float | None = None
    device: str | None = None
    versions: Mapping[str, str] | None = None
    settings: Mapping[str, Any] | None = None
    finished_at: str | None = None
    jax_config: Mapping[str, Any] | None = None
    curve: Mapping[str, list] | None = None

    @classmethod
    def from_result(cls, result: Result, **provenance: Any) -> Self:
        """Returns the record of a result.

        Args:
          result: What the pool yields.
          **provenance: The fields that say how it was trained: device, versions, settings,
            finished_at and jax_config.
        """
        names = {field.name for field in dataclasses.fields(result)} - {"params"}
        outcome = {name: getattr(result, name) for name in names}
        outcome["seconds"] = round(result.seconds, 3)
        return cls(**outcome, **provenance)

    def to_json(self) -> bytes:
        """Returns the record's line; numbers that are not finite become null.

        The curve comes last, so that readers who do not want it need not parse it.
        """
        content = {}
        for field in _FIELDS:
            value = getattr(self, field)
            if value is not None or field == "diverged_at":
                content["run" if field == "hparams" else field] = plain(value)
        text = json.dumps(content, allow_nan=False).encode()[:-1]
        return text + _CHECKSUM + _checksum(text) + b"\n"

    @classmethod
    def from_json(cls, line: bytes, curve: bool = True, task_name: str | None = None) -> Self:
        """Reads a record's line.

        Args:
          line: With or without the end of the line.
          curve: Whether to parse the curve. Without it, this is several times faster.
          task_name: Name of the task. With it, the run_id of a line without checksum is checked.

        Raises:
          LineError: If the line is not a whole record, has changed since it was written, or is of
            another task.
        """
        line = line.strip()
        if not line.endswith(b"}"):
            raise LineError(TORN)
        content = line[:-_CHECKSUM_LENGTH]
        if line.endswith(_checksum(content)):
            return cls(**_fields(content, curve))
        if line[-_CHECKSUM_LENGTH:].startswith(_CHECKSUM):
            raise LineError(CHANGED)
        fields = _fields(line[:-1], curve)
        _validate(fields, task_name)
        fields.pop("crc32", None)
        return cls(**fields)


_FIELDS = tuple(field.name for field in dataclasses.fields(Record))
_ON_DISK = frozenset({*_FIELDS, "run"} - {"hparams"})


def plain(value: Any) -> Any:
    """Returns plain Python for JSON: NumPy arrays as lists, non-finite numbers as None."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _checksum(text):
    """Returns the end of a line that begins with `text`, after the name of the field."""
    return b'"%08x"}' % zlib.crc32(text)


def _fields(text, curve):
    """Returns the fields of a record from its text without the last bracket."""
    if not curve and text.endswith(b"}"):
        # The curve, if any, is whole and comes last, so that the text can be cut before it.
        try:
            return _checked(text.partition(_CURVE)[0] + b"}")
        except LineError:
            pass  # the name occurs elsewhere, within a word of the run for example
    fields = _checked(text + b"}")
    if not curve:
        fields.pop("curve", None)
    return fields


def _checked(text):
    """Returns the fields of a record from JSON.

    Raises:
      LineError: If the text is not JSON, or a field that every reader needs is missing.
    """
    try:
        found = json.loads(text.decode())
    except (ValueError, RecursionError):
        raise LineError(TORN) from None
    whole = (
        isinstance(found, dict)
        and isinstance(found.get("run_id"), str)
        and found.get("status") in STATUSES
        and _is_flat(found.get("run"), {int, float, bool, str})
        and _is_flat(found.get("metrics"), {int, float, bool, type(None)})
        and isinstance(found.get("curve") or {}, dict)
    )
    if not whole:
        raise LineError(TORN)
    fields = {name: value for name, value in found.items() if name in _ON_DISK or name == "crc32"}
    # Names, machine and settings repeat in every record: 100,000 records share them in memory.
    fields["hparams"] = {sys.intern(name): value for name, value in fields.pop("run").items()}
    fields["metrics"] = {sys.intern(name): value for name, value in fields["metrics"].items()}
    for name in ("device", "versions", "settings", "jax_config"):
        if name in fields:
            fields[name] = _shared(json.dumps(fields[name]))
    return fields


@functools.lru_cache(maxsize=256)
def _shared(text):
    """Returns the value of a JSON text, the same object at each call."""
    return json.loads(text)


def _is_flat(value, kinds):
    """Returns whether a value is a dict with values of some kinds only."""
    return isinstance(value, dict) and kinds.issuperset(map(type, value.values()))


def _validate(fields, task_name):
    """Validates the fields of a line without a checksum, which someone may have edited."""
    if "crc32" in fields:
        raise LineError(CHANGED)
    curve = fields.get("curve") or {}
    measured = [fields.get(name) for name in RUN_TOTALS]
    sound = (
        _are_numbers([*fields["metrics"].values(), *measured])
        and isinstance(fields.get("versions") or {}, dict)
        and all(isinstance(values, list) and _are_numbers(values) for values in curve.values())
    )
    if not sound:
        raise LineError(TORN)
    if task_name is None:
        return
    try:
        named = make_run_id(task_name, fields["hparams"]) == fields["run_id"]
    except ValueError:  # an infinite hyperparameter, for example
        named = False
    if not named:
        raise LineError(FOREIGN)


def _are_numbers(values):
    """Returns whether these are finite numbers or None; one sum is faster than many checks."""
    try:
        return math.isfinite(sum([value for value in values if value is not None]))
    except (TypeError, OverflowError):  # text, or an integer beyond all floats
        return False
