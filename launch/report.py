"""Writes a sweep's report anew from its records, finished or not, and prints its tables.

python -m launch.report --workdir=sweeps/digits --format=latex
"""

import gc

from absl import flags

from launch import command, experiment
from noisegen import reports

_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the sweep.")
_CONFIG = flags.DEFINE_string(
    "config", None, "The experiment's file or module, where it is not where the sweep found it."
)

_FORMAT = flags.DEFINE_enum(
    "format", "text", list(reports.FORMATS), "Format in which the tables are printed."
)


def main(argv: list[str]) -> None:
    """Writes the report of the sweep in --workdir, and prints its tables."""
    gc.disable()  # with 100,000 records it would take a third of the time, and find nothing
    command.no_arguments(argv)
    command.required(_WORKDIR, "the directory of a sweep")
    workdir = command.workdir(_WORKDIR)
    exp = experiment.load_from_workdir(workdir, _CONFIG.value)
    command.report(exp, workdir, _FORMAT.value)


if __name__ == "__main__":
    command.run(main)
