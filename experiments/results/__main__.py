"""Writes the report, the tables and the figure of every committed sweep anew.

python -m experiments.results
"""

import pathlib

from launch import experiment
from noisegen import reports

RESULTS = pathlib.Path(__file__).parent


def main() -> None:
    """Writes the reports. Experiments are looked for below the current directory."""
    for sweep in sorted(RESULTS.rglob("sweep.json")):
        exp = experiment.load_from_workdir(sweep.parent)
        page = reports.write_report(sweep.parent, exp.protocols, exp.runs, exp.published)
        print(page.relative_to(RESULTS), flush=True)


if __name__ == "__main__":
    main()
