"""A record as a line of JSON, with a checksum, and a line that is read back.

The checksum is the last field of the line and covers all before it. Lines of older versions have
none, and someone may have edited them: they are looked at more closely.

>>> from noisegen.sweeps import lines
>>> record = {"run_id": "9f", "run": {"seed": 0}, "status": "finished", "metrics": {"loss": 0.5}}
>>> lines.encode(record)[-24:]
b'}, "crc32": "77d27987"}\\n'
>>> lines.decode(lines.encode(record)) == (record, "")
True
>>> lines.decode(lines.encode(record).replace(b"0.5", b"0.6"))
(None, 'have changed since they were written (checksum)')
"""

import json
import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from noisegen.sweeps.protocol import RECORDED
from noisegen.training.run_id import run_id

STATUSES = ("finished", "diverged")

# Why a line is skipped.
TORN = "are no whole records"
CHANGED = "have changed since they were written (checksum)"
FOREIGN = "have a run_id that does not match their run"
OF_ONE = {  # the same of a single line
    TORN: "is no whole record",
    CHANGED: "has changed since it was written (checksum)",
    FOREIGN: "has a run_id that does not match its run",
}

_CURVE = b', "curve": '
_NAME = b', "crc32": '
_TAIL = len(_NAME) + len(b'"01234567"}')


def encode(record: Mapping[str, Any]) -> bytes:
    """Returns the line of a record, non-finite numbers as null."""
    kept = {name: plain(value) for name, value in record.items() if name != "crc32"}
    if "curve" in kept:  # It goes last: readers that do not want it need not parse it.
        kept["curve"] = kept.pop("curve")
    content = json.dumps(kept, allow_nan=False).encode()[:-1]
    return content + _NAME + _checksum(content) + b"\n"


def decode(line: bytes, curves: bool = True, task_identity: str | None = None) -> tuple:
    """Reads a line.

    Args:
      line: With or without the end of the line.
      curves: Whether the record keeps its `curve`; without, this is several times faster.
      task_identity: As for `run_id`; with it, the run_id of a line without a checksum is checked.

    Returns:
      The record and "", or None and why the line is no record: `TORN`, `CHANGED` or `FOREIGN`.
    """
    line = line.strip()
    if not line.endswith(b"}"):
        return None, TORN
    content = line[:-_TAIL]
    if line.endswith(_checksum(content)):
        record = _parse(content, curves)
        return (record, "") if record else (None, TORN)
    if line[-_TAIL:].startswith(_NAME):
        return None, CHANGED
    record = _parse(line[:-1], curves)
    return _examined(record, task_identity) if record else (None, TORN)


def plain(value: Any) -> Any:
    """Returns plain Python for JSON: NumPy arrays as lists, non-finite numbers as None."""
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def _examined(record, task_identity):
    """Returns the result of `decode` for a record without a checksum at its end."""
    if "crc32" in record:
        return None, CHANGED
    if not _is_sound(record):
        return None, TORN
    if task_identity is not None and not _is_named(record, task_identity):
        return None, FOREIGN
    return record, ""


def _checksum(content):
    """Returns the end of a line that begins with `content`, after the field's name."""
    return b'"%08x"}' % zlib.crc32(content)


def _parse(content, curves):
    """Returns the record in a line without its last bracket, or None."""
    if curves:
        return _record(content + b"}")
    whole = content.endswith(b"}")  # So the curve, if any, is whole, and need not be parsed.
    if whole and (record := _record(content.partition(_CURVE)[0] + b"}")):
        return record
    if record := _record(content + b"}"):
        record.pop("curve", None)
    return record


def _record(text):
    """Returns the record that a text holds, or None."""
    try:
        record = json.loads(text.decode())
    except (ValueError, RecursionError):
        return None
    whole = (
        isinstance(record, dict)
        and isinstance(record.get("run_id"), str)
        and record.get("status") in STATUSES
        and _flat(record.get("run"), {int, float, bool, str})
        and _flat(record.get("metrics"), {int, float, bool, type(None)})
        and isinstance(record.get("curve") or {}, dict)
    )
    return record if whole else None


def _flat(value, kinds):
    """Returns whether this is a dict with values of these kinds only."""
    return isinstance(value, dict) and kinds.issuperset(map(type, value.values()))


def _is_sound(record):
    """Returns whether all that is read of a record is of the kind that `encode` writes."""
    curve = record.get("curve") or {}
    return (
        _are_numbers([*record["metrics"].values(), *map(record.get, RECORDED)])
        and isinstance(record.get("versions") or {}, dict)
        and all(isinstance(values, list) and _are_numbers(values) for values in curve.values())
    )


def _are_numbers(values):
    """Returns whether these are finite numbers or null; one sum is faster than a check of each."""
    try:
        return math.isfinite(sum([value for value in values if value is not None]))
    except (TypeError, OverflowError):  # Text, say, or an integer beyond all floats.
        return False


def _is_named(record, task_identity):
    """Returns whether a record has its run's own run_id."""
    try:
        return run_id(task_identity, record["run"]) == record["run_id"]
    except ValueError:  # Infinite, say.
        return False
