"""10,000 tiny runs over 4 workers: what planning, claiming and recording cost, and what stays.

Each worker is a process of its own, as `launch.sweep --share=0/4` is; times are of its processor,
so that other load does not count. Runs of one epoch of the 1,437 digits take hundredths of a second
each, so nothing that a user trains costs more.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

from experiments.benchmarks import machine, report
from noisegen import sweeps

TITLE = "10,000 tiny runs over 4 workers"


def measure(options: machine.Options) -> dict:
    """Trains them once, whatever the number of rounds."""
    seeds, count = (1, 2) if options.quick else (159, 4)  # of 63 runs each
    with tempfile.TemporaryDirectory() as workdir:
        command = [sys.executable, "-m", "experiments.benchmarks.contenders.one_worker"]
        processes = [
            subprocess.Popen(
                [*command, workdir, str(seeds), f"{index}/{count}"],
                env=machine.environment(JAX_NUM_CPU_DEVICES="1"),
                stdout=subprocess.PIPE,
                text=True,
            )
            for index in range(count)
        ]
        said = [process.communicate()[0] for process in processes]
        files = pathlib.Path(workdir).glob("records/*.jsonl")
        lines = sum(path.read_bytes().count(b"\n") for path in files)
        runs = len(sweeps.read(workdir, curves=False))
    machine.say(f"  {runs:,} runs, {lines:,} records")
    return {"runs": runs, "records": lines, "workers": [json.loads(each) for each in said]}


def rows(record: dict) -> list[tuple[str, str, str]]:
    """Cost, memory, and what was done twice."""
    workers = record["workers"]
    cost = [100 * each["bookkeeping_seconds"] / each["seconds"] for each in workers]
    grown = [each["mib_at_the_end"] - each["mib_at_a_tenth"] for each in workers]
    return [
        (f"{record['runs']:,} runs, % of the time for bookkeeping", report.spread(cost), "< 2"),
        ("MiB that a worker grows after a tenth of its runs", report.spread(grown), "near 0"),
        ("runs done twice", f"{record['records'] - record['runs']:,}", "0"),
    ]
