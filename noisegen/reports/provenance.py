"""Reads from the records of a sweep their number, the fields swept, the machine and versions."""

import collections
import warnings
from collections.abc import Mapping, Sequence

from noisegen.reports.formatting import decimal_formatter, display_name, ordered
from noisegen.storage import Record

_MANY = 10  # more values than these are shown by their ends
_DEFAULTS = "JAX's defaults"


def count_runs(records: Sequence[Record], missing: int) -> dict[str, int]:
    """Returns the numbers of finished, diverged and missing runs."""
    finished = sum(record.status == "finished" for record in records)
    return {"finished": finished, "diverged": len(records) - finished, "missing": missing}


def swept_fields(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Returns the words of each field of the runs, and its values."""
    fields = collections.defaultdict(set)
    for record in records:
        for name, value in record.hparams.items():
            # A boolean becomes a word, or True would be taken for 1.
            fields[name].add(str(value) if isinstance(value, bool) else value)
    return [(display_name(name), _listed(values)) for name, values in fields.items()]


def _listed(values):
    """Writes a few values in full, and many by their ends."""
    write = decimal_formatter(values)
    texts = [write(value) for value in ordered(values)]
    if len(texts) <= _MANY:
        return ", ".join(texts)
    return f"{texts[0]}, {texts[1]}, …, {texts[-1]} ({len(texts)} values)"


def describe_origin(sweep: Mapping, records: Sequence[Record]) -> dict[str, str]:
    """Returns the task, the data, and the devices, versions and settings that the records name.

    Warns if runs were trained with different settings of JAX.
    """
    devices = sorted({record.device for record in records if record.device})
    versions = set()
    for record in records:
        versions |= {f"{name} {version}" for name, version in (record.versions or {}).items()}
    configs = sorted({str(record.jax_config or _DEFAULTS) for record in records})
    if len(configs) > 1:
        warnings.warn(
            f"the runs of one table were trained with different settings of JAX: "
            f"{'; '.join(configs)}; their results may differ by more than rounding.",
            stacklevel=1,
        )
    return {
        "task": sweep["task"],
        "data": sweep.get("data") or "",
        "device": "; ".join(devices),
        "versions": ", ".join(sorted(versions)),
        "settings of JAX": "; ".join(configs) if configs != [_DEFAULTS] else "",
    }
