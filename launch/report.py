"""Writes a sweep's table and page anew from its records, finished or not.

python -m launch.report --workdir=sweeps/digits
"""

import pathlib

from absl import flags

from launch import command, experiment
from noisegen import reports

_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the sweep.", required=True)


def main(argv: list[str]) -> None:
    """Writes the report of the sweep in --workdir, and prints its table."""
    command.no_arguments(argv)
    plan = experiment.load_from_workdir(_WORKDIR.value)
    page = reports.write_report(_WORKDIR.value, plan.protocol, plan.runs, plan.published)
    print(pathlib.Path(_WORKDIR.value, "table.txt").read_text())
    print(f"Report: {page}")


if __name__ == "__main__":
    command.run(main)
