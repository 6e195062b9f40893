"""Writes a sweep's table and page again from its records, finished or not.

python -m launch.report --workdir=sweeps/digits
"""

import gc
import shlex

from absl import flags

from noisegen import reports
from noisegen.sweeps import Sweep

from . import cli

flags.adopt_module_key_flags(cli)


def main(argv: list[str]) -> None:
    """Writes the report of the sweep in --workdir, and prints its table."""
    gc.disable()  # with 100,000 records it would take a third of the time, and free nothing
    cli.no_arguments(argv)
    cli.no_overrides()
    write(Sweep.open(cli.workdir(), cli.CONFIG.value))


def write(sweep: Sweep) -> None:
    """Writes the report of a sweep and prints its tables."""
    page = reports.write_report(sweep.workdir, sweep.protocols, sweep.planned, sweep.published)
    for name in reports.table_names(sweep.protocols):
        cli.show((sweep.workdir / f"{name}.txt").read_text(encoding="utf-8"))
    cli.show(f"Report: {page}")


def write_at_end(sweep: Sweep) -> None:
    """Writes the report of a sweep that is trained.

    Raises:
      ValueError: If it cannot be written. The message says how it can be written later.
    """
    try:
        write(sweep)
    except Exception as error:
        again = shlex.join(["python", "-m", f"{__package__}.report", f"--workdir={sweep.workdir}"])
        raise ValueError(
            f"All runs are trained and kept in {sweep.workdir}, but the report cannot be written: "
            f"{cli.explained(error)} When that is corrected, run: {again}"
        ) from error


if __name__ == "__main__":
    cli.run(main)
