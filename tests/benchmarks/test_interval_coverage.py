"""Tests the simulation of intervals in miniature."""

import json

from experiments.benchmarks import interval_coverage, machine


def test_every_interval_is_simulated_and_shown():
    record = interval_coverage.measure(machine.Options(quick=True))
    record = json.loads(json.dumps(record))
    assert record["tables"].keys() == interval_coverage.PARTS.keys()
    rows = interval_coverage.rows(record)
    assert [name for name, _, _ in rows] == list(interval_coverage.GOALS)
    assert all("nan" not in spread for _, spread, _ in rows)
    text = interval_coverage.details(record)
    assert all(f"### {name}" in text for name in interval_coverage.PARTS)
    shares = [
        value
        for lines in record["tables"].values()
        for line in lines
        for name, value in line.items()
        if name.endswith("%") and value is not None
    ]
    assert len(shares) > 300
    assert all(0 <= share <= 100 for share in shares)
