"""Writes a sweep's table and page anew from its records, finished or not.

python -m launch.report --workdir=sweeps/digits
"""

import gc

from absl import flags

from launch import command, experiment

_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the sweep.")
_CONFIG = flags.DEFINE_string(
    "config", None, "The experiment's file or module, where it is not where the sweep found it."
)


def main(argv: list[str]) -> None:
    """Writes the report of the sweep in --workdir, and prints its table."""
    gc.disable()  # with 100,000 records it would take a third of the time, and find nothing
    command.no_arguments(argv)
    command.required(_WORKDIR, "the directory of a sweep")
    workdir = command.workdir(_WORKDIR)
    command.report(experiment.load_from_workdir(workdir, _CONFIG.value), workdir)


if __name__ == "__main__":
    command.run(main)
