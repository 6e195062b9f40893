"""Sweeps: grids of runs, their identity, records on disk, protocols and tables.

Needs NumPy and jax (and orbax, where there are checkpoints), and knows neither models nor devices.
"""

from noisegen.sweeps.checkpoints import Checkpoints
from noisegen.sweeps.checks import RECORDED, check_metrics, check_points
from noisegen.sweeps.crew import Crew, Worker, workers
from noisegen.sweeps.domains import Domain
from noisegen.sweeps.grid import (
    Grid,
    chain,
    doublings,
    fixed,
    powers_of_two,
    product,
    values,
    zipped,
)
from noisegen.sweeps.growth import wanted
from noisegen.sweeps.parameters import damaged_params, load_params, save_params, without_params
from noisegen.sweeps.protocol import FLAGS, Optimum, Point, Protocol, select
from noisegen.sweeps.records import (
    RecordReader,
    RecordWriter,
    check_workdir,
    first_finished,
    open_workdir,
    read,
    read_sweep,
    write_file,
)
from noisegen.sweeps.regimes import (
    Boundary,
    boundaries,
    effective_learning_rate,
    fit_broken_line,
    largest_stable,
)
from noisegen.sweeps.tables import Table, make_table, to_csv, to_latex, to_markdown, to_text
from noisegen.training.run_id import by_run_id, canonicalize, run_id

__all__ = [
    "FLAGS",
    "RECORDED",
    "Boundary",
    "Checkpoints",
    "Crew",
    "Domain",
    "Grid",
    "Optimum",
    "Point",
    "Protocol",
    "RecordReader",
    "RecordWriter",
    "Table",
    "Worker",
    "boundaries",
    "by_run_id",
    "chain",
    "check_metrics",
    "check_points",
    "check_workdir",
    "damaged_params",
    "doublings",
    "effective_learning_rate",
    "first_finished",
    "fit_broken_line",
    "fixed",
    "largest_stable",
    "load_params",
    "make_table",
    "canonicalize",
    "open_workdir",
    "powers_of_two",
    "product",
    "read",
    "read_sweep",
    "run_id",
    "save_params",
    "select",
    "to_csv",
    "to_latex",
    "to_markdown",
    "to_text",
    "values",
    "wanted",
    "without_params",
    "workers",
    "write_file",
    "zipped",
]
