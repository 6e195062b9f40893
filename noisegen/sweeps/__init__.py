"""Sweeps: grids of runs, their identity, records on disk, and protocols.

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
from noisegen.sweeps.identity import by_run_id, normalise, run_id
from noisegen.sweeps.metrics import Metric
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

__all__ = [
    "FLAGS",
    "RECORDED",
    "Boundary",
    "Checkpoints",
    "Crew",
    "Domain",
    "Grid",
    "Metric",
    "Optimum",
    "Point",
    "Protocol",
    "RecordReader",
    "RecordWriter",
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
    "normalise",
    "open_workdir",
    "powers_of_two",
    "product",
    "read",
    "read_sweep",
    "run_id",
    "save_params",
    "select",
    "values",
    "wanted",
    "without_params",
    "workers",
    "write_file",
    "zipped",
]
