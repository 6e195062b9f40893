"""Measures the cost of planning, claiming and recording 10,000 tiny runs over 4 workers.

Each worker is a process of its own, as `launch.sweep --share=0/4` is; times are of its processor,
so that other load does not count. The 10,000 runs of one epoch of the 1,437 digits take hundredths
of a second each, so nothing that a user trains costs more; 1,000 runs of 30 epochs, the embedded
sweep's own length, show what that is worth.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

from experiments.benchmarks import machine, report
from noisegen import storage

TITLE = "10,000 tiny runs over 4 workers"


def measure(options: machine.Options) -> dict:
    """Trains both sweeps once, whatever the number of rounds."""
    sizes = ((1, 1), (1, 2)) if options.quick else ((1, 159), (30, 16))  # epochs, seeds of 63 runs
    return {"sweeps": [_train(2 if options.quick else 4, *size) for size in sizes]}


def rows(record: dict) -> list[tuple[str, str, str]]:
    """Returns cost, memory and duplicated runs of each sweep."""
    found = []
    for sweep in record["sweeps"]:
        workers, what = sweep["workers"], f"{sweep['runs']:,} runs of {sweep['epochs']} epochs"
        cost = [100 * each["bookkeeping_seconds"] / each["seconds"] for each in workers]
        each_run = [1000 * each["bookkeeping_seconds"] / each["runs"] for each in workers]
        grown = [each["mib_at_the_end"] - each["mib_at_a_tenth"] for each in workers]
        found += [
            (f"{what}, % of the time for bookkeeping", report.spread(cost), "< 2"),
            ("ms of bookkeeping a run", report.spread(each_run), ""),
            ("MiB that a worker grows after a tenth of its runs", report.spread(grown), "near 0"),
            ("runs done twice", f"{sweep['records'] - sweep['runs']:,}", "0"),
        ]
    return found


def _train(count, epochs, seeds):
    """Has so many workers train the digits, in a directory of their own."""
    with tempfile.TemporaryDirectory() as workdir:
        words = (workdir, str(epochs), str(seeds))
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "experiments.benchmarks.contenders.one_worker"]
                + [*words, f"{index}/{count}"],
                env=machine.environment(JAX_NUM_CPU_DEVICES="1"),
                stdout=subprocess.PIPE,
                text=True,
            )
            for index in range(count)
        ]
        said = [process.communicate()[0] for process in processes]
        files = pathlib.Path(workdir).glob("records/*.jsonl")
        lines = sum(path.read_bytes().count(b"\n") for path in files)
        runs = len(storage.read_records(workdir, curves=False))
    machine.say(f"  {runs:,} runs of {epochs} epochs, {lines:,} records")
    workers = [json.loads(each) for each in said]
    return {"epochs": epochs, "runs": runs, "records": lines, "workers": workers}
