"""Says how far a sweep is; it may be running elsewhere.

python -m launch.status --workdir=sweeps/digits
"""

import contextlib
import gc
import pathlib
import time
from collections.abc import Iterable, Iterator

from absl import flags
from rich import console

from launch import agenda, command, display, experiment, jobs
from noisegen import sweeps
from noisegen.reports import markup

_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the sweep.")
_CONFIG = flags.DEFINE_string(
    "config", None, "The experiment's file or module, where it is not where the sweep found it."
)


def main(argv: list[str]) -> None:
    """Prints the state of the sweep in --workdir."""
    gc.disable()  # with 100,000 records it would take a third of the time, and find nothing
    command.no_arguments(argv)
    command.required(_WORKDIR, "the directory of a sweep")
    workdir = command.workdir(_WORKDIR)
    exp, sweep = experiment.load_from_workdir(workdir, _CONFIG.value), sweeps.read_sweep(workdir)
    records = sweeps.read(workdir, curves=False)
    runs = agenda.Agenda(sweep["task"], exp.runs, exp.protocols, records)
    tally = display.Tally(exp.protocols[0], len(runs.wanted), runs.done())
    command.show(f"{markup.printable(exp.title)}\n{tally.line()}")
    if tally.best:
        console.Console().print(tally.table())
        print("Last record:", max(str(record.get("finished_at")) for record in records))
    for line in (*describe(sweeps.workers(workdir), workdir), *jobs.describe(workdir)):
        command.show(markup.printable(line))
    if tally.done < tally.wanted:
        command.show(
            f"The runs that are missing are trained by\n  {markup.printable(sweep['command'])}"
        )


def describe(workers: Iterable[sweeps.Worker], workdir: str) -> Iterator[str]:
    """What each worker does and when it was last heard of, in lines; for the dead, that they are.

    Those of other hosts write their files by other clocks, which are taken for equal.
    """
    for worker in workers:
        with contextlib.suppress(FileNotFoundError):  # it has just left
            path = pathlib.Path(workdir, "workers", f"{worker.name}.json")
            silence = max(0.0, time.time() - path.stat().st_mtime)
            runs = f" {display.count(len(worker.runs), 'run')}" if worker.runs else ""
            dead = ", probably dead" if silence > worker.patience else ""
            heard = f"heard of {display.duration(silence)} ago{dead}"
            yield f"Worker {worker.name}: {worker.doing}{runs}, {heard}"


if __name__ == "__main__":
    command.run(main)
