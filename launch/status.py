"""Prints the state of a sweep, which may be running elsewhere.

python -m launch.status sweeps/digits
"""

import contextlib
import pathlib
import time
from collections.abc import Iterator

from absl import flags

from noisegen import reports, storage
from noisegen._text import count
from noisegen.reports import markup
from noisegen.sweeps import Sweep
from noisegen.sweeps.progress import Tally, duration

from . import cli, slurm

flags.adopt_module_key_flags(cli)


@cli.usage_errors()
def main(argv: list[str]) -> None:
    """Prints the state of the sweep in --workdir."""
    sweep = cli.open_sweep(argv)
    tally = Tally(sweep)
    cli.show(f"{markup.printable(sweep.title)}\n{tally.line()}")
    if tally.done:
        _show_tables(sweep)
        last = max(record.finished_at or "" for record in sweep.state.records_by_id.values())
        print("Last record:", last)
    # Names and errors come from files, and might hold the control characters of a terminal.
    for line in [*_describe_workers(sweep.workdir), *slurm.describe_jobs(sweep.workdir)]:
        cli.show(markup.printable(line))
    if tally.done < tally.wanted:
        # The sweep of a program has no command.
        command = markup.printable(
            str(storage.read_sweep(sweep.workdir).get("command", "Sweep.run()"))
        )
        cli.show(f"To train the missing runs:\n  {command}")


def _show_tables(sweep: Sweep) -> None:
    """Prints the tables that the report would have now."""
    tables = []
    for protocol in sweep.protocols:
        published = sweep.published if protocol is sweep.protocols[0] else None
        try:
            tables.append(reports.to_text(sweep.optima(protocol), protocol, published))
        except ValueError as error:  # older records may lack a metric: the workers are shown anyway
            tables.append(f"No table: {error}\n")
    cli.show("\n" + "\n".join(tables))


def _describe_workers(workdir: pathlib.Path) -> Iterator[str]:
    """Yields a line for each worker: its activity and the age of its heartbeat.

    Workers of other hosts write their files by other clocks, which are assumed to agree.
    """
    for worker in storage.read_workers(workdir):
        with contextlib.suppress(FileNotFoundError):  # it has just left
            path = workdir / "workers" / f"{worker.name}.json"
            silence = max(0.0, time.time() - path.stat().st_mtime)
            runs = f" {count(len(worker.runs), 'run')}" if worker.runs else ""
            dead = ", probably dead" if silence > worker.timeout else ""
            age = f"last heartbeat {duration(silence)} ago{dead}"
            yield f"Worker {worker.name}: {worker.doing}{runs}, {age}"


if __name__ == "__main__":
    cli.run(main)
