"""Writes the report, the tables and the figure of every committed sweep again.

python -m experiments.results
"""

import pathlib

from noisegen import sweeps

RESULTS = pathlib.Path(__file__).parent


def main() -> None:
    """Writes the reports. Experiments are looked for below the current directory."""
    for path in sorted(RESULTS.rglob("sweep.json")):
        page = sweeps.Sweep.open(path.parent).write_report()
        print(page.relative_to(RESULTS), flush=True)


if __name__ == "__main__":
    main()
