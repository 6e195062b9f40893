"""Tests the replay of races in miniature."""

import json

from experiments.benchmarks import machine, race_replay


def test_the_race_of_a_grid_is_replayed_and_shown():
    record = json.loads(json.dumps(race_replay.measure(machine.Options(quick=True))))
    [(name, replays)] = record["grids"].items()
    assert name == "digits" and len(replays) == 3  # as recorded, and two shuffles
    for replay in replays:
        assert len(replay["rows"]) == 7 and replay["grid_runs"] == 315
        assert 7 * 5 < replay["runs"] < 315 / 2 and replay["examples"] < 0.5
    rows = race_replay.rows(record)
    assert len(rows) == 6 and all(0 <= float(share) <= 100 for _, share, _ in rows)
    assert "of 315" in race_replay.details(record)
