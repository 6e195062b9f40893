"""Writes the benchmarks' records as text."""

import statistics
from collections.abc import Mapping, Sequence
from types import ModuleType


def markdown(parts: Mapping[str, ModuleType], records: Mapping[str, dict | None]) -> str:
    """Returns the tables of all parts that have a record."""
    blocks = ["# Benchmarks\n"]
    for name, part in parts.items():
        record = records[name]
        if record is None:
            continue
        blocks += [f"## {part.TITLE}\n", _where(record)]
        blocks.append(table(("measured", "value", "goal"), part.rows(record)))
        if hasattr(part, "details"):
            blocks.append(part.details(record))
    blocks.append("Values are medians, with the smallest and largest in brackets.\n")
    return "\n".join(blocks)


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table."""
    rows = [header, ["---"] * len(header), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def spread(values: Sequence[float]) -> str:
    """Returns median, smallest and largest value as text."""
    low, middle, high = (_number(f(values)) for f in (min, statistics.median, max))
    return middle if len(values) == 1 else f"{middle} ({low} to {high})"


def _number(value):
    """Formats a number with three digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _where(record):
    """Returns command, date and machine, in lines."""
    hardware, versions = record["hardware"], record["versions"]
    devices = ", ".join(hardware[name] for name in ("accelerator", "cpu") if name in hardware)
    speed = ""
    if "peak_gflops" in hardware:
        bits = f"vectors of {hardware['vector_bits']} bits, " if hardware["vector_bits"] else ""
        speed = f"{bits}{hardware['peak_gflops']:,} GFLOP/s in a matrix product, "
    quick = " **A miniature: the numbers mean nothing.**" if record["quick"] else ""
    return (
        f"`{record['command']}`, {record['date']}; {devices}, {hardware['cores']} cores, "
        f"{hardware['memory_gib']} GiB, {speed}load {hardware['load_average_before']:.1f} before; "
        f"{', '.join(f'{name} {version}' for name, version in versions.items())}.{quick}\n"
    )
