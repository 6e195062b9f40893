"""Writes the report, the tables and the figure of every committed sweep again.

python -m experiments.results
"""

import argparse
import pathlib
from collections.abc import Sequence

from noisegen import sweeps

RESULTS = pathlib.Path(__file__).parent


def workdirs(results: pathlib.Path) -> list[pathlib.Path]:
    """Returns the directories of all sweeps but those of benchmarks, which have own tables."""
    found = sorted(path.parent for path in results.rglob("sweep.json"))
    return [path for path in found if "benchmarks" not in path.relative_to(results).parts]


def main(words: Sequence[str] | None = None) -> None:
    """Writes the reports. Experiments are looked for below the current directory.

    Args:
      words: The words of the command line. Only --help has a meaning.
    """
    description = __doc__.split("\n")[0]
    argparse.ArgumentParser("experiments.results", description=description).parse_args(words)
    for workdir in workdirs(RESULTS):
        page = sweeps.Sweep.open(workdir).write_report()
        print(page.relative_to(RESULTS), flush=True)


if __name__ == "__main__":
    main()
