"""Writes a sweep's table and page anew from its records, finished or not.

python -m launch.report --workdir=sweeps/digits
"""

import pathlib

from absl import flags

from launch import command, experiment
from noisegen import reports

_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the sweep.")


def main(argv: list[str]) -> None:
    """Writes the report of the sweep in --workdir, and prints its table."""
    command.no_arguments(argv)
    workdir = command.required(_WORKDIR, "the directory of a sweep")
    plan = experiment.load_from_workdir(workdir)
    page = reports.write_report(workdir, plan.protocol, plan.runs, plan.published)
    print(pathlib.Path(workdir, "table.txt").read_text())
    print(f"Report: {page}")


if __name__ == "__main__":
    command.run(main)
