"""Replays races on the records of full grids: what would they have trained, and found?

Nothing is trained. A race over the planned runs of a sweep is given the records that the full grid
has, round by round, and its optima are compared with the grid's. Then the same with the seeds of
every value shuffled, many times over, since a single order of seeds is a single sample.
"""

import collections
import dataclasses
import pathlib
import random

from experiments.benchmarks import machine, report
from noisegen import storage, sweeps
from noisegen.sweeps import search

TITLE = "Race: the optimum of the full grid with a part of its runs"
_RESULTS = pathlib.Path(__file__).parents[1] / "results"
_GRIDS = (
    "digits",
    "digits_15_seeds",
    "smith2020/cpu/table1",
    "smith2020/cpu/figure1",
    "smith2020/cpu/figure2",
    "smith2020/cpu/lstm",
)


def measure(options: machine.Options) -> dict:
    """Replays the race of every grid, in the order of its seeds and in shuffled orders."""
    names = _GRIDS[:1] if options.quick else _GRIDS
    num_shuffles = 2 if options.quick else 50
    found = {}
    for name in names:
        sweep = sweeps.Sweep.open(_RESULTS / name)
        records = sweep.records()
        grid = sweep.protocols[0]
        race = dataclasses.replace(grid, search="race")
        replays = [_replay(sweep, sweep.planned, records, grid, race)]
        # A shuffled race may look for values beyond those that the grid was extended to.
        race = dataclasses.replace(race, max_extensions=0)
        runs = [record.hparams for record in records]
        shuffle = random.Random(0)
        for _ in range(num_shuffles):
            shuffled = _shuffled(grid, records, shuffle)
            replays.append(_replay(sweep, runs, shuffled, grid, race))
        found[name] = replays
        machine.say(f"  {name}: {replays[0]['examples']:.0%} of the training examples")
    return {"grids": found}


def rows(record: dict) -> list[tuple[str, str, str]]:
    """Returns what all replays found."""
    as_recorded, shuffled = [], []
    for replays in record["grids"].values():
        as_recorded += replays[0]["rows"]
        shuffled += [row for replay in replays[1:] for row in replay["rows"]]
    lines = []
    for orders, found in (("as recorded", as_recorded), ("shuffled", shuffled)):
        for key, goal in (("optimum", ">= 95"), ("error bar", ">= 95"), ("mean", ">= 95")):
            share = 100 * sum(row[key] for row in found) / len(found)
            words = {
                "optimum": "the grid's learning rate",
                "error bar": "error bar within a value of the grid's",
                "mean": "mean within .1 standard deviation",
            }[key]
            lines.append(
                (f"seeds {orders}, % of {len(found):,} rows: {words}", f"{share:.1f}", goal)
            )
    return lines


def details(record: dict) -> str:
    """Returns a table of the grids."""
    lines = []
    for name, replays in record["grids"].items():
        first, others = replays[0], replays[1:]
        shuffled = [100 * replay["examples"] for replay in others]
        lines.append(
            (
                name,
                str(first["seeds"]),
                str(len(first["rows"])),
                f"{first['runs']:,} of {first['grid_runs']:,}",
                f"{100 * first['examples']:.0f}",
                report.spread(shuffled),
            )
        )
    header = ("grid", "seeds", "rows", "runs", "% of the examples", "% with shuffled seeds")
    return report.table(header, lines)


def _replay(sweep, planned, records, grid, race) -> dict:
    """Returns what a race over planned runs trains and finds, given the records it would make."""
    by_id = {record.run_id: record for record in records}
    planned = sweeps.by_run_id(sweep.state.task_name, planned)
    racing = search.Search(sweep.state.task_name, planned, [race])
    racing.wanted({})  # No record was there before, so none counts that the race does not ask for.
    wanted = racing.wanted(by_id)
    if missing := wanted.keys() - by_id.keys():
        raise RuntimeError(f"The race asks for {len(missing)} runs that the grid has not trained.")
    trained = [by_id[name] for name in wanted]
    pairs = zip(sweeps.select(trained, race), sweeps.select(records, grid), strict=True)
    examples = [sum(record.num_examples for record in group) for group in (trained, records)]
    return {
        "seeds": grid.of,
        "runs": len(trained),
        "grid_runs": len(records),
        "examples": examples[0] / examples[1],
        "rows": [_compare(found, expected, grid.tune[0]) for found, expected in pairs],
    }


def _compare(found, expected, field) -> dict:
    """Returns in what the optima of a race and of a grid agree."""
    values = sorted({point.values[field] for point in expected.points})
    steps = [
        abs(values.index(ours) - values.index(theirs))
        for ours, theirs in ((found.low, expected.low), (found.high, expected.high))
    ]
    return {
        "series": expected.series,
        "row": expected.row,
        "optimum": found.values == expected.values,
        "error bar": max(steps) <= 1,
        "mean": abs(found.mean - expected.mean) <= 0.1 * expected.std,
    }


def _shuffled(protocol, records, shuffle: random.Random) -> list[storage.Record]:
    """Returns records in which the seeds of every value of the grid have changed places."""
    points = collections.defaultdict(list)
    for record in records:
        tuned = tuple(record.hparams[name] for name in protocol.tune)
        points[protocol.group(record.hparams), tuned].append(record)
    found = []
    for members in points.values():
        others = shuffle.sample(members, len(members))
        found += [
            dataclasses.replace(other, run_id=member.run_id, hparams=member.hparams)
            for member, other in zip(members, others, strict=True)
        ]
    return found
